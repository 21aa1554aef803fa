"""Settings of a prediction, checked once for all images, and the prediction built from the networks' outputs."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import ConfigError, LabelError
from uniemox.labels import WORD_NORMS, LabelMap, LabelSet, find_label_set, in_kind_of, label_map
from uniemox.persons.box import Box
from uniemox.predict.confidence import likely_labels, score_limit
from uniemox.predict.film import Frame
from uniemox.predict.images import ImageLike, path_of
from uniemox.predict.network import Answers, Network
from uniemox.predict.prediction import Face, Person, Prediction

if TYPE_CHECKING:
    from uniemox.predict.predictor import Predictor

MIN_REACHED = 2


def answers_in(source: LabelSet, target: str | None) -> LabelMap:
    """Return the map of predictions from `source` to the named label set; None: to its own labels.

    Raises:
        LabelError: Without such a set or a map to it, if one is evoked and the other felt, or if only one label is
            reached, which would always have probability 1.
    """
    if target is None:
        return LabelMap(source, source, {label: label for label in source.labels})
    mapping = label_map(source, find_label_set(target))
    if len(mapping.reached) < MIN_REACHED:
        if mapping.reached:
            what = f"only {mapping.reached[0]} is"
        else:
            what = "no label is"
        raise LabelError(f"of {target} {what} reached by {', '.join(source.labels)}; answer in them (no other labels)")
    return mapping


class Question:
    """Settings of a prediction, checked once for all images; see `Predictor.predict_each`.

    Raises:
        ConfigError, LabelError: For unsupported ones.
    """

    def __init__(
        self, predictor: "Predictor", coverage: float | None, labels: str | None, *, with_embedding: bool = False
    ) -> None:
        network, info, reader = predictor.network, predictor.network.info, predictor.face_reader
        if info.task == "affect" and (coverage is not None or labels is not None):
            raise ConfigError(f"{network.name} predicts valence and arousal; leave out coverage and labels")
        if coverage is None:
            self.limit = None
        else:
            self.limit = score_limit(info.conformal_scores, coverage)
        """Maximum score of likely labels; None: not requested."""
        self.scene = answers_in(info.find_labels(), labels)
        if self.limit is not None and self.scene.dropped:
            raise ConfigError(
                f"coverage is impossible with labels {self.scene.target.name}: {', '.join(self.scene.dropped)} of "
                f"{network.name} has no counterpart there, so a set could lack the true label or be empty; leave out "
                "coverage or labels"
            )
        if predictor.person_network is None:
            self.person = None
        else:
            self.person = _also_in(predictor.person_network, labels)
        if reader is None:
            self.face = None
        else:
            self.face = _also_in(reader.network, labels)
        self.network = network
        self.norms = _norms_of(info)
        self.with_embedding = with_embedding

    def prediction(
        self,
        source: ImageLike,
        full: tuple[int, int],
        judged: Answers,
        view: Box,
        persons: list[Person] | None,
        faces: list[Face] | None,
        *,
        is_colourless: bool,
    ) -> Prediction:
        """Return the prediction for an image.

        Args:
            source: the image, as it was given.
            full: width and height, px.
            judged: outputs for its views, one row.
            view: part that the views cover, px.
            persons: people in it.
            faces: faces in it.
            is_colourless: True if the image has no colour.
        """
        probabilities = judged.values[0]
        scene = self.scene.named(probabilities)
        likely = None
        if self.limit is not None:
            labels = self.scene.source.labels
            targets = {self.scene.pairs[labels[i]] for i in likely_labels(judged.set_values[0], self.limit)}
            likely = tuple(label for label in sorted(scene, key=lambda label: -scene[label]) if label in targets)
        frame = source if isinstance(source, Frame) else None
        return Prediction(
            scene=scene,
            **self._affect(judged, is_colourless=is_colourless),
            is_colourless=is_colourless,
            familiarity=None if judged.familiarity is None else float(judged.familiarity[0]),
            view=view,
            embedding=None if judged.features is None else judged.features[0],
            kind=self.network.info.kind,
            persons=persons,
            faces=faces,
            likely=likely,
            path=path_of(source),
            width_px=full[0],
            height_px=full[1],
            label_set=self.scene.target.name,
            model=self.network.name,
            time_s=None if frame is None else frame.time_s,
            shot=None if frame is None else frame.shot,
            source=source if frame is None else None,  # a list of predictions must not hold a video's frames
        )

    def _affect(self, judged: Answers, *, is_colourless: bool) -> dict[str, Any]:
        """Return the fields for valence and arousal."""
        values = judged.values[0]
        if self.network.info.task == "affect":
            return {"valence": values[0], "arousal": values[1], "affect_from": "model"}
        head = self.network.rating_head
        if head is not None and judged.ratings is not None:
            valence, arousal = judged.ratings[0].tolist()
            colourless = np.array([is_colourless])
            valence_ends, arousal_ends = head.intervals(judged.ratings, judged.familiarity, colourless)[0].tolist()
            fields = {"valence": valence, "valence_interval": tuple(valence_ends), "affect_from": "ratings"}
            return fields | {"arousal": arousal, "arousal_interval": tuple(arousal_ends)}
        if self.norms is None:
            return {}
        return {"valence": float(values @ self.norms), "affect_from": "norms"}


def _also_in(network: Network, labels: str | None) -> LabelMap:
    """Map another network's predictions to the requested set if its kind allows that; otherwise keep its labels."""
    own = network.info.find_labels()
    can_map = labels is not None and in_kind_of(find_label_set(labels), own).kind == own.kind
    return answers_in(own, labels if can_map else None)


def _norms_of(info: ClassifierInfo) -> NDArray[np.float64] | None:
    """Return (E,) word norms of the labels' valence, 1 to 9; None without norms or for another kind than evoked."""
    norms = WORD_NORMS["mikels"]
    is_most = set(info.labels) <= norms.keys() and 2 * len(info.labels) > len(norms)
    if info.kind != "evoked" or info.task == "affect" or not is_most:
        return None
    return 1 + 8 * np.array([norms[label][0] for label in info.labels])
