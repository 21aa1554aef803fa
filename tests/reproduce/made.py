"""Evaluations written by hand, as `uniemox evaluate` leaves them, and plans over them."""

import json
from collections.abc import Sequence
from pathlib import Path

from uniemox.reproduce.plan import Cell, Plan, Run, TableRow, plan_evaluation, plan_run

LABELS = ("awe", "fear")


def model_run(root: Path, name: str, seed: int = 0) -> Run:
    """A fine-tuning run that nobody starts."""
    words = ["finetune", "--init", name, "--data", "synthetic:8", "--out", "{out}", "--seed", str(seed)]
    return plan_run(root, f"finetune {name}, seed {seed}", words, makes="model.onnx")


def scored(root: Path, name: str, right: Sequence[bool], *, seed: int = 0) -> Run:
    """A finished evaluation: the first half of the images is awe, the rest fear, and these answers were right."""
    run = plan_evaluation(model_run(root, name, seed), data="synthetic:8", split="all")
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
