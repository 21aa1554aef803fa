"""Metadata of a classifier: the meaning of its outputs and its input views. Does not import torch."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from uniemox.errors import CheckpointError
from uniemox.io.typed import check_json, parse_json
from uniemox.labels import KINDS, LABEL_SETS, Kind, LabelSet

# Older programs import all of these from here.
from uniemox.network_spec import IMAGENET_MEAN, IMAGENET_STD, EncoderSpec, HeadKind, NetworkSpec, Streams, views_of  # noqa: F401

PersonPolicy = Literal["largest", "union", "persons_only", "second_crop"]
CalibrationImages = Literal["independent", "selection", "seen", "unknown"]
Task = Literal["label", "distribution", "affect", "multilabel"]
TASKS_WITH_SHARES: tuple[Task, ...] = ("label", "distribution")
"""Tasks whose answers are probabilities with sum 1: one of the labels is the right one."""
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
