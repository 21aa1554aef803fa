"""Tables IV to VII: one model, its parts switched off or replaced, everything else alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from uniemox.paper import paper_tables
from uniemox.reproduce.baseline import histogram_row, with_baseline
from uniemox.reproduce.plan import Plan, TableRow
from uniemox.reproduce.study import SCRATCH_EPOCHS, Method, Study
from uniemox.reproduce.table3 import columns_of, paper_only

NO_RECONSTRUCTION = ("--model.losses.scene-reconstruction", "0", "--model.losses.person-reconstruction", "0")
NO_ALIGNMENT = ("--model.losses.contrastive-feature-alignment", "0")
NO_VISUAL = ("--model.losses.semantic-visual-alignment", "0")
SAME = "Pre-training differs in what the row says and in nothing else; fine-tuning and scoring are the same for all."


@dataclass(frozen=True, slots=True)
class Variant:
    """A row: its key in the paper's table, and the options that make it."""

    name: str
    key: str
    changes: tuple[str, ...] = ()
    has_fusion: bool = True
    with_emotion: bool | None = None
    """In the texts; None: as the study has it."""


def table4(study: Study) -> Plan:
    """Without L1, L2, L3, or the fusion."""
    variants = (
        Variant("all of it", "full"),
        Variant("without L1 (reconstruction)", "without_L1", NO_RECONSTRUCTION),
        Variant("without L2 (CFA)", "without_L2", NO_ALIGNMENT),
        Variant("without L3 (SVA)", "without_L3", NO_VISUAL),
        Variant("without fusion", "without_fusion", ("--model.fusion", "none"), has_fusion=False),
    )
    about = (
        SAME,
        "Without fusion Υ is the scene's feature alone; the person is still reconstructed. Where classifiers look at "
        "both streams, as in the demo, that row's Γ starts anew in fine-tuning.",
        "The paper's averages of its differences, +0.95 and +2.69, are not the means of its columns (0.81 and 2.55).",
    )
    return _plan(study, "table4", "Table IV: parts of the method", "table4_ablation", variants, about, "all of it")


def table5(study: Study) -> Plan:
    """Mask ratios."""
    ratios = ("0.25", "0.50", "0.75", "0.85")
    variants = tuple(
        Variant(f"{ratio} hidden", ratio, (*_from_scratch(study, "static"), "--model.mask.ratio", ratio))
        for ratio in ratios
    )
    about = (f"{SAME} From random weights, with Γ4, as the paper's.",)
    return _plan(
        study, "table5", "Table V: share of hidden patches", "table5_mask_ratio", variants, about, "0.75 hidden"
    )


def table6(study: Study) -> Plan:
    """The four fusions."""
    names = {
        "dynamic": "dynamic (Γ1)",
        "attention": "attention (Γ2)",
        "gated": "gated (Γ3)",
        "static": "static (Γ4)",
    }
    variants = tuple(Variant(key, key, _from_scratch(study, fusion)) for fusion, key in names.items())
    about = (f"{SAME} From random weights, as the paper's. κ = 3 sets of weights; Γ4 has none.",)
    return _plan(study, "table6", "Table VI: fusions", "table6_fusion", variants, about, "attention (Γ2)")


def table7(study: Study) -> Plan:
    """Whether the texts name the emotion."""
    variants = (
        Variant("emotion in the text", "with", with_emotion=True),
        Variant("no emotion in the text", "without", with_emotion=False),
    )
    about = (
        SAME,
        "With the emotion in its texts pre-training sees the labels of its images, in words."
        + (" Each row has a teacher that was fitted on texts of its kind." if study.fit_teacher() else ""),
    )
    return _plan(
        study, "table7", "Table VII: labels in the texts", "table7_labels_in_text", variants, about, variants[0].name
    )


def _from_scratch(study: Study, fusion: str) -> tuple[str, ...]:
    """The demo always starts from random weights; its own Γ needs no option, so that runs are shared."""
    if study.is_demo:
        return () if fusion == "gated" else ("--model.fusion", fusion)
    return ("--encoder.start", "none", "--schedule.epochs", str(SCRATCH_EPOCHS), "--model.fusion", fusion)


def _plan(
    study: Study,
    name: str,
    title: str,
    key: str,
    variants: Sequence[Variant],
    about: tuple[str, ...],
    reference: str,
) -> Plan:
    table: Mapping[str, Mapping[str, float]] = paper_tables()[key]
    columns, rows = columns_of(study.targets), []
    for variant in variants:
        paper = table[variant.key]
        word = variant.name if variant.changes or variant.with_emotion else "as it is"
        told = study if variant.with_emotion is None else replace(study, with_emotion=variant.with_emotion)
        starts = told.pretrained(word, variant.changes)
        method = Method(name=f"UniEmoX, {word}", starts=starts, has_fusion=variant.has_fusion)
        cells = {target.name: study.cell(method, target, paper=paper.get(target.name)) for target in study.targets}
        network = " ".join(variant.changes)
        rows.append(TableRow(variant.name, paper_only(paper, columns, cells), network=network))
    return Plan(
        name=name,
        title=title,
        scale=study.scale,
        about=about,
        columns=columns,
        rows=with_baseline(rows, histogram_row(study)),
        reference=reference,
    )
