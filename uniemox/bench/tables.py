"""Measurements as tables for the terminal."""

from collections.abc import Sequence

from rich.table import Table

from uniemox.bench.models import Cost, ModelRow

HEADINGS = ("M param", "G mult-add", "ms", "MB", "paper M", "paper G")


def models_tables(rows: Sequence[ModelRow]) -> tuple[Table, Table]:
    """The rows of `uniemox models`: encoders as fine-tuned, and what pre-training holds and runs.

    The paper's figures stand where they belong: with the encoder for supervised methods, else with the pre-training.
    """
    encoders = _table("Encoders as fine-tuned, with a head of 8 classes")
    containers = _table("Pre-training: all that it holds and runs")
    for row in rows:
        paper = (_figure(row.paper_parameters_m, 2), _figure(row.paper_multiply_adds_g, 2))
        is_supervised = row.container is None
        encoders.add_row(row.method, row.backbone, *_cells(row.encoder), *(paper if is_supervised else ("", "")))
        if row.container is not None:
            containers.add_row(row.method, row.backbone, *_cells(row.container), *paper)
    return encoders, containers


def _table(title: str) -> Table:
    table = Table(title=title, padding=(0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("backbone", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cells(cost: Cost | None) -> tuple[str, ...]:
    if cost is None:
        return ("-",) * 4
    figures = (cost.parameters_m, 2), (cost.multiply_adds_g, 2), (cost.latency_ms, 0), (cost.peak_memory_mb, 0)
    return tuple(_figure(value, digits) for value, digits in figures)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
