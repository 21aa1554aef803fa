"""What a frozen encoder makes of the images of a data set."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from uniemox.checkpoints.timm_networks import TIMM
from uniemox.classifier_info import Streams
from uniemox.data.sample import Sample
from uniemox.evaluate.classifier_outputs import outputs_of
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.network import feature_width, open_start
from uniemox.model.classifier import Classifier
from uniemox.model.colour_histogram import ColourHistogram
from uniemox.model.fusion import build_fusion
from uniemox.teacher.stored import StoredTeacher
from uniemox.training.hardware import ready_to_train
from uniemox.views.config import ViewConfig
from uniemox.views.pixels import IMAGENET

HISTOGRAM, STORED = "histogram", "stored:"
Watch = Callable[[int], None]


class TokenAndMean(nn.Module):
    """(N, 3, H, W) -> (N, 2 D): a plain ViT's CLS token and the mean of its patch tokens, after its norm.

    Distillation teaches the one, reconstruction the other: neither objective is at a loss for where it is read.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, 3, H, W).  Returns (N, 2 D)."""
        tokens = self.vit.forward_features(x)  # (N, 1 + L, D)
        return torch.cat([tokens[:, 0], tokens[:, self.vit.num_prefix_tokens :].mean(dim=1)], dim=1)


def features_of(
    init: str, samples: Sequence[Sample], *, size: int, has_person: bool = False, on_progress: Watch = lambda done: None
) -> tuple[list[Sample], NDArray[np.float32]]:
    """The samples that can be read, M of them, and features (M, V, D) of each view.

    init: as --init of finetune takes it; "histogram", the colours of the image; or stored:FILE, a teacher's features,
    of several files with commas between them those of the one that knows these images.
    size: side of the views, px.  has_person: the person is a second view, so that V is 2.
    on_progress: called with the number of samples done.
    Raises DataError, CheckpointError, EncoderError or TeacherError.
    """
    if init.startswith(STORED):
        files = map(StoredTeacher, init.removeprefix(STORED).split(","))
        teacher = max(files, key=lambda one: sum(sample.key in one.image_rows for sample in samples))
        known = [sample for sample in samples if sample.key in teacher.image_rows]
        return known, teacher.image_features(torch.empty(0), [sample.key for sample in known])[:, None].numpy()
    encoder: Any = ColourHistogram()
    stats = IMAGENET
    if init != HISTOGRAM:
        pool: Literal["mean", "token"] = "mean" if init.startswith(TIMM) else "token"
        _, encoder, _, stats = open_start(init, NetworkConfig(pool=pool), size)
        encoder = TokenAndMean(encoder) if pool == "token" else encoder
    width = feature_width(encoder, size)
    second: Any = {"embed": nn.Linear(width, 1), "fusion": build_fusion("static", 1, 1)} if has_person else {}
    streams: Streams = "both" if has_person else "scene"
    network = Classifier(encoder, feature_width=width, outputs=1, streams=streams, **second)
    ready_to_train(network, torch.device("cpu"))  # the layout in memory that is fastest
    view = ViewConfig(size=size, crop_fraction=1.0)
    found = outputs_of(network, samples, view, stats=stats, encoded=True, on_progress=on_progress)
    return list(found.samples), found.values
