"""Metadata of a classifier: the meaning of its outputs, its input views, and its network. Does not import torch."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from uniemox.errors import CheckpointError
from uniemox.io.typed import check_json, parse_json
from uniemox.labels import KINDS, LABEL_SETS, Kind, LabelSet

Streams = Literal["scene", "person", "both"]
PersonPolicy = Literal["largest", "union", "persons_only", "second_crop"]
CalibrationImages = Literal["independent", "selection", "seen", "unknown"]
Task = Literal["label", "distribution", "affect", "multilabel"]
TASKS_WITH_SHARES: tuple[Task, ...] = ("label", "distribution")
"""Tasks whose answers are probabilities with sum 1: one of the labels is the right one."""
HeadKind = Literal["linear", "ccim", "neighbours"]
LongImages = Literal["squares", "blend"]
SetsFrom = Literal["answer", "network"]
Values = TypeVar("Values")  # a float, an array or a tensor
# An image is scaled to size / crop_fraction, so a small fraction takes much memory.
MIN_CROP_FRACTION = 0.1
MAX_SIZE_PX = 4096
# Minimum divisor of pixels and logits.
MIN_DIVISOR = 1e-12
DEFAULT_THRESHOLD = 0.5
"""Probability above which a label is given before the calibration, for task multilabel."""
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
    """A classifier's network without its weights; `uniemox.model.encoders.build` makes the module."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerRules:
    """Rules that turn a network's outputs into an answer.

    A file stores them, so that another version of the library gives the same answers.
    """

    trusted_familiarity: float = 0.15
    """Familiarity from which on the network's probabilities are used unchanged, 0 to 1; below it they are smoothed, see
    `predict.confidence.probabilities_of`. Chosen with recipes/smoothing.py."""
    min_weight: float = 0.4
    """Minimum weight of the network's probabilities in the smoothing; above 0, so their order stays."""
    sets_from: SetsFrom = "network"
    """Probabilities by which likely labels are chosen. network: those before the smoothing. answer: those after it."""
    long_images: LongImages = "blend"
    """Views of a long image, see `predict.views.scene_parts`. blend: the mean of the outputs for squares whose number
    and weights change gradually with the shape. squares: the mean of the answers for squares from 2:1 on."""
    resampling: Literal["bicubic"] = "bicubic"
    """Filter that scales an image to the network's input."""

    def __post_init__(self) -> None:
        expected = {
            "trusted_familiarity": _is_share(self.trusted_familiarity),
            "min_weight": _is_share(self.min_weight),
            "sets_from": self.sets_from in get_args(SetsFrom),
            "long_images": self.long_images in get_args(LongImages),
            "resampling": self.resampling == "bicubic",
        }
        wrong = [f"{name} {getattr(self, name)!r}" for name, is_right in expected.items() if not is_right]
        if wrong:
            raise CheckpointError(
                f"this version does not know the answer rules {', '.join(wrong)}; update uniemox, or export again"
            )


