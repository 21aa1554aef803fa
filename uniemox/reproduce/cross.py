"""Generality put to the test: trained on one data set and scored on others, and tuned on few labels of another."""

from dataclasses import replace

from uniemox.errors import LabelError
from uniemox.evaluate.run import map_to_data
from uniemox.labels import LabelSet
from uniemox.reproduce.plan import Cell, Plan, Row
from uniemox.reproduce.sources import Target
from uniemox.reproduce.study import Method, Study
from uniemox.reproduce.table3 import OURS, SCRATCH, method_of

FEW = 0.1  # of the labels


def cross(study: Study) -> Plan:
    """Every pair of data sets whose labels can be mapped, for our pre-training and for its start alone."""
    rows = []
    start = SCRATCH if study.is_demo else "dBOT"
    for name in (start, OURS):
        method = method_of(study, name)[0]
        for trained in study.targets:
            cells = {target.name: _transferred(study, method, trained, target) for target in study.targets}
            rows.append(Row(f"{name}: trained on {trained.name}", cells))
        few = {target.name: study.cell(method, target, fraction=FEW) for target in study.targets}
        rows.append(Row(f"{name}: {FEW:.0%} of its own labels", few))
        if len(study.targets) > 1:
            first = study.targets[0]
            moved = {target.name: _retuned(study, method, first, target) for target in study.targets[1:]}
            rows.append(Row(f"{name}: {first.name}, then {FEW:.0%} of its own", moved))
    about = (
        "Each column is what is scored, on pictures that nothing was trained on. Where labels differ, the model's are "
        "mapped and pictures whose label it can't know are left out, so that columns of mapped labels hold other "
        "pictures than the diagonal. What a picture evokes is never mapped to what a person in it feels.",
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


def _transferred(study: Study, method: Method, trained: Target, target: Target) -> Cell:
    why = _obstacle(trained.data.labels, target.data.labels)
    if why is not None:
        return Cell(why=why)
    runs = tuple(study.evaluate(study.finetune(method, trained, seed=seed), target) for seed in method.starts)
    return Cell(runs=runs, why=runs[0].missing or "")


def _retuned(study: Study, method: Method, first: Target, target: Target) -> Cell:
    starts = {seed: study.finetune(method, first, seed=seed) for seed in method.starts}
    again = replace(method, name=f"{method.name} of {first.name}", starts=starts, needs=(), has_fusion=True)
    return study.cell(again, target, fraction=FEW)


def _obstacle(ours: LabelSet, theirs: LabelSet) -> str | None:
    """Why labels can't be mapped; None if they can."""
    try:
        map_to_data(ours, theirs)
    except LabelError as error:
        return str(error)
    return None
