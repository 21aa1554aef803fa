"""A run's folder: only the same run may resume in it; training images are recorded."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.tree import says
from tests.drawn import class_folders, draw_image
from uniemox.data.perceptual import PREFIX
from uniemox.data.sample import DataSet, ImageFile
from uniemox.data.seen import OTHERS, SEEN, read_seen, write_seen
from uniemox.data.source import open_data
from uniemox.errors import ConfigError
from uniemox.io.run_files import CONFIG
from uniemox.persons.box import Box, Detection
from uniemox.pretrain.config import PretrainConfig
from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig
from uniemox.training.data_record import describe_data
from uniemox.training.run_folder import TEACHER_ANSWERS, TEACHER_FEATURES, begin_run
from uniemox.training.settings_record import from_dict

CONFIGURED = PretrainConfig(batch_size=4)


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return open_data(f"folder:{class_folders(tmp_path / 'photos')}")


@pytest.fixture
def run(tmp_path: Path, data: DataSet) -> Path:
    begin(tmp_path / "run", CONFIGURED, data, resume=False)
    # The run has made its first step.
    (tmp_path / "run" / "metrics.jsonl").touch()
    return tmp_path / "run"


def begin(run: Path, config: PretrainConfig, data: DataSet, kind: str = "pretrain", resume: bool = True) -> bool:
    with begin_run(run, kind, config, data, resume=resume) as is_begun:
        return is_begun


@pytest.mark.thorough
def test_a_second_training_in_one_folder_is_refused(tmp_path: Path, data: DataSet) -> None:
    """This also holds before the first step, when a run with other settings would replace the record."""
    with begin_run(tmp_path / "run", "pretrain", CONFIGURED, data, resume=False):
        record = (tmp_path / "run" / CONFIG).read_text()
        for config in (CONFIGURED, replace(CONFIGURED, seed=CONFIGURED.seed + 1)):
            with pytest.raises(ConfigError, match=r"another process is writing .*config\.json"):
                begin(tmp_path / "run", config, data)
        assert (tmp_path / "run" / CONFIG).read_text() == record
    assert [path.name for path in (tmp_path / "run").iterdir()] == [CONFIG]


def test_a_new_run_records_settings_data_and_versions(tmp_path: Path, data: DataSet) -> None:
    out = tmp_path / "deep" / "run"
    assert begin(out, CONFIGURED, data) is False
    record = json.loads((out / CONFIG).read_text())
    assert from_dict(PretrainConfig, record["config"], "file") == CONFIGURED
    assert record["kind"] == "pretrain"
    assert record["data"]["samples"] == 8
    assert record["data"]["labels"]["kind"] == "evoked"
    assert set(record["versions"]) == {"uniemox", "torch", "timm", "numpy", "pillow", "cuda"}


def test_empty_folder_or_partial_config_can_begin_a_run(tmp_path: Path, data: DataSet) -> None:
    for number, names in enumerate(([], [f"{CONFIG}.123.partial"])):
        out = tmp_path / str(number)
        out.mkdir()
        for name in names:
            (out / name).write_text("{")
        assert begin(out, CONFIGURED, data) is False


def test_same_run_resumes_and_partial_files_are_deleted(run: Path, data: DataSet) -> None:
    (run / "encoder.safetensors.77.partial").write_bytes(b"half")
    assert begin(run, CONFIGURED, data) is True
    assert not list(run.glob("*.partial"))


def test_hardware_and_saving_may_change(run: Path, data: DataSet) -> None:
    assert begin(run, replace(CONFIGURED, hardware=HardwareConfig(workers=3), save=SaveConfig(keep=9)), data)


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
        begin(run, change(CONFIGURED), data)
    assert (run / CONFIG).read_bytes() == before


def test_a_run_that_diverged_continues_with_a_lower_rate(run: Path, data: DataSet) -> None:
    """Its record keeps the earlier rates; a higher one is another run."""
    for rate in (5e-4, 1e-4):
        assert begin(run, replace(CONFIGURED, optimizer=OptimizerConfig(base_lr=rate)), data)
    record = json.loads((run / CONFIG).read_text())
    assert record["config"]["optimizer"]["base_lr"] == 1e-4
    assert record["earlier_base_lrs"] == [CONFIGURED.optimizer.base_lr, 5e-4]
    with pytest.raises(ConfigError, match=says("optimizer.base_lr: 0.0005 now, 0.0001 at first")):
        begin(run, replace(CONFIGURED, optimizer=OptimizerConfig(base_lr=5e-4)), data)


def test_existing_run_needs_resume_and_the_same_command(run: Path, data: DataSet) -> None:
    with pytest.raises(ConfigError, match=says(run, "holds a run already; add --resume")):
        begin(run, CONFIGURED, data, resume=False)
    with pytest.raises(ConfigError, match=says("holds a run of another command (pretrain)")):
        begin(run, CONFIGURED, data, kind="finetune")


def test_run_without_steps_can_begin_with_other_settings(run: Path, data: DataSet) -> None:
    """After a wrong setting the corrected command is not in the way of itself."""
    (run / "metrics.jsonl").unlink()
    teacher_files = [run / name for name in (SEEN, TEACHER_FEATURES, TEACHER_ANSWERS)]
    for path in teacher_files:
        path.write_text("old")
    assert begin(run, CONFIGURED, data, resume=False) is True
    assert all(path.exists() for path in teacher_files)
    changed = replace(CONFIGURED, batch_size=2)
    assert begin(run, changed, data, resume=False) is False
    assert not any(path.exists() for path in teacher_files)
    assert json.loads((run / CONFIG).read_text())["config"]["batch_size"] == 2
    fewer = replace(data, samples=data.samples[1:])
    assert begin(run, changed, fewer, resume=True) is False
    assert json.loads((run / CONFIG).read_text())["data"]["samples"] == 7


def test_other_data_are_refused(run: Path, data: DataSet) -> None:
    first, *others = data.samples
    for changed in (
        others,
        [replace(first, label=1), *others],
        [replace(first, text="a dog"), *others],
        [replace(first, persons=(Detection(Box(0, 0, 5, 5), 0.5),)), *others],
        [*others, first],
        [replace(first, annotation={"scene": "beach"}), *others],
        [replace(first, group="a"), *others],
    ):
        with pytest.raises(ConfigError, match=says(run, "began with other data")):
            begin(run, CONFIGURED, replace(data, samples=changed))


def test_a_run_of_a_version_that_recorded_fewer_fields_resumes(run: Path, data: DataSet) -> None:
    record = json.loads((run / CONFIG).read_text())
    del record["data"]["details_sha256"]
    (run / CONFIG).write_text(json.dumps(record))
    assert begin(run, CONFIGURED, data) is True
    with pytest.raises(ConfigError, match=says(run, "began with other data")):
        begin(run, CONFIGURED, replace(data, samples=data.samples[1:]))


def test_files_and_other_folders_are_refused(tmp_path: Path, data: DataSet) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=says("is a file; --out needs a folder")):
        begin(tmp_path / "file", CONFIGURED, data)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.partial").write_text("mine")
    with pytest.raises(ConfigError, match=says(other, "is not empty and not a run of uniemox")):
        begin(other, CONFIGURED, data)
    assert [path.name for path in other.iterdir()] == ["thesis.partial"]


@pytest.mark.parametrize("text", ["{", "[]", '{"kind": "pretrain", "config": {"sed": 1}}'])
def test_malformed_config_is_named(text: str, run: Path, data: DataSet) -> None:
    (run / CONFIG).write_text(text)
    with pytest.raises(ConfigError, match=says(run / CONFIG)):
        begin(run, CONFIGURED, data)


def test_data_hash_does_not_depend_on_the_folder(tmp_path: Path, data: DataSet) -> None:
    moved = open_data(f"folder:{class_folders(tmp_path / 'elsewhere')}")
    for name in ("sha256", "details_sha256"):
        assert describe_data(moved)[name] == describe_data(data)[name]


def test_training_hashes_are_written_once(tmp_path: Path, data: DataSet) -> None:
    out = tmp_path / "seen"
    progress = []
    assert read_seen(out) == set()
    with_duplicate = replace(data, samples=[*data.samples[:3], data.samples[0]])
    write_seen(out, with_duplicate, [], lambda *now: progress.append(now))
    expected = {hashlib.sha256(sample.image.read()).hexdigest() for sample in data.samples[:3]}
    hashes = read_seen(out)
    # Each image has a perceptual hash, too.
    assert {digest for digest in hashes if not digest.startswith(PREFIX)} == expected
    assert len(hashes) == 6
    assert progress[-1] == ("hashing images", 4, 4)
    before = (out / SEEN).read_bytes()
    write_seen(out, with_duplicate, [], lambda *now: progress.append(now))
    assert (out / SEEN).read_bytes() == before
    after = tmp_path / "after"
    other = replace(data, samples=data.samples[4:5])
    # Training images of the initial weights count too.
    write_seen(after, other, [str(out), str(tmp_path / "mae.pth")], lambda *now: progress.append(now))
    assert read_seen(after) > expected
    write_seen(tmp_path / "third", other, [str(out / "encoder.safetensors")], lambda *now: progress.append(now))
    assert read_seen(tmp_path / "third") == read_seen(after)
    # A file that somebody has put into the folder may be of another model.
    assert OTHERS not in read_seen(out / "encoder.safetensors")
    assert read_seen(out / "copied.safetensors") == read_seen(out) | {OTHERS}


def test_images_that_were_replaced_before_a_resume_count_as_seen(tmp_path: Path, data: DataSet) -> None:
    out = tmp_path / "seen"
    write_seen(out, data, [])
    before = read_seen(out)
    replaced = data.samples[0].image
    assert isinstance(replaced, ImageFile)
    draw_image(77).save(replaced.path)
    write_seen(out, data, [])
    assert hashlib.sha256(replaced.read()).hexdigest() in read_seen(out)
    assert read_seen(out) > before


def test_torchrun_restart_resumes_without_option(
    run: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as restarted:
        restarted.setenv("TORCHELASTIC_RESTART_COUNT", "1")
        assert begin(run, CONFIGURED, data, resume=False) is True
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    with pytest.raises(ConfigError, match="holds a run already"):
        # The run began without that job.
        begin(run, CONFIGURED, data, resume=False)
    mine = tmp_path / "mine"
    begin(mine, CONFIGURED, data, resume=False)
    (mine / "metrics.jsonl").touch()
    # The job may move to another machine.
    assert begin(mine, CONFIGURED, data, resume=False) is True
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-8")
    with pytest.raises(ConfigError, match="holds a run already"):
        begin(mine, CONFIGURED, data, resume=False)


@pytest.mark.parametrize("name", ["pictures", "checkpoints", "tensorboard"])
def test_a_run_does_not_write_or_delete_through_a_link(run: Path, data: DataSet, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=f"{name} is a link"):
        begin(run, CONFIGURED, data)