def _is_share(value: Any) -> bool:
    """Return True for a number above 0 and up to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


NEW_RULES = AnswerRules()
"""Rules of the files that this version writes."""
OLD_RULES = AnswerRules(trusted_familiarity=0.2, min_weight=0.2, sets_from="answer", long_images="squares")
"""Rules of older files, which lack the field `rules`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierInfo:
    """Metadata of a classifier, stored in its files as JSON.

    Raises:
        CheckpointError: If a value has another type or is out of range.
    """

    network: NetworkSpec
    """Network that computes the outputs; without encoders for files that need only their ONNX graph."""
    label_set: str
    """Name of the label set."""
    kind: Kind
    """evoked, felt or expressed: whose emotion the labels describe."""
    task: Task = "label"
    temperature: float | None = None
    """Divisor of the logits before the softmax or sigmoid, fitted on held-out images. None: 1."""
    offsets: tuple[float, ...] = ()
    """For task multilabel: (E,), added to the divided logits before the sigmoid, so that the probability of each label
    is calibrated; () before the calibration."""
    thresholds: tuple[float, ...] = ()
    """For task multilabel: (E,), 0 to 1; a label is given if its probability is above. () before the calibration."""
    person: PersonPolicy = "largest"
    """Part of the image that is the person view, see `choose_person` in persons/box.py."""
    size: int = 224
    """Side of the input, px."""
    crop_fraction: float = 0.9
    """Share of the short side that the centre crop keeps."""
    hides_person: bool = False
    """True if the person is blacked out in the scene view."""
    trained_on: str = ""
    """Name of the training data set, and of the initial weights with their data: `fi; starts from embedded (fi, fi2)`;
    older files name only the data set."""
    conformal_scores: tuple[float, ...] = ()
    """Sorted values of 1 - p(true label) of held-out images, with calibrated p, at most 2,000; () if there are none."""
    distances: tuple[float, ...] = ()
    """Distances of held-out images from the training images (model/distance.py), sorted, at most 2,000; or ()."""
    calibration_images: CalibrationImages = "unknown"
    """Images that temperature and conformal scores were fitted on. independent: held out and used for nothing else;
    selection: they also chose the epoch, because there were too few to split; seen: the initial weights were trained on
    them; unknown: written by an older version."""
    held_out_count: int = 0
    """Number of these images that are independent of each other: images of one group count as one. 0: unknown."""
    calibrated_on: str = ""
    """Data and split that `uniemox calibrate` used; empty if the file was not calibrated."""
    rules: AnswerRules = NEW_RULES
    """Rules that turn the outputs into an answer."""
    ratings: Mapping[str, Any] = field(default_factory=dict)
    """Head for valence and arousal (predict/ratings.py); {} in files without one."""

    def __post_init__(self) -> None:
        expected = {
            "labels": bool(self.labels) and all(label and _is_text(label) for label in self.labels),
            **{name: _is_text(getattr(self, name)) for name in ("label_set", "trained_on", "calibrated_on")},
            "kind": self.kind in KINDS,
            "task": self.task in get_args(Task),
            "offsets": self._fits_labels(self.offsets) and all(map(math.isfinite, self.offsets)),
            "thresholds": self._fits_labels(self.thresholds) and all(0 <= value <= 1 for value in self.thresholds),
            "temperature": self.temperature is None or MIN_DIVISOR < self.temperature < math.inf,
            "streams": self.streams in get_args(Streams),
            "person": self.person in get_args(PersonPolicy),
            "size": isinstance(self.size, int) and 8 <= self.size <= MAX_SIZE_PX,
            "crop_fraction": MIN_CROP_FRACTION <= self.crop_fraction <= 1,
            "mean": len(self.mean) == 3 and all(-math.inf < value < math.inf for value in self.mean),
            "std": len(self.std) == 3 and all(MIN_DIVISOR < value < math.inf for value in self.std),
            "held_out_count": isinstance(self.held_out_count, int) and self.held_out_count >= 0,
            "conformal_scores": all(0 <= score <= 1 for score in self.conformal_scores),
            "rules": isinstance(self.rules, AnswerRules),
            "ratings": isinstance(self.ratings, Mapping),
            "distances": all(-math.inf < distance < math.inf for distance in self.distances),
        }
        wrong = [f"{name} {getattr(self, name)!r}" for name, is_right in expected.items() if not is_right]
        if wrong:
            raise CheckpointError(f"no classifier has {', '.join(wrong)}")

    def _fits_labels(self, values: tuple[float, ...]) -> bool:
        """Return True for one value for each label of a network with several; also for none."""
        return not values or (self.task == "multilabel" and len(values) == len(self.labels))

    @property
    def has_shares(self) -> bool:
        """True if the answers are probabilities with sum 1: one of the labels is the right one."""
        return self.task in TASKS_WITH_SHARES

    @property
    def label_thresholds(self) -> tuple[float, ...]:
        """Threshold of each label, 0 to 1: the fitted ones, or 0.5 without calibration."""
        return self.thresholds or (DEFAULT_THRESHOLD,) * len(self.labels)

    def assigned(self, probabilities: Sequence[float]) -> tuple[str, ...]:
        """Return the labels above their thresholds, most probable first; task multilabel.  probabilities: (E,)."""
        rows = zip(self.labels, probabilities, self.label_thresholds, strict=True)
        assigned = [(probability, label) for label, probability, threshold in rows if probability > threshold]
        return tuple(label for _, label in sorted(assigned, key=lambda pair: -pair[0]))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs, in order; valence and arousal for task affect."""
        return self.network.labels

    @property
    def streams(self) -> Streams:
        """Views that the network reads."""
        return self.network.streams

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the pixels in [0, 1], by channel."""
        return self.network.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the pixels, by channel."""
        return self.network.std

    def find_labels(self) -> LabelSet:
        """Return the labels as a label set."""
        aliases = next((label_set.aliases for label_set in LABEL_SETS if label_set.name == self.label_set), {})
        return LabelSet(self.label_set, self.labels, self.kind, aliases)

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views that the network reads."""
        return views_of(self.streams)

    @property
    def has_person(self) -> bool:
        """True if the network reads the person view."""
        return "person" in self.views

    @property
    def needs_person(self) -> bool:
        """True if the network needs the person's box: to crop the person, or to black them out."""
        return self.has_person or self.hides_person

    def to_json(self) -> str:
        """Return all fields as JSON text, as files store them."""
        values = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "network"}
        values |= {name: getattr(self, name) for name in TOP_LEVEL}
        if self.task != "multilabel":
            # Other files stay as they were.
            del values["offsets"], values["thresholds"]
        values["rules"] = asdict(self.rules)
        network = self.network.to_json() if self.network.encoders else {"encoder": {}, "parts": {}}
        return json.dumps(values | network)


