"""Outputs of a torch classifier over a data set."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from uniemox.checkpoints.classifier import load_classifier
from uniemox.classifier_info import ClassifierInfo, views_of
from uniemox.data.sample import Broken, Sample
from uniemox.evaluate.outputs import Outputs, nothing_read
from uniemox.io.progress import Progress, silent
from uniemox.model.classifier import Classifier
from uniemox.model.config import Precision
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import count_workers, setup_device
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewBatch, load_batches
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
    on_progress: Progress = silent,
) -> Outputs:
    """Return logits, or the encoder's output for each view, of all samples in the evaluation views.

    A classifier that was compiled for training runs eagerly. Its mode is restored afterwards.
    stats: normalisation of the encoder's pixels.  Raises DataError if no image can be read.
    """
    device = next(classifier.parameters()).device
    rows, distances, read, broken = list[np.ndarray](), list[np.ndarray](), list[Sample](), list[Broken]()
    was_training = classifier.training
    classifier.eval()
    for batch in load_batches(samples, EvalViews(view), BATCH, workers=workers):
        if batch.samples:
            # Batches of another size, and without gradients, would be compiled again, which takes minutes.
            with (
                torch.no_grad(),
                torch.compiler.set_stance("force_eager"),
                torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
            ):
                views = select_views(classifier, batch)
                pixels = {name: normalise(value, device, stats) for name, value in views.items()}
                values, far = (classifier.encode(**pixels), None) if encoded else classifier.answer(**pixels)
            rows.append(values.float().cpu().numpy())
            distances += [] if far is None else [far.cpu().numpy()]
            read += batch.samples
        broken += batch.broken
        on_progress("evaluating", len(read) + len(broken), len(samples))
    classifier.train(was_training)
    if not rows:
        raise nothing_read(broken)
    all_distances = np.concatenate(distances) if distances else None
    return Outputs(np.concatenate(rows), all_distances, tuple(read), tuple(broken))


def select_views(classifier: Classifier, batch: ViewBatch) -> dict[str, torch.Tensor]:
    """Return the views that the classifier reads, by name: (N, 3, S, S) uint8 each."""
    views = {"scene": batch.scene, "person": batch.person}
    return {name: view for name, view in views.items() if name in views_of(classifier.streams)}


def open_classifier(weights: Path, hardware: HardwareConfig | None) -> tuple[ClassifierInfo, Callable[..., Outputs]]:
    """Open a classifier: its metadata, and a function that returns its outputs for samples.

    weights: model.safetensors of a fine-tuning run.  Raises CheckpointError.
    """
    classifier, info = load_classifier(weights)
    hardware = hardware or HardwareConfig()
    device = setup_device(hardware)
    stats, workers = PixelStats(info.mean, info.std), count_workers(hardware, device)
    view = ViewConfig.of(info)
    return info, partial(outputs_of, classifier.to(device), view=view, stats=stats, workers=workers)
