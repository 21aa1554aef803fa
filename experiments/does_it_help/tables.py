"""Tables of docs/experiments.md, computed only from the stored outcomes."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.does_it_help.choice import choose_recipes, choose_tunings, read_grid
from experiments.does_it_help.outcomes import read_about, read_labels, read_outcome
from experiments.does_it_help.plan import (
    CONTRAST,
    DISTILLATION,
    DISTILLATION_FEW_LOOKS,
    FULL,
    HISTOGRAM,
    LABELS,
    ROWS,
    TEACHER,
    TUNED_LABELS,
    TUNING_EPOCHS,
    UNTRAINED,
    outcome_path,
)
from experiments.does_it_help.statistics import Estimate, balanced_mean

Values = tuple[NDArray, NDArray]
"""Hits (S, N) and log-probabilities of the labels (S, N) for a row's seeds."""


BASES = (DISTILLATION_FEW_LOOKS, DISTILLATION)
BASE_COLUMNS = 'recall, difference to "distillation, equal images" | to "distillation"'
TUNED_NAMES = {UNTRAINED: "none (random weights)", HISTOGRAM: "*colour histogram*"}


class Outcomes:
    """Every stored run, by stage and row."""

    def __init__(self, folder: Path, labels: str = LABELS) -> None:
        self.folder = folder
        self.labels = read_labels(folder / labels)
        self.weights = {row: recipe.reconstruction for row, recipe in choose_recipes(read_grid(folder)).items()}
        """Weight of L1 by row, of the rows whose settings were searched."""

    def values(self, *paths: Path) -> Values | None:
        """Return hits and log-probabilities of the stored runs; None without any.  paths: from `outcome_path`."""
        found = [read_outcome(self.folder / path, self.labels) for path in paths if (self.folder / path).exists()]
        if not found:
            return None
        hits = np.array([one.predicted == self.labels for one in found])
        return hits, np.array([one.true_log_probability for one in found])

    def row(self, stage: str, row: str) -> Values | None:
        """Return the finished seeds of a row."""
        return self.values(*(outcome_path(stage, row, seed) for seed in range(ROWS[row].seeds)))

    def about(self, path: Path) -> dict[str, Any]:
        """Return scores on val and logs of a run; {} if it is not stored."""
        if (self.folder / path).exists():
            return read_about(self.folder / path)
        return {}

    def contrast(self, stage: str, row: str, base: str, of: int) -> Estimate | None:
        """Return a row minus another, over the seeds that both have.  of: 0 hits, 1 log-probabilities."""
        if row == base:
            return None
        return self.difference(self.row(stage, row), self.row(stage, base), of)

    def difference(self, ours: Values | None, theirs: Values | None, of: int) -> Estimate | None:
        """Return one minus the other, over the seeds that both have; None if one has none."""
        if ours is None or theirs is None:
            return None
        seeds = min(len(ours[of]), len(theirs[of]))
        return balanced_mean(ours[of][:seeds], self.labels, theirs[of][:seeds])


def shown_name(row: str, weights: Mapping[str, float]) -> str:
    """Return a row's name with the weight of L1 that it was trained with, if it was searched.

    >>> shown_name("full, second crop", {"full": 0.1}), shown_name("MAE", {"MAE": 1.0})
    ('full (L1 × 0.1), second crop', 'MAE')
    """
    weight = weights.get(ROWS[row].recipe_of or row)
    if weight is None or weight == 1:
        return row
    return row.replace(FULL, f"{FULL} (L1 × {weight:g})").replace("L1 + L3", f"L1 × {weight:g} + L3")


def print_tables(folder: Path) -> None:
    """Print every table as Markdown."""
    sys.stdout.write("\n".join(tables(folder)) + "\n")


def tables(folder: Path) -> list[str]:
    """Return the lines of all tables."""
    found = Outcomes(folder)
    parts = [_verdict(found), _main(found, "main"), _control(found), _main(found, "few")]
    if (folder / TUNED_LABELS).exists():
        parts.append(_tuned(Outcomes(folder, TUNED_LABELS)))
    return [line for part in (*parts, _logs(found), _grid(found)) for line in (*part, "")]


def _verdict(found: Outcomes) -> Iterator[str]:
    yield f"**Primary contrasts**, {shown_name(FULL, found.weights)} minus distillation:"
    yield ""
    scores = "recall, points | log-likelihood, nats | smallest detectable difference"
    yield f"| training images | held equal | seeds | {scores} | verdict |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for stage, images in (("main", "all"), ("few", "1,000")):
        for base, equal in ((DISTILLATION_FEW_LOOKS, "images"), (DISTILLATION, "compute")):
            both = [found.contrast(stage, FULL, base, of) for of in (0, 1)]
            if both[0] is not None and both[1] is not None:
                recall = both[0]
                likelihood = both[1]
                visible = ""
                if recall.visible is not None and likelihood.visible is not None:
                    visible = f"{100 * recall.visible:.1f} points; {likelihood.visible:.3f} nats"
                verdict = verdict_of(recall, likelihood)
                scores = f"{points(recall)} | {nats(likelihood)} | {visible}"
                yield f"| {images} | {equal} | {recall.seeds} | {scores} | {verdict} |"


