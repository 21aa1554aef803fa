"""Every table and figure by name."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from uniemox.errors import ConfigError
from uniemox.evaluate import BELOW
from uniemox.io import Html, read_json_object, render
from uniemox.paper import paper_tables
from uniemox_paper.ablations import cross, fig7, table4, table5, table6, table7
from uniemox_paper.baseline import histogram_cell
from uniemox_paper.config import Name, ReproduceConfig
from uniemox_paper.datasets import table1, table2
from uniemox_paper.figures import fig4, fig6, fig8, fig9
from uniemox_paper.plan import OUT, Cell, Plan, PlannedRun
from uniemox_paper.results import score_of
from uniemox_paper.sources import PRETRAINING, parse_sources, targets_of
from uniemox_paper.study import HISTOGRAM, Study
from uniemox_paper.table3 import DETECTORS, EXTRAS, OURS, method_of, table3

RESULT = "result.json"
# Data set of the images that the paper shows.
PAPER_DATA: Mapping[str, str] = {"table8": "UBE", "table9": "FI"}


def multimodal(study: Study, name: Name) -> Plan:
    """Plan several models on images of one data set, with ours for comparison."""
    target = next((target for target in study.targets if target.name == PAPER_DATA[name]), study.targets[0])
    ours = study.finetune(method_of(study, OURS), target, seed=study.seeds[0])
    data = target.scored
    config = study.config
    options = {"data": data.source, "split": target.split, **data.files, "endpoint": config.endpoint or "URL"}
    options |= {"model": config.model or ("NAME",), "with": ours.folder, "out": OUT}
    is_ready = config.endpoint is not None and config.model
    options |= {} if config.key_from is None else {"key_from": config.key_from}
    # Done by its mark, because a result may lack failed questions, which the command sends again.
    run = data.run(config.out, f"ask about {target.name}", "ask", options=options, needs=(ours,))
    run = replace(run, lacks=run.lacks or (None if is_ready else "models to ask: --endpoint URL --model NAME"))
    cited = paper_tables()
    histogram = histogram_cell(study, target)

    def answers() -> Html:
        models = [(model, "cited: one image, no accuracy") for model in cited["mllm_models"]]
        return render("uniemox_paper/table8.html", cited=models, ours=_answers(run, histogram))

    return Plan(
        name=name,
        title=f"Table {'VIII' if name == 'table8' else 'IX'}: multimodal models",
        scale=config.scale,
        about=(
            f"The question: {cited['mllm_prompt']} The labels are those of the data set.",
            "The paper shows one image that its own model predicts correctly, and no accuracy. Here all models "
            "get the same random images, and an answer without a label counts as wrong.",
        ),
        more=(run, *histogram.runs),
        parts=(answers,),
    )


def _answers(run: PlannedRun, histogram: Cell) -> Html:
    if not (run.folder / RESULT).exists():
        return render("uniemox_paper/not_run.html", run=run)
    content = read_json_object(run.folder / RESULT)
    return render(
        "uniemox_paper/answers.html",
        entries=[*content["models"], *([content["ours"]] if content["ours"] else [])],
        folder=run.folder,
        score=score_of(histogram),
        histogram=HISTOGRAM,
        below=BELOW,
    )


STUDIES: Mapping[str, Callable[[Study], Plan]] = {
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "table7": table7,
    "table8": partial(multimodal, name="table8"),
    "table9": partial(multimodal, name="table9"),
    "fig4": fig4,
    "fig6": fig6,
    "fig7": fig7,
    "fig8": fig8,
    "fig9": fig9,
    "cross": cross,
}
ONE_SEED = ("table3", "table8", "table9", "fig4", "fig6", "fig8", "fig9")
# Default number of seeds for all other targets.
SEEDS = 3
CHECK = (
    "A check that the parts of this program work together, on synthetic scenes in which both place and person matter. "
    "It is not evidence for the paper's claims about photographs."
)
DEMO = "A demo: small networks and budgets, not the paper's. The results hold only for these."


def plan_of(name: Name, config: ReproduceConfig) -> Plan:
    """Plan a table or figure.

    Raises:
        ConfigError: If an option is invalid, or no run reads it.
        DataError: If a data set can't be opened.
    """
    sources = parse_sources(config.data)
    rows = [*(entry["method"] for entry in paper_tables()["table3"] if not entry.get("cited")), *EXTRAS, *DETECTORS]
    weights = _named(
        config.weights,
        "weights",
        rows,
        lambda name: f"--weights: no row with weights is called {name!r}; there are {', '.join(rows)}",
    )
    seeds = config.seeds or (1 if name in ONE_SEED else SEEDS)
    if not 1 <= config.pretrain_seeds <= seeds:
        raise ConfigError(
            f"--pretrain-seeds must be at least 1 and at most --seeds, which is {seeds}, got {config.pretrain_seeds}: "
            "each pre-training is fine-tuned with a seed of its own"
        )
    hint = f"there are {', '.join(sources)}" if sources else "give that data set with --data"
    exclude = _named(
        config.exclude, "exclude", sources, lambda name: f"--exclude names {name}, which is none of the data; {hint}"
    )
    if name in ("table1", "table2"):
        plan = (table1 if name == "table1" else table2)(sources, config.scale)
    else:
        plan = _plan_study(name, config, sources, weights, exclude, seeds)
    refuse_unread(plan, config, weights, exclude)
    return plan


def _plan_study(
    name: Name,
    config: ReproduceConfig,
    sources: dict[str, str],
    weights: dict[str, str],
    exclude: dict[str, str],
    seeds: int,
) -> Plan:
    """Plan a table or figure that needs runs.

    Args:
        name: Name of the table or figure.
        config: Settings of the reproduction.
        sources: Sources by data set.
        weights: Initial weights by row.
        exclude: Files of excluded images by data set.
        seeds: Number of fine-tuning seeds.
    """
    with_emotion = config.with_emotion
    if with_emotion is None:
        with_emotion = not config.is_demo
    targets = targets_of(config, sources, {data: Path(file) for data, file in exclude.items()})
    study = Study(
        config=config,
        targets=targets,
        pretraining=next(data for data in targets if config.is_demo or data.name == PRETRAINING),
        weights=weights,
        seeds=tuple(range(seeds)),
        with_emotion=with_emotion,
    )
    plan = STUDIES[name](study)
    notes = []
    # The rows of table VII differ in their texts, so one note can't describe them.
    if any("teacher.source" in run.options for run in plan.runs) and name != "table7":
        notes.append(study.about_texts)
    if any(run.kind == "pretrain" for run in plan.runs):
        notes.append(study.about_pretraining)
    plan = replace(plan, about=(*plan.about, *notes))
    if not config.is_demo:
        return plan
    if any(target.is_synthetic for target in targets):
        return replace(plan, title=f"A check on drawn scenes: {plan.title}", about=(CHECK, *plan.about))
    return replace(plan, about=(DEMO, *plan.about))


def refuse_unread(plan: Plan, config: ReproduceConfig, weights: Mapping[str, str], exclude: Mapping[str, str]) -> None:
    """Raise ConfigError for an option that no run of a plan reads, so that it is not taken for granted.

    Args:
        plan: The plan that was made with the options.
        config: All options.
        weights: Initial weights by row.
        exclude: Files of excluded images by data set.
    """
    words = {word for run in plan.runs for word in run.words}
    # One of several data sets has its files in its own name, as in fi:FI?exclude=check.json.
    words |= {part.partition("=")[2] for word in words for part in re.split("[?&,]", word) if "=" in part}
    for option, values in (("weights", weights), ("exclude", exclude)):
        for row, value in values.items():
            if value not in words:
                raise ConfigError(
                    f"--{option} {row}={value}: no run of {plan.name} at scale {plan.scale} reads it with the given "
                    "data and options; leave it out"
                )
    options = {name for run in plan.runs for name in run.options}
    kinds = {run.kind for run in plan.runs}
    read = {
        "detector": "data persons" in kinds,
        "objects": "data describe" in kinds,
        "pretrain_split": "pretrain" in kinds,
        "pretrain_seeds": "pretrain" in kinds,
        "teacher": bool({"teacher.source", "teacher"} & options),
        "with_emotion": bool({"teacher.with_emotion", "with_emotion"} & options) or "teacher fit" in kinds,
        "gpus": not config.is_demo and bool(kinds & {"pretrain", "finetune"}),
        "endpoint": "ask" in kinds,
        "model": "ask" in kinds,
        "key_from": "ask" in kinds,
    }
    defaults = {field.name: field.default for field in fields(ReproduceConfig)}
    for name, is_read in read.items():
        if not is_read and getattr(config, name) != defaults[name]:
            raise ConfigError(
                f"--{name.replace('_', '-')}: no run of {plan.name} at scale {plan.scale} reads it with the given data "
                "and options; leave it out"
            )


def _named(
    texts: tuple[str, ...], option: str, names: Collection[str], unknown: Callable[[str], str]
) -> dict[str, str]:
    """Parse NAME=VALUE pairs, with names in the spelling of `names`.

    Args:
        texts: Pairs as text.
        option: Name of the option, for messages.
        names: Known names.
        unknown: Function that makes the message for an unknown name.

    Raises:
        ConfigError: If a text has another form, a name is unknown, or a name is given twice.
    """
    spellings = {name.lower(): name for name in names}
    pairs: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise ConfigError(f"--{option} takes NAME=VALUE, got {text!r}")
        if name.lower() not in spellings:
            raise ConfigError(unknown(name))
        name = spellings[name.lower()]
        if name in pairs:
            raise ConfigError(f"--{option} names {name} twice, with {pairs[name]} and {value}; give one of them")
        pairs[name] = value
    return pairs
