"""The tables in TABLES.md, computed only from the stored outcomes."""

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
        """Return hits and log-probabilities of the stored runs with these paths; None if none is stored."""
        runs = [read_outcome(self.folder / path, self.labels) for path in paths if (self.folder / path).exists()]
        if not runs:
            return None
        hits = np.array([run.predicted == self.labels for run in runs])
        return hits, np.array([run.true_log_probability for run in runs])

    def row(self, stage: str, row: str) -> Values | None:
        """Return the finished seeds of a row."""
        return self.values(*(outcome_path(stage, row, seed) for seed in range(ROWS[row].seeds)))

    def about(self, path: Path) -> dict[str, Any]:
        """Return scores on val and logs of a run; {} if it is not stored."""
        if (self.folder / path).exists():
            return read_about(self.folder / path)
        return {}

    def contrast(self, stage: str, row: str, base: str, of: int) -> Estimate | None:
        """Return a row minus another, over the seeds that both have.

        Args:
            stage: Stage of the experiment.
            row: Row.
            base: Row that is subtracted.
            of: Figure to compare: 0 hits, 1 log-probabilities.
        """
        if row == base:
            return None
        return self.difference(self.row(stage, row), self.row(stage, base), of)

    def difference(self, ours: Values | None, theirs: Values | None, of: int) -> Estimate | None:
        """Return `ours` minus `theirs`, over the seeds that both have; None if one has no runs."""
        if ours is None or theirs is None:
            return None
        seeds = min(len(ours[of]), len(theirs[of]))
        return balanced_mean(ours[of][:seeds], self.labels, theirs[of][:seeds])


def display_name(row: str, weights: Mapping[str, float]) -> str:
    """Return a row's name with the weight of L1 that it was trained with, if it was searched.

    >>> display_name("full, second crop", {"full": 0.1}), display_name("MAE", {"MAE": 1.0})
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
    stored = Outcomes(folder)
    parts = [_verdict(stored), _main(stored, "main"), _control(stored), _main(stored, "few")]
    if (folder / TUNED_LABELS).exists():
        parts.append(_tuned(Outcomes(folder, TUNED_LABELS)))
    return [line for part in (*parts, _logs(stored), _grid(stored)) for line in (*part, "")]


def _verdict(stored: Outcomes) -> Iterator[str]:
    yield f"**Primary contrasts**, {display_name(FULL, stored.weights)} minus distillation:"
    yield ""
    scores = "recall, points | log-likelihood, nats | smallest detectable difference"
    yield f"| training images | held equal | seeds | {scores} | verdict |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for stage, images in (("main", "all"), ("few", "1,000")):
        for base, equal in ((DISTILLATION_FEW_LOOKS, "images"), (DISTILLATION, "compute")):
            differences = [stored.contrast(stage, FULL, base, of) for of in (0, 1)]
            if differences[0] is not None and differences[1] is not None:
                recall = differences[0]
                likelihood = differences[1]
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


def _main(stored: Outcomes, stage: str) -> Iterator[str]:
    """Yield all rows, with their differences from distillation."""
    names = list(ROWS) if stage == "main" else list(CONTRAST)
    rows = {name: values for name in names if (values := stored.row(stage, name)) is not None}
    if not rows:
        return
    has_two_seeds = any(ROWS[row].seeds == 2 for row in rows)
    descriptive = "; rows with two seeds are descriptive" if has_two_seeds else ""
    yield f"**{'All images' if stage == 'main' else '1,000 images'}**, mean over seeds{descriptive}:"
    yield ""
    yield f"| pre-training | seeds | recall, % | log-likelihood, nats | {BASE_COLUMNS} |"
    yield "| --- | --- | --- | --- | --- | --- |"
    baseline = stored.values(outcome_path("baseline", HISTOGRAM))
    any_marked = False
    for row, (hits, likelihoods) in rows.items():
        differences = [stored.contrast(stage, row, base, 0) for base in BASES]
        cells = ["" if difference is None else points(difference) for difference in differences]
        mark = "" if baseline is None or _beats(hits, baseline[0], stored.labels) else "▼ "
        any_marked |= bool(mark)
        recall = balanced_mean(hits, stored.labels)
        likelihood = balanced_mean(likelihoods, stored.labels)
        scores = f"{percent(recall)} | {nats(likelihood, signed=False)}"
        yield f"| {mark}{display_name(row, stored.weights)} | {len(hits)} | {scores} | {' | '.join(cells)} |"
    for name, title in ((TEACHER, "*the teacher's own features (ceiling)*"), (HISTOGRAM, "*colour histogram*")):
        values = stored.values(outcome_path("baseline", name))
        if values is not None:
            recall, likelihood = (balanced_mean(difference, stored.labels) for difference in values)
            yield f"| {title} | | {percent(recall)} | {nats(likelihood, signed=False)} | | |"
    chance = 1 / len(np.unique(stored.labels))
    yield f"| *chance* | | {100 * chance:.1f} | {np.log(chance):.3f} | | |"
    if any_marked:
        yield ""
        yield (
            "▼: does not beat the colour histogram: the 95 % interval of the paired difference is not above 0, or, "
            "with two seeds, which have no interval, the difference is not."
        )


def _tuned(stored: Outcomes) -> Iterator[str]:
    """Yield the rows that were fine-tuned, by share of the labels."""
    yield f"**Fine-tuning**, scored on {len(stored.labels):,} images that it does not read, mean over seeds:"
    yield ""
    yield f"| labels | pre-training | learning rate | seeds | recall, % | log-likelihood, nats | {BASE_COLUMNS} |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    chosen = choose_tunings(stored.folder, seeds=3)
    for fraction in TUNING_EPOCHS:
        tuned_rows = {
            row: (values, settings[fraction][0].lr)
            for row, settings in chosen.items()
            if fraction in settings and (values := stored.values(*(item.path(row) for item in settings[fraction])))
        }
        for row, (values, lr) in tuned_rows.items():
            bases_of = [tuned_rows[base][0] if base in tuned_rows and base != row else None for base in BASES]
            differences = [stored.difference(values, base, 0) for base in bases_of]
            cells = ["" if item is None else points(item) for item in differences]
            recall, likelihood = (balanced_mean(item, stored.labels) for item in values)
            rate = "" if row == HISTOGRAM else f"{lr:g}"
            scores = f"{percent(recall)} | {nats(likelihood, signed=False)} | {' | '.join(cells)}"
            name = TUNED_NAMES.get(row) or display_name(row, stored.weights)
            yield f"| {100 * fraction:g} % | {name} | {rate} | {len(values[0])} | {scores} |"


def _beats(hits: NDArray, baseline: NDArray, labels: NDArray) -> bool:
    """Return True if a row beats the histogram: its paired interval is above 0, or the difference of two seeds."""
    return balanced_mean(hits, labels, np.repeat(baseline, len(hits), axis=0)).is_above_zero


def doses(stored: Outcomes) -> dict[float, Values]:
    """Return distillation alone by epochs: the control's runs, and seed 0 of the main row."""
    paths = {float(path.stem): Path("control", path.name) for path in (stored.folder / "control").glob("*.npz")}
    main = outcome_path("main", DISTILLATION, 0)
    if (stored.folder / main).exists():
        paths[stored.about(main)["epochs"]] = main
    return {epochs: values for epochs, path in sorted(paths.items()) if (values := stored.values(path)) is not None}


