"""Checkpoints are complete or absent, also after a kill and on a full disk."""

import copy
import os
import resource
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.data.tree import says
from uniemox.errors import CheckpointError, ConfigError
from uniemox.training import state as state_module
from uniemox.training.config import SaveConfig
from uniemox.training.state import MODEL, STATE, Checkpoints, ResumePoint

FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "os.chmod"}


def network(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A layer that has been trained for a step."""
    return copy.deepcopy(trained(seed))


@lru_cache
def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Kept, because a forked process can't train."""
    torch.manual_seed(seed)
    model = nn.Linear(30, 20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 30)).sum().backward()
    optimizer.step()
    return model, optimizer


def save(run: Path, step: int, score: float | None = None, keep: int = 2) -> Path:
    checkpoints = Checkpoints(run, keep)
    path = checkpoints.save(ResumePoint(step, score, {"mean": torch.tensor([float(step)])}), *network(step))
    checkpoints.wait()
    return path


def steps(run: Path) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in Checkpoints(run, 1).saved()]


def check(run: Path, path: Path) -> int:
    """Load a checkpoint and compare all of it with what was saved; its step."""
    model, optimizer = network(999)
    progress = Checkpoints(run, 1).load(path, model, optimizer)
    expected, expected_optimizer = network(progress.step)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())
    state = optimizer.state_dict()
    other = expected_optimizer.state_dict()
    assert state["param_groups"] == other["param_groups"]
    for number, values in state["state"].items():
        assert all(torch.equal(value, other["state"][number][name]) for name, value in values.items())
    assert torch.equal(progress.more["mean"], torch.tensor([float(progress.step)]))
    return progress.step


def in_a_child(work: Callable[[], object]) -> int:
    """The status with which a copy of this process ends that does the work."""
    child = os.fork()
    if child == 0:
        # A forked process has no other threads.
        torch.set_num_threads(1)
        try:
            work()
        except CheckpointError as error:
            os._exit(3 if "earlier checkpoints are intact" in str(error) else 4)
        except BaseException:  # noqa: BLE001 - of any kind, it must not go on as a second pytest
            traceback.print_exc()
            os._exit(5)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_checkpoint_restores_weights_optimizer_and_state(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path, 2).saved() == []
    assert Checkpoints(tmp_path, 2).best() is None
    path = save(tmp_path, 7)
    assert path == tmp_path / "checkpoints" / "step-00000007"
    assert sorted(file.name for file in path.iterdir()) == [MODEL, STATE]
    assert check(tmp_path, path) == 7
    # Saving again replaces the checkpoint.
    save(tmp_path, 7)
    assert check(tmp_path, path) == 7


def test_keep_every_checkpoints_are_permanent(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 1, keep_every=4)
    for step in range(1, 12):
        checkpoints.save(ResumePoint(step), *network(step))
    checkpoints.wait()
    assert steps(tmp_path) == [4, 8, 11]


def test_too_small_disk_is_reported_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = network(0)
    weights = sum(value.numel() * 4 for value in model.state_dict().values())
    # Weights and AdamW's two means.
    size = 3 * weights
    assert Checkpoints(tmp_path, 2).need_space(model, steps=100) == 4 * size
    assert Checkpoints(tmp_path, 2, keep_every=10).need_space(model, steps=100) == 14 * size
    assert Checkpoints(tmp_path, 2).need_space(model, steps=100, has_ema=True) == 4 * (size + weights)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3 * size))
    with pytest.raises(CheckpointError, match=r"needs .* for 4 checkpoints of .* are free: make room, choose another"):
        Checkpoints(tmp_path, 2).need_space(model, steps=100)
    save(tmp_path, 1)
    save(tmp_path, 2)
    # Two checkpoints exist already.
    assert Checkpoints(tmp_path, 2).need_space(model, steps=100) == 4 * size


def test_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    for step, score in enumerate([0.1, 0.9, None, 0.3, 0.2], start=1):
        save(tmp_path, step, score)
    assert steps(tmp_path) == [2, 4, 5]
    assert Checkpoints(tmp_path, 2).best() == tmp_path / "checkpoints" / "step-00000002"
    # Among equal scores the newest is best.
    save(tmp_path, 6, 0.9)
    assert steps(tmp_path) == [5, 6]
    save(tmp_path, 7, keep=1)
    assert steps(tmp_path) == [6, 7]
    assert not list(tmp_path.rglob("*.partial"))


