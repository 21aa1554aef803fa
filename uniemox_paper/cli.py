"""Reproduce a table or figure of the paper: run a plan of commands and write one page of results."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from uniemox.cli import NO_FILES, FileOptions, Flag, JsonFlag, need, progress_bar, say, show_all
from uniemox.errors import ConfigError, UniemoxError
from uniemox.plurals import counted
from uniemox_paper.config import Name, ReproduceConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from uniemox_paper.execute import RunOutcome
    from uniemox_paper.plan import Cell, Plan, PlannedRun, TableRow

# Maximum number of parallel runs that a demo uses by default.
MAX_JOBS = 4
SIMULATED_GPUS = (1, 8, 64)
MODES = ("dry_run", "check", "plan")
MODES_READING: "Mapping[str, tuple[str | None, ...]]" = {
    "jobs": (None,),
    "images_per_s": (None, "plan"),
    "loads_per_s": ("plan",),
    "as_json": (None, "check", "plan"),
}
"""Modes that read an option; None: the one that runs the plan."""


@dataclass(frozen=True)
class SpeedFile:
    """Result of `python -m benchmarks.train`."""

    images_per_s: float


def _speed_of(_: Any, tokens: Any) -> float:
    """Parse images/s from a number or a file of `python -m benchmarks.train`.

    Raises:
        ConfigError: If the text is neither.
    """
    text = tokens[0].value
    try:
        return float(text)
    except ValueError:
        pass
    # Help need not wait for it.
    from uniemox.io import read_json

    remedy = "--images-per-s takes a number, or a file that `python -m benchmarks.train` wrote"
    return read_json(Path(text), SpeedFile, remedy=remedy, error_class=ConfigError).images_per_s


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options for running or checking a plan."""

    jobs: int | None = None
    """Number of parallel runs. Default: one per core in a demo, up to 4; else as many as --gpus."""
    images_per_s: Annotated[float | None, Parameter(converter=_speed_of)] = None
    """Pre-training images/s of one GPU, to compute the time: a number, or a file of benchmarks.train (in a clone)."""
    loads_per_s: float | None = None
    """Samples/s that `bench data` measured on one core, to compute the cores needed for loading with --plan."""
    dry_run: Flag = False
    """Print the commands in order, for any scheduler, without running them."""
    check: Flag = False
    """Go through each run's settings, data and weights, up to its first step; print what is missing. Runs nothing."""
    plan: Flag = False
    """Compute hours, disk, network and image loading of the paper's scale on 1, 8 and 64 GPUs. Runs nothing."""
    as_json: JsonFlag = False
    """Print the page's figures, or the results of --check, as one JSON object."""

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, got {self.jobs}")
        if self.images_per_s is not None and not self.images_per_s > 0:
            raise ConfigError(f"--images-per-s must be above 0, got {self.images_per_s}")
        self._refuse_unread()

    def _refuse_unread(self) -> None:
        """Raise ConfigError for two modes at once, and for options that the chosen mode does not read."""
        chosen = [mode for mode in MODES if getattr(self, mode)]
        if len(chosen) > 1:
            raise ConfigError(f"give only one of {' and '.join(map(_option, chosen))}")
        mode = chosen[0] if chosen else None
        for name, modes in MODES_READING.items():
            if getattr(self, name) and mode not in modes:
                # Only --plan reads an option that the mode without a flag does not read.
                if mode is None:
                    raise ConfigError(f"{_option(name)} is read only with --plan; leave it out")
                raise ConfigError(f"{_option(name)} is not read with {_option(mode)}; leave it out")


def _option(name: str) -> str:
    """Return the command-line spelling of a field's name."""
    if name == "as_json":
        return "--json"
    return f"--{name.replace('_', '-')}"


DEFAULTS = ReproduceConfig()
NO_PLAN_OPTIONS = PlanOptions()
reproduce = App(name="reproduce", default_parameter=Parameter(consume_multiple=True, negative_iterable=()))


