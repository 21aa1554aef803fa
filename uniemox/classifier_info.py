"""Metadata of a classifier: what its numbers mean, what it looks at, and its network; needs no torch."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from uniemox.errors import CheckpointError
from uniemox.labels import KINDS, Kind, LabelSet

Streams = Literal["scene", "person", "both"]
PersonPolicy = Literal["largest", "union", "persons_only", "second_crop"]
CalibrationImages = Literal["independent", "selection", "unknown"]
HeadKind = Literal["linear", "ccim", "neighbours"]
Values = TypeVar("Values")  # a float, an array or a tensor
MIN_CROP_FRACTION = 0.1  # an image is scaled to size / crop_fraction
MAX_SIZE_PX = 4096
LEAST = 1e-12  # of what pixels and logits are divided by
OLD_NORM_EPS = 1e-6  # of files that do not name it
TUPLES = ("labels", "mean", "std", "conformal_scores", "distances")
JSON_NAMES = {"fusion_heads": "heads"}  # fields of a NetworkSpec that files call something else
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """One encoder, without its weights."""

    name: str
    """timm's name, or mixmae or colour_histogram."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of its constructor."""
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and std of its pixels, where it stands beside other encoders; else those of the network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSpec:
    """A classifier's network without its weights; `uniemox.model.spec.build` makes the module."""

    encoders: tuple[EncoderSpec, ...] = ()
    """One; or several, whose features are concatenated."""
    folded_norms: bool = False
    """Batch norms are folded into convolutions, and stay in eval mode."""
    feature_width: int = 1
    """D, channels of the encoders' features; with a region method, of the last feature map."""
    outputs: int = 1
    """E."""
    streams: Streams = "scene"
    labels: tuple[str, ...] = ()
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    fusion: str | None = None
    """Name of the fusion, or mypackage.module:MyFusion; None without one."""
    fusion_heads: int = 3
    fused_width: int = 512
    """C3 of the fusion, or channels of the region method."""
    norm_eps: float = 1e-12
    """Added to the variance of the fused feature by its norm; far below that variance, which is 1e-6 and less."""
    method: str | None = None
    """Name of the region method, or mypackage.module:MyMethod; None without one."""
    skip: bool = True
    """The head also reads the features of whole views."""
    has_detector: bool = False
    has_face_finder: bool = False
    method_options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the method's constructor."""
    head: HeadKind = "linear"
    confounders: tuple[int, int] | None = None
    """Number and width of the entries in the dictionary of head ccim."""
    bank: int = 0
    """Number of images that head neighbours remembers."""
    neighbours: int = 20
    vote_temperature: float = 0.07
    distance_axes: int | None = None
    """Axes of the distance from the training images; None if it does not know them."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields encoder and parts of a classifier's metadata."""
        encoders: list[dict[str, Any]] = [{"name": each.name, "options": each.options} for each in self.encoders]
        if any(each.pixels for each in self.encoders):
            for values, each in zip(encoders, self.encoders, strict=True):
                values["mean"], values["std"] = each.pixels or (self.mean, self.std)
        encoder = {"several": encoders} if any(each.pixels for each in self.encoders) else encoders[0]
        names = ["feature_width", "outputs"]
        if self.fusion is not None:
            names += ["fused_width", "fusion", "fusion_heads", "norm_eps"]
        if self.method is not None:
            names += ["method", "fused_width", "skip", "has_detector", "has_face_finder", "method_options"]
        names += {"ccim": ["confounders"], "neighbours": ["bank", "neighbours", "vote_temperature"]}.get(self.head, [])
        names += [] if self.distance_axes is None else ["distance_axes"]
        return {
            "encoder": encoder | ({"folded_norms": True} if self.folded_norms else {}),
            "parts": {JSON_NAMES.get(name, name): getattr(self, name) for name in names},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "NetworkSpec | None":
        """Read the network out of a classifier's metadata; None if they name no encoder.

        The metadata hold streams, labels, mean and std themselves: `ClassifierInfo` sets these.
        """
        if not values.get("encoder"):
            return None
        encoder, parts = dict(values["encoder"]), dict(values.get("parts") or {})
        names = {field.name: JSON_NAMES.get(field.name, field.name) for field in fields(cls)}
        known = {name: parts[key] for name, key in names.items() if key in parts}
        if "fusion" in parts:
            known.setdefault("norm_eps", OLD_NORM_EPS)
        if parts.get("word_counts"):  # until method_options there were word_counts alone, empty but for method eap
            known.setdefault("method_options", {"word_counts": parts["word_counts"]})
        known["head"] = "ccim" if "confounders" in parts else "neighbours" if "bank" in parts else "linear"
        if "confounders" in known:
            known["confounders"] = tuple(known["confounders"])
        return cls(
            encoders=tuple(_read_encoder(one) for one in encoder.get("several", [encoder])),
            folded_norms=bool(encoder.get("folded_norms")),
            **known,
        )


def _read_encoder(values: Mapping[str, Any]) -> EncoderSpec:
    options = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.get("options", {}).items()
    }
    pixels = (tuple(values["mean"]), tuple(values["std"])) if "mean" in values else None
    return EncoderSpec(name=values["name"], options=options, pixels=pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierInfo:
    """Metadata of a classifier; its files hold the same fields as JSON. Raises CheckpointError for wrong values."""

    labels: tuple[str, ...]
    """Names of its outputs, in order; valence and arousal for task affect."""
    label_set: str
    """Name of the label set."""
    kind: Kind
    """evoked or felt."""
    task: str = "label"
    """label, distribution or affect."""
    temperature: float | None = None
    """Divides the logits before the softmax; fitted on images it was not trained on. None: 1."""
    streams: Streams = "scene"
    """Views that it looks at."""
    person: PersonPolicy = "largest"
    """Part of the image that is the person view, see `choose_person` in persons/box.py."""
    size: int = 224
    """Side of its input, px."""
    crop_fraction: float = 0.9
    """Share of the short side that the middle crop keeps."""
    hides_person: bool = False
    """The person is blacked out of the scene view."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean of the pixels in [0, 1], by channel."""
    std: tuple[float, ...] = IMAGENET_STD
    trained_on: str = ""
    """The data set's name."""
    conformal_scores: tuple[float, ...] = ()
    """1 - p(true label) of held-out images, with calibrated p; sorted, at most 2,000; () if there are none."""
    distances: tuple[float, ...] = ()
    """Distances of held-out images from the training images (model/heads.py), sorted, at most 2,000 quantiles; () for
    files that do not know the training images."""
    calibration_images: CalibrationImages = "unknown"
    """Images that temperature and conformal scores were fitted on. independent: held out, and used for nothing else;
    selection: they chose the epoch as well, being too few to divide; unknown: an older version wrote the file."""
    calibrated_on: str = ""
    """Data and split that `uniemox calibrate` used; empty for files that it did not write."""
    ratings: Mapping[str, Any] = field(default_factory=dict)
    """The head of valence and arousal (predict/ratings.py); {} of files that have none."""
    network: NetworkSpec | None = None
    """The network that computes its outputs; None for files that need only their ONNX graph."""

    def __post_init__(self) -> None:
        expected = {
            "labels": bool(self.labels) and all(label and _is_text(label) for label in self.labels),
            **{name: _is_text(getattr(self, name)) for name in ("label_set", "trained_on", "calibrated_on")},
            "kind": self.kind in KINDS,
            "task": self.task in ("label", "distribution", "affect"),
            "temperature": self.temperature is None or LEAST < self.temperature < math.inf,
            "streams": self.streams in get_args(Streams),
            "person": self.person in get_args(PersonPolicy),
            "size": isinstance(self.size, int) and 8 <= self.size <= MAX_SIZE_PX,
            "crop_fraction": MIN_CROP_FRACTION <= self.crop_fraction <= 1,
            "mean": len(self.mean) == 3 and all(-math.inf < value < math.inf for value in self.mean),
            "std": len(self.std) == 3 and all(LEAST < value < math.inf for value in self.std),
            "conformal_scores": all(0 <= score <= 1 for score in self.conformal_scores),
            "ratings": isinstance(self.ratings, Mapping),
            "distances": all(-math.inf < distance < math.inf for distance in self.distances),
        }
        wrong = [f"{name} {getattr(self, name)!r}" for name, is_right in expected.items() if not is_right]
        if wrong:
            raise CheckpointError(f"no classifier has {', '.join(wrong)}")
        if self.network is not None:  # what both hold is the same
            shared = {"streams": self.streams, "labels": self.labels, "mean": self.mean, "std": self.std}
            object.__setattr__(self, "network", replace(self.network, **shared))  # type: ignore[arg-type]

    def find_labels(self) -> LabelSet:
        """Return its labels as a set."""
        return LabelSet(self.label_set, self.labels, self.kind)

    @property
    def views(self) -> tuple[str, ...]:
        """Return the names of the views that it looks at."""
        return views_of(self.streams)

    @property
    def has_person(self) -> bool:
        """True if it looks at a person."""
        return "person" in self.views

    @property
    def needs_person(self) -> bool:
        """True if it has to know where the person is: to look there, or to black them out."""
        return self.has_person or self.hides_person

    def to_json(self) -> str:
        """Return all fields, as its files hold them."""
        values = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "network"}
        return json.dumps(values | ({"encoder": {}, "parts": {}} if self.network is None else self.network.to_json()))


