"""From images to predictions: several images in parallel, one per core."""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.errors import BoxError, ConfigError, ImageError, ImageNotFoundError
from uniemox.io.borders import image_border
from uniemox.io.decoding.pool import Decode, Decoders, decode_one
from uniemox.io.files import fingerprint_of
from uniemox.io.images import MinSides
from uniemox.io.sized_image import SizedImage
from uniemox.io.walking import LeftOut
from uniemox.labels import LabelMap
from uniemox.persons.box import Detection
from uniemox.persons.detector import Detector
from uniemox.predict.building import PredictionBuilder, assigned_labels
from uniemox.predict.colour import is_colourless
from uniemox.predict.confidence import unflagged_note
from uniemox.predict.faces import FaceReader, detect_in, owners
from uniemox.predict.images import ImageLike, content_of, is_listed_name, map_images, name_of, path_of, read_any, walk
from uniemox.predict.network import Network
from uniemox.predict.prediction import Face, Failure, Person, Prediction

ImageLikes = Sequence[ImageLike]
# Decoded images stay this many times larger than the network's input; at 2 some probabilities change by 0.06.
SHRINK_MARGIN = 4


class Predictor:
    """Predicts the emotions of images, and of the people in them; `uniemox.load` opens one.

    Threads may share a predictor.

    Args:
        network: Network that predicts the emotions of the scene.
        finder: Person detector; None: people are not detected.
        person_network: Predicts what people feel, and needs a finder.
        face_reader: Detects faces and predicts their expressions; None: no faces.

    Raises:
        ConfigError: For a person network that does not predict felt emotions.
    """

    def __init__(
        self,
        network: Network,
        finder: Detector | None = None,
        person_network: Network | None = None,
        face_reader: FaceReader | None = None,
    ) -> None:
        if person_network is not None:
            info = person_network.info
            if finder is None:
                raise ConfigError("a person model needs a person detector; give a finder, or leave out the model")
            if info.kind != "felt" or not info.has_person:
                raise ConfigError(
                    f"{person_network.name} predicts {info.kind} emotions from the {info.streams} view; a person "
                    "model must predict felt emotions: uniemox finetune --network.streams person (or both)"
                )
        self.network = network
        self.finder = finder
        self.person_network = person_network
        self.face_reader = face_reader

    def __repr__(self) -> str:
        parts = [f"{self.name} says what is {self.kind} ({self.label_set})"]
        parts += [] if self.finder is None else ["finds people"]
        parts += [] if self.person_network is None else [f"{self.person_network.name} what they feel"]
        parts += [] if self.face_reader is None else ["reads faces"]
        return f"<Predictor: {', '.join(parts)}>"

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.network.name

    @property
    def kind(self) -> str:
        """Kind of emotion: evoked, felt or expressed."""
        return self.network.info.kind

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ between predictors with different predictions."""
        reader = self.face_reader
        networks = (self.network, self.person_network, None if reader is None else reader.network)
        finders = (self.finder, None if reader is None else reader.finder)
        parts = [None if network is None else network.engine.fingerprint for network in networks]
        parts += [None if finder is None else finder.fingerprint for finder in finders]
        return fingerprint_of([], " ".join(map(str, parts)))

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the scene's prediction, in order."""
        return self.network.info.labels

    @property
    def label_set(self) -> str:
        """Name of the label set."""
        return self.network.info.label_set

    @property
    def flags_unfamiliar(self) -> bool:
        """False if it can flag only blank images as unfamiliar, or none."""
        return unflagged_note(self.network.info) is None

    def predict(self, image: ImageLike, *, coverage: float | None = None, labels: str | None = None) -> Prediction:
        """Return the prediction for one image.

        A list or a folder still gives a list, as `predict_many` and `predict_folder` do, with a DeprecationWarning.

        Args:
            image: A path, a data URL, the bytes of a file, a file opened as bytes, a PIL image, or an array (H, W),
                (H, W, 3) or (H, W, 4) of uint8 or of floats from 0 to 1.
            coverage: Share of images like the held-out ones, 0 to 1, whose `likely` must contain the true label.
            labels: Name of the label set for the prediction, such as polarity.

        Raises:
            ImageError: If the image can't be read.
            ConfigError: For a coverage that the model does not support.
            LabelError: For labels that the model does not support.
        """
        if isinstance(image, (list, tuple)):
            _warn_about_deprecated_call("predict_many", "several images")
            answers: Any = self.predict_many(image, coverage=coverage, labels=labels)
            return answers
        if _is_folder(image):
            _warn_about_deprecated_call("predict_folder", "a folder")
            answers = self.predict_folder(image, coverage=coverage, labels=labels)
            return answers
        return self._answer(image, decode_one, PredictionBuilder(self, coverage, labels))

    def predict_many(
        self, images: Iterable[ImageLike], *, coverage: float | None = None, labels: str | None = None
    ) -> list[Prediction | Failure]:
        """Return the predictions for several images, in their order; `predict_each` yields them one by one.

        Args:
            images: Any number of images, each in a form that `predict` takes.
            coverage: See `predict`.
            labels: See `predict`.

        Returns:
            A Prediction for each image, or a Failure for one that can't be read.

        Raises:
            ConfigError: For a coverage that the model does not support.
            LabelError: For labels that the model does not support.
        """
        if isinstance(images, (str, bytes, os.PathLike, Image.Image)):
            raise ConfigError("predict_many takes several images; call predict for one, predict_folder for a folder")
        return list(self.predict_each(images, coverage=coverage, labels=labels))

    def predict_folder(
        self, folder: str | os.PathLike[str], *, coverage: float | None = None, labels: str | None = None
    ) -> list[Prediction | Failure]:
        """Return the predictions for the images of a folder and of those inside it, in the order of their names.

        Args:
            folder: Path of the folder.
            coverage: See `predict`.
            labels: See `predict`.

        Returns:
            A Prediction for each image, or a Failure for one that can't be read.

        Raises:
            ImageError: If there is no such folder, or no image in it.
            ConfigError: For a coverage that the model does not support.
            LabelError: For labels that the model does not support.
        """
        if not _is_folder(folder):
            raise ImageError(f"{os.fspath(folder)}: there is no such folder")
        skipped = LeftOut()
        predictions = self.predict_many(walk(Path(folder), skipped), coverage=coverage, labels=labels)
        _warn_about_skipped(skipped)
        if not predictions:
            raise ImageError(f"{os.fspath(folder)}: no image in this folder or in those inside it")
        return predictions

    def embed(self, images: ImageLike | ImageLikes) -> NDArray[np.float32]:
        """Return features (N, D) of N images, the input of the last layer: for search, clustering and other models.

        Args:
            images: One image in a form that `predict` takes, several in a list or another sequence, or a folder.

        Raises:
            ImageError: For the first unreadable image, or if there is no image.
            ImageNotFoundError: If the first unreadable image is a missing file.
            ConfigError: For a model file without features.
        """
        skipped = LeftOut()
        sources: Iterable[ImageLike]
        if _is_folder(images):
            sources = walk(Path(images), skipped)
        elif isinstance(images, Sequence) and not isinstance(images, str | bytes):
            sources = images
        else:
            sources = [images]
        rows = []
        for answer in self.predict_each(sources, with_embedding=True):
            if isinstance(answer, Failure):
                if answer.path is not None and not os.path.exists(answer.path):
                    raise ImageNotFoundError(answer.error)
                raise ImageError(answer.error)
            assert answer.embedding is not None
            rows.append(answer.embedding)
        _warn_about_skipped(skipped)
        if not rows:
            raise ImageError("there is no image to embed")
        return np.stack(rows)

    def predict_each(
        self,
        images: Iterable[ImageLike],
        *,
        batch_size: int = 16,
        coverage: float | None = None,
        labels: str | None = None,
        decoders: Decoders | None = None,
        with_embedding: bool = False,
    ) -> Iterator[Prediction | Failure]:
        """Yield the prediction for each image, in order, as soon as it and all earlier ones are done; see `predict`.

        Args:
            images: Any number of images, read lazily.
            batch_size: Maximum number of images, up to 16, in progress before the next prediction is taken; predictions
                do not depend on it.
            coverage: See `predict`.
            labels: See `predict`.
            decoders: Processes that decode the files. None: this call starts its own processes, or decodes a single
                image in this process.
            with_embedding: Set `embedding` of each prediction.

        Raises:
            ConfigError: For a batch size below 1, or for a coverage that the model does not support.
            LabelError: For labels that the model does not support.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        builder = PredictionBuilder(self, coverage, labels, with_embedding=with_embedding)

        def answer(source: ImageLike, decode: Decode) -> Prediction | Failure:
            try:
                return self._answer(source, decode, builder)
            # BoxError: a detector may return a box that is not valid.
            except (ImageError, BoxError) as error:
                return Failure(path=path_of(source), error=str(error))

        return map_images(images, answer, batch_size, decoders)

    def _answer(self, source: ImageLike, decode: Decode, builder: PredictionBuilder) -> Prediction:
        """Decode an image and predict.

        Raises:
            ImageError: If the image can't be read.
        """
        with image_border(name_of(source)):
            return self._decode_and_answer(content_of(source), decode, builder)

    def _decode_and_answer(self, source: ImageLike, decode: Decode, builder: PredictionBuilder) -> Prediction:
        """Decode an image and predict; a malformed file may cause any error, which `image_border` converts."""
        info = self.network.info
        shrink = None
        # People and faces may be small, so only the scene alone is predicted from a reduced image.
        if not info.needs_person and self.person_network is None and self.face_reader is None:
            # `scene_view` resizes the short side to this length before it crops the centre.
            short_px = math.floor(info.size / info.crop_fraction)
            shrink = MinSides(short_px=SHRINK_MARGIN * short_px)
        sized = read_any(source, shrink, decode_file=decode)
        people = self.detect_persons(sized)

        views = self.network.image_views(sized, people)
        answers = self.network.answer_image(views, with_features=builder.with_embedding)
        persons = None
        if people is not None:
            persons = self._persons(sized, people, builder.person)
        faces = None
        if self.face_reader is not None:
            faces = self._faces(self.face_reader, sized, people, builder.face)
        return builder.build(
            source, sized.full_size, answers, views.box, persons, faces, is_colourless=is_colourless(sized.image)
        )

    def _persons(self, sized: SizedImage, people: Sequence[Detection], labels: LabelMap | None) -> list[Person]:
        """Return the detected people, with their emotions if there is a person network."""
        network = self.person_network
        emotions: list[dict[str, float] | None] = [None] * len(people)
        assigned: list[tuple[str, ...] | None] = [None] * len(people)
        if network is not None and labels is not None and people:
            felt = network.answer([network.views_of(sized, (person,)) for person in people])
            emotions = [labels.named(probabilities) for probabilities in felt.values]
            assigned = [assigned_labels(network.info, probabilities) for probabilities in felt.values]
        return [
            Person(
                box=person.box, confidence=person.confidence, emotions=felt_emotions, assigned_labels=assigned_to_person
            )
            for person, felt_emotions, assigned_to_person in zip(people, emotions, assigned, strict=True)
        ]

    def _faces(
        self, reader: FaceReader, sized: SizedImage, people: Sequence[Detection] | None, labels: LabelMap | None
    ) -> list[Face]:
        """Return the detected faces, with their expressions and owners."""
        detections = reader.find(sized)
        persons = owners([face.box for face in detections], [person.box for person in people or ()])
        views_by_face = [reader.views_of(sized, face.box) for face in detections]
        all_views = [view for face_views in views_by_face for view in face_views]
        # One pass for the views of all faces; each face then takes as many rows as it has views.
        rows = iter(reader.network.answer(all_views).values if all_views else ())
        faces = []
        for face, face_views, person in zip(detections, views_by_face, persons, strict=True):
            expressions = None
            if face_views and labels is not None:
                expressions = labels.named(np.mean([next(rows) for _ in face_views], axis=0))
            faces.append(Face(box=face.box, confidence=face.confidence, expressions=expressions, person=person))
        return faces

    def detect_persons(self, sized: SizedImage) -> tuple[Detection, ...] | None:
        """Detect the people in an image, in px of the full size, most confident first; None without a detector."""
        if self.finder is None:
            return None
        return detect_in(self.finder, sized)


def predict_on_ray(
    paths: Iterable[str], open_predictor: Callable[[], Predictor], *, batch_size: int = 16, **settings: Any
) -> Iterator[Prediction | Failure]:
    """Yield the prediction for each image, in the order of the paths, from all machines of a Ray cluster.

    `map_on_ray` documents which cluster is used.

    Args:
        paths: Paths of the images, valid on every machine; relative ones start at this process's folder.
        open_predictor: Function that opens the predictor, called once per worker.
        batch_size: Number of images that a worker takes at a time.
        settings: Further arguments of `Predictor.predict_each`: coverage and labels.

    Raises:
        ConfigError: For a batch size below 1.
        MissingPackageError: Without Ray.
    """
    from uniemox.io.parallel import DIED, map_on_ray  # noqa: PLC0415 - for a cluster alone

    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    remaining = iter(paths)
    submitted = []

    def batches() -> Iterator[list[str]]:
        while batch := list(islice(remaining, batch_size)):
            submitted.append(batch)
            yield batch

    for answers in map_on_ray(partial(_open_worker, open_predictor, settings), batches()):
        batch = submitted.pop(0)
        # `map_on_ray` returns None for a batch whose worker died.
        if answers is None:
            yield from (Failure(path=path, error=f"{path}: {DIED}") for path in batch)
        else:
            yield from answers


def _open_worker(
    open_predictor: Callable[[], Predictor], settings: Mapping[str, Any]
) -> Callable[[Sequence[str]], list[Prediction | Failure]]:
    predictor = open_predictor()
    return lambda paths: list(predictor.predict_each(paths, batch_size=len(paths), **settings))


def _warn_about_skipped(skipped: LeftOut) -> None:
    """Warn about the folders whose images were not predicted."""
    for note in skipped.notes(is_listed_name):
        warnings.warn(note, stacklevel=3)


def _warn_about_deprecated_call(method: str, argument: str) -> None:
    message = f"Predictor.predict takes one image; call {method} for {argument}"
    warnings.warn(message, DeprecationWarning, stacklevel=3)


def _is_folder(image: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(image, (str, os.PathLike)) and os.path.isdir(image)
