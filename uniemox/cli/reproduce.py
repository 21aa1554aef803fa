"""The commands that do the paper's tables and figures again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from uniemox.cli.console import JsonFlag, need, progress_bar, say
from uniemox.cli.data_options import NO_FILES, FileOptions
from uniemox.cli.plan_check import check_plan
from uniemox.errors import ConfigError, UniemoxError
from uniemox.reproduce.names import Name, Scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from uniemox.reproduce.execute import RunOutcome
    from uniemox.reproduce.plan import Plan

MAX_JOBS = 4  # of a demo, where nobody says
Several = Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)]
Switch = Annotated[bool, Parameter(negative="")]

reproduce = App(name="reproduce")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be said about a table or figure."""

    scale: Scale = "demo"
    """demo: small networks and budgets, a check rather than evidence; paper: the published recipe."""
    data: Several = None
    """KIND:PATH or NAME=KIND:PATH, several after each other; a demo draws synthetic scenes if none is given."""
    out: Path = Path("runs/reproduce")
    """Folder of all runs and pages."""
    weights: Several = None
    """ROW=FILE or ROW=timm:NAME: where a row of table III starts, as --init of finetune takes it."""
    exclude: Several = None
    """NAME=FILE of `data check --json`, whose list "exclude" is left out of that data set."""
    detector: str | None = None
    """Finds people where data bring none, as --detector of `data persons`; a demo uses the package's own, the paper has
    YOLOv3 (yolov3.cfg)."""
    objects: str | None = None
    """Network of timm that names objects in texts of a demo's own data, NAME or NAME@FILE; none if not given."""
    pretrain_split: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = ("train",)
    """Splits that are pre-trained on: train val, or all for the paper's 118,000 pairs, which hold EmoSet's test."""
    seeds: int | None = None
    """Of fine-tuning; if not given 1 for table3 and what shows images, 3 for all else."""
    jobs: int | None = None
    """Runs at a time; if not given one for each core in a demo, up to 4, else 1."""
    teacher: str | None = None
    """Whose features are distilled, as --teacher.source of pretrain; a demo fits one, the paper has CLIP ViT-B/16."""
    with_emotion: Switch = False
    """End the texts that teachers and pre-training read with the emotion, which is the label in words, as the paper."""
    gpus: int = 1
    """Of this machine, which a run uses together at the scale of the paper."""
    images_per_s: float | None = None
    """What `bench step` measured on one of the GPUs, to compute how long the scale of the paper takes."""
    endpoint: str | None = None
    """Of table8 and table9: the service that is asked, see `uniemox ask`."""
    model: Several = None
    """Of table8 and table9: its models, several after each other."""
    key_from: str | None = None
    """Of table8 and table9: name of the environment variable with the key."""
    dry_run: Switch = False
    """Print the commands in their order, for any scheduler, and do nothing."""
    check: Switch = False
    """Resolve every run's settings, data, start, network and one batch, say what is missing, and do nothing."""
    as_json: JsonFlag = False
    """Print the page's figures, or what was checked, as one JSON object."""

    def __post_init__(self) -> None:
        for name in ("seeds", "jobs", "gpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, got {value}")


@reproduce.default
def table_or_figure(
    target: Name,
    /,
    options: Annotated[Options, Parameter(name="*")] = Options(),
) -> None:
    """Do a table or figure of the paper again: a plan of commands, each done once, and one page at the end.

    A demo takes minutes on two cores. On the scenes that it draws itself it checks that the parts work together; it is
    not evidence for the paper. The scale of the paper needs GPUs, the data and the published checkpoints.

    Stopped or killed at any moment, the same command resumes; tables share the runs that are the same. Every figure is
    marked: ours, cited, or not run. Chance and a colour histogram stand beside all rows that are scored, and what does
    not beat the histogram is marked. All is written below --out; TARGET-SCALE.html is the page.

    Examples:

    uniemox reproduce table4

    uniemox reproduce table3 --data fi:photos/fi --seeds 3

    uniemox reproduce table3 --scale paper --data emoset:EmoSet fi:FI --weights dBOT=dbot.pth --images-per-s 900

    uniemox reproduce table4 --scale paper --data emoset:EmoSet fi:FI --weights dBOT=dbot.pth --check

    uniemox reproduce table6 --dry-run | sh

    Parameters
    ----------
    target
        A table, a figure, or cross: trained on one data set and scored on others.
    options
        How.
    """
    need("torch", "timm", "open_clip", "tensorboard", "onnxscript", "scipy", extra="train")
    need("sklearn", "matplotlib", extra="data")
    from uniemox.reproduce.execute import to_do
    from uniemox.reproduce.page import write_page

    plan = _plan(target, options)
    if options.check:
        if not check_plan(plan, as_json=options.as_json):
            raise ConfigError("some runs could not start; see above")
        return
    if options.dry_run:
        for run in plan.runs:
            print(run.command)
        _say_missing(plan)
        return
    if options.scale == "paper" and not _may_start(plan, options.gpus, options.images_per_s):
        return
    left = to_do(plan.runs)
    say(f"{target}: {len(plan.runs)} runs, {len(plan.runs) - len(left)} of them are done or not needed any more")
    outcome = _with_progress(plan, options.jobs or _jobs(options.scale))
    path = write_page(plan, outcome, options.out)
    _say_outcome(plan, outcome)
    say(f"wrote {path}, and .json and .csv beside it")
    if options.as_json:
        print(path.with_suffix(".json").read_text("utf-8"), end="")
    if outcome.failed:
        raise UniemoxError(f"{len(outcome.failed)} of {len(plan.runs)} runs failed; the same command tries them again")


