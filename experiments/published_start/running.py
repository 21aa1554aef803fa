"""Runs every job without a stored outcome."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from experiments.continued.outcomes import write
from experiments.continued.probe import BATCH, Scores, features_of, score
from experiments.continued.tensors import resize_whole
from experiments.continued.transfer import OtherData
from experiments.published_start.outcomes import (
    BASELINES,
    SCORED_BY_PROBES,
    SCORED_BY_TUNING,
    SCORED_HELD_OUT,
    chosen_rate,
    chosen_tuning_rate,
    precision_of,
    write_choice,
    write_labels,
)
from experiments.published_start.plan import (
    ALL,
    CHOICE,
    CHOICE_SEED,
    FINE_TUNED,
    HELD_OUT,
    SCORED,
    START,
    SUPERVISED,
    TENTH,
    ChoiceJob,
    Job,
    choice_jobs,
    file_name,
    jobs_of,
)
from experiments.published_start.scoring import (
    mean_of,
    score_classifier,
    score_elsewhere,
    score_encoder,
    score_tuned,
    tuning_rows,
)
from experiments.published_start.training import Workshop
from uniemox.model.colour_histogram import ColourHistogram
from uniemox.views.patches import normalise

Work = TypeVar("Work", ChoiceJob, Job)


def choose_rates(workshop: Workshop, outcomes: Path, jobs: int) -> None:
    """Train short runs with every learning rate, and score them on the images that are scored for nothing else."""
    study = workshop.study
    images = workshop.images[CHOICE]
    labels = images.labels.cpu().numpy()

    def run(job: ChoiceJob) -> None:
        name = f"choice.{file_name(job.arm)}.{job.lr:g}"
        encoder, model = workshop.continue_start(
            job.arm, lr=job.lr, seed=CHOICE_SEED, epochs=study.choice_epochs, name=name
        )
        features = features_of(encoder, images, study.profile.side_px)
        probe = mean_of(score(features, labels, tenths=False, jobs=jobs), labels)
        head = None
        if job.arm == SUPERVISED:
            head = mean_of(score_classifier(model, images, study.profile.side_px), labels)
        write_choice(job, outcomes, probe, head)

    _run_all([job for job in choice_jobs(study) if not job.path(outcomes).exists()], run)


def run_arms(workshop: Workshop, data: Sequence[OtherData], outcomes: Path, jobs: int) -> None:
    """Train and score every arm with every seed.

    Args:
        workshop: Start, images and folders.
        data: Images of other sources on which encoders are scored too.
        outcomes: Folder of the outcomes.
        jobs: Number of processes that fit probes.
    """
    study = workshop.study
    tuning_rate = chosen_tuning_rate(study, outcomes)
    scored = workshop.images[SCORED]
    held_out = workshop.images[HELD_OUT]
    labels = scored.labels.cpu().numpy()
    fitted_rows, tuning_scored_rows = (torch.from_numpy(rows).to(workshop.device) for rows in tuning_rows(labels))
    write_labels(
        outcomes,
        {
            SCORED_BY_PROBES: labels,
            SCORED_BY_TUNING: labels[tuning_scored_rows.cpu().numpy()],
            SCORED_HELD_OUT: held_out.labels.cpu().numpy(),
        },
    )

    def run(job: Job) -> None:
        precision = precision_of(job.seed, outcomes, study.profile.precision)
        # One precision for all runs of a seed, because they are compared with each other.
        at_precision = replace(workshop, study=replace(study, profile=replace(study.profile, precision=precision)))
        name = job.path(Path()).stem
        encoder = workshop.start
        figures = {"is_bfloat16": float(precision == "bfloat16")}
        if job.arm != START:
            lr = chosen_rate(job.arm, study, outcomes)
            encoder, _ = at_precision.continue_start(
                job.arm, lr=lr, seed=job.seed, epochs=study.profile.arm_epochs, name=name
            )
            figures["lr"] = lr
        scores: dict[str, Scores] = {}
        # The start has no seed of its own before it is fine-tuned.
        if job.arm != START or job.seed == 0:
            scores |= score_encoder(encoder, scored, held_out, study.profile.side_px, jobs)
            figures |= score_elsewhere(encoder, data, study.profile.side_px)
        if job.arm in FINE_TUNED:
            tuned = at_precision.fine_tune(encoder, scored[fitted_rows], lr=tuning_rate, seed=job.seed, name=name)
            scores |= score_tuned(tuned, scored[tuning_scored_rows], held_out, study.profile.side_px)
        write(job.path(outcomes), scores, figures)

    _run_all([job for job in jobs_of(study) if not job.path(outcomes).exists()], run)


def _run_all(jobs: Sequence[Work], run: Callable[[Work], None]) -> None:
    """Run jobs one after the other, and print how long each took."""
    for number, job in enumerate(jobs, start=1):
        start = time.monotonic()
        run(job)
        print(f"{number} of {len(jobs)}: {job}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def score_baselines(workshop: Workshop, outcomes: Path, jobs: int) -> None:
    """Score a colour histogram and the teacher's features by the same probes, and write baselines.json."""
    path = outcomes / BASELINES
    if path.exists():
        return
    images = workshop.images[SCORED]
    labels = images.labels.cpu().numpy()
    histogram: nn.Module = ColourHistogram()
    colours = [
        histogram(normalise(resize_whole(pixels, workshop.study.profile.side_px), pixels.device)).cpu()
        for pixels in images.pixels.split(BATCH)
    ]
    features: dict[str, NDArray[np.float64]] = {
        "colour histogram": torch.cat(colours).double().numpy(),
        "teacher": images.image_features.cpu().double().numpy(),
    }
    figures = {
        name: {
            budget: mean_of(score(rows, labels, tenths=budget == TENTH, jobs=jobs), labels) for budget in (ALL, TENTH)
        }
        for name, rows in features.items()
    }
    outcomes.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
