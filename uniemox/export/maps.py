"""What a classifier's file gives beside logits: features, their distance, and where a network sees what it says."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.model.classifier import Classifier
from uniemox.model.encoders import ConcatEncoder

TOLERANCE = 1e-4  # of the pooled features, relative to the largest


class WithMaps(nn.Module):
    """A classifier whose forward pass gives all that its file holds: logits, maps of what adds to them, features.

    classifier: that `has_maps` accepts.  The maps are the head applied at every place of the last feature map (class
    activation maps, arXiv 1512.04150, equation 2): their mean over h and w plus the head's bias is the logits. Those
    of several encoders are brought to the size of the largest bilinearly, each keeping its mean, and added.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, scene: Tensor) -> dict[str, Tensor]:
        """scene: (N, 3, H, W), ImageNet-normalised.

        Returns logits (N, E), features (N, D), distance (N,) if the classifier knows it, and maps (N, E, h, w).
        """
        head: Any = self.classifier.head
        pairs = _features(self.classifier.encoder, scene)
        pooled = torch.cat([values for _, values in pairs], dim=1)  # (N, D)
        maps, first = [], 0
        for places, values in pairs:
            weight = head.weight[:, first : first + values.shape[1], None, None]  # (E, Di, 1, 1)
            maps.append(F.conv2d(places, weight))  # (N, E, h, w)
            first += values.shape[1]
        size = max((int(one.shape[-2]), int(one.shape[-1])) for one in maps)
        total = _resized(maps[0], size)
        for one in maps[1:]:
            total = total + _resized(one, size)
        return named_outputs(self.classifier, pooled) | {"maps": total}


class WithFeatures(nn.Module):
    """The same of any classifier, without maps."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, scene: Tensor | None = None, person: Tensor | None = None) -> dict[str, Tensor]:
        """Arguments as `Classifier.features`; returns as `WithMaps`."""
        return named_outputs(self.classifier, self.classifier.features(scene, person))


def named_outputs(classifier: Classifier, features: Tensor) -> dict[str, Tensor]:
    """Logits (N, E), features (N, D) and, where it is known, distance (N,).  features: (N, D)."""
    logits = classifier.head(features)
    outputs = {"logits": logits, "features": features}
    return outputs if classifier.distance is None else outputs | {"distance": classifier.distance(features, logits)}


@torch.no_grad()
def has_maps(classifier: Classifier, size: int) -> bool:
    """Whether a classifier of scenes is a linear head over the means of one feature map, or of several side by side.

    classifier: in eval mode, on the CPU.  size: side of its input, px.  Tried on one image of noise.
    """
    encoder = classifier.encoder
    if classifier.streams != "scene" or classifier.method is not None or not isinstance(classifier.head, nn.Linear):
        return False
    several = encoder.encoders if isinstance(encoder, ConcatEncoder) else [encoder]
    if not all(hasattr(one, "forward_features") and hasattr(one, "forward_head") for one in several):
        return False
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    for places, pooled in _features(encoder, noise):
        if places.ndim != 4 or pooled.shape != places.shape[:2]:
            return False
        if (places.mean(dim=(2, 3)) - pooled).abs().max() > TOLERANCE * pooled.abs().max():
            return False
    return True


def _features(encoder: Any, scene: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each encoder its last feature map (N, D, h, w) and its features (N, D)."""
    if not isinstance(encoder, ConcatEncoder):
        places = encoder.forward_features(scene)
        return [(places, encoder.forward_head(places))]
    several: Any = encoder.encoders
    seen = [one.forward_features(scene * encoder.scale[i] + encoder.shift[i]) for i, one in enumerate(several)]
    return [(places, one.forward_head(places)) for one, places in zip(several, seen, strict=True)]


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, E, h, w) at another size, with the same means."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    large = F.interpolate(maps, size, mode="bilinear")
    return large + maps.mean(dim=(2, 3), keepdim=True) - large.mean(dim=(2, 3), keepdim=True)