def _plan(target: Name, options: Options) -> "Plan":
    from uniemox.reproduce.sources import Finders
    from uniemox.reproduce.table8 import ModelsToAsk
    from uniemox.reproduce.targets import ReproduceOptions, plan_of

    asking = ModelsToAsk(endpoint=options.endpoint, models=tuple(options.model or ()), key_from=options.key_from)
    return plan_of(
        ReproduceOptions(
            name=target,
            scale=options.scale,
            root=options.out,
            data=tuple(options.data or ()),
            exclude={name: Path(file) for name, file in _pairs(options.exclude, "exclude").items()},
            weights=_weights(options.weights),
            seeds=options.seeds,
            teacher=options.teacher,
            with_emotion=options.with_emotion,
            gpus=options.gpus,
            finders=Finders(detector=options.detector, objects=options.objects),
            pretrain_splits=options.pretrain_split,
            asking=asking,
        )
    )


@reproduce.command
def verify(*runs: Path, as_json: JsonFlag = False) -> None:
    """Score the stored weights of fine-tuning runs again: every evaluation that they keep must come out the same.

    Also says what a run lacks that is needed to repeat it. Exits with 1 if a figure differs.

    Example: uniemox reproduce verify runs/fi

    Parameters
    ----------
    runs
        Folders of fine-tuning runs.
    as_json
        Print a JSON object a run.
    """
    need("torch", "timm", "scipy", extra="train")
    from dataclasses import asdict

    from uniemox.reproduce.audit import audit
    from uniemox.reproduce.audit import verify as verify_run

    if not runs:
        raise ConfigError("name at least one folder of a fine-tuning run")
    for run in runs:
        lacking = audit(run)
        found = verify_run(run)
        if as_json:
            print(json.dumps({"run": str(run), "lacking": lacking, "same": [asdict(entry) for entry in found]}))
            continue
        for line in lacking:
            say(f"{run}: {line}")
        for entry in found:
            title = f"{entry.data}, split {entry.split}"
            print(f"{run}: accuracy {entry.accuracy:.4f} on {entry.pictures} images of {title}: the same again")


@reproduce.command
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
    """Write some images of a data set as files, the classes in turn, with their labels and texts.

    Example: uniemox reproduce images --data synthetic:64 --out shown

    Parameters
    ----------
    data
        KIND:PATH, see docs/data.md.
    out
        Folder of 00.png, 01.png, ... and images.json.
    count
        How many.
    split
        Of this split only, or all.
    seed
        Of the draw.
    with_emotion
        End the texts with the emotion, where the annotation holds one.
    """
    need("torch", extra="train")
    from uniemox.reproduce.images import write_images

    found = files.open(data)
    found = found if split == "all" else found.only(split)
    written = write_images(found, out, count=count, seed=seed, with_emotion=with_emotion)
    print(f"wrote {len(written)} images to {out}")


