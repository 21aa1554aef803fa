"""Plan of table III: every method on the same data, and zero-shot CLIP."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from uniemox.model import PERSON_GROUPS, REGIONS_BY_DETECTOR, method_class
from uniemox.paper import paper_tables
from uniemox_paper.baseline import histogram_row, with_baseline
from uniemox_paper.plan import OUT, Cell, Plan, PlannedRun, TableRow
from uniemox_paper.protocol import NONE, POOLS, Protocol
from uniemox_paper.sources import COLUMNS, DataSource, union_of
from uniemox_paper.study import CLIP, DBOT, OURS, SCRATCH, TRAINED, Method, Study

START = "UniEmoX's start alone"
# Row of the weights that are given as --weights UniEmoX=FILE.
AUTHORS = "UniEmoX (authors' weights)"
# Reference of the methods with detectors, which train with crops and flips only.
CROPS_ONLY = "dBOT, crops and flips only"
BUDGET = (
    "methods without a checkpoint start from random weights; further epochs of fine-tuning make up for the images of "
    "our pre-training"
)
DATA: Mapping[str, Any] = json.loads(files("uniemox_paper").joinpath("table3.json").read_text("utf-8"))
STARTS: Mapping[str, Mapping[str, Any]] = DATA["starts"]
EXTRAS: Mapping[str, Mapping[str, Any]] = DATA["extras"]
"""Rows that the paper does not have."""
ABOUT: Mapping[str, Sequence[str]] = DATA["page"]
"""Text above the table, by scale."""
RELATING: Mapping[str, str] = {name: row["relating"] for name, row in STARTS.items() if "relating" in row}
OWN_POOLING = "the network's own"
VIT_B_GMAC = 17.56
VIT_B_PARAMETERS_M = 85.8
# Detectors with the option that takes their file.
DETECTORS = {"YOLOX-nano": "objects", "YuNet": "faces"}
# Number of CCIM's confounders by scale; its paper uses 128 for CAER-S.
CONFOUNDERS = {"demo": 16, "paper": 128}
ZERO_SHOT = "CLIP ViT-B/16, zero-shot"
# Row of the method that learns from the words of annotations.
LEARNS_WORDS = "EAP"
ONE_LABEL = "it gives one label per image"
NO_WORDS = "annotations that name objects, scenes or actions: uniemox data describe writes them; else EAP has no words"


NO_AUGMENTATION: Mapping[str, Any] = {
    "augment.randaugment": None,
    "augment.mixup": 0,
    "augment.cutmix": 0,
    "augment.erasing": 0,
}
"""Options that leave crops, flips and label smoothing, as `FinetuneConfig.resolved` does for methods with detectors."""


def table3(study: Study) -> Plan:
    """Plan table III."""
    rows = []
    for entry in paper_tables()["table3"]:
        rows.append(_row(study, entry))
        if entry["method"] == OURS and (OURS in study.weights or not study.is_demo):
            rows.append(_row(study, entry, name=AUTHORS))
    rows += [_start_alone(study), _zero_shot(study), *(_extra(study, name) for name in EXTRAS)]
    # A demo trains all its methods with crops and flips alone.
    if not study.is_demo:
        rows.append(_crops_only(study))
    reference = START
    if study.is_demo:
        rows, names = join_equal_rows(rows)
        reference = names.get(START, START)
    return Plan(
        name="table3",
        title="Table III: comparison of methods",
        scale=study.config.scale,
        about=tuple(text.format(budget=BUDGET) for text in ABOUT[study.config.scale]),
        columns=(*columns_of(study.targets), *(target.column for target in person_columns(study))),
        rows=with_baseline(rows, _histogram(study)),
        reference=reference,
    )


def person_columns(study: Study) -> list[DataSource]:
    """Return the data of further columns: where the label is what one person feels, scene and person together."""
    if study.is_demo:
        return []
    return [target.with_person_stream() for target in study.targets if target.labels.kind == "felt"]


def _histogram(study: Study) -> TableRow:
    """Return the colour histogram's row; it reads the scene in the further columns too."""
    row = histogram_row(study)
    further = {target.column: row.cells[target.name] for target in person_columns(study)}
    return replace(row, cells={**row.cells, **further})


