"""Tables VIII and IX: what multimodal models answer to the paper's question, through `uniemox ask`."""

from dataclasses import dataclass, replace
from pathlib import Path

from uniemox.evaluate.report.scores import BELOW
from uniemox.io.html import Html, render
from uniemox.paper import paper_tables
from uniemox.reproduce.plan import OUT, Cell, Plan, Run, plan_run
from uniemox.reproduce.results import HISTOGRAM, histogram_cell, score_of
from uniemox.reproduce.study import Study
from uniemox.reproduce.table3 import OURS, method_of
from uniemox.training.run_folder import read_json

RESULT = "result.json"
SETS = {"table8": "UBE", "table9": "FI"}  # of the images that the paper shows


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
    return render(
        "reproduce/answers.html",
        entries=[*found["models"], *([found["ours"]] if found["ours"] else [])],
        folder=run.folder,
        score=score_of(histogram),
        histogram=HISTOGRAM,
        below=BELOW,
    )
