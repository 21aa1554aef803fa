"""The trivial baseline of a table: a row of colour histograms."""

from collections.abc import Sequence
from dataclasses import replace

from uniemox_paper.plan import Cell, TableRow
from uniemox_paper.sources import DataSource
from uniemox_paper.study import HISTOGRAM, Study

HISTOGRAM_NETWORK = "128 HSV bins and a 6 x 6 thumbnail of the scene, logistic regression; one run"


def histogram_cell(study: Study, target: DataSource, *, fraction: float = 1.0) -> Cell:
    """Return the histogram's cell for a data set, scored like every method."""
    return study.scored([study.fit_histogram(target, fraction=fraction)], target, target)


def histogram_row(study: Study) -> TableRow:
    """Return the histogram's row for all data sets."""
    cells = {target.name: histogram_cell(study, target) for target in study.targets}
    return TableRow(HISTOGRAM, cells, network=HISTOGRAM_NETWORK)


def with_baseline(rows: Sequence[TableRow], baseline: TableRow) -> tuple[TableRow, ...]:
    """Return the rows with the baseline to compare with, and the baseline below them."""
    return (*(replace(row, baseline=baseline.name) for row in rows), baseline)