def join_equal_rows(rows: Sequence[TableRow]) -> tuple[list[TableRow], dict[str, str]]:
    """Join rows with the same runs into one with all their names; also return the representative row by method.

    The methods of a joined row stay as rows without runs, for the paper's figures.
    """
    rows_by_runs: dict[tuple[str, ...], list[TableRow]] = {}
    for row in rows:
        rows_by_runs.setdefault(tuple(run.key for cell in row.cells.values() for run in cell.runs), []).append(row)
    joined_rows = list[TableRow]()
    cited = list[TableRow]()
    names = dict[str, str]()
    for keys, group in rows_by_runs.items():
        if not keys or len(group) == 1:
            joined_rows += group
            continue
        first = group[0]
        reason = f"the same run as {group[0].network}"
        names |= dict.fromkeys((row.name for row in group), first.network)
        methods = ", ".join(row.name for row in group)
        joined_rows.append(TableRow(first.network, _without_paper(first), network=f"stands for {methods}"))
        for row in group:
            empty = {
                column: Cell(cell.paper, why=reason, paper_from=cell.paper_from) for column, cell in row.cells.items()
            }
            if row.name != START:
                cited.append(replace(row, cells=empty, network=reason, is_cited=True))
    return joined_rows + cited, names


def _without_paper(row: TableRow) -> dict[str, Cell]:
    return {column: replace(cell, paper=None) for column, cell in row.cells.items()}


def columns_of(targets: tuple[DataSource, ...]) -> tuple[str, ...]:
    """Return our columns first, then the paper's other columns."""
    return tuple(dict.fromkeys([*(target.name for target in targets), *COLUMNS.values()]))


def paper_only(entry: Mapping[str, Any], columns: tuple[str, ...], cells: Mapping[str, Cell]) -> dict[str, Cell]:
    """Return the cells, and the paper's figures for all columns without a run of ours."""
    return {name: cells.get(name) or Cell(paper=entry.get(name)) for name in columns}


def _row(study: Study, entry: Mapping[str, Any], *, name: str | None = None) -> TableRow:
    """Return one of the paper's rows.

    Args:
        study: The study.
        entry: Row of the paper's table.
        name: Name of another row with the same figures of the paper; None: the paper's name.
    """
    name = name or entry["method"]
    method = relating_of(study, name) if name in RELATING else method_of(study, name)
    network = method.network
    if name == SCRATCH and not study.is_demo:
        network += ", trained on all data sets of the column's kind at once, with the labels of all of them"
    cells = {}
    for target in study.targets:
        paper = entry.get(target.name)
        if reason := _obstacle(name, target):
            cells[target.name] = Cell(paper, why=reason)
        else:
            data = target.with_people() if _reads_felt_person(method, target) else target
            cells[target.name] = _cell(study, method, data, paper)
    cells = paper_only(entry, columns_of(study.targets), cells)
    if "taken_from" in entry:
        cells = {column: replace(cell, paper_from=entry["taken_from"]) for column, cell in cells.items()}
    cells |= _person_cells(study, method)
    return TableRow(name, cells, network=network, paper_costs=(entry.get("params_m"), entry.get("flops_g")))


def _obstacle(name: str, target: DataSource) -> str:
    """Return the reason why a row has no score on a data set; empty if it can have one."""
    if target.task == "multilabel":
        has_one_label = name in RELATING and not method_class(RELATING[name]).takes_categories
        if has_one_label or name == ZERO_SHOT:
            return ONE_LABEL
    if name == LEARNS_WORDS and not target.has_words:
        return NO_WORDS
    return ""


def _reads_felt_person(method: Method, target: DataSource) -> bool:
    """Return True if a region method reads the person whose emotion is the label."""
    return target.labels.kind == "felt" and method.view_count is not None and method.view_count > 1


def _person_cells(study: Study, method: Method) -> dict[str, Cell]:
    """Return the cells with scene and person: the same pooling and the same kind of new Γ for every network."""
    targets = person_columns(study)
    if method.view_count is not None:
        reason = "it has views of its own: see the column of the same data"
        return {target.column: Cell(why=reason) for target in targets}
    return {target.column: _cell(study, method, target, None) for target in targets}


