"""Result of an evaluation: scores, notes, predictions, and what they mean in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from uniemox.data.seen import SEEN
from uniemox.errors import ConfigError
from uniemox.evaluate.label_pairs import LabelPairs
from uniemox.evaluate.scores import ClassScores, GroupScores, Scores, as_values, headline_of
from uniemox.evaluate.verdict import verdict_of
from uniemox.intervals import Interval
from uniemox.plurals import counted

UNKNOWN_TRAINING = (
    f"the model's training images are not completely known, because it had no {SEEN} beside it: if it was trained on "
    "some of these images, the scores are too high"
)
SEEN_ALLOWED = "images that the model was trained on are allowed: if some of these are, the scores are too high"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of an evaluation."""

    scores: Scores
    by: GroupScores | None
    """Scores by the requested column."""
    notes: tuple[str, ...]
    """Notes about left out images and mapped labels."""
    predictions: tuple[dict[str, Any], ...]
    """Prediction of every image: key, label, predicted, probabilities; or valence and arousal."""
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Reasons for images that can't be read, by key."""
    trust: Mapping[str, float] = field(default_factory=dict)
    """Quality of the model's own statements: flagged, the share of images that it flags as unfamiliar; coverage and
    set_size of its 90 % likely sets; coverage_unfamiliar and set_size_unfamiliar, the same for flagged images alone, if
    there are at least 10."""
    scored_labels: tuple[str, ...] = ()
    """Labels among which the model chose, those of the data that it can predict; empty for valence and arousal."""
    label_map: LabelPairs = field(default_factory=dict)
    """The user's map from labels of the data to those of the model, if it was used; else empty."""
    mapped_labels: str = ""
    """Map from the model's labels to the scored ones, in words; empty if they are the same."""
    may_be_seen: bool = False
    """True if the model may have been trained on some of these images."""

    def __repr__(self) -> str:
        value, interval = headline_of(self.scores)
        score = "undefined" if value is None else f"{value:.3f}"
        if interval is not None:
            score += " ({:.3f} to {:.3f})".format(*interval)
        measure = self.scores.measure.replace("_", " ")
        parts = [f"{measure} {score}"]
        if self.by is not None:
            parts.append(counted(len(self.by.groups), "group"))
        if self.notes:
            parts.append(counted(len(self.notes), "note"))
        return f"<Evaluation of {counted(self.scores.n, 'image')}: {', '.join(parts)}>"

    @property
    def accuracy(self) -> float:
        """Accuracy among the scored labels, 0 to 1.

        Raises:
            ConfigError: If distributions or ratings were scored, which have no accuracy.
        """
        return self._class_scores().accuracy

    @property
    def accuracy_interval(self) -> Interval:
        """95 % interval of the accuracy, over images.

        Raises:
            ConfigError: As for `accuracy`.
        """
        return self._class_scores().accuracy_interval

    @property
    def verdict(self) -> tuple[str, ...]:
        """Sentences on what the scores mean: trivial baselines, classes with few images, calibration."""
        values = as_values(self.scores)
        sentences = verdict_of(
            values, len(self.scored_labels), flags="flagged" in self.trust, advises_calibration=not self.may_be_seen
        )
        return tuple(sentences)

    def _class_scores(self) -> ClassScores:
        if not isinstance(self.scores, ClassScores):
            raise ConfigError(f"these scores have no accuracy; see scores.{self.scores.measure}")
        return self.scores

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form, without the predictions."""
        values = as_values(self.scores) | dict(self.trust) | {"notes": list(self.notes)}
        if self.may_be_seen:
            values["may_be_seen"] = True
        if self.scored_labels:
            values["scored_labels"] = list(self.scored_labels)
        if self.label_map:
            values["label_map"] = {label: list(words) for label, words in self.label_map.items()}
        if self.mapped_labels:
            values["mapped_labels"] = self.mapped_labels
        if self.unreadable:
            values["unreadable"] = [{"key": key, "reason": reason} for key, reason in self.unreadable.items()]
        if self.by is None:
            return values
        return values | {"by": as_values(self.by)}
