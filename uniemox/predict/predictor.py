"""From images to predictions: several images in parallel, one per core."""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.errors import BoxError, ConfigError, ImageError, ImageNotFoundError
from uniemox.io.decoding.pool import Decode, Decoders, decode_one
from uniemox.io.files import fingerprint_of
from uniemox.io.image_border import image_border
from uniemox.io.images import MinSides
from uniemox.io.walking import LeftOut
from uniemox.labels import LabelMap
from uniemox.persons.box import Detection
from uniemox.persons.detector import Detector
from uniemox.predict.colour import is_colourless
from uniemox.predict.faces import FaceReader, detect_in, owners
from uniemox.predict.images import ImageLike, content_of, is_listed_name, map_images, name_of, path_of, read_any, walk
from uniemox.predict.network import Network
from uniemox.predict.prediction import Face, Failure, Person, Prediction
from uniemox.predict.question import Question

ImageLikes = list[ImageLike] | tuple[ImageLike, ...]
SHRINK_MARGIN = 4  # decoded images stay this many times larger than the input; at 2 some probabilities change by 0.06


class Predictor:
    """Predicts the emotions of images, and of the people in them; `uniemox.load` opens one.

    Threads may share a predictor.

    Args:
        network: For the scene.
        finder: Person detector; None does not look for people.
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
        """Kind of emotion: evoked or felt."""
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

    @overload
    def predict(
        self, image: ImageLikes, *, coverage: float | None = None, labels: str | None = None
    ) -> list[Prediction | Failure]: ...
    @overload
    def predict(
        self, image: ImageLike, *, coverage: float | None = None, labels: str | None = None
    ) -> Prediction | list[Prediction | Failure]: ...
    def predict(
        self, image: ImageLike | ImageLikes, *, coverage: float | None = None, labels: str | None = None
    ) -> Prediction | list[Prediction | Failure]:
        """Return the prediction for an image, or a list of predictions for several.

        (H, W, 3) or (H, W, 4) of uint8 or floats from 0 to 1. Several: a list or tuple of these, or a folder, in the
        order of its file names.

        Args:
            image: A path, a data URL, the bytes of a file, a file opened as bytes, a PIL image, or an array (H, W).
            coverage: Share of images, 0 to 1, whose `likely` must contain the true label.
            labels: Name of the label set for the predictions, such as polarity.

        Raises:
            ImageError: For a single unreadable image, and for a folder without images; in a list, an unreadable image
                becomes a Failure.
            ConfigError, LabelError: For a coverage or labels that the model does not support.
        """
        if isinstance(image, (list, tuple)):
            return list(self.predict_each(image, coverage=coverage, labels=labels))
        if not _is_folder(image):
            return self._answer(image, decode_one, Question(self, coverage, labels))
        left = LeftOut()
        predictions = list(self.predict_each(walk(Path(image), left), coverage=coverage, labels=labels))
        _warn_of(left)
        if not predictions:
            raise ImageError(f"{os.fspath(image)}: no image in this folder or in those inside it")
        return predictions

    def embed(self, images: ImageLike | ImageLikes) -> NDArray[np.float32]:
        """Return features (N, D) of N images, the input of the last layer: for search, clustering and other models.

        Args:
            images: As for `predict`.

        Raises:
            ImageError: For the first unreadable image.
            ImageNotFoundError: If it is missing.
            ConfigError: For a model file without features.
        """
        several: Iterable[ImageLike] = [images] if not isinstance(images, (list, tuple)) else images
        rows = []
        left = LeftOut()
        if _is_folder(images):
            several = walk(Path(images), left)
        for answer in self.predict_each(several, with_embedding=True):
            if isinstance(answer, Failure):
                is_missing = answer.path is not None and not os.path.exists(answer.path)
                raise (ImageNotFoundError if is_missing else ImageError)(answer.error)
            assert answer.embedding is not None
            rows.append(answer.embedding)
        _warn_of(left)
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
            images: Any number.
            batch_size: Maximum number of images, up to 16, in progress before the next prediction is taken; predictions
                do not depend on it.
            decoders: Decode the files. None: this call starts its own processes, or decodes a single image in this
                process.
            with_embedding: Set `embedding` of each prediction.

        Raises:
            ConfigError: For a batch size below 1.
            the ConfigError and LabelError: Of `predict`.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        question = Question(self, coverage, labels, with_embedding=with_embedding)

        def answer(source: ImageLike, decode: Decode) -> Prediction | Failure:
            try:
                return self._answer(source, decode, question)
            except (ImageError, BoxError) as error:  # BoxError: a detector's box that is no box
                return Failure(path=path_of(source), error=str(error))

        return map_images(images, answer, batch_size, decoders)

    def _answer(self, source: ImageLike, decode: Decode, question: Question) -> Prediction:
        """Decode an image and predict. Raises ImageError."""
        with image_border(name_of(source)):
            return self._answer_inside(content_of(source), decode, question)

    def _answer_inside(self, source: ImageLike, decode: Decode, question: Question) -> Prediction:
        """Decode an image and predict; any error may come from a file that nobody foresaw."""
        info = self.network.info
        shrink = None
        if not info.needs_person and self.person_network is None and self.face_reader is None:  # people may be small
            short_px = math.floor(info.size / info.crop_fraction)  # `scene_view` crops its centre
            shrink = MinSides(short_px=SHRINK_MARGIN * short_px)
        image, full = read_any(source, shrink, decode_file=decode)
        people = self.find_people(image, full)
        look = self.network.look_at_all(image, full, people)
        judged = self.network.answer_image(look, with_features=question.with_embedding)
        if people is None:
            persons = None
        else:
            persons = self._persons(image, full, people, question.person)
        if self.face_reader is None:
            faces = None
        else:
            faces = self._faces(self.face_reader, image, full, people, question.face)
        return question.prediction(source, full, judged, look.box, persons, faces, is_colourless=is_colourless(image))

    def _persons(
        self, image: Image.Image, full: tuple[int, int], people: Sequence[Detection], labels: LabelMap | None
    ) -> list[Person]:
        network = self.person_network
        emotions: list[dict[str, float] | None] = [None] * len(people)
        if network is not None and labels is not None and people:
            felt = network.answer([network.look(image, full, (person,)) for person in people])
            emotions = [*map(labels.named, felt.values)]
        return [Person(box=p.box, confidence=p.confidence, emotions=e) for p, e in zip(people, emotions, strict=True)]

    def _faces(
        self,
        reader: FaceReader,
        image: Image.Image,
        full: tuple[int, int],
        people: Sequence[Detection] | None,
        labels: LabelMap | None,
    ) -> list[Face]:
        detections = reader.find(image, full)
        persons = owners([face.box for face in detections], [person.box for person in people or ()])
        looked = [reader.look(image, full, face.box) for face in detections]
        views = [view for several in looked for view in several]
        rows = iter(reader.network.answer(views).values if views else ())
        faces = []
        for face, several, person in zip(detections, looked, persons, strict=True):
            expressions = None
            if several and labels is not None:
                expressions = labels.named(np.mean([next(rows) for _ in several], axis=0))
            faces.append(Face(box=face.box, confidence=face.confidence, expressions=expressions, person=person))
        return faces

    def find_people(self, image: Image.Image, full: tuple[int, int]) -> tuple[Detection, ...] | None:
        """Detect the people in an image, px of the full one, most confident first; None without a detector.

        Args:
            image: RGB, which may be a smaller copy.
            full: Width and height of the image.
        """
        if self.finder is None:
            return None
        return detect_in(self.finder, image, full)


def predict_on_ray(
    paths: Iterable[str], open_predictor: Callable[[], Predictor], *, batch_size: int = 16, **asked: Any
) -> Iterator[Prediction | Failure]:
    """Yield the prediction for each image, in the order of the paths, from all machines of a Ray cluster.

    `map_on_ray` documents which cluster is used.

    Args:
        paths: Of images, valid on every machine; relative ones start at this process's folder.
        open_predictor: Called once per worker.
        asked: Coverage and labels, as for `Predictor.predict_each`.

    Raises:
        MissingPackageError: Without Ray.
    """
    from uniemox.io.parallel import DIED, map_on_ray  # noqa: PLC0415 - for a cluster alone

    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    rest = iter(paths)
    taken = []

    def batches() -> Iterator[list[str]]:
        while batch := list(islice(rest, batch_size)):
            taken.append(batch)
            yield batch

    for answers in map_on_ray(partial(_open_work, open_predictor, asked), batches()):
        batch = taken.pop(0)
        yield from [Failure(path=path, error=f"{path}: {DIED}") for path in batch] if answers is None else answers


def _open_work(
    open_predictor: Callable[[], Predictor], asked: Mapping[str, Any]
) -> Callable[[Sequence[str]], list[Prediction | Failure]]:
    predictor = open_predictor()
    return lambda paths: list(predictor.predict_each(paths, batch_size=len(paths), **asked))


def _warn_of(left: LeftOut) -> None:
    """Warn of the folders whose images were not predicted."""
    for note in left.notes(is_listed_name):
        warnings.warn(note, stacklevel=3)


def _is_folder(image: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(image, (str, os.PathLike)) and os.path.isdir(image)
