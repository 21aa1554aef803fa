"""Print a plan of `uniemox reproduce`: its cells, missing runs, costs and progress."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from rich.table import Table

from uniemox.cli import progress_bar, say, show_all
from uniemox.errors import ConfigError
from uniemox.plurals import counted
from uniemox_paper.config import Name, ReproduceConfig

if TYPE_CHECKING:
    from uniemox_paper.execute import RunOutcome
    from uniemox_paper.plan import Cell, Plan, PlannedRun, TableRow

# Maximum number of parallel runs that a demo uses by default.
MAX_JOBS = 4
SIMULATED_GPUS = (1, 8, 64)


def check_plan(plan: "Plan", *, as_json: bool) -> None:
    """Print the figure that every cell computes and the state of every run, or one JSON object.

    Raises:
        ConfigError: If a run can't start.
    """
    from uniemox_paper.check import check_runs
    from uniemox_paper.pretraining_words import describe_pretraining

    with progress_bar() as progress:
        checks = check_runs(plan.runs, progress.show)
    missing_count = sum(entry.missing is not None for entry in checks)
    described = [(row, describe_pretraining(row)) for row in plan.rows]
    pretrained_rows = [(row, words) for row, words in described if words]
    if as_json:
        runs = [
            {name: getattr(entry.run, name) for name in ("name", "key", "command")}
            | {"found": entry.parts, "missing": entry.missing}
            for entry in checks
        ]
        cells = [
            {"method": row.name, "data": column, "paper_percent": cell.paper, "paper_from": cell.paper_from}
            | {"computes": str(cell.protocol)}
            for row, column, cell in _cells_with_runs(plan)
        ]
        summary = {
            "target": plan.name,
            "scale": plan.scale,
            "can_start": not missing_count,
            "rows": [{"method": row.name, "pretraining": words} for row, words in pretrained_rows],
            "cells": cells,
            "runs": runs,
        }
        print(json.dumps(summary))
    else:
        for row, words in pretrained_rows:
            print(f"row      {row.name}: {words}")
        for row, column, cell in _cells_with_runs(plan):
            cited = f" ({cell.citation})" if cell.citation else ""
            print(f"cell     {row.name} on {column}{cited}: {cell.protocol}")
        for entry in checks:
            ready = f"ok       {entry.run.name}: {entry.parts}"
            print(ready if entry.missing is None else f"missing  {entry.run.name}: needs {entry.missing}")
        print(f"{plan.title}: {len(checks) - missing_count} of {counted(len(checks), 'run')} can start")
    if missing_count:
        raise ConfigError("some runs can't start; see above")


def _cells_with_runs(plan: "Plan") -> "Iterator[tuple[TableRow, str, Cell]]":
    """Yield row, column and cell for every figure that the runs of a plan compute."""
    for row in plan.rows:
        for column, cell in row.cells.items():
            if cell.runs:
                yield row, column, cell


def execute_with_progress(runs: "Sequence[PlannedRun]", config: ReproduceConfig, jobs: int | None) -> "RunOutcome":
    """Execute the runs of a plan. Shows a bar in a terminal, or a line for each new run in a log.

    Args:
        jobs: Number of parallel runs. None: one per core in a demo, up to 4; else as many as --gpus.
    """
    from uniemox.io import usable_cores
    from uniemox_paper.execute import execute

    default_jobs = min(usable_cores(), MAX_JOBS) if config.is_demo else config.gpus
    gpus = 0 if config.is_demo else config.gpus
    printed: list[str] = []
    with progress_bar() as progress:
        task = progress.add_task("starting", total=1000)

        def show(share: float, words: str) -> None:
            if progress.console.is_terminal:
                progress.update(task, completed=round(1000 * share), description=words)
            elif printed[-1:] != [words]:
                printed.append(words)
                say(f"{share:.0%} of the work is done; now: {words}")

        return execute(runs, jobs=jobs or default_jobs, gpus=gpus, watch=show)


def show_simulation(
    target: Name,
    config: ReproduceConfig,
    *,
    images_per_s: float | None,
    loads_per_s: float | None = None,
    as_json: bool = False,
) -> None:
    """Print the cost of the paper's scale on machines of several sizes.

    Args:
        target: A table or figure.
        config: Its settings.
        images_per_s: Pre-training images/s of one GPU.
        loads_per_s: Samples/s that one core loads; None leaves the number of cores out.
        as_json: Print a JSON list instead of a table.

    Raises:
        ConfigError: If no speed was given.
    """
    from uniemox_paper.costs import GPUS_OF_NODE, simulate
    from uniemox_paper.targets import plan_of

    if config.is_demo or images_per_s is None:
        raise ConfigError(
            "--plan needs --scale paper and --images-per-s, which `python -m benchmarks.train` measures on one GPU"
        )
    simulations = []
    for gpus in SIMULATED_GPUS:
        # No run spans nodes: sending gradients would take longer than computing them.
        plan = plan_of(target, replace(config, gpus=min(gpus, GPUS_OF_NODE)))
        simulations.append(simulate(plan.runs, gpus=gpus, images_per_s=images_per_s))
    if as_json:
        print(json.dumps([asdict(simulation) for simulation in simulations]))
        return
    table = Table(title=f"{target}, computed from {_speed_in_words(images_per_s)} a GPU")
    headings = ("GPUs", "hours", "GPUs busy", "disk GB", "gradients GB/s a GPU", "images/s to load", "cores that load")
    for heading in headings:
        table.add_column(heading, justify="right")
    for simulation in simulations:
        cores = f"{math.ceil(simulation.loader_images_per_s / loads_per_s):,}" if loads_per_s else ""
        numbers = (
            f"{simulation.hours:,.1f}",
            f"{simulation.busy:.0%}",
            f"{simulation.disk_gb:,.0f}",
            f"{simulation.network_gb_per_s:.1f}",
        )
        table.add_row(str(simulation.gpus), *numbers, f"{simulation.loader_images_per_s:,.0f}", cores)
    show_all([table])
    if not loads_per_s:
        say("to compute the number of cores, give the samples/s of `uniemox bench data` as --loads-per-s")


def _speed_in_words(images_per_s: float) -> str:
    """Describe a speed in images per second and in the TFLOP/s that they need."""
    from uniemox_paper.study import PRETRAIN_GFLOP

    return f"{images_per_s:,.4g} pre-training images/s, {images_per_s * PRETRAIN_GFLOP / 1000:,.0f} TFLOP/s"


def may_start(plan: "Plan", gpus: int, images_per_s: float | None) -> bool:
    """Print the cost of the paper's scale; return False if there is no GPU to run it on.

    Args:
        images_per_s: Pre-training images/s of ViT-L/16 on one GPU. The estimate assumes that all other work reaches the
            same FLOP/s, and that several GPUs share it without loss.

    Raises:
        ConfigError: If the disk is too small.
    """
    import torch

    from uniemox_paper.costs import need_disk
    from uniemox_paper.study import PRETRAIN_GFLOP

    images = sum(run.images for run in plan.runs if run.gflop)
    gflop = sum(run.images * run.gflop for run in plan.runs)
    say(
        f"{plan.title}: {counted(len(plan.runs), 'run')}, {images / 1e6:,.1f} million images through a network, "
        f"{gflop / 1e9:,.1f} EFLOP of training"
    )
    if images_per_s is None:
        say("to compute the time, give the images/s of `python -m benchmarks.train` on the GPU as --images-per-s")
    else:
        days = gflop / (images_per_s * PRETRAIN_GFLOP) / gpus / 86400
        say(f"{days:,.2f} days on {counted(gpus, 'GPU')} of {_speed_in_words(images_per_s)}")
    say_missing(plan)
    is_possible = any(run.missing is None for run in plan.runs) or not plan.runs
    if is_possible and (torch.cuda.is_available() or images == 0):
        need_disk(plan.runs, gpus=gpus)
        return True
    for run in plan.runs:
        print(run.command)
    reason = "there is no GPU here" if is_possible else "their requirements are missing"
    say(f"no run was started, because {reason}; the commands are listed above")
    return False


def say_missing(plan: "Plan") -> None:
    """Print the options that would allow more runs."""
    for lacking in dict.fromkeys(run.missing for run in plan.runs if run.missing):
        count = sum(run.missing == lacking for run in plan.runs)
        say(f"{counted(count, 'run needs', 'runs need')} {lacking}")


def say_outcome(plan: "Plan", outcome: "RunOutcome") -> None:
    """Print failures, missing runs and the time."""
    names = {run.key: run.name for run in plan.runs}
    for key, reason in outcome.failed.items():
        say(f"failed: {names[key]}: {reason}")
    say_missing(plan)
    say(
        f"{counted(len(outcome.done), 'run is', 'runs are')} done, {len(outcome.failed)} failed; "
        f"this took {outcome.seconds / 60:.1f} minutes"
    )
