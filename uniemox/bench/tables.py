"""Measurements as tables for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from uniemox.bench.models import Cost, ModelRow


def models_table(rows: Sequence[ModelRow]) -> Table:
    """The rows of `uniemox models`."""
    table = Table(title="Table III: encoder as fine-tuned (8 classes) | what its pre-training holds and runs | paper")
    for heading in ("method", "backbone"):
        table.add_column(heading)
    for _ in range(2):
        for heading in ("M param", "G mult-add", "ms", "MB"):
            table.add_column(heading, justify="right")
    for heading in ("paper M", "paper G"):
        table.add_column(heading, justify="right")
    for row in rows:
        paper = (_figure(row.paper_parameters_m, 2), _figure(row.paper_multiply_adds_g, 2))
        table.add_row(row.method, row.backbone, *_cells(row.encoder), *_cells(row.container), *paper)
    return table


def _cells(cost: Cost | None) -> tuple[str, ...]:
    if cost is None:
        return ("-",) * 4
    figures = (cost.parameters_m, 2), (cost.multiply_adds_g, 2), (cost.latency_ms, 0), (cost.peak_memory_mb, 0)
    return tuple(_figure(value, digits) for value, digits in figures)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