def test_each_checkpoint_is_read_once_at_most_to_find_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an earlier process, because a run reads none that it has written."""
    for step, score in ((1, 0.9), (2, 0.1)):
        save(tmp_path, step, score)
    read = list[str]()

    def read_state(path: Path, **options: bool) -> dict[str, object]:
        read.append(path.parent.name)
        return real(path, **options)

    real = state_module.read_state
    monkeypatch.setattr(state_module, "read_state", read_state)
    checkpoints = Checkpoints(tmp_path, 2)
    for step, score in ((3, 0.2), (4, 0.95), (5, 0.3), (5, 0.99)):
        checkpoints.save(ResumePoint(step, score), *network(step))
        checkpoints.wait()
    assert sorted(read) == ["step-00000001", "step-00000002"]
    assert steps(tmp_path) == [4, 5]
    assert checkpoints.best() == checkpoints.folder_of(5)


def test_newest_checkpoint_has_the_most_steps(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        save(tmp_path, step)
    assert steps(tmp_path)[-1] == 100_000_000


def test_kill_at_any_file_operation_leaves_complete_checkpoints(tmp_path: Path) -> None:
    """Killed before the 1st, 2nd, ... operation of a save that also deletes an old checkpoint, until none is left."""
    start = tmp_path / "start"
    for step in (1, 2):
        save(start, step)
    trained(3)
    newest = []
    for number in range(200):
        run = tmp_path / str(number)
        shutil.copytree(start, run)

        def killed_save(run: Path = run, number_of_operations: int = number) -> None:
            count = iter(range(number_of_operations, -1, -1))

            def hook(event: str, _: tuple[object, ...]) -> None:
                if event in FILE_EVENTS and next(count) == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            save(run, 3)

        status = in_a_child(killed_save)
        steps_left = [check(run, path) for path in Checkpoints(run, 2).saved()]
        newest.append(steps_left[-1])
        assert steps_left in ([1, 2], [1, 2, 3], [2, 3])
        # The next save deletes partial files.
        save(run, 4)
        assert steps(run) == [steps_left[-1], 4]
        assert not list(run.rglob("*.partial"))
        if status == 0:
            break
        assert status == signal.SIGKILL
        shutil.rmtree(run)
    assert status == 0
    assert newest == sorted(newest)
    assert (newest[0], newest[-1]) == (2, 3)
    assert len(newest) > 12


@pytest.mark.parametrize("room", [0, 100, 2600, 5000, 7000])
def test_full_disk_keeps_the_earlier_checkpoint(room: int, tmp_path: Path) -> None:
    """No file may have more than `room` bytes: the weights take 2,648, the optimiser more than twice that."""
    save(tmp_path, 1)
    trained(2)

    def full() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        save(tmp_path, 2)

    assert os.waitstatus_to_exitcode(in_a_child(full)) == 3
    assert [check(tmp_path, path) for path in Checkpoints(tmp_path, 2).saved()] == [1]
    assert not list(tmp_path.rglob("*.partial"))


def test_background_write_saves_weights_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights change while a checkpoint is being written; who asks for it waits; an error comes with the next."""
    may_write = threading.Event()
    write_tensors = state_module.write_tensors

    def slow(path: Path, tensors: dict[str, Tensor]) -> None:
        assert may_write.wait(30)
        write_tensors(path, tensors)

    monkeypatch.setattr(state_module, "write_tensors", slow)
    checkpoints = Checkpoints(tmp_path, 2)
    (model, optimizer) = network(1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    checkpoints.save(ResumePoint(1), model, optimizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not list(tmp_path.rglob(MODEL))
    may_write.set()
    [path] = checkpoints.saved()
    checkpoints.load(path, model)
    assert all(map(torch.equal, before, model.parameters()))
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("a file")
    checkpoints.save(ResumePoint(2), model, optimizer)
    with pytest.raises(CheckpointError, match="can't be written"):
        checkpoints.save(ResumePoint(3), model, optimizer)


def test_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match="can't be written"):
        save(tmp_path, 1)


def mangle(path: Path, how: str) -> None:
    if how == "removed":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes({"empty": b"", "cut off": data[: len(data) // 2], "other": b"x" * len(data)}[how])


@pytest.mark.parametrize("how", ["removed", "empty", "cut off", "other"])
@pytest.mark.parametrize("name", [MODEL, STATE])
def test_damaged_checkpoint_is_named_with_remedy(name: str, how: str, tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    mangle(path / name, how)
    checkpoints = Checkpoints(tmp_path, 2)
    with pytest.raises(CheckpointError, match=says(path, "Delete this folder to resume from the checkpoint before it")):
        checkpoints.load(checkpoints.saved()[-1], *network())
    shutil.rmtree(path)
    assert check(tmp_path, checkpoints.saved()[-1]) == 1


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    for model in (nn.Linear(30, 21), nn.Sequential(nn.Linear(30, 20))):
        with pytest.raises(CheckpointError, match="can't be"):
            Checkpoints(tmp_path, 1).load(path, model)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path}/owned",)

    path = save(tmp_path, 1)
    torch.save({"step": 1, "score": None, "more": Evil(), "optimizer": {}}, path / STATE)
    with pytest.raises(CheckpointError, match="can't be read"):
        Checkpoints(tmp_path, 1).load(path, *network())
    assert not (tmp_path / "owned").exists()


def test_tensors_on_any_device_and_of_any_layout_are_saved(tmp_path: Path) -> None:
    model, optimizer = network()
    more: dict[str, Tensor] = {"part": torch.arange(6.0).reshape(2, 3).T}
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.save(ResumePoint(1, 0.5, more), model, optimizer)
    progress = checkpoints.load(checkpoints.saved()[0], model)
    assert progress.score == 0.5
    assert torch.equal(progress.more["part"], more["part"])


@pytest.mark.parametrize("name", ["every_steps", "keep"])
def test_zero_save_settings_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"save.{name} must be at least 1, got 0"):
        SaveConfig(**{name: 0})