@reproduce.default
def table_or_figure(
    target: Name,
    /,
    *,
    config: Annotated[ReproduceConfig, Parameter(name="*")] = DEFAULTS,
    options: Annotated[PlanOptions, Parameter(name="*")] = NO_PLAN_OPTIONS,
) -> None:
    """Reproduce a table or figure of the paper: run each command of its plan once, and write one page of results.

    A demo takes minutes on two cores. With its default data, synthetic scenes, it only checks that all parts work
    together; it is not evidence for the paper. The paper's scale needs GPUs, the data and the checkpoints.

    If the command is stopped or killed, repeat it to resume. Tables share runs with the same settings. Every figure is
    marked as ours, cited, or not run. Chance and a colour histogram are listed next to the scored rows, and a row that
    does not beat the histogram is marked. Everything is written to --out; TARGET-SCALE.html is the page.

    For example:

    - uniemox reproduce table4
    - uniemox reproduce table3 --data fi:photos/fi --seeds 3
    - uniemox reproduce table3 --scale paper --data emoset:EmoSet fi:FI --weights dBOT=dbot.pth --images-per-s 900
    - uniemox reproduce table4 --scale paper --data emoset:EmoSet fi:FI --weights dBOT=dbot.pth --check
    - uniemox reproduce table3 --scale paper --plan --images-per-s 900
    - uniemox reproduce table6 --dry-run | sh

    Args:
        target: A table, a figure, or cross: train on one data set and score on others.
    """
    need("torch", "timm", "open_clip", "tensorboard", "onnxscript", "scipy", "sklearn", "matplotlib", extra="train")
    from uniemox_paper.execute import to_do
    from uniemox_paper.page import write_page
    from uniemox_paper.targets import plan_of

    if options.plan:
        _show_simulation(target, config, options)
        return
    if config.is_demo and options.images_per_s is not None:
        raise ConfigError("--images-per-s is read only at --scale paper; leave it out")
    plan = plan_of(target, config)
    if options.check:
        _check_plan(plan, as_json=options.as_json)
        return
    if options.dry_run:
        for run in plan.runs:
            print(run.command)
        _say_missing(plan)
        return
    if not config.is_demo and not _may_start(plan, config.gpus, options.images_per_s):
        return
    pending = to_do(plan.runs)
    say(f"{target}: {counted(len(plan.runs), 'run')}; done or no longer needed: {len(plan.runs) - len(pending)}")
    outcome = _with_progress(plan.runs, config, options.jobs)
    path = write_page(plan, outcome, config.out)
    _say_outcome(plan, outcome)
    say(f"wrote {path}, with .json and .csv next to it")
    if options.as_json:
        print(path.with_suffix(".json").read_text("utf-8"), end="")
    if outcome.failed:
        runs = counted(len(plan.runs), "run")
        raise UniemoxError(f"{len(outcome.failed)} of {runs} failed; repeat the command to retry them")


@reproduce.command
def board(*runs: Path, out: Path = Path("scoreboard.html"), as_json: JsonFlag = False) -> None:
    """Put finished runs of any machines on one scoreboard: trained on one data set, scored on all.

    A row is a setting and its training data, with one run per seed; a column is a data set and split that `evaluate`
    scored. Rows are compared on the images of both, with paired 95 % intervals. Of runs on other machines, copy
    config.json and the folder evaluations. Folders without a fine-tuning run are left out and listed.

    Example: uniemox reproduce board runs/reproduce/runs/* other-machine/runs/* --out board.html

    Args:
        runs: Folders of fine-tuning runs.
        out: Page to write, with .csv and .json next to it; replaces earlier ones.
        as_json: Print the content of the .json.
    """
    need("torch", "timm", "scipy", extra="train")
    from uniemox_paper.scoreboard import read_scoreboard
    from uniemox_paper.scoreboard_page import as_dict, write_scoreboard

    if not runs:
        raise ConfigError("give at least one folder of a fine-tuning run")
    if out.suffix != ".html":
        raise ConfigError(f"--out must be a name that ends in .html, got {out}")
    scores = read_scoreboard(runs)
    write_scoreboard(scores, out)
    for note in scores.notes:
        say(note)
    say(f"wrote {out}, with .csv and .json next to it")
    if as_json:
        print(json.dumps(as_dict(scores)))
        return
    columns = (f"{data}, {split}" for data, split in scores.columns)
    table = Table("row", *columns, "mean", caption="accuracy, and the number of labels that the model can predict")
    for row in scores.rows:
        cells = [row.cells.get(column) for column in scores.columns]
        accuracies = ["-" if cell is None else f"{cell.accuracy:.3f} of {cell.labels}" for cell in cells]
        table.add_row(row.name, *accuracies, "-" if row.mean is None else f"{row.mean:.3f}")
    show_all([table])


