"""Folder of a run: its settings, data and versions, written and read strictly."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch

from uniemox import __version__
from uniemox.data.overlaps import OVERLAPS
from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import SEEN
from uniemox.data.unreadable import UNREADABLE_FILE
from uniemox.errors import ConfigError
from uniemox.io import typed
from uniemox.io.files import PARTIAL, FileLock, refuse_special, write_file, writing
from uniemox.io.run_files import CHECKPOINTS, CONFIG, METRICS, WEIGHTS
from uniemox.io.run_record import find_field, read_json_object
from uniemox.io.weight_names import refuse_name_in_package
from uniemox.model.config import Precision
from uniemox.training.data_record import DataRecord, describe_data, describe_samples
from uniemox.training.launch import is_restart, job_of
from uniemox.training.processes import rank, wait_for_all
from uniemox.training.settings_record import differences, from_dict, to_dict

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

TEACHER_FEATURES = "teacher_features.npz"
TEACHER_ANSWERS = "teacher_answers.npz"
"""What a run computes from its teacher before the first step."""

FEATURES_FOLDER = "features"
"""Folder of features that a curve over few labelled images computes first."""

START_REPORT = "initial_weights.txt"
"""Report of the initial weights: loaded, resized, new and dropped tensors."""

# One of these exists from the first step on.
FILES_OF_STEPS = (METRICS, CHECKPOINTS, WEIGHTS, FEATURES_FOLDER)
# Settings whose names begin with these may differ when a run is resumed.
CHANGEABLE = ("hardware.", "save.", "workers", "stop_on_divergence")
# Versions of these are recorded with every run, besides that of uniemox.
PACKAGES = ("torch", "timm", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Fields of config.json that a resumed run reads."""

    kind: str
    config: dict[str, Any]
    data: DataRecord
    job: str | None = None
    earlier_base_lrs: list[float] = field(default_factory=list)


@contextmanager
def begin_run(
    run: Path, kind: str, config: "DataclassInstance", data: DataSet | Sequence[Sample], *, resume: bool
) -> Iterator[bool]:
    """Write config.json, or check that the existing one is of this run.

    Inside the context no other process can begin a run in the folder. Only the first process reads and writes; the
    others wait for it. A run that ended before its first step starts from the beginning. A run may resume with a lower
    learning rate, for example after divergence; config.json then lists the earlier rates. A run that torchrun or SLURM
    restarts after a process died resumes without --resume.

    Args:
        run: Folder of the run.
        kind: "pretrain", "finetune", "few-labels", "teacher" or "finder".
        config: Settings of the run.
        data: A data set, or samples without labels.
        resume: Allow a folder whose run has made steps.

    Yields:
        True in the first process if there is something to resume; else False.

    Raises:
        ConfigError: If the folder has the name of a model in the package, or holds links or another run. If it holds a
            run, and `resume` is off, or settings or data differ from its first ones. If another process is training
            there.
    """
    with ExitStack() as at_end:
        is_begun = False
        if rank() == 0:
            refuse_name_in_package(run)
            if run.exists() and not run.is_dir():
                raise ConfigError(f"{run} is a file; --out needs a folder")
            with writing(run):
                at_end.callback(FileLock(run / CONFIG).release)
            is_begun = _begin(run, kind, config, data, resume=resume)
        wait_for_all()
        yield is_begun


