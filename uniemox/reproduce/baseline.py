"""What every row is compared with: a colour histogram, fitted on the same labels; and who does not beat it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from uniemox.io.files import ONNX
from uniemox.reproduce.plan import OUT, Cell, Run, TableRow, plan_run
from uniemox.reproduce.results import gain, score_of
from uniemox.reproduce.sources import Target
from uniemox.reproduce.study import Study

HISTOGRAM = "colour histogram"
NETWORK = "128 HSV bins and a 6 x 6 thumbnail of the scene, logistic regression; one run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """By how much a row's accuracy is above the histogram's, shares."""

    difference: float
    low: float | None = None
    """95 %, paired, over the same images; None where the two were scored on different ones."""
    high: float | None = None
    beats: bool
    """The interval lies above 0; without one, the row's own interval lies above the histogram's accuracy."""


def fit_histogram(study: Study, target: Target, *, fraction: float = 1.0) -> Run:
    """Method histogram on the labels that the first seed of every row gets. It has no seeds of its own."""
    data = target.data
    words = ["finetune", "--preset", study.scale, "--method", "histogram", "--network.streams", "scene"]
    words += ["--data", data.source, *data.options, "--out", OUT, "--resume", "--seed", str(study.seeds[0])]
    words += ["--fraction", f"{fraction:g}"] if fraction < 1 else []
    run = plan_run(study.root, f"{HISTOGRAM} of {data.name}", words, makes=ONNX, needs=data.needs, data=data.digests)
    return replace(run, images=round(data.train * fraction), lacks=data.missing)


def histogram_cell(study: Study, target: Target, *, fraction: float = 1.0) -> Cell:
    """The histogram on a data set, scored as every method is."""
    run = study.evaluate(fit_histogram(study, target, fraction=fraction), target)
    return Cell(runs=(run,), why=run.missing or "")


def histogram_row(study: Study) -> TableRow:
    """The histogram on all data sets."""
    return TableRow(
        HISTOGRAM, {target.name: histogram_cell(study, target) for target in study.targets}, network=NETWORK
    )


def with_baseline(rows: Sequence[TableRow], baseline: TableRow) -> tuple[TableRow, ...]:
    """The rows, each to be compared with the baseline, and the baseline below them."""
    return (*(replace(row, baseline=baseline.name) for row in rows), baseline)


def margin_of(cell: Cell, baseline: Cell) -> Margin | None:
    """How a cell compares with the baseline's; None where one of them has no score."""
    ours, theirs = score_of(cell), score_of(baseline)
    if ours is None or theirs is None or cell.runs == baseline.runs:
        return None
    paired = gain(cell, baseline)
    if paired is None:
        return Margin(difference=ours.accuracy - theirs.accuracy, beats=ours.low > theirs.accuracy)
    return Margin(difference=paired.difference, low=paired.low, high=paired.high, beats=paired.low > 0)