def _is_text(value: Any) -> bool:
    """Return True for text without control characters and lone surrogates, which headers and JSON can't contain."""
    return isinstance(value, str) and not re.search("[\0-\x1f\x7f\ud800-\udfff]", value)


def views_of(streams: Streams) -> tuple[str, ...]:
    """Return the names of the views of these streams.

    >>> views_of("both")
    ('scene', 'person')
    """
    if streams == "both":
        return ("scene", "person")
    return (streams,)


def read_info(text: str) -> ClassifierInfo:
    """Parse the metadata of a file; unknown fields are ignored.

    Raises:
        CheckpointError: If the text is not a JSON object, or a field is missing or wrong.
    """
    where = "its metadata"
    remedy = "export it again"
    values = parse_json(text, dict[str, Any], where, remedy=remedy, error_class=CheckpointError)
    try:
        network = NetworkSpec.from_json(values) or NetworkSpec()
    except (KeyError, TypeError, ValueError, AttributeError):
        # An ONNX file predicts without the description.
        network = NetworkSpec()
    # A colour histogram normalises nothing, and its files have empty lists.
    unset = [name for name in ("mean", "std") if values.get(name) == []]
    values = {name: value for name, value in values.items() if name not in unset}
    top_level = check_json(values, _TopLevel, where, remedy=remedy, error_class=CheckpointError)
    values |= {
        "network": replace(network, **{name: getattr(top_level, name) for name in TOP_LEVEL}),
        "rules": _read_rules(values.get("rules", {})),
    }
    return check_json(values, ClassifierInfo, where, remedy=remedy, error_class=CheckpointError)


@dataclass(frozen=True, kw_only=True, slots=True)
class _TopLevel:
    """Fields of a NetworkSpec that files have at the top level of the metadata."""

    labels: tuple[str, ...]
    streams: Streams = "scene"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


TOP_LEVEL = tuple(part.name for part in fields(_TopLevel))


def _read_rules(values: Any) -> AnswerRules:
    """Parse a file's answer rules.

    Raises:
        CheckpointError: If they are not an object, or have an unknown rule, which a later version has written.
    """
    if not isinstance(values, Mapping):
        raise CheckpointError(f"its metadata can't be read (rules must be an object, got {values!r}); export it again")
    unknown = values.keys() - {part.name for part in fields(AnswerRules)}
    if unknown:
        raise CheckpointError(
            f"this version does not know the answer rules {', '.join(sorted(unknown))}; update uniemox, or export again"
        )
    return replace(OLD_RULES, **values)


def to_affect(outputs: Values) -> Values:
    """Convert outputs of about -1 to 1 to valence or arousal, 1 (negative, calm) to 9 (positive, excited)."""
    return 4 * outputs + 5  # type: ignore[operator,return-value]


def from_affect(values: Values) -> Values:
    """Convert valence or arousal to a training target; the inverse of `to_affect`.

    >>> from_affect(9.0), to_affect(-1.0)
    (1.0, 1.0)
    """
    return (values - 5) / 4  # type: ignore[operator,return-value]
