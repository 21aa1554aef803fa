"""Stored outcomes: scores of every image by one encoder, and the choice of learning rates."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.continued.probe import Scores
from experiments.published_start.plan import (
    ALL,
    ARMS,
    SECONDARY,
    START,
    SUPERVISED,
    TENTH,
    TUNED,
    ChoiceJob,
    Job,
    Study,
)
from experiments.published_start.scoring import Mean, mean_of
from uniemox.model.config import Precision

LABELS = "labels.npz"
BASELINES = "baselines.json"
# The part of the labels that each budget is scored on.
SCORED_BY_PROBES = "probes"
SCORED_BY_TUNING = "fine-tuning"
SCORED_HELD_OUT = "held out"
LABELS_OF: Mapping[str, str] = {
    ALL: SCORED_BY_PROBES,
    TENTH: SCORED_BY_PROBES,
    TUNED: SCORED_BY_TUNING,
    **dict.fromkeys(SECONDARY, SCORED_HELD_OUT),
}
Labels = Mapping[str, NDArray[np.int64]]


def write_labels(outcomes: Path, labels: Labels) -> None:
    """Write the labels of the scored images."""
    outcomes.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: value.astype(np.uint8) for name, value in labels.items()}
    np.savez_compressed(outcomes / LABELS, **arrays)


def read_labels(outcomes: Path) -> dict[str, NDArray[np.int64]]:
    """Read what `write_labels` wrote."""
    with np.load(outcomes / LABELS) as file:
        return {name: file[name].astype(np.int64) for name in file}


def read_means(job: Job, outcomes: Path, labels: Labels) -> dict[str, Mean]:
    """Return the means of a job's scores, by budget."""
    with np.load(job.path(outcomes)) as file:
        return {
            budget: mean_of(
                Scores(file[f"{budget}.log_likelihood"].astype(np.float64), file[f"{budget}.hit"].astype(np.float64)),
                labels[of],
            )
            for budget, of in LABELS_OF.items()
            if f"{budget}.hit" in file
        }


def read_elsewhere(job: Job, outcomes: Path) -> dict[str, float]:
    """Return a job's figures on data of other sources, by name."""
    with np.load(job.path(outcomes)) as file:
        return {name.removeprefix("about."): float(file[name]) for name in file if ", " in name and "about." in name}


def precision_of(seed: int, outcomes: Path, fast: Precision) -> Precision:
    """Return the precision of a seed's runs: that of its first stored outcome, or else the one that is fast here."""
    for arm in (START, *ARMS):
        path = Job(arm, seed).path(outcomes)
        if path.exists():
            with np.load(path) as file:
                return "bfloat16" if file["about.is_bfloat16"] else "float32"
    return fast


def write_choice(job: ChoiceJob, outcomes: Path, probe: Mean, head: Mean | None) -> None:
    """Write how good a learning rate is: by a probe, and for the supervised arm also by its own head."""
    path = job.path(outcomes)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"probe": probe._asdict()}
    if head is not None:
        content["head"] = head._asdict()
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def read_choice(job: ChoiceJob, outcomes: Path, by: str = "probe") -> Mean:
    """Read what `write_choice` wrote."""
    return Mean(**json.loads(job.path(outcomes).read_text("utf-8"))[by])


def chosen_rate(arm: str, study: Study, outcomes: Path) -> float:
    """Return the learning rate of an arm with the highest log-likelihood of the probe."""
    return _best(arm, study.rates, outcomes, "probe")


def chosen_tuning_rate(study: Study, outcomes: Path) -> float:
    """Return the learning rate of fine-tuning: that of the supervised runs whose own head was best."""
    return _best(SUPERVISED, study.rates, outcomes, "head")


def _best(arm: str, rates: Iterable[float], outcomes: Path, by: str) -> float:
    return max(rates, key=lambda lr: read_choice(ChoiceJob(arm, lr), outcomes, by).log_likelihood)