def _cell(study: Study, method: Method, target: DataSource, paper: float | None) -> Cell:
    if method.name == SCRATCH and not study.is_demo:
        return _of_union(study, method, target, paper)
    return study.cell(method, target, paper=paper)


def _of_union(study: Study, method: Method, target: DataSource, paper: float | None) -> Cell:
    """Score a method that is trained jointly on all data sets with labels of the target's kind.

    The paper trains its ViT from scratch on "training data from multiple datasets" and evaluates it "on the
    corresponding test sets" (section V-C); it names none. The head has the labels of all of them; a test set is scored
    in its own full label set.
    """
    columns = person_columns(study) if target.streams == "both" else study.targets
    same_kind = [data for data in columns if (data.labels.kind, data.task) == (target.labels.kind, target.task)]
    available = [data for data in same_kind if data.missing is None] or same_kind
    union = replace(union_of(available), streams=target.streams)
    models = [study.finetune(method, union, seed=seed) for seed in method.starts]
    return study.scored(models, union, target, paper=paper, pooling=method.pooling)


def _work_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size, and the cost per image in a training step, of an entry of the data."""
    gflop = 2 * TRAINED * row.get("gmac", VIT_B_GMAC)
    return {"gflop": gflop, "parameters_m": row.get("parameters_m", VIT_B_PARAMETERS_M)}


def method_of(study: Study, name: str) -> Method:
    """Return a method with its initial weights."""
    # The authors' weights are given under the name of our row.
    row_name = name.replace(AUTHORS, OURS)
    row = STARTS.get(row_name, {})
    if name == OURS:
        network = "ViT-L/16"
        if study.is_demo:
            network = "the demo's ViT, pre-trained here"
        return Method(name=name, starts=study.pretrained(), network=network, has_fusion=True, **_work_of(row))
    weights = study.weights.get(row_name)
    needs = tuple[PlannedRun, ...]()
    lacks = None
    if weights is not None:
        init = network = weights
    elif study.is_demo and "small" in row:
        init = f"scratch:timm:{row['small'][0]}"
        network = f"{row['small'][1]}, random weights"
    elif study.is_demo:
        # The pre-training only defines the network; its weights are drawn again.
        start = study.pretrain()
        init = f"scratch:{start.folder}"
        needs = (start,)
        network = "the demo's ViT, random weights"
    elif name == SCRATCH:
        init = "scratch:timm:vit_large_patch16_224?global_pool=avg"
        network = "ViT-L/16"
    elif name == AUTHORS:
        init = "UniEmoX.pth"
        network = "ViT-L/16, pre-trained by the authors"
        lacks = f"the authors' weights: --weights {OURS}=FILE"
    else:
        init = network = row.get("published", f"{name}.pth")
        if "published" not in row:
            lacks = f"its checkpoint: --weights {name}={row.get('file', 'FILE')}"
    return Method(
        name=name,
        starts=dict.fromkeys(study.seeds, init),
        network=network,
        needs=needs,
        changes={"network.drop_path": 0} if "drop_path" in row and not study.is_demo else {},
        is_random=weights is None and (study.is_demo or name == SCRATCH),
        lacks=lacks,
        pooling=_pooling_of(row, init),
        **_work_of(row),
    )


def _pooling_of(row: Mapping[str, Any], init: str) -> str | None:
    """Return the pooling of a network that ignores the setting; None for a plain ViT."""
    if init.removeprefix("scratch:").startswith("timm:"):
        if "global_pool=avg" in init:
            return POOLS["mean"]
        return OWN_POOLING
    return row.get("pooling")


def relating_of(study: Study, name: str) -> Method:
    """Return a region method with its initial weights and options.

    In a demo it starts from our pre-training, because it learns nothing from random weights; else it shares our start.
    """
    groups = set(method_class(RELATING[name]).groups)
    start_name = DBOT
    if study.is_demo:
        start_name = OURS
    start = method_of(study, start_name)
    changes = dict[str, Any](method=RELATING[name])
    lacks = start.lacks
    for detector, option in DETECTORS.items():
        if not groups & REGIONS_BY_DETECTOR[option]:
            continue
        if detector in study.weights:
            changes[f"network.{option}"] = study.weights[detector]
        elif not study.is_demo:
            lacks = lacks or f"a detector: --weights {detector}=FILE.onnx"
    if name.endswith("CCIM"):
        changes["network.confounders"] = CONFOUNDERS[study.config.scale]
    if study.is_demo:
        # The demo's own fusion has the same width.
        changes["network.fused_width"] = 64
    reads_person = bool(set(PERSON_GROUPS) & set(groups))
    reads_face = "face" in groups
    views = 1 + reads_person + reads_face
    return replace(start, name=name, changes=changes, view_count=views, lacks=lacks)


def _start_alone(study: Study) -> TableRow:
    """Return the row of our pre-training's initial weights, fine-tuned like the others, to measure our gain."""
    name = study.plain_start
    row = _row(study, next(entry for entry in paper_tables()["table3"] if entry["method"] == name))
    return TableRow(START, _without_paper(row), network=f"the same runs as {name}")


