"""Tables VIII and IX: what multimodal models answer to the paper's question, through `uniemox ask`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from uniemox.evaluate.report.scores import BELOW
from uniemox.io.html import UNKNOWN, Html, element, interval, join, number, table
from uniemox.paper import paper_tables
from uniemox.reproduce.config import Name
from uniemox.reproduce.plan import OUT, Cell, Plan, Run
from uniemox.reproduce.results import Score, histogram_cell, score_of
from uniemox.reproduce.study import HISTOGRAM, Study
from uniemox.reproduce.table3 import OURS, method_of
from uniemox.training.run_folder import read_json

RESULT = "result.json"
SETS: Mapping[str, str] = {"table8": "UBE", "table9": "FI"}  # of the images that the paper shows
HEADINGS = ("model", "accuracy", "95 % interval", "images", "no label named", "agrees with ours")


def multimodal(study: Study, name: Name) -> Plan:
    """Several models side by side on images of one data set, ours with them."""
    target = next((t for t in study.targets if t.name == SETS[name]), study.targets[0])
    ours = study.finetune(method_of(study, OURS), target, seed=study.seeds[0])
    data, config = target.scored, study.config
    options = {"data": data.source, "split": target.split, **data.files, "endpoint": config.endpoint or "URL"}
    options |= {"model": config.model or ("NAME",), "with": ours.folder, "out": OUT}
    is_ready = config.endpoint is not None and config.model
    options |= {} if config.key_from is None else {"key_from": config.key_from}
    # Done by its mark: a result may lack questions that failed, which the same command asks again.
    run = data.run(config.out, f"ask about {target.name}", "ask", options=options, needs=(ours,))
    run = replace(run, lacks=run.lacks or (None if is_ready else "models to ask: --endpoint URL --model NAME"))
    cited = paper_tables()
    histogram = histogram_cell(study, target)

    def answers() -> Html:
        models = [(model, "cited: one image, no accuracy") for model in cited["mllm_models"]]
        parts = [table("models of the paper", ("model", "what the paper has"), models)]
        return join([*parts, element("h2", "Ours"), _found(run, histogram)])

    return Plan(
        name=name,
        title=f"Table {'VIII' if name == 'table8' else 'IX'}: multimodal models",
        scale=config.scale,
        about=(
            f"The question: {cited['mllm_prompt']} The labels are those of the data set.",
            "The paper shows one image that its own model answers rightly, and no accuracy. Here every model is "
            "asked about the same drawn images, and an answer that names no label counts as wrong.",
        ),
        more=(run, *histogram.runs),
        parts=(answers,),
    )


def _found(run: Run, histogram: Cell) -> Html:
    if not (run.folder / RESULT).exists():
        why = f"it needs {run.missing}" if run.missing else f"see {run.log}"
        return element("p", element("b", "not run"), f": {why}.", class_="missing")
    found = read_json(run.folder / RESULT)
    entries = [*found["models"], *([found["ours"]] if found["ours"] else [])]
    rows, notes = [_row(entry) for entry in entries], [f"All answers and explanations: {run.folder}/page.html"]
    score = score_of(histogram)
    if score is not None:
        rows = [(_sign(entry, score) + row[0], *row[1:]) for entry, row in zip(entries, rows, strict=True)]
        rows.append(_histogram_row(score))
        notes.append(
            f"Chance on the whole split: {score.chance:.3f} for the commonest class, {score.uniform:.3f} for one class "
            f"of all. {BELOW}: does not beat the {HISTOGRAM}: its own 95 % interval holds the histogram's accuracy or "
            "lies below it. Not paired: the histogram was scored on the whole split, the models on a part of it."
        )
    return join([table("answers", HEADINGS, rows), *(element("p", line, class_="note") for line in notes)])


def _sign(entry: dict[str, Any], histogram: Score) -> str:
    bounds = entry["accuracy_interval"]
    return "" if bounds and bounds[0] is not None and bounds[0] > histogram.accuracy else f"{BELOW} "


def _histogram_row(score: Score) -> tuple[str, ...]:
    """The histogram's row."""
    bounds = interval((score.low, score.high))
    return (f"{HISTOGRAM}, whole split", number(score.accuracy), bounds, str(score.pictures), "0", UNKNOWN)


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    named = entry["outcomes"].get("label", 0) if entry["outcomes"] else 0
    agreement = entry.get("agreement") or {}
    agrees = agreement.get("percent")
    return (
        entry["model"],
        number(entry["accuracy"]),
        interval(entry["accuracy_interval"]),
        str(entry["n"]),
        str(entry["n"] - named),
        "–" if agrees is None else f"{agrees:.0f} %",
    )