@reproduce.command
def verify(*runs: Path, as_json: JsonFlag = False) -> None:
    """Score the saved weights of fine-tuning runs again; every saved evaluation must give the same result.

    Exits with 1 if a figure differs.

    Example: uniemox reproduce verify runs/fi

    Args:
        runs: Folders of fine-tuning runs.
        as_json: Print one JSON object per run.
    """
    need("torch", "timm", "scipy", extra="train")
    from uniemox_paper.verification import verify as verify_run

    if not runs:
        raise ConfigError("give at least one folder of a fine-tuning run")
    for run in runs:
        evaluations = verify_run(run)
        if as_json:
            print(json.dumps({"run": str(run), "same": evaluations}))
            continue
        for entry in evaluations:
            title = f"{counted(entry['pictures'], 'image')} of {entry['data']}, split {entry['split']}"
            print(f"{run}: accuracy {entry['accuracy']:.4f} on {title}: the same again")


@reproduce.command(name=("images", "pictures"))
def images(
    *,
    data: str,
    out: Path,
    count: int = 8,
    split: str = "all",
    seed: int = 0,
    with_emotion: Flag = False,
    files: FileOptions = NO_FILES,
) -> None:
    """Write some images of a data set as files, taking classes in turn, with their labels and texts.

    Example: uniemox reproduce images --data synthetic:64 --out shown

    Args:
        data: KIND:PATH, see `uniemox docs data`.
        out: Folder for 00.png, 01.png, ... and pictures.json.
        count: Number of images.
        split: Split to use, or all.
        seed: Random seed for the selection.
        with_emotion: End each text with the emotion, if the annotation has one.
    """
    need("torch", extra="train")
    from uniemox_paper.figures import write_images

    dataset = files.open(data)
    if split != "all":
        dataset = dataset.only(split)
    written = write_images(dataset, out, count=count, seed=seed, with_emotion=with_emotion)
    print(f"wrote {counted(len(written), 'image')} to {out}")


@reproduce.command(name="zero-shot")
def zero_shot(*, teacher: str, data: str, out: Path, split: str | None = None, files: FileOptions = NO_FILES) -> None:
    """Score a teacher that was trained without labels: it predicts the class whose sentence is nearest to the image.

    Example: uniemox reproduce zero-shot --teacher fitted:runs/teacher --data fi:photos/fi --out runs/zero-shot

    Args:
        teacher: clip:NAME@WEIGHTS, fitted:FOLDER or stored:FILE, see `uniemox docs training`.
        data: KIND:PATH, see `uniemox docs data`.
        out: Folder; scores and predictions are written to its subfolder evaluations.
        split: Split to score, or all. Default: test if there is one, else val, else all.
    """
    need("torch", "timm", "open_clip", extra="train")
    from uniemox_paper.table3 import score_zero_shot

    dataset = files.open(data)
    split = dataset.scored_split(split)
    if split != "all":
        dataset = dataset.only(split)
    with progress_bar() as progress:
        path = score_zero_shot(teacher, dataset, out, split=split, on_progress=progress.show)
    print(f"wrote {path}")


