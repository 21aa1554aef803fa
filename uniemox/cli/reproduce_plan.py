"""Options of a table or figure, the plan they ask for, and the messages about its runs."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from uniemox.cli.console import JsonFlag, progress_bar, say, show_all
from uniemox.errors import ConfigError
from uniemox.io.files import read_limited
from uniemox.reproduce.names import Name, Scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from uniemox.reproduce.execute import RunOutcome
    from uniemox.reproduce.plan import Plan, Run

MAX_JOBS = 4  # of a demo, where nobody says


def speed_of(_: Any, tokens: Any) -> float:
    """Images/s that were given as a number, or as a file of `bench train --json`. Raises ConfigError for neither."""
    text = tokens[0].value
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return float(json.loads(read_limited(text))["images_per_s"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--images-per-s {text!r} is neither a number nor a file that `bench train --json` wrote ({error})"
        ) from error


Several = Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)]
Switch = Annotated[bool, Parameter(negative="")]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a table or figure."""

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
    """Seeds of fine-tuning; if not given 1 for table3 and what shows images, 3 for all else."""
    pretrain_seeds: int = 1
    """Pre-trainings of each kind, at most --seeds; the seeds of fine-tuning start from them in turn."""
    jobs: int | None = None
    """Runs at a time; if not given one for each core in a demo, up to 4, else 1."""
    teacher: str | None = None
    """Whose features are distilled, as --teacher.source of pretrain; a demo fits one, the paper has CLIP ViT-B/16."""
    with_emotion: bool | None = None
    """Whether the texts that teachers and pre-training read end with the emotion, the label in words; if not given as
    in the paper's tables at its scale, and not in a demo."""
    gpus: int = 1
    """Of this machine, which a run uses together at the scale of the paper."""
    images_per_s: Annotated[float | None, Parameter(converter=speed_of)] = None
    """Pre-training images/s of one of the GPUs, to compute how long the scale of the paper takes: a number, or a file
    that `bench train --json` wrote."""
    loads_per_s: float | None = None
    """What `bench data` measured on one core, to compute how many cores load images for --plan."""
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
    plan: Switch = False
    """Compute hours, disk, network and loading of the scale of the paper on 1, 8 and 64 GPUs, and do nothing."""
    as_json: JsonFlag = False
    """Print the page's figures, or what was checked, as one JSON object."""

    def __post_init__(self) -> None:
        for name in ("seeds", "jobs", "gpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, got {value}")


DEFAULTS = Options()
SIMULATED_GPUS = (1, 8, 64)


def plan_of_options(target: Name, options: Options) -> "Plan":
    """The plan that the options ask for. Raises ConfigError for what they contradict."""
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
            pretrain_seeds=options.pretrain_seeds,
            with_emotion=options.with_emotion,
            gpus=options.gpus,
            finders=Finders(detector=options.detector, objects=options.objects),
            pretrain_splits=options.pretrain_split,
            asking=asking,
        )
    )


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
    """Return values by row, in the table's spelling. Raises ConfigError for a row that is none."""
    from uniemox.paper import paper_tables
    from uniemox.reproduce.table3 import DETECTORS, EXTRAS

    names = [entry["method"] for entry in paper_tables()["table3"] if not entry.get("cited")]
    names += [*(extra.name for extra in EXTRAS), *DETECTORS]
    known = {name.lower(): name for name in names}
    found = {}
    for name, value in _pairs(texts, "weights").items():
        if name.lower() not in known:
            raise ConfigError(f"--weights: nothing is called {name!r} that has weights; there are {', '.join(names)}")
        found[known[name.lower()]] = value
    return found


def usual_jobs(scale: str, gpus: int) -> int:
    """Runs at a time where nobody says: one a GPU at the scale of the paper, as many as they need of them."""
    from uniemox.io.parallel import usable_cores

    return min(usable_cores(), MAX_JOBS) if scale == "demo" else gpus


def with_progress(runs: "Sequence[Run]", jobs: int, gpus: int) -> "RunOutcome":
    """Do the runs of a plan; a bar in a terminal, a line for each new run elsewhere.  gpus: shared out; 0: none are."""
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

        return run_plan(runs, jobs=jobs, gpus=gpus, watch=show)


