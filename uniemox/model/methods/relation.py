"""Base class of the methods that relate regions of an image, and `build_method`.

With `skip`, the normed features of whole views go straight to the head, in addition to the method's own features. The
papers do not have this. It lets a method on a frozen encoder be initialised as a linear probe. Without `skip` the head
reads only what the paper's head reads.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uniemox.data.sample import Sample
from uniemox.errors import ConfigError
from uniemox.labels import LabelSet, polarities
from uniemox.model.config import REGION_METHODS, check_import_name, import_named
from uniemox.model.region_groups import Group
from uniemox.model.regions import CLASSES, RegionReader, Regions, softmax_over_present
from uniemox.views.patches import IMAGENET, PixelStats

GroupedRegions = Mapping[Group, Regions]


class Relation(nn.Module):
    """Base class of region methods: computes the head's input, (N, `width`), from regions.

    The constructor takes width (D of the encoder's feature map), channels (C of the method's vectors), labels, and
    skip; see docs/extending/method.md. The last features may be the method's own logits, which `loss` uses.
    """

    groups: ClassVar[tuple[Group, ...]]
    """Groups of regions that the method reads."""
    hides_person: ClassVar[bool] = False
    """True if the person is blacked out in the scene view."""
    width: int
    linear: int
    """Number of leading features that come from the skip; a head on them is a linear probe. 0 without skip."""
    reader: RegionReader
    """Module that computes these regions from the views; set by `build_method`."""
    reads_texts: ClassVar[bool] = False
    """True if training needs the annotations of the images."""
    takes_categories: ClassVar[bool] = False
    """True if its loss also suits task multilabel, whose targets don't sum to 1."""

    @classmethod
    def options_for(cls, _samples: Sequence[Sample], _labels: LabelSet) -> dict[str, Any]:
        """Return further constructor arguments that depend on the training samples; saved with the network."""
        return {}

    def prepare(self, samples: Sequence[Sample], labels: LabelSet) -> None:
        """Read what `batch_targets` needs from the training samples; called once before the first step."""

    def batch_targets(self, _samples: Sequence[Sample], *, progress: float) -> Tensor | None:
        """Return further targets (N, ...) of a batch for `loss`, whose images are then not mixed; None: no targets.

        Args:
            progress: Share of the steps done, 0 to below 1.
        """
        del progress
        return None

    def forward(self, regions: GroupedRegions) -> Tensor:
        """Return features (N, width)."""
        raise NotImplementedError

    def loss(
        self,
        classification: Tensor,
        *,
        logits: Tensor,
        features: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        batch_targets: Tensor | None = None,
        has_categories: bool = False,
    ) -> Tensor:
        """Return the training loss of a batch, or its terms, (T,); the base class returns the classification loss.

        A method names the arguments that it uses, and takes the others as **_.
        Each term must be a mean over the images with these weights, see `mean_over_images`: a step of several batches
        counts each with its sum of weights. If a term is another mean, `term_weights` returns its weights.

        Args:
            classification: Cross-entropy of logits and target.
            logits: (N, E) of the head.
            features: (N, width), the head's input.
            target: (N, E), rows that sum to 1; with `takes_categories` also ones for several labels.
            weight: (N,), weight of each image; None: equal weights.
            batch_targets: Result of the method's `batch_targets`.
            has_categories: True in task multilabel, given only to methods with `takes_categories`.
        """
        del logits, features, target, weight, batch_targets, has_categories
        return classification

    def term_weights(self, weight: Tensor, _batch_targets: Tensor | None) -> Tensor:
        """Return the sum of the images' weights in each term of `loss`, (T,); one term in the base class.

        Args:
            weight: (N,), ones if all images count the same.
            _batch_targets: Result of the method's `batch_targets`.
        """
        return weight.sum()[None]  # (1,)


def build_method(
    name: str,
    *,
    width: int,
    channels: int,
    labels: Sequence[str],
    skip: bool = True,
    stats: PixelStats = IMAGENET,
    has_detector: bool = False,
    has_face_finder: bool = False,
    **options: Any,
) -> Relation:
    """Build a region method with random weights, and the reader of its regions.

    Args:
        name: One of `REGION_METHODS`, or mypackage.module:MyMethod.
        width: D, channels of the encoder's last map.
        channels: C of the method's vectors.
        labels: E names of classes.
        skip: The head also reads the features of whole views.
        stats: Normalisation of the views.
        has_detector: Add a detector of objects and people, if the method needs it.
        has_face_finder: Add a detector of faces, if the method needs it.
        options: Further arguments of the method's constructor.

    Raises:
        ConfigError: For an unknown name, and for labels that the method can't use.
    """
    check_import_name(name, REGION_METHODS, "method")
    method: Relation = method_class(name)(width, channels, tuple(labels), skip=skip, **options)
    method.reader = RegionReader(method.groups, has_detector=has_detector, has_face_finder=has_face_finder, stats=stats)
    return method


def method_class(name: str) -> type[Relation]:
    """Import the class of a region method.

    Raises:
        ConfigError: If it can't be imported or is not a Relation.
    """
    method = import_named(name, REGION_METHODS)
    if not (isinstance(method, type) and issubclass(method, Relation)):
        raise ConfigError(f"{name} must be a subclass of uniemox.model.methods.relation.Relation")
    return method


def polarity_matrix(labels: Sequence[str]) -> Tensor:
    """Return (P, E): 1 if a label has a polarity, else 0.

    Raises:
        ConfigError: If all labels have one polarity.
    """
    signs = torch.tensor(polarities(labels))
    if len(signs) < 2:
        raise ConfigError(
            f"methods stimuli and mdan separate negative from positive labels; {', '.join(labels)} have one polarity"
        )
    return signs


class Embed(nn.Module):
    """Embedding of regions: features (N, T, D), detector classes and position become vectors (N, T, C)."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.visual = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, channels))
        self.semantic = nn.Linear(CLASSES, channels, bias=False)
        self.place = nn.Linear(4, channels, bias=False)

    def forward(self, regions: Regions) -> Tensor:
        """Return vectors (N, T, C)."""
        x = self.visual(regions.features) + self.semantic(regions.classes.to(regions.features.dtype))  # (N, T, C)
        return torch.relu(x + self.place(regions.boxes.to(x.dtype)))  # (N, T, C)


class Attention(nn.Module):
    """Attention pooling: mean of vectors, weighted by their match with a query, softmax_i(q(query) · k(x_i) / √C).

    Args:
        query_width: Q, channels of the query.
        channels: C, channels of the vectors.
    """

    def __init__(self, query_width: int, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_width, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)

    def forward(self, query: Tensor, x: Tensor, regions: Regions) -> Tensor:
        """Return the weighted mean (N, C).

        Args:
            query: (N, Q).
            x: (N, T, C) vectors of the regions.
            regions: Regions, whose presence counts; absent ones get a weight of nearly 0.
        """
        scores = (self.key(x) @ self.query(query)[..., None])[..., 0] / x.shape[2] ** 0.5  # (N, T)
        weights = softmax_over_present(scores, regions.presence)  # (N, T)
        return (weights[..., None] * self.value(x)).sum(dim=1)  # (N, C)
