"""The commands that reproduce the paper's tables and figures."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from uniemox.cli.console import JsonFlag, need, progress_bar, say
from uniemox.cli.data_files import NO_FILES, FileOptions
from uniemox.cli.reproduce_plan import (
    PlanOptions,
    Switch,
    look_at,
    may_start,
    say_outcome,
    show_simulation,
    with_progress,
)
from uniemox.errors import ConfigError, UniemoxError
from uniemox.reproduce.config import Name, ReproduceConfig

DEFAULTS, NO_PLAN_OPTIONS = ReproduceConfig(), PlanOptions()
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
    from uniemox.reproduce.execute import to_do
    from uniemox.reproduce.page import write_page
    from uniemox.reproduce.targets import plan_of

    if options.plan:
        show_simulation(target, config, options)
        return
    plan = plan_of(target, config)
    if options.check or options.dry_run:
        look_at(plan, options)
        return
    if not config.is_demo and not may_start(plan, config.gpus, options.images_per_s):
        return
    left = to_do(plan.runs)
    say(f"{target}: {len(plan.runs)} runs, {len(plan.runs) - len(left)} of them are done or no longer needed")
    outcome = with_progress(plan.runs, config, options.jobs)
    path = write_page(plan, outcome, config.out)
    say_outcome(plan, outcome)
    say(f"wrote {path}, with .json and .csv next to it")
    if options.as_json:
        print(path.with_suffix(".json").read_text("utf-8"), end="")
    if outcome.failed:
        raise UniemoxError(f"{len(outcome.failed)} of {len(plan.runs)} runs failed; repeat the command to retry them")


@reproduce.command
def verify(*runs: Path, as_json: JsonFlag = False) -> None:
    """Score the saved weights of fine-tuning runs again; every saved evaluation must give the same result.

    Also prints what a run lacks to be repeatable. Exits with 1 if a figure differs.

    Example: uniemox reproduce verify runs/fi

    Args:
        runs: Folders of fine-tuning runs.
        as_json: Print one JSON object per run.
    """
    need("torch", "timm", "scipy", extra="train")
    from uniemox.reproduce.audit import audit
    from uniemox.reproduce.audit import verify as verify_run

    if not runs:
        raise ConfigError("give at least one folder of a fine-tuning run")
    for run in runs:
        lacking = audit(run)
        evaluations = verify_run(run)
        if as_json:
            print(json.dumps({"run": str(run), "lacking": lacking, "same": [asdict(entry) for entry in evaluations]}))
            continue
        for line in lacking:
            say(f"{run}: {line}")
        for entry in evaluations:
            title = f"{entry.data}, split {entry.split}"
            print(f"{run}: accuracy {entry.accuracy:.4f} on {entry.pictures} images of {title}: the same again")


@reproduce.command(name=("images", "pictures"))
def images(
    *,
    data: str,
    out: Path,
    count: int = 8,
    split: str = "all",
    seed: int = 0,
    with_emotion: Switch = False,
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
    from uniemox.reproduce.figures import write_images

    dataset = files.open(data)
    dataset = dataset if split == "all" else dataset.only(split)
    written = write_images(dataset, out, count=count, seed=seed, with_emotion=with_emotion)
    print(f"wrote {len(written)} images to {out}")


@reproduce.command(name="zero-shot")
def zero_shot(*, teacher: str, data: str, out: Path, split: str | None = None, files: FileOptions = NO_FILES) -> None:
    """Score a teacher that was trained without labels: it predicts the class whose sentence is nearest to the image.

    Example: uniemox reproduce zero-shot --teacher fitted:runs/teacher --data synthetic:512?seed=1 --out runs/zero-shot

    Args:
        teacher: clip:NAME@WEIGHTS, fitted:FOLDER or stored:FILE, see `uniemox docs training`.
        data: KIND:PATH, see `uniemox docs data`.
        out: Folder; scores and predictions are written to its subfolder evaluations.
        split: Split to score, or all. Default: test if there is one, else val, else all.
    """
    need("torch", "timm", "open_clip", extra="train")
    from uniemox.reproduce.table3 import score_zero_shot

    dataset = files.open(data)
    split = dataset.scored_split(split)
    dataset = dataset if split == "all" else dataset.only(split)
    with progress_bar() as progress:
        path = score_zero_shot(teacher, dataset, out, split=split, on_progress=progress.show)
    print(f"wrote {path}")