def _control(stored: Outcomes) -> Iterator[str]:
    runs = doses(stored)
    if 0.0 not in runs:
        return
    yield "**Positive control**: distillation alone, seed 0; intervals over images, for these runs:"
    yield ""
    yield "| epochs | recall, % | over the untrained ViT | log-likelihood, nats | over the untrained ViT |"
    yield "| --- | --- | --- | --- | --- |"
    start = runs[0.0]
    for epochs, values in runs.items():
        cells = []
        for figure, format_estimate in ((0, percent), (1, lambda estimate: nats(estimate, signed=False))):
            cells.append(format_estimate(balanced_mean(values[figure], stored.labels)))
            gain = balanced_mean(values[figure], stored.labels, start[figure])
            if epochs == 0:
                cells.append("")
            else:
                cells.append(points(gain) if figure == 0 else nats(gain))
        yield f"| {epochs:g} | {' | '.join(cells)} |"


def _logs(stored: Outcomes) -> Iterator[str]:
    """Yield gradient norms at the encoder, clipping, and the figures that show a collapse of Υ."""
    columns = (
        "grad_norm_scene_reconstruction",
        "grad_norm_person_reconstruction",
        "grad_norm_contrastive_feature_alignment",
        "grad_norm_semantic_visual_alignment",
        "clipped",
        "offset_share",
        "fused_cosine",
        "r2",
    )
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
        about = stored.about(outcome_path("main", row, 0))
        if about:
            name = display_name(row, stored.weights)
            yield f"| {name} | " + " | ".join(f"{about[name]:.2g}" if name in about else "" for name in columns) + " |"


def _grid(stored: Outcomes) -> Iterator[str]:
    yield "**Grid**, scored on val (480 images), bold where chosen:"
    yield ""
    yield "| row | learning rate for a batch of 256 | weight of L1 | fusion | log-likelihood | recall, % | R² |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    grid = read_grid(stored.folder)
    chosen = choose_recipes(grid)
    for row, tried in grid.items():
        for recipe, about in tried:
            name = f"**{row}**" if recipe == chosen[row] else row
            weight = f"{recipe.reconstruction:g}" if ROWS[row].reconstructs else ""
            scores = f"{about['val_log_likelihood']:.3f} | {100 * about['val_recall']:.1f} | {about['r2']:.3f}"
            yield f"| {name} | {recipe.lr:g} | {weight} | {recipe.fusion} | {scores} |"


def percent(estimate: Estimate) -> str:
    """Format a recall in percent."""
    return _with_interval(estimate, 100, ".1f")


def points(estimate: Estimate) -> str:
    """Format a difference of recalls in percentage points."""
    return _with_interval(estimate, 100, "+.1f")


def nats(estimate: Estimate, *, signed: bool = True) -> str:
    """Format a log-likelihood, or a difference of two."""
    return _with_interval(estimate, 1, "+.3f" if signed else ".3f")


def _with_interval(estimate: Estimate, scale: float, form: str) -> str:
    value = f"{scale * estimate.value:{form}}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({scale * estimate.low:{form}} to {scale * estimate.high:{form}})"
