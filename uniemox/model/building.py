"""Build classifiers from the description of their network."""

from dataclasses import replace

import torch
from torch import nn

from uniemox.model.classifier import Classifier, NeighbourHead, UnitLength
from uniemox.model.distance import Distance
from uniemox.model.encoders import build_encoders
from uniemox.model.fusion import build_fusion
from uniemox.model.methods.ccim import Ccim
from uniemox.model.methods.relation import build_method
from uniemox.network_spec import NetworkSpec
from uniemox.views.patches import PixelStats


def build_classifier(spec: NetworkSpec, encoder: nn.Module | None = None) -> Classifier:
    """Build a classifier with random weights, drawn from torch's generator.

    A spec from a foreign file may name a class of a foreign package: call `refuse_foreign` first.

    Args:
        spec: Description of the network.
        encoder: (N, 3, H, W) -> (N, D), used unchanged; None: built from the spec.

    Raises:
        CheckpointError or ConfigError: For a spec from which no network can be built.
    """
    if encoder is None:
        encoder = build_encoders(spec)
    method = None
    if spec.method is not None:
        method = build_method(
            spec.method,
            width=spec.feature_width,
            channels=spec.fused_width,
            labels=spec.labels,
            skip=spec.skip,
            stats=PixelStats(spec.mean, spec.std),
            has_detector=spec.has_detector,
            has_face_finder=spec.has_face_finder,
            **spec.method_options,
        )
    embed = None
    fusion = None
    if spec.fusion is not None:
        embed = nn.Linear(spec.feature_width, spec.fused_width)
        fusion = build_fusion(spec.fusion, spec.fused_width, spec.fusion_heads)
        nn.init.xavier_uniform_(embed.weight)
        nn.init.zeros_(embed.bias)
    classifier = Classifier(
        encoder,
        feature_width=spec.feature_width,
        outputs=spec.outputs,
        streams=spec.streams if method is None else method.reader.streams,
        embed=embed,
        fusion=fusion,
        norm_eps=spec.norm_eps,
        method=method,
    )
    if spec.unit_features:
        classifier.norm = UnitLength()
    if spec.confounders is not None:
        classifier.head = Ccim(classifier.width, spec.outputs, *spec.confounders)
    elif spec.head == "neighbours":
        bank = torch.ones(spec.bank, classifier.width)  # (M, C)
        targets = torch.ones(spec.bank, spec.outputs)  # (M, E)
        classifier.head = NeighbourHead(bank, targets, spec.neighbours, spec.vote_temperature)
    if spec.distance_axes is not None:
        classifier.distance = Distance(classifier.width, spec.distance_axes)
    return classifier


def with_fitted(spec: NetworkSpec, classifier: Classifier) -> NetworkSpec:
    """Return the spec with the parts that were fitted after the network was built: neighbours and distance."""
    head = classifier.head
    if isinstance(head, NeighbourHead):
        spec = replace(
            spec, head="neighbours", bank=len(head.bank), neighbours=head.neighbours, vote_temperature=head.temperature
        )
    axes = None if classifier.distance is None else len(classifier.distance.axes)
    return replace(spec, distance_axes=axes)
