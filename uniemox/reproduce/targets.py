"""Every table and figure by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from uniemox.errors import ConfigError
from uniemox.reproduce.ablations import cross, fig7, table4, table5, table6, table7
from uniemox.reproduce.datasets import table1, table2
from uniemox.reproduce.figures import fig4, fig6, fig8, fig9
from uniemox.reproduce.names import Name, Scale
from uniemox.reproduce.plan import Plan
from uniemox.reproduce.sources import Finders, demo_targets, paper_targets, parse_given, pretraining_of
from uniemox.reproduce.study import Study
from uniemox.reproduce.table3 import table3
from uniemox.reproduce.table8 import ModelsToAsk, table8, table9

STUDIES: Mapping[str, Callable[[Study], Plan]] = {
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "table7": table7,
    "fig4": fig4,
    "fig6": fig6,
    "fig7": fig7,
    "fig8": fig8,
    "fig9": fig9,
    "cross": cross,
}
ONE_SEED = ("table3", "table8", "table9", "fig4", "fig6", "fig8", "fig9")
SEEDS = 3  # of all others
CHECK = (
    "A check that the parts of this program work together, on scenes that it draws so that place and person are both "
    "needed. It is not evidence for the paper's claims about photographs."
)
DEMO = "A demo: small networks and budgets, not the paper's. What comes out holds for these."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproduceOptions:
    """Request of the user."""

    name: Name
    scale: Scale
    root: Path
    data: tuple[str, ...] = ()
    """KIND:PATH, or NAME=KIND:PATH."""
    exclude: Mapping[str, Path] = field(default_factory=dict)
    """By data set."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """By row of table III."""
    seeds: int | None = None
    """None: one for table III and the figures that show images, three for all else."""
    teacher: str | None = None
    pretrain_seeds: int = 1
    """Pre-trainings of each kind."""
    with_emotion: bool | None = None
    """Whether texts end with the emotion; None: at the scale of the paper, as its tables do, and not in a demo."""
    gpus: int = 1
    finders: Finders = field(default_factory=Finders)
    pretrain_splits: tuple[str, ...] = ("train",)
    """What is pre-trained on; all: every split."""
    asking: ModelsToAsk = field(default_factory=ModelsToAsk)


def plan_of(asked: ReproduceOptions) -> Plan:
    """The plan of a table or figure. Raises ConfigError, DataError for what was given wrongly."""
    given = parse_given(asked.data)
    seeds = asked.seeds or (1 if asked.name in ONE_SEED else SEEDS)
    if not 1 <= asked.pretrain_seeds <= seeds:
        raise ConfigError(
            f"--pretrain-seeds must be at least 1 and at most --seeds, which is {seeds}, got {asked.pretrain_seeds}: "
            "each pre-training is fine-tuned with a seed of its own"
        )
    if asked.name in ("table1", "table2"):
        return (table1 if asked.name == "table1" else table2)(given, asked.scale)
    is_demo = asked.scale == "demo"
    exclude = _by_column(asked.exclude, given)
    targets = (demo_targets if is_demo else paper_targets)(asked.root, given, exclude, asked.finders)
    study = Study(
        root=asked.root,
        scale=asked.scale,
        targets=tuple(targets),
        pretraining=pretraining_of(targets, is_demo=is_demo),
        weights=asked.weights,
        seeds=tuple(range(seeds)),
        teacher=asked.teacher,
        pretrain_seeds=asked.pretrain_seeds,
        with_emotion=not is_demo if asked.with_emotion is None else asked.with_emotion,
        gpus=asked.gpus,
        pretrain_splits=asked.pretrain_splits,
    )
    if asked.name in ("table8", "table9"):
        plan = (table8 if asked.name == "table8" else table9)(study, asked.asking)
    else:
        plan = STUDIES[asked.name](study)
    is_compared = asked.name == "table7"  # its rows differ in it
    if any("--teacher.source" in run.words for run in plan.runs) and not is_compared:
        plan = replace(plan, about=(*plan.about, study.about_texts))
    if any(run.words[0] == "pretrain" for run in plan.runs):
        plan = replace(plan, about=(*plan.about, study.about_pretraining))
    return _headed(plan, study)


def _headed(plan: Plan, study: Study) -> Plan:
    """A demo says that it is none of the paper's experiments, on drawn scenes in its title too."""
    if not study.is_demo:
        return plan
    if not any(target.data.is_synthetic for target in study.targets):
        return replace(plan, about=(DEMO, *plan.about))
    return replace(plan, title=f"A check on drawn scenes: {plan.title}", about=(CHECK, *plan.about))


def _by_column(exclude: Mapping[str, Path], given: Mapping[str, str]) -> dict[str, Path]:
    """Files by the column whose images they leave out. Raises ConfigError for the name of no data set."""
    columns = {name.lower(): name for name in given}
    unknown = next((name for name in exclude if name.lower() not in columns), None)
    if unknown is not None:
        there = f"there are {', '.join(given)}" if given else "give that data set with --data"
        raise ConfigError(f"--exclude names {unknown}, which is none of the data; {there}")
    return {columns[name.lower()]: file for name, file in exclude.items()}
