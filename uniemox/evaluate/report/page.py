"""A self-contained HTML page about runs: settings, curves, scores and limits."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from uniemox.data.sample import Sample
from uniemox.errors import DataError, ImageError
from uniemox.evaluate.report.charts import MIN_SMOOTHED
from uniemox.evaluate.report.curves import curves_view
from uniemox.evaluate.report.examples import open_samples
from uniemox.evaluate.report.scores import comparison_view, evaluation_view, shared_evaluations
from uniemox.evaluate.run_records import KINDS, SavedRun, read_run
from uniemox.io.files import read_limited
from uniemox.io.html import jpeg_url, write_html
from uniemox.io.images import MAX_BYTES, decode

# Only runs with training steps have these settings.
STEP_SETTINGS = ("batch size", "base learning rate", "epochs asked for")
MAX_SIDE_PX = 1200
"""Longer side of an image of reconstructions."""
TEACHER_LOSSES = ("contrastive_feature_alignment", "semantic_visual_alignment")
DATA = {"data": "data.source", "samples": "data.samples"}
TRAINING = {
    "image size, px": "config.view.size",
    "batch size": "config.batch_size",
    "base learning rate": "config.optimizer.base_lr",
    "epochs asked for": "config.schedule.epochs",
    "seed": "config.seed",
}
FACTS = {
    "pretrain": {
        **DATA,
        "network": "config.encoder.name",
        "started from": "config.encoder.start",
        "fusion": "config.model.fusion",
        "share of hidden patches": "config.model.mask.ratio",
        **TRAINING,
    },
    "finetune": {
        **DATA,
        "labels": "data.labels.name",
        "kind of emotion": "data.labels.kind",
        "started from": "config.init",
        "trained": "config.method",
        "predicts": "config.task",
        "streams": "config.network.streams",
        "fusion": "config.network.fusion",
        **TRAINING,
    },
}


def write_report(
    runs: Sequence[Path],
    path: Path,
    *,
    data: Collection[str] = (),
    on_progress: Callable[[str, int, int], None] = lambda work, done, total: None,
) -> list[str]:
    """Write the page of these runs; return the data sets whose images it contains: those that can still be opened.

    Args:
        runs: Folders of pre-training and fine-tuning runs, at least one. The page lists what a run lacks.
        path: HTML file to write.
        data: Names of scored data, KIND:PATH as in the runs, whose images are shown wherever they are. Others are shown
            if they are in the run's folder or the working folder.
        on_progress: Called with the name of the work, the number of finished runs, and the number of all.

    Raises:
        DataError: If a folder has no run, or if the page can't be written.
    """
    if not runs:
        raise DataError("there is no run to report; give at least one folder of a run")
    named = dict(zip(names_of(runs), [read_run(run) for run in runs], strict=True))
    tuned = {name: run for name, run in named.items() if run.kind == "finetune"}
    views = []
    samples_of = cache(partial(open_samples, named=data))
    for done, (name, run) in enumerate(named.items()):
        on_progress("reporting", done, len(named))
        views.append(
            {"name": name, "kind": KINDS[run.kind], "run": run, **_view(run, partial(samples_of, run=run.path))}
        )
    write_html(
        path,
        "uniemox/evaluate/report/page.html",
        title=f"Report: {', '.join(named)}",
        runs=views,
        is_compared=len(tuned) > 1,
        comparisons=[comparison_view(title, scored, tuned) for title, scored in shared_evaluations(tuned).items()],
    )
    on_progress("reporting", len(named), len(named))
    evaluations = [evaluation for view in views for evaluation in view["evaluations"]]
    with_images = [evaluation for evaluation in evaluations if any(images for _, images, _ in evaluation["examples"])]
    return sorted({evaluation["evaluation"].data for evaluation in with_images})


def names_of(runs: Sequence[Path]) -> list[str]:
    """Return the name of every folder, or the whole path if two have the same name; a repeated run is numbered."""
    short = [run.resolve().name for run in runs]
    names = [name if short.count(name) == 1 else str(run) for name, run in zip(short, runs, strict=True)]
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _view(run: SavedRun, samples_of: Callable[[str], Mapping[str, Sample] | str]) -> dict[str, Any]:
    """Return everything about a run for the template."""
    versions = run.setting("versions")
    first_and_last = run.reconstructions[:1] + run.reconstructions[1:][-1:]
    return {
        "facts": list(_facts(run)),
        "versions": ", ".join(f"{name} {version}" for name, version in (versions or {}).items()),
        "settings": json.dumps(run.record.get("config"), indent=2, ensure_ascii=False),
        **curves_view(run),
        "is_smoothed": any(len(steps) >= MIN_SMOOTHED for steps, _ in run.curves.values()),
        "is_fitted": _is_fitted(run),
        "streams": [name for name in ("scene", "person") if f"{name}_reconstruction" in run.curves],
        "sheets": [_sheet(file) for file in first_and_last],
        "evaluations": [evaluation_view(evaluation, samples_of) for evaluation in run.evaluations],
    }


def _facts(run: SavedRun) -> Iterator[tuple[str, str]]:
    """Yield the run's settings as name and value."""
    yield "folder", str(run.path)
    for name, setting in FACTS[run.kind].items():
        value = run.setting(setting)
        if value is not None and not (_is_fitted(run) and name in STEP_SETTINGS):
            yield name, f"{value:,}" if isinstance(value, int) and name == "samples" else str(value)
    if run.kind == "pretrain":
        weights = run.setting("config.model.losses") or {}
        is_used = any(weights.get(name) for name in TEACHER_LOSSES)
        yield "teacher", str(run.setting("config.teacher.source")) if is_used else "none: no loss needs one"
    if run.kept is not None:
        yield "kept", run.kept
    if "epoch" in run.curves:
        steps, epochs = run.curves["epoch"]
        yield "done", f"{steps[-1]:,} steps, {epochs[-1]:.4g} epochs"


def _is_fitted(run: SavedRun) -> bool:
    """Return True if no step was made, because only the head was fitted."""
    is_frozen = run.setting("config.network.frozen_encoder") is True
    return is_frozen or run.setting("config.method") in ("probe", "knn", "prototypes", "mean", "histogram")


def _sheet(file: Path) -> dict[str, str]:
    """Return an image of reconstructions, or the error if it can't be read."""
    digits = file.stem.rpartition("-")[2]
    step = int(digits) if digits.isdecimal() else 0
    try:
        image, _ = decode(read_limited(file, MAX_BYTES), str(file))
    except (ImageError, OSError) as error:
        return {"error": str(error)}
    return {"error": "", "step": f"{step:,}", "url": jpeg_url(image, max_side_px=MAX_SIDE_PX, quality=85)}
