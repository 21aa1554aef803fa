"""Description of a classifier's network without its weights. Does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Streams = Literal["scene", "person", "both"]
HeadKind = Literal["linear", "ccim", "neighbours"]
# Value of norm_eps in files without the field.
OLD_NORM_EPS = 1e-6
# Fields of a NetworkSpec with another name in files.
JSON_NAMES = {"fusion_heads": "heads"}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """Description of one encoder, without its weights."""

    name: str
    """timm's name, or mixmae or colour_histogram."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of its constructor."""
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and std of its pixels if it is one of several encoders; None: those of the network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSpec:
    """A classifier's network without its weights; `uniemox.model.building.build_classifier` makes the module."""

    encoders: tuple[EncoderSpec, ...] = ()
    """One encoder, or several whose features are concatenated."""
    folded_norms: bool = False
    """True if batch norms are folded into convolutions and stay in eval mode."""
    feature_width: int = 1
    """D, channels of the encoders' features; with a region method, of the last feature map."""
    outputs: int = 1
    """E, number of outputs."""
    unit_features: bool = False
    """True if the encoder's features are scaled to length 1 before the head, which then computes cosines."""
    streams: Streams = "scene"
    """Views that the network reads."""
    labels: tuple[str, ...] = ()
    """Names of the outputs, in order; valence and arousal for task affect."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of the pixels in [0, 1], by channel."""
    std: tuple[float, ...] = IMAGENET_STD
    fusion: str | None = None
    """Name of the fusion, or mypackage.module:MyFusion; None without one."""
    fusion_heads: int = 3
    fused_width: int = 512
    """C3, channels of the fusion, or channels of the region method."""
    norm_eps: float = 1e-12
    """ε that the fused feature's norm adds to the variance, which is 1e-6 or less, so ε must be far below."""
    method: str | None = None
    """Name of the region method, or mypackage.module:MyMethod; None without one."""
    skip: bool = True
    """True if the head also reads the features of whole views."""
    has_detector: bool = False
    has_face_finder: bool = False
    method_options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the method's constructor."""
    head: HeadKind = "linear"
    confounders: tuple[int, int] | None = None
    """Number and width of the entries in the dictionary of head ccim."""
    bank: int = 0
    """Number of training images that head neighbours stores."""
    neighbours: int = 20
    vote_temperature: float = 0.07
    distance_axes: int | None = None
    """Number of axes of the distance from the training images; None if there is no distance."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields encoder and parts of a classifier's metadata."""
        encoders: list[dict[str, Any]] = [
            {"name": encoder.name, "options": encoder.options} for encoder in self.encoders
        ]
        # A single encoder has the pixels of the network.
        if any(encoder.pixels for encoder in self.encoders):
            for values, encoder in zip(encoders, self.encoders, strict=True):
                values["mean"], values["std"] = encoder.pixels or (self.mean, self.std)
            encoder_values: dict[str, Any] = {"several": encoders}
        else:
            encoder_values = encoders[0]
        if self.folded_norms:
            encoder_values = encoder_values | {"folded_norms": True}

        # Files have only the fields of parts that the network has.
        names = ["feature_width", "outputs"]
        if self.unit_features:
            names.append("unit_features")
        if self.fusion is not None:
            names += ["fused_width", "fusion", "fusion_heads", "norm_eps"]
        if self.method is not None:
            names += ["method", "fused_width", "skip", "has_detector", "has_face_finder", "method_options"]
        names += {"ccim": ["confounders"], "neighbours": ["bank", "neighbours", "vote_temperature"]}.get(self.head, [])
        if self.distance_axes is not None:
            names.append("distance_axes")
        return {"encoder": encoder_values, "parts": {JSON_NAMES.get(name, name): getattr(self, name) for name in names}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "NetworkSpec | None":
        """Read the network from a classifier's metadata; None if they name no encoder.

        Streams, labels, mean and std are not read: they are top-level fields of the metadata, see `read_info`.
        """
        if not values.get("encoder"):
            return None
        encoder = dict(values["encoder"])
        parts = dict(values.get("parts") or {})
        names = {field.name: JSON_NAMES.get(field.name, field.name) for field in fields(cls)}
        arguments = {name: parts[key] for name, key in names.items() if key in parts}
        if "fusion" in parts:
            arguments.setdefault("norm_eps", OLD_NORM_EPS)
        # Files older than method_options have only word_counts, used by method eap.
        if parts.get("word_counts"):
            arguments.setdefault("method_options", {"word_counts": parts["word_counts"]})
        arguments["head"] = "linear"
        if "confounders" in parts:
            arguments["head"] = "ccim"
            arguments["confounders"] = tuple(arguments["confounders"])
        elif "bank" in parts:
            arguments["head"] = "neighbours"
        return cls(
            encoders=tuple(map(_read_encoder, encoder.get("several", [encoder]))),
            folded_norms=bool(encoder.get("folded_norms")),
            **arguments,
        )


def _read_encoder(values: Mapping[str, Any]) -> EncoderSpec:
    """Read one encoder; lists in its options become tuples, as its constructor takes them."""
    options = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.get("options", {}).items()
    }
    pixels = (tuple(values["mean"]), tuple(values["std"])) if "mean" in values else None
    return EncoderSpec(name=values["name"], options=options, pixels=pixels)


def views_of(streams: Streams) -> tuple[str, ...]:
    """Return the names of the views of these streams.

    >>> views_of("both")
    ('scene', 'person')
    """
    if streams == "both":
        return ("scene", "person")
    return (streams,)
