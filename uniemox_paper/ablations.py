"""Plans of tables IV to VII, figure 7 and transfer: our model with parts switched off or replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from uniemox.errors import LabelError
from uniemox.paper import paper_tables
from uniemox_paper.baseline import HISTOGRAM_NETWORK, histogram_cell, histogram_row, with_baseline
from uniemox_paper.plan import Cell, Plan, PlannedRun, TableRow, option_words
from uniemox_paper.sources import DataSource
from uniemox_paper.study import HISTOGRAM, MAIN, SCRATCH_EPOCHS, Method, Options, Study
from uniemox_paper.table3 import AUTHORS, BUDGET, DETECTORS, EXTRAS, OURS, columns_of, method_of, paper_only

NO_RECONSTRUCTION = {"model.losses.scene_reconstruction": 0, "model.losses.person_reconstruction": 0}
NO_ALIGNMENT = {"model.losses.contrastive_feature_alignment": 0}
NO_VISUAL = {"model.losses.semantic_visual_alignment": 0}
NO_FUSION = {"model.fusion": None}
# Share of hidden patches of both presets.
RATIO = 0.75
ONE_RUN = "Table V at 0.75 and table VI's Γ4 are one run."
SAME = "Pre-training differs only as the row says; fine-tuning and scoring are the same for all."


@dataclass(frozen=True, slots=True)
class Variant:
    """Row of a comparison of pre-trainings."""

    name: str
    key: str
    """Key of the row in the paper's table."""
    changes: Options = field(default_factory=dict)
    """Options of pre-training that differ from the study's."""
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
        # The usual ratio needs no option, so that this row and table VI's Γ4 are the same run.
        Variant(
            f"{ratio:.2f} hidden", f"{ratio:.2f}", start if ratio == RATIO else {**start, "model.mask.ratio": ratio}
        )
        for ratio in (0.25, 0.5, RATIO, 0.85)
    ]
    about = (f"{SAME} From random weights, with Γ4, as the paper's. {ONE_RUN}",)
    title = "Table V: share of hidden patches"
    return _plan(study, "table5", title, "mask_ratio", variants, about, "0.75 hidden")


def table6(study: Study) -> Plan:
    """Plan the comparison of the four fusions."""
    names = ("dynamic (Γ1)", "attention (Γ2)", "gated (Γ3)", "static (Γ4)")
    variants = [Variant(name, name, _from_scratch(study, name.split()[0])) for name in names]
    about = (f"{SAME} From random weights, as the paper's. κ = 3 sets of weights; Γ4 has none. {ONE_RUN}",)
    return _plan(study, "table6", "Table VI: fusions", "fusion", variants, about, "attention (Γ2)")


def table7(study: Study) -> Plan:
    """Plan the comparison of texts with and without the emotion."""
    variants = (
        Variant("emotion in the text", "with", with_emotion=True),
        Variant("no emotion in the text", "without", with_emotion=False),
    )
    texts = "With the emotion in its texts, pre-training reads the labels of its images, in words."
    if study.fit_teacher():
        texts += " Each row has its own teacher, fitted on texts of the same kind."
    about = (SAME, texts)
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
    """Plan a comparison of pre-trainings.

    Args:
        study: The study.
        name: Name of the plan, such as table4.
        title: Title of the page.
        key: Second part of the key of the paper's table, after the name.
        variants: One row each.
        about: Paragraphs above the table.
        reference: Row to which the others are compared.
    """
    table: Mapping[str, Mapping[str, float]] = paper_tables()[f"{name}_{key}"]
    columns = columns_of(study.targets)
    rows = []
    for variant in variants:
        paper = table[variant.key]
        # A variant without changes is the pre-training that most tables share.
        pretraining = variant.name if variant.changes or variant.with_emotion else MAIN
        variant_study = study
        if variant.with_emotion is not None:
            variant_study = replace(study, with_emotion=variant.with_emotion)
        starts = variant_study.pretrained(pretraining, variant.changes)
        method = Method(name=f"UniEmoX, {pretraining}", starts=starts, has_fusion=variant.changes != NO_FUSION)
        cells = {target.name: study.cell(method, target, paper=paper.get(target.name)) for target in study.targets}
        network = " ".join(
            pretraining for name, value in variant.changes.items() for pretraining in option_words(name, value)
        )
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


