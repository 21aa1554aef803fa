"""Run, check or price the plan of a table or figure, and report about it."""

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from uniemox.cli.console import JsonFlag, progress_bar, say, show_all
from uniemox.errors import ConfigError
from uniemox.io.files import read_limited
from uniemox.reproduce.config import Name, ReproduceConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniemox.reproduce.execute import RunOutcome
    from uniemox.reproduce.plan import Plan, Run

MAX_JOBS = 4  # of a demo, where nobody says
SIMULATED_GPUS = (1, 8, 64)


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


Switch = Annotated[bool, Parameter(negative="")]


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options for running or checking a plan."""

    jobs: int | None = None
    """Runs at a time; if not given one for each core in a demo, up to 4, else 1."""
    images_per_s: Annotated[float | None, Parameter(converter=speed_of)] = None
    """Pre-training images/s of one of the GPUs, to compute how long the scale of the paper takes: a number, or a file
    that `bench train --json` wrote."""
    loads_per_s: float | None = None
    """What `bench data` measured on one core, to compute how many cores load images for --plan."""
    dry_run: Switch = False
    """Print the commands in their order, for any scheduler, and do nothing."""
    check: Switch = False
    """Resolve every run's settings, data, start, network and one batch, say what is missing, and do nothing."""
    plan: Switch = False
    """Compute hours, disk, network and loading of the scale of the paper on 1, 8 and 64 GPUs, and do nothing."""
    as_json: JsonFlag = False
    """Print the page's figures, or what was checked, as one JSON object."""

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, got {self.jobs}")
        if self.images_per_s is not None and not self.images_per_s > 0:
            raise ConfigError(f"--images-per-s must be above 0, got {self.images_per_s}")


def look_at(plan: "Plan", options: PlanOptions) -> None:
    """Check the runs, or print their commands. Raises ConfigError if one of them could not start."""
    if options.check:
        if not check_plan(plan, as_json=options.as_json):
            raise ConfigError("some runs could not start; see above")
        return
    for run in plan.runs:
        print(run.command)
    say_missing(plan)


def check_plan(plan: "Plan", *, as_json: bool) -> bool:
    """Print a line for every run of a plan, or one JSON object; whether all of them could start."""
    from uniemox.reproduce.check import check_runs

    with progress_bar() as progress:
        found = check_runs(plan.runs, progress.show)
    lost = sum(entry.missing is not None for entry in found)
    if as_json:
        runs = [
            {name: getattr(entry.run, name) for name in ("name", "key", "command")}
            | {"found": entry.found, "missing": entry.missing}
            for entry in found
        ]
        print(json.dumps({"target": plan.name, "scale": plan.scale, "can_start": not lost, "runs": runs}))
        return not lost
    for entry in found:
        words = f"ok       {entry.run.name}: {entry.found}"
        print(words if entry.missing is None else f"missing  {entry.run.name}: needs {entry.missing}")
    print(f"{plan.title}: {len(found) - lost} of {len(found)} runs could start")
    return not lost


def with_progress(runs: "Sequence[Run]", config: ReproduceConfig, jobs: int | None) -> "RunOutcome":
    """Do the runs of a plan; a bar in a terminal, a line for each new run elsewhere.

    jobs: at a time; None: at the scale of the paper one a GPU, which they share out, else one a core.
    """
    from uniemox.io.parallel import usable_cores
    from uniemox.reproduce.execute import execute

    usual = min(usable_cores(), MAX_JOBS) if config.is_demo else config.gpus
    said: list[str] = []
    with progress_bar() as progress:
        task = progress.add_task("starting", total=1000)

        def show(share: float, words: str) -> None:
            if progress.console.is_terminal:
                progress.update(task, completed=round(1000 * share), description=words)
            elif said[-1:] != [words]:
                said.append(words)
                say(f"{share:.0%} of the work is done; now: {words}")

        return execute(runs, jobs=jobs or usual, gpus=0 if config.is_demo else config.gpus, watch=show)


def show_simulation(target: Name, config: ReproduceConfig, options: PlanOptions) -> None:
    """Print the cost of the paper's scale on machines of several sizes. Raises ConfigError without a measured speed."""
    from uniemox.reproduce.costs import GPUS_OF_NODE, simulate
    from uniemox.reproduce.targets import plan_of

    speed, loads_per_s = options.images_per_s, options.loads_per_s
    if config.is_demo or speed is None:
        raise ConfigError(
            "--plan is for --scale paper, and needs --images-per-s, which `uniemox bench train` measures on one GPU"
        )
    found = []
    for gpus in SIMULATED_GPUS:  # no run is spread over nodes: its gradients would travel longer than it computes
        plan = plan_of(target, replace(config, gpus=min(gpus, GPUS_OF_NODE)))
        found.append(simulate(plan.runs, gpus=gpus, images_per_s=speed))
    if options.as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    table = Table(title=f"{target}, computed from {speed_in_words(speed)} a GPU")
    headings = ("GPUs", "hours", "GPUs busy", "disk GB", "gradients GB/s a GPU", "images/s to load", "cores that load")
    for heading in headings:
        table.add_column(heading, justify="right")
    for one in found:
        cores = "" if not loads_per_s else f"{math.ceil(one.loader_images_per_s / loads_per_s):,}"
        numbers = (f"{one.hours:,.1f}", f"{one.busy:.0%}", f"{one.disk_gb:,.0f}", f"{one.network_gb_per_s:.1f}")
        table.add_row(str(one.gpus), *numbers, f"{one.loader_images_per_s:,.0f}", cores)
    show_all([table])
    if not loads_per_s:
        say("how many cores that takes follows from `uniemox bench data`: give its images/s as --loads-per-s")


def speed_in_words(images_per_s: float) -> str:
    """Print the compute, and the speed that a GPU would have to reach."""
    from uniemox.reproduce.study import PRETRAIN_GFLOP

    return f"{images_per_s:,.4g} pre-training images/s, {images_per_s * PRETRAIN_GFLOP / 1000:,.0f} TFLOP/s"


def may_start(plan: "Plan", gpus: int, images_per_s: float | None) -> bool:
    """Say what the scale of the paper costs; False if there is no GPU to start it on.

    images_per_s: of one GPU, in pre-training steps of ViT-L/16. All other work is taken to run at the same
    multiplications and additions a second, and several GPUs to share it without loss.
    Raises ConfigError where the disk can't hold it.
    """
    import torch

    from uniemox.reproduce.costs import need_disk
    from uniemox.reproduce.study import PRETRAIN_GFLOP

    images, gflop = sum(run.images for run in plan.runs if run.gflop), sum(run.images * run.gflop for run in plan.runs)
    say(
        f"{plan.title}: {len(plan.runs)} runs, {images / 1e6:,.1f} million images through a network, "
        f"{gflop / 1e9:,.1f} EFLOP of training"
    )
    if images_per_s is None:
        say("how long that takes follows from `uniemox bench train` on the GPU: give its images/s as --images-per-s")
    else:
        days = gflop / (images_per_s * PRETRAIN_GFLOP) / gpus / 86400
        say(f"{days:,.2f} days on {gpus} GPU{'s' if gpus > 1 else ''} of {speed_in_words(images_per_s)}")
    say_missing(plan)
    is_possible = any(run.missing is None for run in plan.runs) or not plan.runs
    if is_possible and (torch.cuda.is_available() or images == 0):
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