def _check_plan(plan: "Plan", *, as_json: bool) -> None:
    """Print the figure that every cell computes and the state of every run, or one JSON object.

    Raises:
        ConfigError: If a run can't start.
    """
    from uniemox_paper.check import check_runs

    with progress_bar() as progress:
        checks = check_runs(plan.runs, progress.show)
    missing_count = sum(entry.missing is not None for entry in checks)
    if as_json:
        runs = [
            {name: getattr(entry.run, name) for name in ("name", "key", "command")}
            | {"found": entry.parts, "missing": entry.missing}
            for entry in checks
        ]
        cells = [
            {"method": row.name, "data": column, "paper_percent": cell.paper, "computes": str(cell.protocol)}
            for row, column, cell in _cells_with_runs(plan)
        ]
        summary = {
            "target": plan.name,
            "scale": plan.scale,
            "can_start": not missing_count,
            "cells": cells,
            "runs": runs,
        }
        print(json.dumps(summary))
    else:
        for row, column, cell in _cells_with_runs(plan):
            cited = "" if cell.paper is None else f" (the paper has {cell.paper:.2f} %)"
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


def _with_progress(runs: "Sequence[PlannedRun]", config: ReproduceConfig, jobs: int | None) -> "RunOutcome":
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


def _show_simulation(target: Name, config: ReproduceConfig, options: PlanOptions) -> None:
    """Print the cost of the paper's scale on machines of several sizes.

    Raises:
        ConfigError: If no speed was given.
    """
    from uniemox_paper.costs import GPUS_OF_NODE, simulate
    from uniemox_paper.targets import plan_of

    speed = options.images_per_s
    loads_per_s = options.loads_per_s
    if config.is_demo or speed is None:
        raise ConfigError(
            "--plan needs --scale paper and --images-per-s, which `python -m benchmarks.train` measures on one GPU"
        )
    simulations = []
    for gpus in SIMULATED_GPUS:
        # No run spans nodes: sending gradients would take longer than computing them.
        plan = plan_of(target, replace(config, gpus=min(gpus, GPUS_OF_NODE)))
        simulations.append(simulate(plan.runs, gpus=gpus, images_per_s=speed))
    if options.as_json:
        print(json.dumps([asdict(simulation) for simulation in simulations]))
        return
    table = Table(title=f"{target}, computed from {_speed_in_words(speed)} a GPU")
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


def _may_start(plan: "Plan", gpus: int, images_per_s: float | None) -> bool:
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
        say(f"{days:,.2f} days on {gpus} GPU{'s' if gpus > 1 else ''} of {_speed_in_words(images_per_s)}")
    _say_missing(plan)
    is_possible = any(run.missing is None for run in plan.runs) or not plan.runs
    if is_possible and (torch.cuda.is_available() or images == 0):
        need_disk(plan.runs, gpus=gpus)
        return True
    for run in plan.runs:
        print(run.command)
    reason = "there is no GPU here" if is_possible else "their requirements are missing"
    say(f"no run was started, because {reason}; the commands are listed above")
    return False


def _say_missing(plan: "Plan") -> None:
    """Print the options that would allow more runs."""
    for lacking in dict.fromkeys(run.missing for run in plan.runs if run.missing):
        count = sum(run.missing == lacking for run in plan.runs)
        say(f"{counted(count, 'run needs', 'runs need')} {lacking}")


def _say_outcome(plan: "Plan", outcome: "RunOutcome") -> None:
    """Print failures, missing runs and the time."""
    names = {run.key: run.name for run in plan.runs}
    for key, reason in outcome.failed.items():
        say(f"failed: {names[key]}: {reason}")
    _say_missing(plan)
    say(
        f"{counted(len(outcome.done), 'run is', 'runs are')} done, {len(outcome.failed)} failed; "
        f"this took {outcome.seconds / 60:.1f} minutes"
    )
