"""Runs as one HTML page that stands alone: what they were, how they went, what they can and what they can't."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from uniemox.errors import DataError, ImageError
from uniemox.evaluate.report.plots import MIN_SMOOTHED, ImageLikes, curve
from uniemox.evaluate.report.scores import comparison_section, evaluation_section
from uniemox.evaluate.run_records import KINDS, SavedRun, read_run
from uniemox.io.files import read_limited, write_text
from uniemox.io.html import Html, element, page, scaled_image
from uniemox.io.images import MAX_BYTES, decode

SMALL = ("grad_norm", "lr", "rate", "with_person")  # curves that are drawn small
SPEED = ("epoch", "images_per_s", "wait_s")  # no curves of how it learns
TITLES = {
    "grad_norm": "gradient norm",
    "with_person": "share of images with a person",
    **dict.fromkeys(("lr", "rate"), "learning rate"),
}  # rate: in older runs
STEPPED = ("batch size", "base learning rate", "epochs asked for")  # of runs that make steps
MAX_SIDE_PX = 1200  # of an image of reconstructions
TEACHER_LOSSES = ("contrastive_feature_alignment", "semantic_visual_alignment")
FACTS = {
    "pretrain": {
        "data": "data.source",
        "samples": "data.samples",
        "network": "config.encoder.name",
        "started from": "config.encoder.start",
        "fusion": "config.model.fusion",
        "share of hidden patches": "config.model.mask.ratio",
        "image size, px": "config.view.size",
        "batch size": "config.batch_size",
        "base learning rate": "config.optimizer.base_lr",
        "epochs asked for": "config.schedule.epochs",
        "seed": "config.seed",
    },
    "finetune": {
        "data": "data.source",
        "samples": "data.samples",
        "labels": "data.labels.name",
        "kind of emotion": "data.labels.kind",
        "started from": "config.init",
        "trained": "config.method",
        "predicts": "config.task",
        "streams": "config.network.streams",
        "fusion": "config.network.fusion",
        "image size, px": "config.view.size",
        "batch size": "config.batch_size",
        "base learning rate": "config.optimizer.base_lr",
        "epochs asked for": "config.schedule.epochs",
        "seed": "config.seed",
    },
}


def write_report(
    runs: Sequence[Path], path: Path, *, on_progress: Callable[[str, int, int], None] = lambda what, done, total: None
) -> None:
    """Write the page of these runs; images of the data are inside, if the data can still be opened.

    runs: folders of pre-training and fine-tuning, at least one. The page lists what a run lacks.
    on_progress: called with a word, the runs that are done, and their number.
    Raises DataError if there is no run in a folder, or if the page can't be written.
    """
    if not runs:
        raise DataError("there is no run to report; name at least one folder of a run")
    named = dict(zip(names_of(runs), [read_run(run) for run in runs], strict=True))
    parts, images = [_head(named)], ImageLikes()
    tuned = {name: run for name, run in named.items() if run.kind == "finetune"}
    if len(tuned) > 1:
        parts.append(comparison_section(tuned))
    for done, (name, run) in enumerate(named.items()):
        on_progress("reporting", done, len(named))
        parts.append(element("section", *_run(name, run, f"run-{done + 1}", images), class_="run"))
    try:
        write_text(path, page(f"Report: {', '.join(named)}", parts))
    except OSError as error:
        raise DataError(f"{path} can't be written ({error.strerror})") from error
    on_progress("reporting", len(named), len(named))


def names_of(runs: Sequence[Path]) -> list[str]:
    """The name of every folder, or all of its path where two have one name; a run that is named twice is numbered."""
    short = [run.resolve().name for run in runs]
    names = [name if short.count(name) == 1 else str(run) for name, run in zip(short, runs, strict=True)]
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]


def _head(runs: Mapping[str, SavedRun]) -> Html:
    links = [
        element("li", element("a", name, href=f"#run-{i + 1}"), f": {KINDS[run.kind]} on {run.setting('data.source')}")
        for i, (name, run) in enumerate(runs.items())
    ]
    title = "Report of a run" if len(runs) == 1 else f"Report of {len(runs)} runs"
    return element("header", element("h1", title), element("nav", element("ul", *links), aria_label="runs"))


def _run(name: str, run: SavedRun, place: str, images: ImageLikes) -> Iterator[Html]:
    """All that is known of a run."""
    yield element("h2", f"{name}: {KINDS[run.kind]}", id=place)
    for line in run.missing:
        yield element("p", line, class_="missing")
    facts = [element("div", element("dt", fact), element("dd", value)) for fact, value in _facts(run)]
    yield element("dl", *facts)
    yield _details(run)
    yield from _curves(run)
    if run.kind == "pretrain":
        yield from _reconstructions(run)
        return
    if not run.evaluations:
        words = "It has not been scored, or the scores are gone; run uniemox evaluate."
        yield element("p", words, class_="missing")
    for evaluation in run.evaluations:
        yield evaluation_section(evaluation, images)


def _facts(run: SavedRun) -> Iterator[tuple[str, str]]:
    """Return the run's settings, a name and a value each."""
    yield "folder", str(run.path)
    for name, place in FACTS[run.kind].items():
        value = run.setting(place)
        if value is not None and not (_is_fitted(run) and name in STEPPED):
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


