"""What a classifier's numbers mean and what it looks at: the metadata of its files, read with and without torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, TypeVar, get_args

from uniemox.errors import CheckpointError
from uniemox.labels import KINDS, Kind, LabelSet

Streams = Literal["scene", "person", "both"]
PersonPolicy = Literal["largest", "union", "persons_only", "second_crop"]
CalibrationImages = Literal["independent", "selection", "unknown"]
Values = TypeVar("Values")  # a float, an array or a tensor
MAX_SIZE_PX = 4096
TUPLES = ("labels", "mean", "std", "conformal_scores", "distances")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierInfo:
    """Metadata of a classifier; its files hold the same fields as JSON. Raises CheckpointError for wrong values."""

    labels: tuple[str, ...]
    """Of its outputs, in order; valence and arousal for task affect."""
    label_set: str
    """Name of the label set."""
    kind: Kind
    """evoked or felt."""
    task: str = "label"
    """label, distribution or affect."""
    temperature: float | None = None
    """By which logits are divided before the softmax, fitted on images it was not trained on; None: 1."""
    streams: Streams = "scene"
    """The views that it looks at."""
    person: PersonPolicy = "largest"
    """Which part of the image the person view is, see persons/crop.py."""
    size: int = 224
    """Side of its input, px."""
    crop_fraction: float = 0.9
    """Share of the short side that the middle crop keeps."""
    hides_person: bool = False
    """Whether the person is blacked out of the scene view."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Of pixels in [0, 1], by channel."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    trained_on: str = ""
    """The data set's name."""
    conformal_scores: tuple[float, ...] = ()
    """1 - p(true label) of held-out images, p as it is answered; sorted, at most 2,000 quantiles; () where none are."""
    distances: tuple[float, ...] = ()
    """Of held-out images from the training images (model/distance.py), sorted, at most 2,000 quantiles; () of files
    that don't know the training images."""
    calibration_images: CalibrationImages = "unknown"
    """Which images temperature and conformal scores were fitted on: independent ones, held out of training, that chose
    nothing; or the selection, too few to be divided, that chose the epoch as well; unknown: of an older version."""
    calibrated_on: str = ""
    """Data and split that `uniemox calibrate` used; empty for files that it did not write."""
    ratings: Mapping[str, Any] = field(default_factory=dict)
    """The head of valence and arousal (predict/ratings.py); {} of files that have none."""
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """timm's name of the network (or mixmae, colour_histogram) and the options that make it; or "several", a list of
    these with mean and std."""
    parts: Mapping[str, Any] = field(default_factory=dict)
    """What follows the encoder: feature_width, outputs; fused_width, fusion, heads and norm_eps with both streams;
    method, fused_width, has_detector, has_face_finder and word_counts of a method that relates regions; confounders of
    CCIM's head; bank, neighbours and vote_temperature of a neighbour head; distance_axes of the distance from training
    images."""

    def __post_init__(self) -> None:
        expected = {
            "labels": bool(self.labels) and all(isinstance(label, str) and label for label in self.labels),
            "kind": self.kind in KINDS,
            "task": self.task in ("label", "distribution", "affect"),
            "temperature": self.temperature is None or 0 < self.temperature < math.inf,
            "streams": self.streams in get_args(Streams),
            "person": self.person in get_args(PersonPolicy),
            "size": isinstance(self.size, int) and 8 <= self.size <= MAX_SIZE_PX,
            "crop_fraction": 0 < self.crop_fraction <= 1,
            "mean": len(self.mean) == 3,
            "std": len(self.std) == 3 and all(value > 0 for value in self.std),
            "conformal_scores": all(0 <= score <= 1 for score in self.conformal_scores),
            "ratings": isinstance(self.ratings, Mapping),
            "distances": all(-math.inf < distance < math.inf for distance in self.distances),
        }
        wrong = [f"{name} {getattr(self, name)!r}" for name, is_right in expected.items() if not is_right]
        if wrong:
            raise CheckpointError(f"no classifier has {', '.join(wrong)}")

    def find_labels(self) -> LabelSet:
        """Its labels as a set."""
        return LabelSet(self.label_set, self.labels, self.kind)

    @property
    def views(self) -> tuple[str, ...]:
        """The names of the views that it looks at."""
        return views_of(self.streams)

    @property
    def has_person(self) -> bool:
        """Whether it looks at a person."""
        return "person" in self.views

    @property
    def needs_person(self) -> bool:
        """Whether it has to know where the person is: to look there, or not to."""
        return self.has_person or self.hides_person

    def to_json(self) -> str:
        """All fields, as its files hold them."""
        return json.dumps(asdict(self))


def views_of(streams: Streams) -> tuple[str, ...]:
    """The names of the views of these streams.

    >>> views_of("both")
    ('scene', 'person')
    """
    return ("scene", "person") if streams == "both" else (streams,)


def read_info(text: str) -> ClassifierInfo:
    """The metadata of a file; fields that this version does not know are passed over.

    Raises CheckpointError if they are no JSON object, or a field is missing or wrong.
    """
    try:
        values: Mapping[str, Any] = json.loads(text)
        known = {part.name: values[part.name] for part in fields(ClassifierInfo) if part.name in values}
        for name in TUPLES:
            if name in known:
                known[name] = tuple(known[name])
        for name in ("mean", "std"):  # a colour histogram normalises nothing
            if known.get(name) == ():
                del known[name]
        return ClassifierInfo(**known)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"its metadata can't be read ({error}); export it again") from error


def to_affect(outputs: Values) -> Values:
    """Valence or arousal, 1 (negative, calm) to 9 (positive, excited), from a network's outputs, about -1 to 1."""
    return 4 * outputs + 5  # type: ignore[operator,return-value]


def from_affect(values: Values) -> Values:
    """What a network learns of valence or arousal, see `to_affect`.

    >>> from_affect(9.0), to_affect(-1.0)
    (1.0, 1.0)
    """
    return (values - 5) / 4  # type: ignore[operator,return-value]