def _begin(
    run: Path, kind: str, config: "DataclassInstance", data: DataSet | Sequence[Sample], *, resume: bool
) -> bool:
    """Begin or continue a run in the first process; see `begin_run`.

    Returns:
        True if there is something to resume.
    """
    record: dict[str, Any] = {
        "kind": kind,
        "config": to_dict(config),
        "data": describe_data(data) if isinstance(data, DataSet) else describe_samples(data),
        "versions": _versions(),
        "job": job_of(),
    }
    path = run / CONFIG
    if not path.exists():
        _begin_new(run, record)
        return False

    # Links in a run from somebody else would make this one write to, and delete, files elsewhere.
    for file in run.iterdir():
        refuse_special(file, ConfigError)
    content = read_json_object(path)
    first = typed.check_json(content, RunRecord, str(path), remedy="choose another --out", error_class=ConfigError)
    if first.kind != kind:
        raise ConfigError(f"{run} holds a run of another command ({first.kind}); choose another --out")
    has_begun = any((run / name).exists() for name in FILES_OF_STEPS)
    is_same_job = first.job is not None and first.job == record["job"]
    if has_begun and not (resume or is_same_job or is_restart()):
        remedy = "add --resume to continue it (resume=True in Python), or choose another --out"
        raise ConfigError(f"{run} holds a run already; {remedy}")

    first_config = from_dict(type(config), first.config, f"{path}, config")
    changed = _changed_settings(config, first_config)
    is_other_data = not first.data.is_of(record["data"])
    if not has_begun and (changed or is_other_data):
        _begin_again(run, record)
        return False
    if changed:
        raise ConfigError(
            f"{run} began with other settings: {'; '.join(changed)}. Repeat the first options, or choose another --out"
        )
    if is_other_data:
        name = data.name if isinstance(data, DataSet) else "what is given"
        raise ConfigError(f"{run} began with other data than {name} has now; choose another --out")
    first_base_lr = _base_lr_of(first_config)
    if _base_lr_of(config) < first_base_lr:
        rates = [*first.earlier_base_lrs, first_base_lr]
        # Fields that were added after the beginning stay, see `add_to_record`.
        write_file(path, json.dumps({**content, **record, "earlier_base_lrs": rates}, indent=2) + "\n")
    # A process that was killed while writing left these.
    for partial in run.glob(f"*{PARTIAL}"):
        partial.unlink()
    return True


def _begin_new(run: Path, record: Mapping[str, Any]) -> None:
    """Write the record of a new run.

    Raises:
        ConfigError: If the folder holds other files.
    """
    # The lock is held now, and a killed process may have left half of config.json.
    if not all(file.match(f"{CONFIG}.*{PARTIAL}") or file.match(f"{CONFIG}.lock") for file in run.iterdir()):
        raise ConfigError(f"{run} is not empty and not a run of uniemox; choose another --out")
    write_file(run / CONFIG, json.dumps(record, indent=2) + "\n")


def _changed_settings(config: "DataclassInstance", first_config: "DataclassInstance") -> list[str]:
    """Describe the settings that differ from a run's first ones, but must not."""
    changeable: tuple[str, ...] = CHANGEABLE
    if _base_lr_of(config) < _base_lr_of(first_config):
        changeable = (*CHANGEABLE, "optimizer.base_lr")
    return [line for line in differences(config, first_config) if not line.startswith(changeable)]


def _begin_again(run: Path, record: Mapping[str, Any]) -> None:
    """Replace a run that ended before its first step, perhaps because of a wrong setting that is now corrected."""
    for name in (SEEN, UNREADABLE_FILE, OVERLAPS, START_REPORT, TEACHER_FEATURES, TEACHER_ANSWERS):
        (run / name).unlink(missing_ok=True)
    write_file(run / CONFIG, json.dumps(record, indent=2) + "\n")


def _base_lr_of(config: "DataclassInstance") -> float:
    """Return the learning rate that a resumed run may lower; 0 for a teacher or a person detector, which has none."""
    optimizer = getattr(config, "optimizer", None)
    return 0.0 if optimizer is None else float(optimizer.base_lr)


def _versions() -> dict[str, str]:
    """Return the versions of the packages that compute a run."""
    versions = {name: version(name) for name in PACKAGES}
    # Not from the package's metadata, which a source tree on PYTHONPATH does not have.
    return {"uniemox": __version__} | versions | {"cuda": str(torch.version.cuda)}


def stored_precision(run: Path) -> Precision | None:
    """Return the precision with which a run began; None for a new run.

    Raises:
        ConfigError: If config.json can't be read.
    """
    if not (run / CONFIG).is_file():
        return None
    precision = find_field(run, "config", "hardware", "precision")
    if precision in get_args(Precision):
        return precision
    return None


def add_to_record(run: Path, name: str, value: Any) -> None:
    """Add a field to config.json of a run that has begun; replaces the field if it is there.

    Args:
        run: Folder of the run.
        name: Name of the field; must not be one that `begin_run` writes.
        value: JSON-serialisable value.
    """
    record = read_json_object(run / CONFIG)
    if record.get(name) != value:
        write_file(run / CONFIG, json.dumps(record | {name: value}, indent=2) + "\n")
