"""Tables VIII and IX: what multimodal models answer to the paper's question, through `uniemox ask`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uniemox.evaluate.report.scores import BELOW
from uniemox.io.html import UNKNOWN, Html, interval, number, render
from uniemox.paper import paper_tables
from uniemox.reproduce.plan import OUT, Cell, Plan, Run, plan_run
from uniemox.reproduce.results import HISTOGRAM, Score, histogram_cell, score_of
from uniemox.reproduce.study import Study
from uniemox.reproduce.table3 import OURS, method_of
from uniemox.training.run_folder import read_json

RESULT = "result.json"
SETS = {"table8": "UBE", "table9": "FI"}  # of the images that the paper shows
HEADINGS = ("model", "accuracy", "95 % interval", "images", "no label named", "agrees with ours")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsToAsk:
    """Whom to ask."""

    endpoint: str | None = None
    """Of OpenAI's protocol."""
    models: tuple[str, ...] = ()
    key_from: str | None = None
    """Name of the environment variable that holds the key."""


def table8(study: Study, asking: ModelsToAsk, name: str = "table8") -> Plan:
    """Several models side by side on images of one data set, ours with them."""
    target = next((t for t in study.targets if t.name == SETS[name]), study.targets[0])
    ours = study.finetune(method_of(study, OURS)[0], target, seed=study.seeds[0])
    data = target.scored
    words: list[str | Path] = ["ask", "--data", data.source, "--split", target.split, *data.options]
    words += ["--endpoint", asking.endpoint or "URL"]
    for model in asking.models or ("NAME",):
        words += ["--model", model]
    words += ["--with", ours.folder, "--out", OUT]
    run = plan_run(  # done by its mark: a result may lack questions that failed, which the same command asks again
        study.root, f"ask about {target.name}", words, makes=None, needs=[ours, *data.needs], data=data.digests
    )
    if asking.key_from:  # where the key is does not change the answers
        run = replace(run, words=(*run.words, "--key-from", asking.key_from))
    is_ready = asking.endpoint is not None and bool(asking.models)
    run = replace(run, lacks=data.missing or (None if is_ready else "models to ask: --endpoint URL --model NAME"))
    cited = paper_tables()
    histogram = histogram_cell(study, target)

    def answers() -> Html:
        models = [(model, "cited: one image, no accuracy") for model in cited["mllm_models"]]
        return render("reproduce/table8.html", cited=models, ours=_found(run, histogram))

    return Plan(
        name=name,
        title=f"Table {'VIII' if name == 'table8' else 'IX'}: multimodal models",
        scale=study.scale,
        about=(
            f"The question: {cited['mllm_prompt']} The labels are those of the data set.",
            "The paper shows one image that its own model answers rightly, and no accuracy. Here every model is "
            "asked about the same drawn images, and an answer that names no label counts as wrong.",
        ),
        more=(run, *histogram.runs),
        parts=(answers,),
    )


def table9(study: Study, asking: ModelsToAsk) -> Plan:
    """The same on FI."""
    return table8(study, asking, "table9")


def _found(run: Run, histogram: Cell) -> Html:
    if not (run.folder / RESULT).exists():
        return render("reproduce/not_run.html", run=run)
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
    return render("reproduce/part.html", name="answers", headings=HEADINGS, rows=rows, after=notes)


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
        UNKNOWN if agrees is None else f"{agrees:.0f} %",
    )