# Share of the labels of models that are trained on few of them.
FEW = 0.1
ON = ": trained on {}"
OF_FEW = f": {FEW:.0%} of its own labels"


def cross(study: Study) -> Plan:
    """Plan every pair of data sets with a label map, for our pre-training and for its initial weights alone."""
    rows = []
    for name in (study.plain_start, OURS):
        method = method_of(study, name)
        for training in study.targets:
            models = [study.finetune(method, training, seed=seed) for seed in method.starts]
            cells = {target.name: _transferred_cell(study, models, training, target) for target in study.targets}
            rows.append(TableRow(name + ON.format(training.name), cells, baseline=HISTOGRAM + ON.format(training.name)))
        few_cells = {target.name: study.cell(method, target, fraction=FEW) for target in study.targets}
        rows.append(TableRow(name + OF_FEW, few_cells, baseline=HISTOGRAM + OF_FEW))
        first, *others = study.targets
        if others:
            moved_cells = {target.name: _retuned_cell(study, method, first, target) for target in others}
            rows.append(
                TableRow(f"{name}: {first.name}, then {FEW:.0%} of its own", moved_cells, baseline=HISTOGRAM + OF_FEW)
            )
    for training in study.targets:
        models = [study.fit_histogram(training)]
        cells = {target.name: _transferred_cell(study, models, training, target) for target in study.targets}
        rows.append(TableRow(HISTOGRAM + ON.format(training.name), cells))
    few_cells = {target.name: histogram_cell(study, target, fraction=FEW) for target in study.targets}
    rows.append(TableRow(HISTOGRAM + OF_FEW, few_cells))
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


def _transferred_cell(study: Study, models: list[PlannedRun], training: DataSource, target: DataSource) -> Cell:
    """Return the cell of transferred models; without runs if the labels can't be mapped.

    Args:
        study: The study.
        models: Runs trained on the first data set, one per seed.
        training: Data set that trained the models.
        target: Data set to score.
    """
    try:
        return study.scored(models, training, target)
    except LabelError as error:
        return Cell(why=str(error))


def _retuned_cell(study: Study, method: Method, first: DataSource, target: DataSource) -> Cell:
    starts = {seed: study.finetune(method, first, seed=seed) for seed in method.starts}
    # A classifier of the scene alone has no fusion.
    has_fusion = study.streams(first) == "both"
    name = f"{method.name} of {first.name}"
    retuned = replace(method, name=name, starts=starts, needs=(), has_fusion=has_fusion, is_random=False)
    return study.cell(retuned, target, fraction=FEW)


FRACTIONS = {"demo": (0.1, 0.25, 0.5, 1.0), "paper": (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)}


def fig7(study: Study) -> Plan:
    """Plan our pre-training, its initial weights, and every method with a checkpoint, on growing parts of the data."""
    columns = {f"{fraction:.0%}": fraction for fraction in FRACTIONS[study.config.scale]}
    with_checkpoint = [AUTHORS if name == OURS else name for name in study.weights if name not in (*EXTRAS, *DETECTORS)]
    names = list(dict.fromkeys([study.plain_start, *with_checkpoint, OURS]))
    rows: list[TableRow] = []
    for target in study.targets:
        suffix = f", {target.name}" if len(study.targets) > 1 else ""
        target_rows = []
        for name in names:
            method = method_of(study, name)
            if method.is_random:
                # Each run trains on as many images as our pre-training, so only one seed is affordable.
                method = replace(method, starts={study.seeds[0]: method.starts[study.seeds[0]]})
            cells = {column: study.cell(method, target, fraction=fraction) for column, fraction in columns.items()}
            target_rows.append(TableRow(name + suffix, cells, network=method.network))
        histograms = {column: histogram_cell(study, target, fraction=fraction) for column, fraction in columns.items()}
        rows += with_baseline(target_rows, TableRow(HISTOGRAM + suffix, histograms, network=HISTOGRAM_NETWORK))
    parts = (
        "A smaller part of every class is contained in a larger one, and the same for all methods of a seed. All train "
        "for the same number of epochs, so less data also means fewer steps."
    )
    if study.is_demo:
        parts += f" Random weights: {BUDGET}; one seed."
    about = (parts, "The paper shows one run of each method as a curve without numbers.")
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
