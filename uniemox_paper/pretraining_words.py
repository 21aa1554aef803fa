"""What distinguishes the rows of a comparison of pre-trainings, in words."""

from uniemox.pretrain import PretrainConfig
from uniemox_paper.plan import PlannedRun, TableRow, with_needs

LOSSES = {
    "scene_reconstruction": "L1 of the scene",
    "person_reconstruction": "L1 of the person",
    "contrastive_feature_alignment": "L2",
    "semantic_visual_alignment": "L3",
}
FUSIONS = {"dynamic": "Γ1", "attention": "Γ2", "gated": "Γ3", "static": "Γ4"}


def describe_pretraining(row: TableRow) -> str:
    """Return losses, fusion, mask ratio, texts, start, epochs and share of the labels of a row in words.

    Returns:
        The description; an empty text if nothing is pre-trained for the row.
    """
    runs = [run for cell in row.cells.values() for last in cell.runs for run in with_needs(last)]
    pretraining = next((run for run in runs if run.kind == "pretrain"), None)
    if pretraining is None:
        return ""
    config = pretraining.config
    assert isinstance(config, PretrainConfig)
    model = config.model
    fusion = "no fusion"
    if model.fusion is not None:
        fusion = f"{FUSIONS.get(model.fusion, 'fusion')} ({model.fusion})"
        if model.fusion != "static":
            fusion += f", κ = {model.fusion_heads}"
    texts = "no texts"
    if model.needs_text_features:
        texts = "texts with the emotion" if config.teacher.with_emotion else "texts without the emotion"
    parts = (
        ", ".join(f"{words} × {getattr(model.losses, name):g}" for name, words in LOSSES.items()),
        fusion,
        f"{model.mask.ratio:.0%} of the patches hidden",
        texts,
        f"start: {config.encoder.start or 'random weights'}",
        f"{config.schedule.epochs:g} epochs",
        _labels_of(runs),
    )
    return "; ".join(parts)


def _labels_of(runs: list[PlannedRun]) -> str:
    """Return the share of the labels that classifiers are trained on."""
    fractions = sorted({run.options.get("fraction", 1.0) for run in runs if run.kind == "finetune"})
    return f"fine-tuned on {', '.join(f'{fraction:.0%}' for fraction in fractions)} of the labels"
