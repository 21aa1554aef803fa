"""Generality put to the test: trained on one data set and scored on others, and tuned on few labels of another."""

from collections.abc import Sequence
from dataclasses import replace

from uniemox.errors import LabelError
from uniemox.evaluate.run import map_to_data
from uniemox.labels import LabelSet
from uniemox.reproduce.baseline import HISTOGRAM, fit_histogram, histogram_cell
from uniemox.reproduce.plan import Cell, Plan, Run, TableRow
from uniemox.reproduce.sources import Target
from uniemox.reproduce.study import Method, Study
from uniemox.reproduce.table3 import BUDGET, OURS, SCRATCH, method_of

FEW = 0.1  # of the labels
ON, OF_FEW = ": trained on {}", f": {FEW:.0%} of its own labels"


def cross(study: Study) -> Plan:
    """Every pair of data sets whose labels can be mapped, for our pre-training and for its start alone."""
    rows = []
    start = SCRATCH if study.is_demo else "dBOT"
    for name in (start, OURS):
        method = method_of(study, name)[0]
        for trained in study.targets:
            models = [study.finetune(method, trained, seed=seed) for seed in method.starts]
            cells = {target.name: _transferred(study, models, trained, target) for target in study.targets}
            rows.append(TableRow(name + ON.format(trained.name), cells, baseline=HISTOGRAM + ON.format(trained.name)))
        few = {target.name: study.cell(method, target, fraction=FEW) for target in study.targets}
        rows.append(TableRow(name + OF_FEW, few, baseline=HISTOGRAM + OF_FEW))
        if len(study.targets) > 1:
            first = study.targets[0]
            moved = {target.name: _retuned(study, method, first, target) for target in study.targets[1:]}
            rows.append(
                TableRow(f"{name}: {first.name}, then {FEW:.0%} of its own", moved, baseline=HISTOGRAM + OF_FEW)
            )
    for trained in study.targets:
        models = [fit_histogram(study, trained)]
        cells = {target.name: _transferred(study, models, trained, target) for target in study.targets}
        rows.append(TableRow(HISTOGRAM + ON.format(trained.name), cells))
    few = {target.name: histogram_cell(study, target, fraction=FEW) for target in study.targets}
    rows.append(TableRow(HISTOGRAM + OF_FEW, few))
    about = (
        *((f"Random weights: {BUDGET}.",) if study.is_demo else ()),
        "Each column is what is scored, on images that nothing was trained on. Where labels differ, the model's are "
        "mapped and images whose label it can't know are left out, so that columns of mapped labels hold other "
        "images than the diagonal. What an image evokes is never mapped to what a person in it feels.",
        "The paper claims generality and fine-tunes on each data set by itself; it has no figures for this.",
    )
    columns = tuple(target.name for target in study.targets)
    return Plan(
        name="cross",
        title="From one data set to others",
        scale=study.scale,
        about=about,
        columns=columns,
        rows=tuple(rows),
    )


def _transferred(study: Study, models: Sequence[Run], trained: Target, target: Target) -> Cell:
    """models: trained on the first data set, one a seed."""
    why = _obstacle(trained.data.labels, target.data.labels)
    if why is not None:
        return Cell(why=why)
    runs = tuple(study.evaluate(model, target) for model in models)
    return Cell(runs=runs, why=runs[0].missing or "")


def _retuned(study: Study, method: Method, first: Target, target: Target) -> Cell:
    starts = {seed: study.finetune(method, first, seed=seed) for seed in method.starts}
    has_fusion = study.streams(first) == "both"  # a classifier of the scene keeps none
    name = f"{method.name} of {first.name}"
    again = replace(method, name=name, starts=starts, needs=(), has_fusion=has_fusion, is_random=False)
    return study.cell(again, target, fraction=FEW)


def _obstacle(ours: LabelSet, theirs: LabelSet) -> str | None:
    """Why labels can't be mapped; None if they can."""
    try:
        map_to_data(ours, theirs)
    except LabelError as error:
        return str(error)
    return None