def verdict_of(recall: Estimate, likelihood: Estimate) -> str:
    """Apply the plan's rule: yes or no if both intervals exclude 0 on the same side. Two seeds have no verdict.

    >>> low, high = Estimate(-2.0, -3.0, -1.0, 1.0, 3), Estimate(2.0, 1.0, 3.0, 1.0, 3)
    >>> verdict_of(low, low), verdict_of(high, high), verdict_of(low, high)
    ('no', 'yes', 'not seen')
    """
    if recall.low is None or recall.high is None or likelihood.low is None or likelihood.high is None:
        return ""
    if recall.low > 0 and likelihood.low > 0:
        return "yes"
    if recall.high < 0 and likelihood.high < 0:
        return "no"
    return "not seen"


def _main(found: Outcomes, stage: str) -> Iterator[str]:
    """Yield all rows, with their differences from distillation."""
    rows = list(ROWS) if stage == "main" else list(CONTRAST)
    rows = [row for row in rows if found.row(stage, row) is not None]
    if not rows:
        return
    if any(ROWS[row].seeds == 2 for row in rows):
        descriptive = "; rows with two seeds are descriptive"
    else:
        descriptive = ""
    yield f"**{'All images' if stage == 'main' else '1,000 images'}**, mean over seeds{descriptive}:"
    yield ""
    yield f"| pre-training | seeds | recall, % | log-likelihood, nats | {BASE_COLUMNS} |"
    yield "| --- | --- | --- | --- | --- | --- |"
    baseline = found.values(outcome_path("baseline", HISTOGRAM))
    any_marked = False
    for row in rows:
        hits, likelihoods = found.row(stage, row) or ((), ())
        differences = [found.contrast(stage, row, base, 0) for base in BASES]
        cells = ["" if one is None else points(one) for one in differences]
        if baseline is None or _beats(hits, baseline[0], found.labels):
            mark = ""
        else:
            mark = "▼ "
        any_marked |= bool(mark)
        recall = balanced_mean(hits, found.labels)
        likelihood = balanced_mean(likelihoods, found.labels)
        scores = f"{percent(recall)} | {nats(likelihood, signed=False)}"
        yield f"| {mark}{shown_name(row, found.weights)} | {len(hits)} | {scores} | {' | '.join(cells)} |"
    for name, shown in ((TEACHER, "*the teacher's own features (ceiling)*"), (HISTOGRAM, "*colour histogram*")):
        values = found.values(outcome_path("baseline", name))
        if values is not None:
            recall, likelihood = (balanced_mean(one, found.labels) for one in values)
            yield f"| {shown} | | {percent(recall)} | {nats(likelihood, signed=False)} | | |"
    chance = 1 / len(np.unique(found.labels))
    yield f"| *chance* | | {100 * chance:.1f} | {np.log(chance):.3f} | | |"
    if any_marked:
        yield ""
        yield (
            "▼: does not beat the colour histogram: the 95 % interval of the paired difference is not above 0, or, "
            "with two seeds, which have no interval, the difference is not."
        )


def _tuned(found: Outcomes) -> Iterator[str]:
    """Yield the rows that were fine-tuned, by share of the labels."""
    yield f"**Fine-tuning**, scored on {len(found.labels):,} images that it does not read, mean over seeds:"
    yield ""
    yield f"| labels | pre-training | learning rate | seeds | recall, % | log-likelihood, nats | {BASE_COLUMNS} |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    chosen = choose_tunings(found.folder, seeds=3)
    for fraction in TUNING_EPOCHS:
        of_row = {
            row: (values, settings[fraction][0].lr)
            for row, settings in chosen.items()
            if fraction in settings and (values := found.values(*(one.path(row) for one in settings[fraction])))
        }
        for row, (values, lr) in of_row.items():
            bases_of = [of_row[base][0] if base in of_row and base != row else None for base in BASES]
            differences = [found.difference(values, base, 0) for base in bases_of]
            cells = ["" if one is None else points(one) for one in differences]
            recall, likelihood = (balanced_mean(one, found.labels) for one in values)
            rate = "" if row == HISTOGRAM else f"{lr:g}"
            scores = f"{percent(recall)} | {nats(likelihood, signed=False)} | {' | '.join(cells)}"
            name = TUNED_NAMES.get(row) or shown_name(row, found.weights)
            yield f"| {100 * fraction:g} % | {name} | {rate} | {len(values[0])} | {scores} |"