@reproduce.command(name="zero-shot")
def zero_shot(
    *,
    teacher: str,
    data: str,
    out: Path,
    split: str = "all",
    files: FileOptions = NO_FILES,
) -> None:
    """Score a teacher that was shown no label: the class whose sentence is nearest to the image is its answer.

    Example: uniemox reproduce zero-shot --teacher fitted:runs/teacher --data synthetic:512?seed=1 --out runs/zero-shot

    Parameters
    ----------
    teacher
        clip:NAME@WEIGHTS, fitted:FOLDER or stored:FILE, see docs/training.md.
    data
        KIND:PATH, see docs/data.md.
    out
        Folder; scores and predictions are written to its evaluations.
    split
        Of this split only, or all.
    """
    need("torch", "timm", "open_clip", extra="train")
    from uniemox.reproduce.zero_shot import score_zero_shot

    found = files.open(data)
    found = found if split == "all" else found.only(split)
    with progress_bar() as progress:
        task = progress.add_task("asking the teacher", total=len(found))
        path = score_zero_shot(
            teacher, found, out, split=split, on_progress=lambda done: progress.update(task, completed=done)
        )
    print(f"wrote {path}")


def _pairs(texts: "Sequence[str] | None", option: str) -> dict[str, str]:
    """NAME=VALUE, several. Raises ConfigError for another form."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"--{option} takes NAME=VALUE, got {text!r}")
        found[name] = value
    return found


def _weights(texts: "Sequence[str] | None") -> "Mapping[str, str]":
    """By row, in the table's spelling. Raises ConfigError for a row that is none."""
    from uniemox.paper import paper_tables
    from uniemox.reproduce.table3 import EXTRAS

    names = [entry["method"] for entry in paper_tables()["table3"] if not entry.get("cited")]
    names += [extra.name for extra in EXTRAS]
    known = {name.lower(): name for name in names}
    found = {}
    for name, value in _pairs(texts, "weights").items():
        if name.lower() not in known:
            raise ConfigError(f"--weights: there is no row {name!r} that starts from weights; rows: {', '.join(names)}")
        found[known[name.lower()]] = value
    return found


def _jobs(scale: str) -> int:
    from uniemox.data.processes import usable_cores

    return min(usable_cores(), MAX_JOBS) if scale == "demo" else 1


def _with_progress(plan: "Plan", jobs: int) -> "RunOutcome":
    """Do the plan; a bar in a terminal, a line for each new run elsewhere."""
    from uniemox.reproduce.execute import execute as run_plan

    said: list[str] = []
    with progress_bar() as progress:
        task = progress.add_task("starting", total=1000)

        def show(share: float, words: str) -> None:
            if progress.console.is_terminal:
                progress.update(task, completed=round(1000 * share), description=words)
            elif said[-1:] != [words]:
                said.append(words)
                say(f"{share:.0%} of the work is done; now: {words}")

        return run_plan(plan.runs, jobs=jobs, watch=show)


def _may_start(plan: "Plan", gpus: int, images_per_s: float | None) -> bool:
    """Say what the scale of the paper costs; False if there is no GPU to start it on."""
    import torch

    from uniemox.reproduce.costs import plan_cost

    cost = plan_cost(plan.runs, images_per_s=images_per_s, gpus=gpus)
    say(
        f"{plan.title}: {cost.runs} runs, {cost.images_m:,.1f} million images through a network, "
        f"{cost.exaflop:,.1f} EFLOP of training"
    )
    if cost.days is None:
        say("how long that takes follows from `uniemox bench step` on the GPU: give its images/s as --images-per-s")
    else:
        say(f"{cost.days:,.2f} days on {gpus} GPU{'s' if gpus > 1 else ''} of {images_per_s:g} pre-training images/s")
    _say_missing(plan)
    is_possible = any(run.missing is None for run in plan.runs) or not plan.runs
    if is_possible and (torch.cuda.is_available() or cost.images_m == 0):
        return True
    for run in plan.runs:
        print(run.command)
    why = "there is no GPU here" if is_possible else "what they need is missing"
    say(f"nothing was started, because {why}; these are the commands")
    return False


def _say_missing(plan: "Plan") -> None:
    """What would let more be run."""
    for lacking in dict.fromkeys(run.missing for run in plan.runs if run.missing):
        count = sum(run.missing == lacking for run in plan.runs)
        say(f"{count} runs need {lacking}")


def _say_outcome(plan: "Plan", outcome: "RunOutcome") -> None:
    names = {run.key: run.name for run in plan.runs}
    for key, why in outcome.failed.items():
        say(f"failed: {names[key]}: {why}")
    _say_missing(plan)
    say(
        f"{len(outcome.done)} runs are done, {len(outcome.failed)} failed; this took {outcome.seconds / 60:.1f} minutes"
    )