def _details(run: SavedRun) -> Html:
    versions = run.setting("versions")
    words = ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, dict) else ""
    settings = json.dumps(run.record.get("config"), indent=2, ensure_ascii=False)
    parts = (element("summary", "All settings and versions"), element("p", words), element("pre", settings))
    return element("details", *parts)


def _curves(run: SavedRun) -> Iterator[Html]:
    """Every loss, then gradient norm and learning rate, small."""
    losses = [name for name in run.curves if name not in (*SMALL, *SPEED)]
    if not losses:
        if _is_fitted(run):
            yield element("p", "Its head was fitted at once: there are no curves.", class_="note")
        else:
            yield element("p", "It has written down no losses.", class_="missing")
        return
    yield element("h3", "How it went")
    yield element("div", *(_curve(run, name, (4.2, 2.4)) for name in losses), class_="plots")
    small = [_curve(run, name, (2.9, 1.5)) for name in SMALL if name in run.curves]
    if small:
        yield element("div", *small, class_="plots small")
    if any(len(steps) >= MIN_SMOOTHED for steps, _ in run.curves.values()):
        yield element("p", "Faint: every step; strong: a running mean.", class_="note")


def _is_fitted(run: SavedRun) -> bool:
    """Return whether no step was made, because only the head was fitted."""
    is_frozen = run.setting("config.network.frozen_encoder") is True
    return is_frozen or run.setting("config.method") in ("probe", "knn", "mean", "histogram")


def _curve(run: SavedRun, name: str, size: tuple[float, float]) -> Html:
    steps, values = run.curves[name]
    title = TITLES.get(name, name.replace("_", " "))
    last = f"{values[-1]:.4g} at step {steps[-1]:,}"
    drawing = curve(steps, values, f"{title} over {len(steps):,} steps, from {values[0]:.4g} to {last}", size=size)
    return element("figure", element("figcaption", element("b", title), f", {last}"), drawing)


def _reconstructions(run: SavedRun) -> Iterator[Html]:
    """The last image, and the first beside it."""
    yield element("h3", "What it reconstructs")
    if not run.pictures:
        yield element("p", "There is no image yet; one is made with every checkpoint.", class_="missing")
        return
    streams = [name for name in ("scene", "person") if f"{name}_reconstruction" in run.curves]
    rows = "; ".join(f"{name} as seen, reconstructed, true" for name in streams)
    if rows:
        yield element("p", f"Rows from above: {rows}. Hidden patches are grey where it is shown what the model sees.")
    chosen = [run.pictures[0], run.pictures[-1]] if len(run.pictures) > 1 else [run.pictures[-1]]
    yield element("div", *(_sheet(file) for file in chosen), class_="sheets")


def _sheet(file: Path) -> Html:
    step = int(digits) if (digits := file.stem.rpartition("-")[2]).isdecimal() else 0
    try:
        image, _ = decode(read_limited(file, MAX_BYTES), str(file))
    except (ImageError, OSError) as error:
        return element("p", f"An image can't be read: {error}", class_="missing")
    drawing = scaled_image(image, f"Reconstructions after step {step:,}", max_side_px=MAX_SIDE_PX, quality=85)
    return element("figure", drawing, element("figcaption", f"After step {step:,}"))