def _beats(hits: NDArray, baseline: NDArray, labels: NDArray) -> bool:
    """Return True if a row beats the histogram: its paired interval is above 0, or the difference of two seeds."""
    return balanced_mean(hits, labels, np.repeat(baseline, len(hits), axis=0)).is_above_zero


def doses(found: Outcomes) -> dict[float, Values]:
    """Return distillation alone by epochs: the control's runs, and seed 0 of the main row."""
    paths = {float(path.stem): Path("control", path.name) for path in (found.folder / "control").glob("*.npz")}
    main = outcome_path("main", DISTILLATION, 0)
    if (found.folder / main).exists():
        paths[found.about(main)["epochs"]] = main
    return {epochs: values for epochs, path in sorted(paths.items()) if (values := found.values(path)) is not None}


def _control(found: Outcomes) -> Iterator[str]:
    shown = doses(found)
    if 0.0 not in shown:
        return
    yield "**Positive control**: distillation alone, seed 0; intervals over images, for these runs:"
    yield ""
    yield "| epochs | recall, % | over the untrained ViT | log-likelihood, nats | over the untrained ViT |"
    yield "| --- | --- | --- | --- | --- |"
    start = shown[0.0]
    for epochs, values in shown.items():
        cells = []
        for of, show in ((0, percent), (1, lambda one: nats(one, signed=False))):
            cells.append(show(balanced_mean(values[of], found.labels)))
            gain = balanced_mean(values[of], found.labels, start[of])
            cells.append("" if epochs == 0 else points(gain) if of == 0 else nats(gain))
        yield f"| {epochs:g} | {' | '.join(cells)} |"


def _logs(found: Outcomes) -> Iterator[str]:
    """Yield gradient norms at the encoder, clipping, and whether Υ collapsed."""
    columns = ("grad_norm_scene_reconstruction", "grad_norm_person_reconstruction")
    columns += ("grad_norm_contrastive_feature_alignment", "grad_norm_semantic_visual_alignment")
    columns += ("clipped", "offset_share", "fused_cosine", "r2")
    yield "**Logged** (seed 0, all images):"
    yield ""
    yield "- L1 to L3: weighted gradient norm of each loss at the encoder, mean over the run."
    yield "- clipped: share of the steps with clipped gradients."
    yield "- |ε| / |Υ|: size of Γ2's offset relative to the fused feature Υ, mean over the last tenth of the run."
    yield "- cosine of Υ: cosine between the Υ of different images, mean over the last tenth of the run."
    yield "- R²: share of the variance of the teacher's features that a ridge regression explains, on val."
    yield ""
    yield "| pre-training | L1 scene | L1 person | L2 | L3 | clipped | \\|ε\\| / \\|Υ\\| | cosine of Υ | R² |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in ROWS:
        about = found.about(outcome_path("main", row, 0))
        if about:
            name = shown_name(row, found.weights)
            yield f"| {name} | " + " | ".join(f"{about[name]:.2g}" if name in about else "" for name in columns) + " |"


def _grid(found: Outcomes) -> Iterator[str]:
    yield "**Grid**, scored on val (480 images), bold where chosen:"
    yield ""
    yield "| row | learning rate for a batch of 256 | weight of L1 | fusion | log-likelihood | recall, % | R² |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    grid = read_grid(found.folder)
    chosen = choose_recipes(grid)
    for row, tried in grid.items():
        for recipe, about in tried:
            if recipe == chosen[row]:
                name = f"**{row}**"
            else:
                name = row
            if ROWS[row].reconstructs:
                weight = f"{recipe.reconstruction:g}"
            else:
                weight = ""
            scores = f"{about['val_log_likelihood']:.3f} | {100 * about['val_recall']:.1f} | {about['r2']:.3f}"
            yield f"| {name} | {recipe.lr:g} | {weight} | {recipe.fusion} | {scores} |"


def percent(one: Estimate) -> str:
    """Format a recall in percent."""
    return _with_interval(one, 100, ".1f")


def points(one: Estimate) -> str:
    """Format a difference of recalls in percentage points."""
    return _with_interval(one, 100, "+.1f")


def nats(one: Estimate, *, signed: bool = True) -> str:
    """Format a log-likelihood, or a difference of two."""
    return _with_interval(one, 1, "+.3f" if signed else ".3f")


def _with_interval(one: Estimate, scale: float, form: str) -> str:
    value = f"{scale * one.value:{form}}"
    if one.low is None or one.high is None:
        return value
    return f"{value} ({scale * one.low:{form}} to {scale * one.high:{form}})"
