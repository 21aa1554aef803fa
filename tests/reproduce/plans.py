"""Plans for tests, and evaluations written by hand in the format of `uniemox evaluate`."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.runs import uniemox_here
from uniemox_paper.config import Name, ReproduceConfig, Scale
from uniemox_paper.execute import RunOutcome
from uniemox_paper.plan import Cell, Plan, PlannedRun, TableRow
from uniemox_paper.targets import plan_of

LABELS = ("awe", "fear")


def plan(name: Name, scale: Scale = "demo", **options: Any) -> Plan:
    """Return a plan of `uniemox reproduce`, which is not executed."""
    return plan_of(name, ReproduceConfig(scale=scale, **{"out": Path("r"), **options}))


planned = cache(plan)


def runs_of(plan: Plan, kind: str) -> list[PlannedRun]:
    """Return the runs of a command."""
    return [run for run in plan.runs if run.kind == kind]


def execute_here(runs: Sequence[PlannedRun]) -> RunOutcome:
    """Do runs in this process, which is seconds faster for each than `execute`; a failure ends the test."""
    for run in runs:
        run.mark.parent.mkdir(parents=True, exist_ok=True)
        if run.makes is None and run.scores is None:
            run.folder.mkdir(parents=True)
        done = uniemox_here(*run.words)
        assert done.returncode == 0, done.stderr
        run.mark.touch()
    return RunOutcome(done=list(runs))


def make_run(root: Path, name: str, kind: str, *arguments: str, **fields: Any) -> PlannedRun:
    """Return a run of any command."""
    return PlannedRun(name=name, kind=kind, arguments=arguments, root=root, **fields)


def model_run(root: Path, name: str, seed: int = 0) -> PlannedRun:
    """Return a fine-tuning run, which is not executed."""
    options = {"init": name, "data": "synthetic:8", "out": "{out}", "seed": seed}
    return make_run(root, f"finetune {name}, seed {seed}", "finetune", options=options, makes="model.onnx")


def evaluation(
    model: PlannedRun, data: str = "synthetic:8", split: str = "all", digests: tuple[str, ...] = ()
) -> PlannedRun:
    """Return an evaluation of a run."""
    options = {"model": model.folder, "data": data, "split": split, "name": "{key}"}
    fields = {"model": model, "scores": (data, split), "needs": (model,), "digests": digests}
    return make_run(model.root, f"score {model.name}", "evaluate", options=options, **fields)


def scored(root: Path, name: str, hits: Sequence[bool], *, seed: int = 0) -> PlannedRun:
    """Write a finished evaluation: the first half of the images is awe, the rest fear.

    Args:
        root: Folder of all runs.
        name: Name of the model.
        hits: True for each image whose prediction is right.
        seed: Seed of the model.
    """
    run = evaluation(model_run(root, name, seed))
    truth = [int(i >= len(hits) / 2) for i in range(len(hits))]
    answers = [label if is_hit else 1 - label for label, is_hit in zip(truth, hits, strict=True)]
    confusion = [
        [sum((label, answer) == (i, j) for label, answer in zip(truth, answers, strict=True)) for j in (0, 1)]
        for i in (0, 1)
    ]
    accuracy = sum(hits) / len(hits)
    values = {
        "data": "synthetic:8",
        "split": "all",
        "accuracy": accuracy,
        "accuracy_interval": [max(0.0, accuracy - 0.2), min(1.0, accuracy + 0.2)],
        "confusion": confusion,
        "labels": list(LABELS),
        "n": len(hits),
    }
    folder = run.folder / "evaluations"
    folder.mkdir(parents=True)
    lines = [
        {
            "key": f"{i}.png",
            "group": f"{i}.png",
            "label": LABELS[label],
            "predicted": LABELS[answer],
            "probabilities": {LABELS[answer]: 0.9, LABELS[1 - answer]: 0.1},
        }
        for i, (label, answer) in enumerate(zip(truth, answers, strict=True))
    ]
    (folder / f"{run.key}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / f"{run.key}.json").write_text(json.dumps(values))
    return run


def table(
    rows: dict[str, Cell],
    *,
    reference: str | None = None,
    baseline: str | None = None,
    title: str = "A table",
    is_curve: bool = False,
) -> Plan:
    """Return a plan with one column, Scenes.

    Args:
        rows: Cells by row.
        reference: Row to which the others are compared, image by image.
        baseline: Row of the histogram, with which all others are compared.
        title: Title of the page.
        is_curve: Draw the column as a point of a curve.
    """
    column = "10%" if is_curve else "Scenes"
    return Plan(
        name="table4",
        title=title,
        scale="demo",
        about=("About it.",),
        columns=(column,),
        rows=tuple(
            TableRow(name, {column: cell}, baseline=baseline if name != baseline else None)
            for name, cell in rows.items()
        ),
        reference=reference,
        is_curve=is_curve,
    )