def _crops_only(study: Study) -> TableRow:
    """Return dBOT's row without the augmentation that methods with detectors have to do without."""
    start = method_of(study, "dBOT")
    method = replace(start, name=CROPS_ONLY, changes={**start.changes, **NO_AUGMENTATION})
    cells = {target.name: study.cell(method, target) for target in study.targets}
    cells = paper_only({}, columns_of(study.targets), cells) | _person_cells(study, method)
    return TableRow(CROPS_ONLY, cells, network="the reference of methods with a detector")


def _extra(study: Study, name: str) -> TableRow:
    row = EXTRAS[name]
    weights = study.weights.get(name)
    lacks = None
    if study.is_demo and weights is None:
        lacks = f'its weights: --weights "{name}=timm:NAME@FILE"'
    network = weights or row["init"]
    starts = dict.fromkeys(study.seeds, network)
    changes = row.get("changes", {})
    pooling = _pooling_of(row, network)
    method = Method(name=name, starts=starts, changes=changes, lacks=lacks, pooling=pooling, **_work_of(row))
    cells = {target.name: study.cell(method, target) for target in study.targets}
    if changes.get("method") == "probe":
        reason = "a linear probe has no fusion to train"
        further = {target.column: Cell(why=reason) for target in person_columns(study)}
    else:
        further = _person_cells(study, method)
    return TableRow(name, paper_only({}, columns_of(study.targets), cells) | further, network=network)


def _zero_shot(study: Study) -> TableRow:
    """Return the row of the teacher's zero-shot predictions, which are the same for all seeds."""
    teacher = study.fit_teacher()
    cells = dict[str, Cell]()
    network = source = study.config.teacher or CLIP
    if teacher is not None:
        source = f"fitted:{teacher.folder}"
        network = "the teacher that the demo fitted, in CLIP's place"
    for target in study.targets:
        if reason := _obstacle(ZERO_SHOT, target):
            cells[target.name] = Cell(why=reason)
            continue
        data = target.scored
        options = {"teacher": source, "data": data.source, "split": target.split, **data.files, "out": OUT}
        name = f"zero-shot on {target.name}"
        needs = () if teacher is None else (teacher,)
        run = data.run(study.config.out, name, "reproduce zero-shot", options=options, needs=needs)
        run = replace(run, images=target.scored_images, scores=(data.source, target.split))
        protocol = Protocol(
            trained_on=NONE,
            labels=target.labels,
            views="the scene" if teacher is None else "the scene and the person",
            pooling=OWN_POOLING,
            head="nearest sentence of a label",
            augmentation=NONE,
            epoch=NONE,
            scored_on=data.name,
            split=target.split,
            scored_labels=target.labels,
        )
        cells[target.name] = Cell(None, (run,), run.missing or "", protocol)
    if teacher is not None and not study.with_emotion:
        network = ""
        reason = "the demo's teacher has read no words for emotions: --with-emotion"
        cells = dict.fromkeys(cells, Cell(why=reason))
    cells = paper_only({}, columns_of(study.targets), cells)
    cells |= {target.column: Cell(why="CLIP reads the scene alone") for target in person_columns(study)}
    return TableRow(ZERO_SHOT, cells, network=network)