def _is_text(value: Any) -> bool:
    """Return True for a text without control characters and halves of characters, which headers and JSON can't hold."""
    return isinstance(value, str) and not re.search("[\0-\x1f\x7f\ud800-\udfff]", value)


def views_of(streams: Streams) -> tuple[str, ...]:
    """Return the names of the views of these streams.

    >>> views_of("both")
    ('scene', 'person')
    """
    return ("scene", "person") if streams == "both" else (streams,)


def read_info(text: str) -> ClassifierInfo:
    """Read the metadata of a file; fields that this version does not know are ignored.

    Raises CheckpointError if they are no JSON object, or a field is missing or wrong.
    """
    try:
        values: Mapping[str, Any] = json.loads(text)
        known = {part.name: values[part.name] for part in fields(ClassifierInfo) if part.name in values}
        try:
            known["network"] = NetworkSpec.from_json(values)
        except (KeyError, TypeError, ValueError, AttributeError):  # an ONNX file predicts without this description
            known["network"] = None
        known |= {name: tuple(known[name]) for name in TUPLES if name in known}
        unset = [name for name in ("mean", "std") if known.get(name) == ()]  # a colour histogram normalises nothing
        return ClassifierInfo(**{name: value for name, value in known.items() if name not in unset})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"its metadata can't be read ({error}); export it again") from error


def to_affect(outputs: Values) -> Values:
    """Return valence or arousal, 1 (negative, calm) to 9 (positive, excited), of outputs of about -1 to 1."""
    return 4 * outputs + 5  # type: ignore[operator,return-value]


def from_affect(values: Values) -> Values:
    """Return the target that a network learns for valence or arousal; the inverse of `to_affect`.

    >>> from_affect(9.0), to_affect(-1.0)
    (1.0, 1.0)
    """
    return (values - 5) / 4  # type: ignore[operator,return-value]
