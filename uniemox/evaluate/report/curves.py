"""Meaning of the curves of a run: a title and a sentence for each value that training logs."""

from typing import Any

import numpy as np

from uniemox.evaluate.metrics import Array
from uniemox.evaluate.report.charts import curve_chart, curve_rows
from uniemox.evaluate.run_records import SavedRun

# These say how the training went, and come after the losses.
DIAGNOSTICS = ("grad_norm", "clipped", "fused_cosine", "offset_share", "lr", "rate", "with_person")
# These are no learning curves and are not drawn.
SPEED = ("epoch", "images_per_s", "wait_s")
TITLES = {
    "grad_norm": "gradient norm",
    "clipped": "share of clipped gradients",
    "fused_cosine": "similarity of fused features",
    "offset_share": "share of the offset in the fused feature",
    "with_person": "share of images with a person",
    "lr": "learning rate",
    # Older runs call it so.
    "rate": "learning rate",
    "kept_lr": "chosen learning rate",
}
FALLS = "falls, then flattens; if it rises again, the learning rate is too high."
MEANINGS = {
    "total": f"The weighted sum of all losses: {FALLS}",
    "loss": f"The loss of fine-tuning: {FALLS}",
    "scene_reconstruction": f"L1, the error of hidden patches of the scene: {FALLS}",
    "person_reconstruction": f"L1, the error of hidden patches of the person: {FALLS}",
    "contrastive_feature_alignment": "L2, disagreement with the teacher about which texts fit: falls, then "
    "flattens; if it stays where it began, nothing is learned from the texts.",
    "semantic_visual_alignment": "L3, distance from the teacher's image features: falls, then flattens.",
    "score": "The score on validation images after each epoch, higher is better: rises, then flattens; if it falls "
    "while the loss falls, the network overfits.",
    "grad_norm": "Size of the gradient before clipping: changes slowly; jumps mean that training is unstable.",
    "clipped": "1 if the gradient was clipped: often 1 at the start, later rarely.",
    "fused_cosine": "Mean cosine between the fused features of different images: near 1, the features have collapsed "
    "into one; lower is better.",
    "offset_share": "Size of the learned offset beside that of the fused feature: near 1, the images hardly count.",
    "with_person": "Share of images with a detected or labelled person; in the others, the whole image "
    "stands for the person.",
    "lr": "Rises during warm-up, then falls to 0.",
    "rate": "Rises during warm-up, then falls to 0.",
    "kept_lr": "The learning rate that gave the best score.",
}
OTHER_MEANING = "A loss of your own: it should fall, then flatten."
NORM_PREFIX = "grad_norm_"


def curve_title(name: str) -> str:
    """Return the title of a curve.

    >>> curve_title("scene_reconstruction"), curve_title("lr")
    ('scene reconstruction', 'learning rate')
    """
    return TITLES.get(name, name.replace("_", " "))


def meaning_of(name: str) -> str:
    """Return a sentence about a curve: what it is, and how it looks if all is well."""
    if name.startswith(NORM_PREFIX):
        return "Size of this loss's gradient at the encoder: the loss with the largest one decides what is learned."
    return MEANINGS.get(name, OTHER_MEANING)


def is_flat(values: Array) -> bool:
    """Return True if all values (S,) are the same, so that a drawing shows nothing."""
    return len(np.unique(values)) == 1


def curves_view(run: SavedRun) -> dict[str, Any]:
    """Return a run's curves for the template.

    Returns:
        List "curves" of charts, the losses first; "flat", the values that never change; and "table", the headings and
        rows of the table behind the charts.
    """
    curves = {name: curve for name, curve in run.curves.items() if name not in SPEED}
    drawn = {name: curve for name, curve in curves.items() if not is_flat(curve[1])}
    return {
        "curves": [_curve(run, name) for name in sorted(drawn, key=_is_diagnostic)],
        # A score that never changed is what a reader must see first.
        "flat": [_flat(run, name) for name in sorted(curves, key=lambda name: name != "score") if name not in drawn],
        "table": {"headings": ["step", *map(curve_title, drawn)], "rows": curve_rows(drawn.values())},
    }


def _is_diagnostic(name: str) -> bool:
    return name in DIAGNOSTICS or name.startswith(NORM_PREFIX)


def _curve(run: SavedRun, name: str) -> dict[str, Any]:
    steps, values = run.curves[name]
    return {
        "title": curve_title(name),
        "meaning": meaning_of(name),
        "span": f"{len(steps):,} steps, from {values[0]:.4g} to",
        "last": f"{values[-1]:.4g} at step {steps[-1]:,}",
        "chart": curve_chart((steps, values)),
    }


def _flat(run: SavedRun, name: str) -> dict[str, str]:
    steps, values = run.curves[name]
    times = "once" if len(steps) == 1 else f"{len(steps):,} times"
    return {"title": curve_title(name), "value": f"{values[0]:.4g}", "times": times, "meaning": meaning_of(name)}
