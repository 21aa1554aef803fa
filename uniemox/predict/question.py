"""How answers are wanted, and what a network's values say then."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import ConfigError
from uniemox.labels import WORD_NORMS
from uniemox.persons.box import Box, Detection
from uniemox.predict.conformal import likely_labels, score_limit
from uniemox.predict.faces import owners
from uniemox.predict.film import Frame
from uniemox.predict.images import ImageLike, path_of
from uniemox.predict.mapping import LabelMapping, answers_in, has_answers_in
from uniemox.predict.network import Answers, Network, mean_answer
from uniemox.predict.prediction import Face, Person, Prediction
from uniemox.predict.views import Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """An image, decoded and cut into views."""

    source: ImageLike
    full: tuple[int, int]
    persons: tuple[Detection, ...] | None
    views: tuple[dict[str, Pixels], ...]
    """Views for the scene's network, (3, S, S) each; several of a long image."""
    view: Box
    """What they show of it, px."""
    person_views: tuple[dict[str, Pixels], ...]
    """Of the person network, for everybody found."""
    faces: tuple[Detection, ...] | None
    face_views: tuple[tuple[dict[str, Pixels], ...], ...]
    """Of the network of expressions, for each face; () for one that is too small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """How the answers are wanted, checked once for all images."""

    network: Network
    scene: LabelMapping
    person: LabelMapping | None
    face: LabelMapping | None
    limit: float | None
    """Of the scores of likely labels; None: not asked."""
    norms: NDArray[np.float64] | None
    """(E,) valence of the network's labels as words, 1 to 9; None: there are none."""
    with_embedding: bool

    @classmethod
    def of(
        cls,
        network: Network,
        person_network: Network | None,
        face_network: Network | None,
        *,
        coverage: float | None,
        labels: str | None,
        with_embedding: bool = False,
    ) -> "Question":
        """See `Predictor.predict`. Raises ConfigError, LabelError for what the networks can't answer."""
        info = network.info
        if info.task == "affect" and (coverage is not None or labels is not None):
            raise ConfigError(f"{network.name} gives valence and arousal; leave coverage and labels out")
        limit = None if coverage is None else score_limit(info.conformal_scores, coverage)
        scene = answers_in(info.find_labels(), labels)
        if limit is not None and scene.dropped:
            raise ConfigError(
                f"coverage can't be had in {scene.name}: {', '.join(scene.dropped)} of {network.name} has no "
                "counterpart there, so that a set could lack the true label or be empty; leave coverage out, or labels"
            )
        return cls(
            network=network,
            scene=scene,
            person=_also_in(person_network, labels),
            face=_also_in(face_network, labels),
            limit=limit,
            norms=_norms_of(info),
            with_embedding=with_embedding,
        )

    def prediction(
        self, item: PreparedImage, judged: Answers, felt: Iterator[Answers], shown: Iterator[Answers]
    ) -> Prediction:
        """What is said of an image.

        judged: of its views.  felt, shown: of everybody and of all faces in the batch, from which those of this image
        are taken.
        """
        probabilities = judged.values[0]
        scene, likely = self.scene.named(probabilities), None
        if self.limit is not None:
            likely = self.scene.likely(likely_labels(probabilities, self.limit), scene)
        affect = self._affect(judged)
        frame = item.source if isinstance(item.source, Frame) else None
        return Prediction(
            scene=scene,
            **affect,
            familiarity=None if judged.familiarity is None else float(judged.familiarity[0]),
            view=item.view,
            embedding=None if judged.features is None else judged.features[0],
            kind=self.network.info.kind,
            persons=None if item.persons is None else [self._person(found, felt) for found in item.persons],
            faces=None if item.faces is None else self._faces(item, shown),
            likely=likely,
            path=path_of(item.source),
            width_px=item.full[0],
            height_px=item.full[1],
            label_set=self.scene.name,
            model=self.network.name,
            time_s=None if frame is None else frame.time_s,
            shot=None if frame is None else frame.shot,
            source=item.source if frame is None else None,  # a list of answers must not hold a film's frames
        )

    def _person(self, found: Detection, felt: Iterator[Answers]) -> Person:
        emotions = None if self.person is None else self.person.named(next(felt).values[0])
        return Person(box=found.box, confidence=found.confidence, emotions=emotions)

    def _faces(self, item: PreparedImage, shown: Iterator[Answers]) -> list[Face]:
        assert item.faces is not None, "faces were asked for"
        persons = None if item.persons is None else [person.box for person in item.persons]
        places = owners([face.box for face in item.faces], persons)
        return [
            Face(
                box=face.box,
                confidence=face.confidence,
                expressions=self._expressions(views, shown),
                person=place,
            )
            for face, views, place in zip(item.faces, item.face_views, places, strict=True)
        ]

    def _expressions(self, views: Sequence[object], shown: Iterator[Answers]) -> dict[str, float] | None:
        if not views or self.face is None:
            return None
        return self.face.named(mean_answer([next(shown) for _ in views]).values[0])

    def _affect(self, judged: Answers) -> dict[str, Any]:
        """What a prediction says of valence and arousal."""
        values = judged.values[0]
        if self.network.info.task == "affect":
            return {"valence": values[0], "arousal": values[1], "affect_from": "model"}
        head = self.network.rating_head
        if head is not None and judged.ratings is not None:
            (valence, arousal), (of_valence, of_arousal) = (
                judged.ratings[0].tolist(),
                head.intervals(judged.ratings, judged.familiarity)[0].tolist(),
            )
            return {
                "valence": valence,
                "valence_interval": tuple(of_valence),
                "arousal": arousal,
                "arousal_interval": tuple(of_arousal),
                "affect_from": "ratings",
            }
        if self.norms is None:
            return {}
        return {"valence": float(values @ self.norms), "affect_from": "norms"}


def _also_in(network: Network | None, labels: str | None) -> LabelMapping | None:
    """The answers of a network beside the scene's: in the asked set if it can, else in its own labels."""
    if network is None:
        return None
    own = network.info.find_labels()
    return answers_in(own, labels if labels is not None and has_answers_in(own, labels) else None)


def _norms_of(info: ClassifierInfo) -> NDArray[np.float64] | None:
    """(E,) valence of a classifier's labels, 1 to 9; None where they have none, or say what is felt."""
    norms = WORD_NORMS["mikels"]
    is_most = set(info.labels) <= norms.keys() and 2 * len(info.labels) > len(norms)
    if info.kind != "evoked" or info.task == "affect" or not is_most:
        return None
    return 1 + 8 * np.array([norms[label][0] for label in info.labels])
