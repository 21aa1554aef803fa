"""Outputs of a torch classifier over a data set."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from uniemox.checkpoints.classifier import load_classifier
from uniemox.classifier_info import ClassifierInfo, views_of
from uniemox.data.sample import Sample
from uniemox.errors import DataError
from uniemox.evaluate.outputs import Outputs
from uniemox.model.classifier import Classifier
from uniemox.model.config import Precision
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import count_workers, setup_device
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewBatch, ViewDataset, build_loader
from uniemox.views.patches import PixelStats, normalise
from uniemox.views.transforms import EvalViews

BATCH = 64


def outputs_of(
    classifier: Classifier,
    samples: Sequence[Sample],
    view: ViewConfig,
    *,
    stats: PixelStats,
    encoded: bool = False,
    precision: Precision = "float32",
    workers: int = 1,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Outputs:
    """Logits, or what the encoder makes of each view, of all samples in the views of evaluation.

    The classifier is left in the mode it was in.
    stats: what the encoder's pixels are normalised with.  on_progress: called with the number of samples done.
    Raises DataError if none of the images can be read.
    """
    device = next(classifier.parameters()).device
    places = [[(0, i) for i in range(at, min(at + BATCH, len(samples)))] for at in range(0, len(samples), BATCH)]
    rows, distances, read, broken = [], [], [], []
    was_training, done = classifier.training, 0
    classifier.eval()
    for batch in build_loader(ViewDataset(samples, EvalViews(view)), places, workers):
        if batch.samples:
            with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                views = select_views(classifier, batch)
                pixels = {name: normalise(value, device, stats) for name, value in views.items()}
                values, far = (classifier.encode(**pixels), None) if encoded else classifier.answer(**pixels)
            rows.append(values.float().cpu().numpy())
            distances += [] if far is None else [far.cpu().numpy()]
            read += batch.samples
        broken += batch.broken
        done += len(batch.samples) + len(batch.broken)
        on_progress(done)
    classifier.train(was_training)
    if not rows:
        raise DataError(f"none of {len(samples)} images can be read: {broken[0].reason if broken else 'there is none'}")
    known = np.concatenate(distances) if distances else None
    return Outputs(np.concatenate(rows), known, tuple(read), tuple(broken))


def select_views(classifier: Classifier, batch: ViewBatch) -> dict[str, torch.Tensor]:
    """The views that the classifier looks at, by name: (N, 3, S, S) uint8 each."""
    views = {"scene": batch.scene, "person": batch.person}
    return {name: view for name, view in views.items() if name in views_of(classifier.streams)}


def open_classifier(
    weights: Path, hardware: HardwareConfig | None = None
) -> tuple[ClassifierInfo, Callable[[Sequence[Sample], Callable[[int], None]], Outputs]]:
    """Open a classifier: its metadata, and a function that returns its outputs for samples.

    weights: model.safetensors of a fine-tuning run.  Raises CheckpointError.
    """
    classifier, info = load_classifier(weights)
    hardware = hardware or HardwareConfig()
    device = setup_device(hardware)
    classifier.to(device)

    def answer(samples: Sequence[Sample], on_progress: Callable[[int], None]) -> Outputs:
        return outputs_of(
            classifier,
            samples,
            ViewConfig.of(info),
            stats=PixelStats(info.mean, info.std),
            workers=count_workers(hardware, device),
            on_progress=on_progress,
        )

    return info, answer