def show_simulation(target: Name, options: Options) -> None:
    """Print the cost of the paper's scale on machines of several sizes. Raises ConfigError without a measured speed."""
    from uniemox.reproduce.costs import GPUS_OF_NODE, simulate

    if options.scale != "paper" or options.images_per_s is None or options.images_per_s <= 0:
        raise ConfigError(
            "--plan is for --scale paper, and needs --images-per-s, which `uniemox bench train` measures on one GPU"
        )
    found = []
    for gpus in SIMULATED_GPUS:  # no run is spread over nodes: its gradients would travel longer than it computes
        plan = plan_of_options(target, replace(options, gpus=min(gpus, GPUS_OF_NODE)))
        found.append(simulate(plan.runs, gpus=gpus, images_per_s=options.images_per_s))
    if options.as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    table = Table(title=f"{target}, computed from {speed_in_words(options.images_per_s)} a GPU")
    for heading in (
        "GPUs",
        "hours",
        "GPUs busy",
        "disk GB",
        "gradients GB/s a GPU",
        "images/s to load",
        "cores that load",
    ):
        table.add_column(heading, justify="right")
    for one in found:
        cores = "" if not options.loads_per_s else f"{math.ceil(one.loader_images_per_s / options.loads_per_s):,}"
        numbers = (f"{one.hours:,.1f}", f"{one.busy:.0%}", f"{one.disk_gb:,.0f}", f"{one.network_gb_per_s:.1f}")
        table.add_row(str(one.gpus), *numbers, f"{one.loader_images_per_s:,.0f}", cores)
    show_all([table])
    if not options.loads_per_s:
        say("how many cores that takes follows from `uniemox bench data`: give its images/s as --loads-per-s")


def speed_in_words(images_per_s: float) -> str:
    """Print the compute, and the speed that a GPU would have to reach."""
    from uniemox.reproduce.study import PRETRAIN_GFLOP

    return f"{images_per_s:,.4g} pre-training images/s, {images_per_s * PRETRAIN_GFLOP / 1000:,.0f} TFLOP/s"


def may_start(plan: "Plan", gpus: int, images_per_s: float | None) -> bool:
    """Say what the scale of the paper costs; False if there is no GPU to start it on.

    Raises ConfigError where the disk can't hold it.
    """
    import torch

    from uniemox.reproduce.costs import need_disk, plan_cost

    cost = plan_cost(plan.runs, images_per_s=images_per_s, gpus=gpus)
    say(
        f"{plan.title}: {cost.runs} runs, {cost.images_m:,.1f} million images through a network, "
        f"{cost.exaflop:,.1f} EFLOP of training"
    )
    if cost.days is None:
        say("how long that takes follows from `uniemox bench train` on the GPU: give its images/s as --images-per-s")
    else:
        say(f"{cost.days:,.2f} days on {gpus} GPU{'s' if gpus > 1 else ''} of {speed_in_words(images_per_s or 0)}")
    say_missing(plan)
    is_possible = any(run.missing is None for run in plan.runs) or not plan.runs
    if is_possible and (torch.cuda.is_available() or cost.images_m == 0):
        need_disk(plan.runs, gpus=gpus)
        return True
    for run in plan.runs:
        print(run.command)
    why = "there is no GPU here" if is_possible else "what they need is missing"
    say(f"nothing was started, because {why}; these are the commands")
    return False


def say_missing(plan: "Plan") -> None:
    """Print options that would allow more runs."""
    for lacking in dict.fromkeys(run.missing for run in plan.runs if run.missing):
        count = sum(run.missing == lacking for run in plan.runs)
        say(f"{count} runs need {lacking}")


def say_outcome(plan: "Plan", outcome: "RunOutcome") -> None:
    """Print failures, missing runs and the time."""
    names = {run.key: run.name for run in plan.runs}
    for key, why in outcome.failed.items():
        say(f"failed: {names[key]}: {why}")
    say_missing(plan)
    say(
        f"{len(outcome.done)} runs are done, {len(outcome.failed)} failed; this took {outcome.seconds / 60:.1f} minutes"
    )
