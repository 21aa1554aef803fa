"""Plans of tables IV to VII, figure 7 and transfer: our model with parts switched off or replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from uniemox.errors import LabelError
from uniemox.paper import paper_tables
from uniemox.reproduce.plan import Cell, Plan, Run, TableRow, option_words
from uniemox.reproduce.results import HISTOGRAM_NETWORK, histogram_cell, histogram_row, with_baseline
from uniemox.reproduce.sources import DataSource
from uniemox.reproduce.study import HISTOGRAM, MAIN, SCRATCH_EPOCHS, Method, Options, Study
from uniemox.reproduce.table3 import (
    AUTHORS,
    BUDGET,
    DETECTORS,
    EXTRAS,
    OURS,
    SCRATCH,
    columns_of,
    method_of,
    paper_only,
)

NO_RECONSTRUCTION = {"model.losses.scene_reconstruction": 0, "model.losses.person_reconstruction": 0}
NO_ALIGNMENT = {"model.losses.contrastive_feature_alignment": 0}
NO_VISUAL = {"model.losses.semantic_visual_alignment": 0}
NO_FUSION = {"model.fusion": None}
SAME = "Pre-training differs only as the row says; fine-tuning and scoring are the same for all."


@dataclass(frozen=True, slots=True)
class Variant:
    """Row: its key in the paper's table, and its options of pre-training."""

    name: str
    key: str
    changes: Options = field(default_factory=dict)
    with_emotion: bool | None = None
    """End the texts with the emotion; None: as in the study."""


def table4(study: Study) -> Plan:
    """Plan the ablation of L1, L2, L3, and the fusion."""
    variants = (
        Variant("all of it", "full"),
        Variant("without L1 (reconstruction)", "without_L1", NO_RECONSTRUCTION),
        Variant("without L2 (CFA)", "without_L2", NO_ALIGNMENT),
        Variant("without L3 (SVA)", "without_L3", NO_VISUAL),
        Variant("without fusion", "without_fusion", NO_FUSION),
    )
    about = (
        SAME,
        "Without fusion Υ is the scene's feature alone; the person is still reconstructed. If classifiers read "
        "both streams, as in the demo, that row's fine-tuning begins with a new, random Γ.",
        "The paper's averages of its differences, +0.95 and +2.69, are not the means of its columns (0.81 and 2.55).",
    )
    return _plan(study, "table4", "Table IV: parts of the method", "ablation", variants, about, "all of it")


def table5(study: Study) -> Plan:
    """Plan the comparison of mask ratios."""
    start = _from_scratch(study, "static")
    variants = [
        Variant(f"{ratio:.2f} hidden", f"{ratio:.2f}", {**start, "model.mask.ratio": ratio})
        for ratio in (0.25, 0.5, 0.75, 0.85)
    ]
    about = (f"{SAME} From random weights, with Γ4, as the paper's.",)
    title = "Table V: share of hidden patches"
    return _plan(study, "table5", title, "mask_ratio", variants, about, "0.75 hidden")


def table6(study: Study) -> Plan:
    """Plan the comparison of the four fusions."""
    names = ("dynamic (Γ1)", "attention (Γ2)", "gated (Γ3)", "static (Γ4)")
    variants = [Variant(name, name, _from_scratch(study, name.split()[0])) for name in names]
    about = (f"{SAME} From random weights, as the paper's. κ = 3 sets of weights; Γ4 has none.",)
    return _plan(study, "table6", "Table VI: fusions", "fusion", variants, about, "attention (Γ2)")


def table7(study: Study) -> Plan:
    """Plan the comparison of texts with and without the emotion."""
    variants = (
        Variant("emotion in the text", "with", with_emotion=True),
        Variant("no emotion in the text", "without", with_emotion=False),
    )
    about = (
        SAME,
        "With the emotion in its texts, pre-training reads the labels of its images, in words."
        + (" Each row has its own teacher, fitted on texts of the same kind." if study.fit_teacher() else ""),
    )
    title = "Table VII: labels in the texts"
    return _plan(study, "table7", title, "labels_in_text", variants, about, variants[0].name)


def _from_scratch(study: Study, fusion: str) -> Options:
    """Return options for random weights. The demo already has them, and its own Γ needs no option."""
    if study.is_demo:
        if fusion == "gated":
            return {}
        return {"model.fusion": fusion}
    return {"encoder.start": None, "schedule.epochs": SCRATCH_EPOCHS, "model.fusion": fusion}


def _plan(
    study: Study, name: str, title: str, key: str, variants: Sequence[Variant], about: tuple[str, ...], reference: str
) -> Plan:
    """Plan a comparison of pre-trainings.  key: of the paper's table, after its name."""
    table: Mapping[str, Mapping[str, float]] = paper_tables()[f"{name}_{key}"]
    columns, rows = columns_of(study.targets), []
    for variant in variants:
        paper = table[variant.key]
        if variant.changes or variant.with_emotion:
            word = variant.name
        else:
            word = MAIN
        if variant.with_emotion is None:
            variant_study = study
        else:
            variant_study = replace(study, with_emotion=variant.with_emotion)
        starts = variant_study.pretrained(word, variant.changes)
        method = Method(name=f"UniEmoX, {word}", starts=starts, has_fusion=variant.changes != NO_FUSION)
        cells = {target.name: study.cell(method, target, paper=paper.get(target.name)) for target in study.targets}
        network = " ".join(word for name, value in variant.changes.items() for word in option_words(name, value))
        rows.append(TableRow(variant.name, paper_only(paper, columns, cells), network=network))
    return Plan(
        name=name,
        title=title,
        scale=study.config.scale,
        about=about,
        columns=columns,
        rows=with_baseline(rows, histogram_row(study)),
        reference=reference,
    )


