"""Plans of the program's, and evaluations written by hand, as `uniemox evaluate` leaves them, with plans over them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from uniemox.reproduce.config import Name, ReproduceConfig, Scale
from uniemox.reproduce.plan import Cell, Plan, Run, TableRow
from uniemox.reproduce.targets import plan_of

LABELS = ("awe", "fear")


def plan(name: Name, scale: Scale = "demo", **asked: Any) -> Plan:
    """A plan of the program's, which nobody starts."""
    return plan_of(name, ReproduceConfig(scale=scale, **{"out": Path("r"), **asked}))


planned = cache(plan)


def runs_of(plan: Plan, kind: str) -> list[Run]:
    """Those of a command."""
    return [run for run in plan.runs if run.kind == kind]


def make_run(root: Path, name: str, kind: str, *arguments: str, **known: Any) -> Run:
    """A run of any command."""
    return Run(name=name, kind=kind, arguments=arguments, root=root, **known)


def model_run(root: Path, name: str, seed: int = 0) -> Run:
    """A fine-tuning run that nobody starts."""
    options = {"init": name, "data": "synthetic:8", "out": "{out}", "seed": seed}
    return make_run(root, f"finetune {name}, seed {seed}", "finetune", options=options, makes="model.onnx")


def evaluation(model: Run, data: str = "synthetic:8", split: str = "all", digests: tuple[str, ...] = ()) -> Run:
    """An evaluation of a run."""
    options = {"model": model.folder, "data": data, "split": split, "name": "{key}"}
    known = {"model": model, "scores": (data, split), "needs": (model,), "digests": digests}
    return make_run(model.root, f"score {model.name}", "evaluate", options=options, **known)


def scored(root: Path, name: str, right: Sequence[bool], *, seed: int = 0) -> Run:
    """A finished evaluation: the first half of the images is awe, the rest fear, and these answers were right."""
    run = evaluation(model_run(root, name, seed))
    truth = [int(i >= len(right) / 2) for i in range(len(right))]
    answers = [label if is_right else 1 - label for label, is_right in zip(truth, right, strict=True)]
    confusion = [[sum((t, a) == (i, j) for t, a in zip(truth, answers, strict=True)) for j in (0, 1)] for i in (0, 1)]
    accuracy = sum(right) / len(right)
    values = {
        "data": "synthetic:8",
        "split": "all",
        "accuracy": accuracy,
        "accuracy_interval": [max(0.0, accuracy - 0.2), min(1.0, accuracy + 0.2)],
        "confusion": confusion,
        "labels": list(LABELS),
        "n": len(right),
    }
    folder = run.folder / "evaluations"
    folder.mkdir(parents=True)
    lines = [
        {
            "key": f"{i}.png",
            "group": f"{i}.png",
            "label": LABELS[t],
            "predicted": LABELS[a],
            "probabilities": {LABELS[a]: 0.9, LABELS[1 - a]: 0.1},
        }
        for i, (t, a) in enumerate(zip(truth, answers, strict=True))
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
    """A plan of one column, Scenes.  baseline: the row that all others are compared with."""
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
