"""Predictions built from the networks' outputs."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import ConfigError
from uniemox.labels import AFFECT, WORD_NORMS, LabelMap, find_label_set, in_kind_of
from uniemox.labels.rating_scale import rating_of
from uniemox.persons.box import Box
from uniemox.predict.answer_labels import answers_in
from uniemox.predict.confidence import likely_labels, score_limit
from uniemox.predict.film import Frame
from uniemox.predict.images import ImageLike, path_of
from uniemox.predict.network import Answers, Network
from uniemox.predict.prediction import Face, Person, Prediction

if TYPE_CHECKING:
    from uniemox.predict.predictor import Predictor


class PredictionBuilder:
    """Builder of predictions, whose options are checked once for all images; see `Predictor.predict_each`.

    Args:
        predictor: Predictor that answers.
        coverage: See `Predictor.predict`.
        labels: See `Predictor.predict`.
        with_embedding: Set `embedding` of each prediction.

    Raises:
        ConfigError: For a coverage that the model does not support.
        LabelError: For labels that the model does not support.
    """

    def __init__(
        self, predictor: "Predictor", coverage: float | None, labels: str | None, *, with_embedding: bool = False
    ) -> None:
        network = predictor.network
        info = network.info
        reader = predictor.face_reader
        if info.task == "affect" and (coverage is not None or labels is not None):
            raise ConfigError(f"{network.name} predicts valence and arousal; leave out coverage and labels")
        if info.task == "multilabel" and (coverage is not None or labels is not None):
            raise ConfigError(
                f"{network.name} gives several labels, each with a threshold of its own; leave out coverage and labels"
            )
        self.limit = None if coverage is None else score_limit(info.conformal_scores, coverage)
        """Maximum score of likely labels; None: not requested."""
        self.scene = answers_in(info.find_labels(), labels)
        self.is_converted = labels is not None
        if self.limit is not None and self.scene.dropped:
            raise ConfigError(
                f"coverage is impossible with labels {self.scene.target.name}: {', '.join(self.scene.dropped)} of "
                f"{network.name} has no counterpart there, so a set could lack the true label or be empty; leave out "
                "coverage or labels"
            )
        person_network = predictor.person_network
        self.person = None if person_network is None else _map_if_same_kind(person_network, labels)
        """Map of the labels of people's emotions; None without a person network."""
        self.face = None if reader is None else _map_if_same_kind(reader.network, labels)
        """Map of the labels of expressions; None without a face reader."""
        self.network = network
        self.norms = _valence_norms(info)
        self.with_embedding = with_embedding

    def build(
        self,
        source: ImageLike,
        full_size: tuple[int, int],
        answers: Answers,
        view: Box,
        persons: list[Person] | None,
        faces: list[Face] | None,
        *,
        is_colourless: bool,
    ) -> Prediction:
        """Return the prediction for an image.

        Args:
            source: The image, as it was given.
            full_size: Width and height of the full image, px.
            answers: The scene network's answers for the image, one row.
            view: Part of the image that the views show, px.
            persons: People in the image; None: not detected.
            faces: Faces in the image; None: not requested.
            is_colourless: True if the image has no colour.
        """
        probabilities = answers.values[0]
        scene = self.scene.named(probabilities)
        likely = None
        if self.limit is not None:
            # Sets are chosen among the model's own labels, on which the limit was measured, and then converted.
            labels = self.scene.source.labels
            targets = {self.scene.pairs[labels[i]] for i in likely_labels(answers.set_values[0], self.limit)}
            likely = tuple(label for label in sorted(scene, key=lambda label: -scene[label]) if label in targets)
        frame = source if isinstance(source, Frame) else None
        return Prediction(
            scene=scene,
            assigned_labels=assigned_labels(self.network.info, probabilities),
            **self._affect(answers, is_colourless=is_colourless),
            is_colourless=is_colourless,
            familiarity=None if answers.familiarity is None else float(answers.familiarity[0]),
            view=view,
            embedding=None if answers.features is None else answers.features[0],
            kind=self.network.info.kind,
            persons=persons,
            faces=faces,
            likely=likely,
            unmapped=self.scene.unmapped(probabilities) if self.is_converted else None,
            path=path_of(source),
            width_px=full_size[0],
            height_px=full_size[1],
            label_set=self.scene.target.name,
            model=self.network.name,
            time_s=None if frame is None else frame.time_s,
            shot=None if frame is None else frame.shot,
            # A list of predictions must not keep a video's frames in memory.
            source=source if frame is None else None,
        )

    def _affect(self, answers: Answers, *, is_colourless: bool) -> dict[str, Any]:
        """Return the fields for valence and arousal, from the best source that the model has."""
        values = answers.values[0]
        if self.network.info.task == "affect":
            return dict(zip(self.network.info.labels, values.tolist(), strict=True)) | {"affect_from": "model"}
        head = self.network.rating_head
        if head is not None and answers.ratings is not None:
            valence, arousal = answers.ratings[0].tolist()
            colourless = np.array([is_colourless])
            valence_ends, arousal_ends = head.intervals(answers.ratings, answers.familiarity, colourless)[0].tolist()
            fields = {"valence": valence, "valence_interval": tuple(valence_ends), "affect_from": "ratings"}
            return fields | {"arousal": arousal, "arousal_interval": tuple(arousal_ends)}
        if self.norms is None:
            return {}
        return {"valence": float(values @ self.norms), "affect_from": "norms"}


def assigned_labels(info: ClassifierInfo, probabilities: NDArray[np.float64]) -> tuple[str, ...] | None:
    """Return the labels above their thresholds; None for a model that gives one label.  probabilities: (E,)."""
    if info.task != "multilabel":
        return None
    return info.assigned(probabilities.tolist())


def axes_of(network: Network) -> tuple[str, ...]:
    """Return the ratings that predictions of a network have: valence and arousal, valence alone, or none."""
    if network.info.task == "affect" or network.rating_head is not None:
        return AFFECT
    if _valence_norms(network.info) is not None:
        return ("valence",)
    return ()


def _map_if_same_kind(network: Network, labels: str | None) -> LabelMap:
    """Map the predictions of a person or face network to the requested set.

    A network of another kind, or one that gives several labels, keeps its labels.
    """
    own_labels = network.info.find_labels()
    if network.info.task == "multilabel":
        return answers_in(own_labels, None)
    can_map = labels is not None and in_kind_of(find_label_set(labels), own_labels).kind == own_labels.kind
    return answers_in(own_labels, labels if can_map else None)


def _valence_norms(info: ClassifierInfo) -> NDArray[np.float64] | None:
    """Return (E,) word norms of the labels' valence, 1 to 9; None without norms or for another kind than evoked."""
    norms = WORD_NORMS["mikels"]
    is_most = set(info.labels) <= norms.keys() and 2 * len(info.labels) > len(norms)
    if info.kind != "evoked" or not info.has_shares or not is_most:
        return None
    # Word norms go from 0 to 1.
    return rating_of(np.array([norms[label][0] for label in info.labels]))