FEW = 0.1  # share of the labels
ON = ": trained on {}"
OF_FEW = f": {FEW:.0%} of its own labels"


def cross(study: Study) -> Plan:
    """Plan every pair of data sets with a label map, for our pre-training and for its initial weights alone."""
    rows = []
    for name in (SCRATCH if study.is_demo else "dBOT", OURS):
        method = method_of(study, name)
        for trained in study.targets:
            models = [study.finetune(method, trained, seed=seed) for seed in method.starts]
            cells = {target.name: _transferred(study, models, trained, target) for target in study.targets}
            rows.append(TableRow(name + ON.format(trained.name), cells, baseline=HISTOGRAM + ON.format(trained.name)))
        few = {target.name: study.cell(method, target, fraction=FEW) for target in study.targets}
        rows.append(TableRow(name + OF_FEW, few, baseline=HISTOGRAM + OF_FEW))
        first, *others = study.targets
        if others:
            moved = {target.name: _retuned(study, method, first, target) for target in others}
            rows.append(
                TableRow(f"{name}: {first.name}, then {FEW:.0%} of its own", moved, baseline=HISTOGRAM + OF_FEW)
            )
    for trained in study.targets:
        models = [study.fit_histogram(trained)]
        cells = {target.name: _transferred(study, models, trained, target) for target in study.targets}
        rows.append(TableRow(HISTOGRAM + ON.format(trained.name), cells))
    few = {target.name: histogram_cell(study, target, fraction=FEW) for target in study.targets}
    rows.append(TableRow(HISTOGRAM + OF_FEW, few))
    about = (
        *((f"Random weights: {BUDGET}.",) if study.is_demo else ()),
        "Each column is a scored data set, with images that no model was trained on. If labels differ, the model's are "
        "mapped, and images whose label it can't predict are left out, so columns with mapped labels have other "
        "images than the diagonal. Evoked emotions are never mapped to felt ones.",
        "The paper claims generality but fine-tunes on each data set separately; it has no figures for this.",
    )
    return Plan(
        name="cross",
        title="From one data set to others",
        scale=study.config.scale,
        about=about,
        columns=tuple(target.name for target in study.targets),
        rows=tuple(rows),
    )


def _transferred(study: Study, models: list[Run], trained: DataSource, target: DataSource) -> Cell:
    """Return the cell of transferred models.  models: trained on the first data set, one per seed."""
    try:
        return study.scored(models, trained, target)
    except LabelError as error:
        return Cell(why=str(error))


def _retuned(study: Study, method: Method, first: DataSource, target: DataSource) -> Cell:
    starts = {seed: study.finetune(method, first, seed=seed) for seed in method.starts}
    has_fusion = study.streams(first) == "both"  # a classifier of the scene has none
    name = f"{method.name} of {first.name}"
    again = replace(method, name=name, starts=starts, needs=(), has_fusion=has_fusion, is_random=False)
    return study.cell(again, target, fraction=FEW)


FRACTIONS = {"demo": (0.1, 0.25, 0.5, 1.0), "paper": (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)}


def fig7(study: Study) -> Plan:
    """Plan our pre-training, its initial weights, and every method with a checkpoint, on growing parts of the data."""
    columns = {f"{part:.0%}": part for part in FRACTIONS[study.config.scale]}
    given = [AUTHORS if name == OURS else name for name in study.weights if name not in (*EXTRAS, *DETECTORS)]
    names = list(dict.fromkeys([SCRATCH if study.is_demo else "dBOT", *given, OURS]))
    rows: list[TableRow] = []
    for target in study.targets:
        if len(study.targets) > 1:
            suffix = f", {target.name}"
        else:
            suffix = ""
        own = []
        for name in names:
            method = method_of(study, name)
            if method.is_random:  # each run trains on as many images as our pre-training: one seed is affordable
                method = replace(method, starts={study.seeds[0]: method.starts[study.seeds[0]]})
            cells = {column: study.cell(method, target, fraction=part) for column, part in columns.items()}
            own.append(TableRow(name + suffix, cells, network=method.network))
        histograms = {column: histogram_cell(study, target, fraction=part) for column, part in columns.items()}
        rows += with_baseline(own, TableRow(HISTOGRAM + suffix, histograms, network=HISTOGRAM_NETWORK))
    about = (
        "A smaller part of every class is contained in a larger one, and the same for all methods of a seed. All train "
        "for the same number of epochs, so less data also means fewer steps."
        + (f" Random weights: {BUDGET}; one seed." if study.is_demo else ""),
        "The paper shows one run of each method as a curve without numbers.",
    )
    return Plan(
        name="fig7",
        title="Figure 7: parts of the training data",
        scale=study.config.scale,
        about=about,
        columns=tuple(columns),
        rows=tuple(rows),
        reference=rows[0].name if len(study.targets) == 1 else None,
        is_curve=True,
    )
