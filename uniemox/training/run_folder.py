"""Folder of a run: its settings, data and versions, written and read strictly."""

import difflib
import hashlib
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

from uniemox import __version__
from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import SEEN
from uniemox.data.unreadable import UNREADABLE
from uniemox.errors import ConfigError
from uniemox.io.files import (
    CHECKPOINTS,
    CONFIG,
    METRICS,
    PARTIAL,
    WEIGHTS,
    FileLock,
    read_limited,
    refuse_special,
    write_file,
    writing,
)
from uniemox.model.config import Precision
from uniemox.training.processes import is_restart, job_of, rank, wait_for_all

TEACHER_FEATURES = "teacher_features.npz"
TEACHER_ANSWERS = "teacher_answers.npz"
"""What a run computes from its teacher before the first step."""

START_REPORT = "initial_weights.txt"
"""Report of the initial weights: loaded, resized, new and dropped tensors."""

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a config to JSON-serialisable form: tuples become lists, paths become text."""
    return json.loads(json.dumps(asdict(config), default=str))


def from_dict(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Build the config that `to_dict` wrote. Missing fields take their defaults.

    Args:
        where: Name of the file, for errors.

    Raises:
        ConfigError: For an unknown name or a wrong value.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type] # a dataclass
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ConfigError(f"{where}: unknown setting {name!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def differences(ours: Any, theirs: Any) -> list[str]:
    """Describe how a config differs from an earlier one of its class: "seed: 1 now, 0 at first"."""
    mine = by_dotted_name(to_dict(ours))
    other = by_dotted_name(to_dict(theirs))
    return [f"{n}: {v!r} now, {other.get(n)!r} at first" for n, v in mine.items() if v != other.get(n)]


def by_dotted_name(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names, such as optimizer.base_lr."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= by_dotted_name(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ConfigError: With the file's name, if there is none.
    """
    try:
        values = json.loads(read_limited(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected an object, got {type(values).__name__}")
    return values


def _value(hint: Any, value: Any, where: str) -> Any:
    """Convert a JSON value to the type of a field."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = get_args(hint)
    else:
        kinds = (hint,)
    for kind in kinds:
        if is_dataclass(kind) and isinstance(value, dict):
            return from_dict(kind, value, where)  # type: ignore[arg-type]
        if get_origin(kind) is tuple and isinstance(value, list):
            return _tuple(kind, value, where)
        if get_origin(kind) is Literal and value in get_args(kind):
            return value
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if kind is type(None) and value is None:
            return None
        if kind is Path and isinstance(value, str):
            return Path(value)
        if kind in (int, str, bool) and type(value) is kind:
            return value
    raise ConfigError(f"{where}: {value!r} is not of type {hint}")


def _tuple(hint: Any, values: list[Any], where: str) -> tuple[Any, ...]:
    kinds = get_args(hint)
    if kinds[1:] == (...,):
        kinds = kinds[:1] * len(values)
    if len(kinds) != len(values):
        raise ConfigError(f"{where}: expected {len(kinds)} values, got {values!r}")
    return tuple(_value(kind, value, where) for kind, value in zip(kinds, values, strict=True))


BEGUN = (METRICS, CHECKPOINTS, WEIGHTS)  # one of them exists from the first step on
FREE = ("hardware.", "save.", "workers", "stop_on_divergence")  # settings that may change when a run is resumed
PACKAGES = ("torch", "timm", "numpy", "pillow")  # recorded with every run, besides uniemox


@contextmanager
def begin_run(run: Path, kind: str, config: Any, data: DataSet | Sequence[Sample], *, resume: bool) -> Iterator[bool]:
    """Write config.json, or check that the existing one is of this run. Yields True if there is something to resume.

    Inside the context no other process can begin a run in the folder.

    The first process does it while others wait.
    A run that ended before its first step starts from the beginning. A run may resume with a lower learning rate, for
    example after divergence; config.json then lists the earlier rates. A run that torchrun or SLURM restarts after a
    process died resumes without --resume.

    Args:
        kind: "pretrain", "finetune", "teacher" or "finder".
        data: A data set, or samples without labels.

    Raises:
        ConfigError: If the folder holds links or another run, if it holds a run and `resume` is off, if settings or
            data differ from the run's first ones, or if another process is training there.
    """
    with ExitStack() as at_end:
        is_begun = False
        if rank() == 0:
            if run.exists() and not run.is_dir():
                raise ConfigError(f"{run} is a file; --out needs a folder")
            with writing(run):
                at_end.callback(FileLock(run / CONFIG).release)
            is_begun = _begin(run, kind, config, data, resume=resume)
        wait_for_all()
        yield is_begun


def _begin(run: Path, kind: str, config: Any, data: DataSet | Sequence[Sample], *, resume: bool) -> bool:
    path = run / CONFIG
    record: dict[str, Any] = {
        "kind": kind,
        "config": to_dict(config),
        "data": describe_data(data) if isinstance(data, DataSet) else describe_samples(data),
        "versions": _versions(),
        "job": job_of(),
    }
    if not path.exists():
        if not all(left.match(f"{CONFIG}.*{PARTIAL}") or left.match(f"{CONFIG}.lock") for left in run.iterdir()):
            raise ConfigError(f"{run} is not empty and not a run of uniemox; choose another --out")
        write_file(path, json.dumps(record, indent=2) + "\n")
        return False
    for file in run.iterdir():  # a run from somebody else would write to, and delete, what its links lead to
        refuse_special(file, ConfigError)
    content = read_json(path)
    if content.get("kind") != kind:
        raise ConfigError(f"{run} holds a run of another command ({content.get('kind')}); choose another --out")
    has_begun = any((run / name).exists() for name in BEGUN)
    is_same_job = content.get("job") is not None and content["job"] == record["job"]
    if has_begun and not (resume or is_same_job or is_restart()):
        raise ConfigError(f"{run} holds a run already; add --resume to continue it, or choose another --out")
    began = from_dict(type(config), content["config"], f"{path}, config")
    lowers_rate = hasattr(config, "optimizer") and config.optimizer.base_lr < began.optimizer.base_lr
    free = (*FREE, "optimizer.base_lr") if lowers_rate else FREE
    changed = [line for line in differences(config, began) if not line.startswith(free)]
    is_other_data = content["data"]["sha256"] != record["data"]["sha256"]
    if not has_begun and (changed or is_other_data):  # it ended before its first step, perhaps by a wrong setting
        for name in (SEEN, UNREADABLE, START_REPORT, TEACHER_FEATURES, TEACHER_ANSWERS):
            (run / name).unlink(missing_ok=True)
        write_file(path, json.dumps(record, indent=2) + "\n")
        return False
    if changed:
        raise ConfigError(
            f"{run} began with other settings: {'; '.join(changed)}. Repeat the first options, or choose another --out"
        )
    if is_other_data:
        name = data.name if isinstance(data, DataSet) else "what is given"
        raise ConfigError(f"{run} began with other data than {name} has now; choose another --out")
    if lowers_rate:
        rates = [*content.get("earlier_base_lrs", ()), began.optimizer.base_lr]
        # Fields that were added after the beginning stay, see `add_to_record`.
        write_file(path, json.dumps({**content, **record, "earlier_base_lrs": rates}, indent=2) + "\n")
    for left in run.glob(f"*{PARTIAL}"):  # left by a process that was killed while writing
        left.unlink()
    return True


def _versions() -> dict[str, str]:
    """Return the versions of the packages that compute a run."""
    versions = {name: version(name) for name in PACKAGES}
    # Not from the package's metadata, which a source tree on PYTHONPATH does not have.
    return {"uniemox": __version__} | versions | {"cuda": str(torch.version.cuda)}


def stored_precision(run: Path) -> Precision | None:
    """Return the precision with which a run began; None for a new run.

    Raises:
        ConfigError: For an unreadable record.
    """
    path = run / CONFIG
    if not path.is_file():
        return None
    config = read_json(path).get("config")
    if isinstance(config, dict):
        hardware = config.get("hardware")
    else:
        hardware = None
    if isinstance(hardware, dict):
        precision = hardware.get("precision")
    else:
        precision = None
    if precision in get_args(Precision):
        return precision
    return None


def add_to_record(run: Path, name: str, value: Any) -> None:
    """Add a field to config.json of a run that has begun; replaces the field if it is there.

    Args:
        run: Folder of the run.
        name: Name of the field, none of those that `begin_run` writes.
        value: JSON-serialisable value.
    """
    record = read_json(run / CONFIG)
    if record.get(name) != value:
        write_file(run / CONFIG, json.dumps(record | {name: value}, indent=2) + "\n")


def describe_data(data: DataSet) -> dict[str, Any]:
    """Return the identity of a data set: name, size, labels, and a hash of all sample fields."""
    labels = {"name": data.labels.name, "labels": list(data.labels.labels), "kind": data.labels.kind}
    description = {"source": data.name, "labels": labels, **describe_samples(data.samples)}
    return description | ({"parts": [asdict(part) for part in data.parts]} if data.parts else {})


def describe_samples(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the number of samples, and a hash over all their fields."""
    digest = hashlib.sha256()
    for sample in samples:
        values = (sample.key, sample.label, sample.distribution, sample.valence, sample.arousal, sample.split)
        digest.update(repr((*values, sample.text, sample.persons, sample.target_box)).encode("utf-8", "surrogatepass"))
    return {"samples": len(samples), "sha256": digest.hexdigest()}
