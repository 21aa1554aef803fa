"""Small classifiers that tests export."""

from dataclasses import replace
from typing import Any

import timm
import torch
from torch import Tensor, nn

from uniemox.classifier_info import TOP_LEVEL, ClassifierInfo
from uniemox.labels import MIKELS
from uniemox.model.classifier import Classifier
from uniemox.network_spec import NetworkSpec

SIZE = 32


class Convolutions(nn.Module):
    """A convolutional network as timm builds them: features, their mean."""

    def __init__(self, width: int = 48, stride: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, stride, 1)
        self.second = nn.Conv2d(24, width, 3, 1, 1)
        self.act = nn.ReLU()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.first(x))))

    def forward_head(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def classify(encoder: nn.Module, width: int, *, outputs: int = 8, streams: str = "scene") -> Classifier:
    """A head with weights that matter, in eval mode."""
    classifier = Classifier(encoder, feature_width=width, outputs=outputs, streams=streams)  # type: ignore[arg-type]
    torch.nn.init.normal_(classifier.head.weight, std=0.5)
    torch.nn.init.normal_(classifier.head.bias)
    return classifier.eval()


def timm_encoder(name: str, **options: object) -> nn.Module:
    return timm.create_model(name, num_classes=0, **options).eval()


def info_of(size: int = SIZE, **changes: object) -> ClassifierInfo:
    parts: dict[str, Any] = {name: changes.pop(name) for name in TOP_LEVEL if name in changes}
    network = replace(changes.pop("network", NetworkSpec()), **{"labels": MIKELS.labels, **parts})
    return ClassifierInfo(network=network, **{"label_set": "mikels", "kind": "evoked", "size": size, **changes})
