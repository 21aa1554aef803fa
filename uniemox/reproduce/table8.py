"""Tables VIII and IX: answers of multimodal models to the paper's question, with `uniemox ask`."""

from collections.abc import Mapping
from dataclasses import replace

from uniemox.evaluate.report.scores import BELOW
from uniemox.io.html import Html, render
from uniemox.paper import paper_tables
from uniemox.reproduce.config import Name
from uniemox.reproduce.plan import OUT, Cell, Plan, Run
from uniemox.reproduce.results import histogram_cell, score_of
from uniemox.reproduce.study import HISTOGRAM, Study
from uniemox.reproduce.table3 import OURS, method_of
from uniemox.training.run_folder import read_json

RESULT = "result.json"
SETS: Mapping[str, str] = {"table8": "UBE", "table9": "FI"}  # data set of the paper's images


def multimodal(study: Study, name: Name) -> Plan:
    """Plan several models on images of one data set, with ours for comparison."""
    target = next((t for t in study.targets if t.name == SETS[name]), study.targets[0])
    ours = study.finetune(method_of(study, OURS), target, seed=study.seeds[0])
    data, config = target.scored, study.config
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
        return render("reproduce/table8.html", cited=models, ours=_found(run, histogram))

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


def _found(run: Run, histogram: Cell) -> Html:
    if not (run.folder / RESULT).exists():
        return render("reproduce/not_run.html", run=run)
    content = read_json(run.folder / RESULT)
    return render(
        "reproduce/answers.html",
        entries=[*content["models"], *([content["ours"]] if content["ours"] else [])],
        folder=run.folder,
        score=score_of(histogram),
        histogram=HISTOGRAM,
        below=BELOW,
    )
