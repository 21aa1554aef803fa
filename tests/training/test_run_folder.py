"""A run's folder: begun once, gone on with only by the same run, and what was seen in training."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.tree import says
from tests.drawn import class_folders
from uniemox.data.sample import DataSet
from uniemox.data.seen import SEEN, read_seen, write_seen
from uniemox.data.source import open_data
from uniemox.errors import ConfigError
from uniemox.io.files import CONFIG
from uniemox.persons.box import Box, Detection
from uniemox.pretrain.config import PretrainConfig
from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig
from uniemox.training.run_folder import TEACHER_ANSWERS, TEACHER_FEATURES, begin_run, describe_data, from_dict

CONFIGURED = PretrainConfig(batch_size=4)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return open_data(f"folder:{class_folders(tmp_path / 'photos')}")


@pytest.fixture
def run(tmp_path: Path, data: DataSet) -> Path:
    again(tmp_path / "run", CONFIGURED, data, resume=False)
    (tmp_path / "run" / "metrics.jsonl").touch()  # its first step
    return tmp_path / "run"


def again(run: Path, config: PretrainConfig, data: DataSet, kind: str = "pretrain", resume: bool = True) -> bool:
    with begin_run(run, kind, config, data, resume=resume) as is_begun:
        return is_begun


def test_a_second_training_in_one_folder_is_refused(tmp_path: Path, data: DataSet) -> None:
    """Also before the first step of the first one, which a second one with other settings would replace."""
    with begin_run(tmp_path / "run", "pretrain", CONFIGURED, data, resume=False):
        began = (tmp_path / "run" / CONFIG).read_text()
        for config in (CONFIGURED, replace(CONFIGURED, seed=CONFIGURED.seed + 1)):
            with pytest.raises(ConfigError, match=r"another process is writing .*config\.json"):
                again(tmp_path / "run", config, data)
        assert (tmp_path / "run" / CONFIG).read_text() == began
    assert [path.name for path in (tmp_path / "run").iterdir()] == [CONFIG]


def test_a_new_run_records_settings_data_and_versions(tmp_path: Path, data: DataSet) -> None:
    out = tmp_path / "deep" / "run"
    assert again(out, CONFIGURED, data) is False
    record = json.loads((out / CONFIG).read_text())
    assert from_dict(PretrainConfig, record["config"], "file") == CONFIGURED
    assert record["kind"] == "pretrain"
    assert record["data"]["samples"] == 8
    assert record["data"]["labels"]["kind"] == "evoked"
    assert set(record["versions"]) == {"uniemox", "torch", "timm", "numpy", "pillow", "cuda"}


def test_an_empty_folder_will_do_and_so_will_one_where_the_first_write_was_killed(
    tmp_path: Path, data: DataSet
) -> None:
    for number, left in enumerate(([], [f"{CONFIG}.123.partial"])):
        out = tmp_path / str(number)
        out.mkdir()
        for name in left:
            (out / name).write_text("{")
        assert again(out, CONFIGURED, data) is False


def test_the_same_run_goes_on_and_what_was_half_written_goes(run: Path, data: DataSet) -> None:
    (run / "encoder.safetensors.77.partial").write_bytes(b"half")
    assert again(run, CONFIGURED, data) is True
    assert not list(run.glob("*.partial"))


def test_hardware_and_saving_may_change(run: Path, data: DataSet) -> None:
    assert again(run, replace(CONFIGURED, hardware=HardwareConfig(workers=3), save=SaveConfig(keep=9)), data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: replace(c, seed=1), "other settings: seed: 1 now, 0 at first. Repeat the first options, or choose"),
        (lambda c: replace(c, view=replace(c.view, size=96)), "view.size: 96 now, 224 at first"),
        (
            lambda c: replace(c, batch_size=8, accumulation=2),
            "batch_size: 8 now, 4 at first; accumulation: 2 now, 1 at first",
        ),
    ],
)
def test_other_settings_are_refused_by_name(
    change: Callable[[PretrainConfig], PretrainConfig], message: str, run: Path, data: DataSet
) -> None:
    before = (run / CONFIG).read_bytes()
    with pytest.raises(ConfigError, match=says(run, message)):
        again(run, change(CONFIGURED), data)
    assert (run / CONFIG).read_bytes() == before


def test_a_run_that_diverged_continues_with_a_lower_rate(run: Path, data: DataSet) -> None:
    """Its record keeps the earlier rates; a higher one is another run."""
    for rate in (5e-4, 1e-4):
        assert again(run, replace(CONFIGURED, optimizer=OptimizerConfig(base_lr=rate)), data)
    record = json.loads((run / CONFIG).read_text())
    assert record["config"]["optimizer"]["base_lr"] == 1e-4
    assert record["earlier_base_lrs"] == [CONFIGURED.optimizer.base_lr, 5e-4]
    with pytest.raises(ConfigError, match=says("optimizer.base_lr: 0.0005 now, 0.0001 at first")):
        again(run, replace(CONFIGURED, optimizer=OptimizerConfig(base_lr=5e-4)), data)


def test_a_run_is_not_begun_twice_nor_by_another_command(run: Path, data: DataSet) -> None:
    with pytest.raises(ConfigError, match=says(run, "holds a run already; add --resume")):
        again(run, CONFIGURED, data, resume=False)
    with pytest.raises(ConfigError, match=says("holds a run of another command (pretrain)")):
        again(run, CONFIGURED, data, kind="finetune")


def test_a_run_that_ended_before_its_first_step_is_begun_anew(run: Path, data: DataSet) -> None:
    """After a wrong setting the corrected command is not in the way of itself."""
    (run / "metrics.jsonl").unlink()
    of_teacher = [run / name for name in (SEEN, TEACHER_FEATURES, TEACHER_ANSWERS)]
    for path in of_teacher:
        path.write_text("old")
    assert again(run, CONFIGURED, data, resume=False) is True
    assert all(path.exists() for path in of_teacher)
    changed = replace(CONFIGURED, batch_size=2)
    assert again(run, changed, data, resume=False) is False
    assert not any(path.exists() for path in of_teacher)
    assert json.loads((run / CONFIG).read_text())["config"]["batch_size"] == 2
    fewer = replace(data, samples=data.samples[1:])
    assert again(run, changed, fewer, resume=True) is False
    assert json.loads((run / CONFIG).read_text())["data"]["samples"] == 7


def test_other_data_are_refused(run: Path, data: DataSet) -> None:
    first, *others = data.samples
    for changed in (
        others,
        [replace(first, label=1), *others],
        [replace(first, text="a dog"), *others],
        [replace(first, persons=(Detection(Box(0, 0, 5, 5), 0.5),)), *others],
        [*others, first],
    ):
        with pytest.raises(ConfigError, match=says(run, "began with other data")):
            again(run, CONFIGURED, replace(data, samples=changed))


def test_folders_of_something_else_are_left_alone(tmp_path: Path, data: DataSet) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=says("is a file; --out needs a folder")):
        again(tmp_path / "file", CONFIGURED, data)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.partial").write_text("mine")
    with pytest.raises(ConfigError, match=says(other, "is not empty and not a run of uniemox")):
        again(other, CONFIGURED, data)
    assert [path.name for path in other.iterdir()] == ["thesis.partial"]


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "pretrain", "config": {"sed": 1}}'])
def test_a_mangled_config_is_named(text: str, run: Path, data: DataSet) -> None:
    (run / CONFIG).write_text(text)
    with pytest.raises(ConfigError, match=says(run / CONFIG)):
        again(run, CONFIGURED, data)


def test_a_data_sets_description_does_not_depend_on_where_it_lies(tmp_path: Path, data: DataSet) -> None:
    moved = open_data(f"folder:{class_folders(tmp_path / 'elsewhere')}")
    assert describe_data(moved)["sha256"] == describe_data(data)["sha256"]


def test_what_was_seen_is_written_once(tmp_path: Path, data: DataSet) -> None:
    out = tmp_path / "seen"
    told = []
    assert read_seen(out) == set()
    gone = replace(data, samples=[*data.samples[:3], data.samples[0]])
    write_seen(out, gone, [], lambda *now: told.append(now))
    expected = {hashlib.sha256(sample.image.read()).hexdigest() for sample in data.samples[:3]}
    assert read_seen(out) == expected
    assert told[-1] == ("hashing images", 4, 4)
    before = (out / SEEN).read_bytes()
    write_seen(out, data, [], lambda *now: told.append(now))
    assert (out / SEEN).read_bytes() == before
    after = tmp_path / "after"
    other = replace(data, samples=data.samples[4:5])
    write_seen(
        after, other, [str(out), str(tmp_path / "mae.pth")], lambda *now: told.append(now)
    )  # what it started from has seen, it has seen
    assert read_seen(after) > expected
    write_seen(tmp_path / "third", other, [str(out / "encoder.safetensors")], lambda *now: told.append(now))
    assert read_seen(tmp_path / "third") == read_seen(after)


def test_what_torchrun_starts_again_resumes_by_itself(
    run: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as restarted:
        restarted.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert again(run, CONFIGURED, data, resume=False) is True
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    with pytest.raises(ConfigError, match="holds a run already"):
        again(run, CONFIGURED, data, resume=False)  # it began without that job
    mine = tmp_path / "mine"
    again(mine, CONFIGURED, data, resume=False)
    (mine / "metrics.jsonl").touch()
    assert again(mine, CONFIGURED, data, resume=False) is True  # on a machine that came in a dead one's place
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-8")
    with pytest.raises(ConfigError, match="holds a run already"):
        again(mine, CONFIGURED, data, resume=False)


@pytest.mark.parametrize("name", ["pictures", "checkpoints", "tensorboard"])
def test_a_run_does_not_write_or_delete_through_a_link(run: Path, data: DataSet, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=f"{name} is a link"):
        again(run, CONFIGURED, data)
