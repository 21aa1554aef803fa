"""Features of a frozen encoder for a probe."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from experiments.does_it_help.plan import HISTOGRAM, SHAPE, UNTRAINED
from uniemox.data.sample import Sample
from uniemox.evaluate.classifier_outputs import Reading, encode_samples
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.network import feature_width, open_start
from uniemox.model.classifier import Classifier
from uniemox.model.colour_histogram import ColourHistogram
from uniemox.model.encoder import build_encoder
from uniemox.pretrain.presets import demo
from uniemox.teacher.features import StoredTeacher
from uniemox.training.hardware import ready_to_train
from uniemox.views.config import ViewConfig
from uniemox.views.patches import IMAGENET, PixelStats

STORED = "stored:"


class TokenAndMean(nn.Module):
    """Encoder (N, 3, H, W) -> (N, 2 D): a plain ViT's CLS token and the mean of its patch tokens, after its norm.

    Distillation trains the first, reconstruction the second, so that neither objective is at a disadvantage.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, 2 D) for pixels (N, 3, H, W)."""
        tokens = self.vit.forward_features(x)  # (N, 1 + L, D)
        return torch.cat([tokens[:, 0], tokens[:, self.vit.num_prefix_tokens :].mean(dim=1)], dim=1)


def features_of(init: str, samples: Sequence[Sample], size: int) -> tuple[list[Sample], NDArray[np.float32]]:
    """Return the N readable samples, and their features (N, D).

    Args:
        init: A pre-training run; untrained: the initial network of runs with seed 0; histogram: the colours of the
            image; or stored:FILE: the features of a teacher.
        samples: Samples to encode.
        size: Side of the views, px.
    """
    if init.startswith(STORED):
        teacher = StoredTeacher(init.removeprefix(STORED))
        return list(samples), teacher.image_features(torch.empty(0), [sample.key for sample in samples]).numpy()
    encoder, stats = open_encoder(init, size)
    width = feature_width(encoder, size)
    network = Classifier(encoder, feature_width=width, outputs=1, streams="scene")
    # This sets the fastest memory layout.
    ready_to_train(network, torch.device("cpu"))
    outputs = encode_samples(network, samples, ViewConfig(size=size, crop_fraction=1.0), Reading(stats=stats))
    return list(outputs.samples), outputs.values[:, 0]


def open_encoder(init: str, size: int) -> tuple[Any, PixelStats]:
    """Return the encoder that `init` names, see `features_of`, and the normalisation of its pixels."""
    if init == HISTOGRAM:
        return ColourHistogram(), IMAGENET
    if init == UNTRAINED:
        torch.manual_seed(0)
        return TokenAndMean(build_encoder(demo().encoder.name, size, **SHAPE).eval()), IMAGENET
    encoder, spec = open_start(init, NetworkConfig(pool="token"), size)
    return TokenAndMean(encoder), PixelStats(spec.mean, spec.std)
