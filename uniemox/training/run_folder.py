"""The folder of a run: what it was asked to do, on what data, with what versions."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import SEEN
from uniemox.errors import ConfigError
from uniemox.io.files import CHECKPOINTS, CONFIG, METRICS, PARTIAL, WEIGHTS, write_text
from uniemox.training.launch import is_restart, job_of
from uniemox.training.settings import differences, from_dict, read_json, to_dict

BEGUN = (METRICS, CHECKPOINTS, WEIGHTS)  # one of them is there from the first step on
FREE = ("hardware.", "save.", "workers", "stop_on_divergence")  # settings that may change when a run is resumed
PACKAGES = ("torch", "timm", "numpy", "pillow")


def begin_run(run: Path, kind: str, config: Any, data: DataSet | Sequence[Sample], *, resume: bool) -> bool:
    """Write config.json, or check that what is there is this run. Returns whether there is something to resume.

    kind: "pretrain", "finetune", "teacher" or "finder".  data: a data set, or samples without labels.
    A run that ended before its first step is begun anew. One may continue with a lower learning rate, because it
    diverged, say; config.json then names the earlier ones. One that torchrun or SLURM starts again after a process died
    resumes by itself.
    Raises ConfigError if the folder holds another run, if a run is there and resume was not asked for, or if settings
    or data differ from those that it began with.
    """
    path = run / CONFIG
    if run.exists() and not run.is_dir():
        raise ConfigError(f"{run} is a file; --out needs a folder")
    record: dict[str, Any] = {
        "kind": kind,
        "config": to_dict(config),
        "data": describe_data(data) if isinstance(data, DataSet) else describe_samples(data),
        "versions": _versions(),
        "job": job_of(),
    }
    if not path.exists():
        if run.is_dir() and not all(left.match(f"{CONFIG}.*{PARTIAL}") for left in run.iterdir()):
            raise ConfigError(f"{run} is not empty and no run of uniemox; choose another --out")
        write_text(path, json.dumps(record, indent=2) + "\n")
        return False
    found = read_json(path)
    if found.get("kind") != kind:
        raise ConfigError(f"{run} holds a run of another command ({found.get('kind')}); choose another --out")
    has_begun = any((run / name).exists() for name in BEGUN)
    is_same_job = found.get("job") is not None and found["job"] == record["job"]
    if has_begun and not (resume or is_same_job or is_restart()):
        raise ConfigError(f"{run} holds a run already; add --resume to continue it, or choose another --out")
    began = from_dict(type(config), found["config"], f"{path}, config")
    lowers_rate = hasattr(config, "optimizer") and config.optimizer.base_lr < began.optimizer.base_lr
    free = (*FREE, "optimizer.base_lr") if lowers_rate else FREE
    changed = [line for line in differences(config, began) if not line.startswith(free)]
    is_other_data = found["data"]["sha256"] != record["data"]["sha256"]
    if not has_begun and (changed or is_other_data):  # a setting was wrong, say, and it ended before its first step
        (run / SEEN).unlink(missing_ok=True)
        write_text(path, json.dumps(record, indent=2) + "\n")
        return False
    if changed:
        raise ConfigError(
            f"{run} began with other settings: {'; '.join(changed)}. Leave them out, or choose another --out"
        )
    if is_other_data:
        name = data.name if isinstance(data, DataSet) else "what is given"
        raise ConfigError(f"{run} began with other data than {name} now is; choose another --out")
    if lowers_rate:
        rates = [*found.get("earlier_base_lrs", ()), began.optimizer.base_lr]
        write_text(path, json.dumps(record | {"earlier_base_lrs": rates}, indent=2) + "\n")
    for left in run.glob(f"*{PARTIAL}"):  # by a process that was killed while it wrote
        left.unlink()
    return True


def describe_data(data: DataSet) -> dict[str, Any]:
    """What identifies a data set: its name, size, labels, and a hash over all that is known of its samples."""
    labels = {"name": data.labels.name, "labels": list(data.labels.labels), "kind": data.labels.kind}
    found = {"source": data.name, "labels": labels, **describe_samples(data.samples)}
    return found | ({"parts": [asdict(part) for part in data.parts]} if data.parts else {})


def describe_samples(samples: Sequence[Sample]) -> dict[str, Any]:
    """Their number, and a hash over all that is known of them."""
    digest = hashlib.sha256()
    for sample in samples:
        known = (sample.key, sample.label, sample.distribution, sample.valence, sample.arousal, sample.split)
        digest.update(repr((*known, sample.text, sample.persons, sample.target_box)).encode("utf-8", "surrogatepass"))
    return {"samples": len(samples), "sha256": digest.hexdigest()}


def _versions() -> dict[str, str]:
    return {
        "uniemox": version("uniemox"),
        **{name: version(name) for name in PACKAGES},
        "cuda": str(torch.version.cuda),
    }
