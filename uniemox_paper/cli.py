"""Reproduce a table or figure of the paper: run a plan of commands and write one page of results."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from uniemox.cli import NO_FILES, FileOptions, Flag, JsonFlag, need, progress_bar, say, show_all
from uniemox.errors import ConfigError, UniemoxError
from uniemox.plurals import counted
from uniemox_paper.config import Name, ReproduceConfig
from uniemox_paper.plan_console import (
    check_plan,
    execute_with_progress,
    may_start,
    say_missing,
    say_outcome,
    show_simulation,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        show_simulation(
            target, config, images_per_s=options.images_per_s, loads_per_s=options.loads_per_s, as_json=options.as_json
        )
        return
    if config.is_demo and options.images_per_s is not None:
        raise ConfigError("--images-per-s is read only at --scale paper; leave it out")
    plan = plan_of(target, config)
    if options.check:
        check_plan(plan, as_json=options.as_json)
        return
    if options.dry_run:
        for run in plan.runs:
            print(run.command)
        say_missing(plan)
        return
    if not config.is_demo and not may_start(plan, config.gpus, options.images_per_s):
        return
    pending = to_do(plan.runs)
    say(f"{target}: {counted(len(plan.runs), 'run')}; done or no longer needed: {len(plan.runs) - len(pending)}")
    outcome = execute_with_progress(plan.runs, config, options.jobs)
    path = write_page(plan, outcome, config.out)
    say_outcome(plan, outcome)
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
    from uniemox_paper.zero_shot import score_zero_shot

    dataset = files.open(data)
    split = dataset.scored_split(split)
    if split != "all":
        dataset = dataset.only(split)
    with progress_bar() as progress:
        path = score_zero_shot(teacher, dataset, out, split=split, on_progress=progress.show)
    print(f"wrote {path}")
