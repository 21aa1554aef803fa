"""Classifier in an ONNX file, run by onnxruntime on the CPU, and the meaning of its outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo, read_info
from uniemox.errors import CheckpointError, ConfigError
from uniemox.io.files import fingerprint_of
from uniemox.io.onnx_external import refuse_external_files
from uniemox.io.onnx_sessions import RUNTIME_ERRORS, InferenceSession, Session
from uniemox.io.run_files import ONNX
from uniemox.io.sized_image import SizedImage
from uniemox.io.weight_names import IN_PACKAGE
from uniemox.persons.box import Box, Detection, choose_person
from uniemox.predict.confidence import answers_of, familiarity_of, set_probabilities_of
from uniemox.predict.ratings import RatingHead
from uniemox.predict.views import Pixels, crop, hide, person_view, scene_box, scene_parts, scene_view
from uniemox.spelling import did_you_mean

# Pixels per run, in all views: larger batches are no faster and need more memory.
MAX_PX = 2 * 224 * 224
Array = NDArray[np.float32]
METADATA_KEY = "uniemox"
ONE_BY_ONE = "uniemox_one_by_one"
"""Metadata key of files that take one image at a time. Products in 8 bits whose ranges are measured at run time
(DynamicQuantizeLinear) have one range per batch, so predictions would depend on the other images."""
MAX_BYTES = 2 * 2**30
BLANK_STD = 4.0  # levels of 255, above the noise of a camera or of JPEG
# A prime, so that the pixels are of all columns.
BLANK_STEP = 31
# Enlarged, a smaller image looks like a smooth sky, which networks know well.
MIN_SIDE_PX = 16
LOGITS = "logits"
MAPS = "maps"
FEATURES = "features"
DISTANCE = "distance"


class Engine(Protocol):
    """Computes the outputs of a network."""

    outputs: frozenset[str]
    """Names of its outputs: logits (N, E); optionally maps (N, E, h, w), features (N, D), distance (N,) from the
    training images."""

    @property
    def fingerprint(self) -> str:
        """Identity of the computation, independent of the network's name."""

    def run(self, outputs: Sequence[str], views: Mapping[str, Array]) -> list[Array]:
        """Return the named outputs for views (N, 3, S, S), normalised."""


@dataclass(frozen=True, slots=True)
class ImageViews:
    """Everything that a network reads of one image."""

    views: tuple[dict[str, Pixels], ...]
    """K views by name, (3, S, S) uint8 each: one, or squares along a long image."""
    weights: tuple[float, ...]
    """Weight of each view, (K,), with sum 1."""
    parts: tuple[Box, ...]
    """Part of the image that each view shows, px."""
    is_tiny: bool
    """True if the image is too small to be recognised, see `is_tiny`."""

    @property
    def box(self) -> Box:
        """Part of the image that all views together show, px."""
        lows = [min(part[i] for part in self.parts) for i in (0, 1)]
        highs = [max(part[i] for part in self.parts) for i in (2, 3)]
        return Box(*lows, *highs)


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers for N images."""

    values: NDArray[np.float64]
    """(N, E) probabilities, or (N, 2) valence and arousal."""
    set_values: NDArray[np.float64]
    """(N, E) probabilities by which likely labels are chosen, see `set_probabilities_of`."""
    familiarity: NDArray[np.float64] | None
    """(N,), 0 to 1, see `familiarity_of`; None: the network has no distance."""
    features: Array | None
    """(N, D), input of the last layer; None: not requested."""
    ratings: NDArray[np.float64] | None = None
    """(N, 2) valence and arousal as people rate images, 1 to 9; None: the network has no rating head."""

    def mean(self) -> "Answers":
        """Return the mean over N parts of one image, as the answer for one image."""
        parts = (self.values, self.set_values, self.familiarity, self.features, self.ratings)
        return Answers(*(None if part is None else part.mean(axis=0, keepdims=True) for part in parts))  # type: ignore[arg-type]


class Network:
    """Classifier: logits, class-activation maps, probabilities.

    Usually created by `Network.open`.

    Args:
        name: Name shown to users.
        info: Metadata of the classifier.
        engine: Computes the outputs.
    """

    def __init__(self, name: str, info: ClassifierInfo, engine: Engine) -> None:
        self.name = name
        self.info = info
        self.engine = engine
        mean, std = (np.array(value, np.float32).reshape(3, 1, 1) * 255 for value in (info.mean, info.std))
        self._mean = mean
        self._std = std

    @classmethod
    def open(
        cls, path: Path, *, name: str | None = None, threads: int | None = None, provider: str = "cpu"
    ) -> "Network":
        """Open the classifier in an ONNX file of `uniemox finetune`.

        Args:
            path: ONNX file.
            name: Name shown to users; None: the file's name, or its run's.
            threads: Threads per run; None: one per core, or one in a worker of `parallel_map`.
            provider: Execution provider, see `open_session`.

        Raises:
            CheckpointError: With the file's name, if it is not such a classifier, damaged, larger than 2 GB or refers
                to other files.
            ConfigError: If onnxruntime lacks the provider.
        """
        engine = _OnnxEngine(path, threads, provider)
        default_name = path.parent.name if path.name == ONNX and path.parent.name else path.name
        return cls(name or default_name, engine.info, engine)

    def views_of(
        self, sized: SizedImage, persons: Sequence[Detection] | None, target: Box | None = None
    ) -> dict[str, Pixels]:
        """Return the network's views of an image by name, (3, S, S) uint8 each.

        Args:
            sized: The image.
            persons: Detected people, px of the full size, see `choose_person`.
            target: Box of the person to choose, px of the full size, see `choose_person`.
        """
        info = self.info
        person = choose_person(persons, target, sized.full_size, info.person) if info.needs_person else None
        views = {}
        if "scene" in info.views:
            visible = hide(sized, person) if person and info.hides_person else sized.image
            views["scene"] = scene_view(visible, info.size, info.crop_fraction)
        if person and info.has_person:
            views["person"] = person_view(sized, person, info.size)
        return views

    def image_views(
        self, sized: SizedImage, persons: Sequence[Detection] | None, target: Box | None = None
    ) -> ImageViews:
        """Return the views of a whole image: one, or several along a long one (`scene_parts`).

        Takes the arguments of `views_of`. A network that needs the person has one view, because people are detected in
        the whole image.
        """
        info = self.info
        full_size = sized.full_size
        if "scene" not in info.views:
            person = choose_person(persons, target, full_size, info.person)
            views = (self.views_of(sized, persons, target),)
            return ImageViews(views, (1.0,), (person.box,), is_tiny=is_tiny(full_size))
        parts = [(Box(0, 0, *full_size), 1.0)] if info.needs_person else scene_parts(full_size, info.rules.long_images)
        if len(parts) == 1:
            centre = scene_box(full_size, info.size, info.crop_fraction)
            views = (self.views_of(sized, persons, target),)
            return ImageViews(views, (1.0,), (centre,), is_tiny=is_tiny(full_size))
        squares = []
        boxes = []
        for part, _ in parts:
            squares.append(self.views_of(SizedImage.of(crop(sized, part)), None))
            centre = scene_box((min(full_size), min(full_size)), info.size, info.crop_fraction)
            boxes.append(Box(centre.x1 + part.x1, centre.y1 + part.y1, centre.x2 + part.x1, centre.y2 + part.y1))
        weights = tuple(weight for _, weight in parts)
        return ImageViews(tuple(squares), weights, tuple(boxes), is_tiny=is_tiny(full_size))

    def answer(self, views: Sequence[Mapping[str, Pixels]], *, with_features: bool = False) -> Answers:
        """Return the answers for N images' views, see `views_of`.

        Raises:
            ConfigError: If features are requested from a network that does not output them.
        """
        outputs = self.run(views, self._extra_outputs(with_features=with_features))
        return self._answers(outputs, with_features=with_features)

    def answer_image(self, image_views: ImageViews, *, with_features: bool = False) -> Answers:
        """Return the answer for one image, see `image_views`.

        Raises:
            ConfigError: If features are requested from a network that does not output them.
        """
        outputs = self._run_views(image_views, self._extra_outputs(with_features=with_features))
        # By the older rule, the probabilities of the squares are averaged; by the present one, the network's outputs.
        if len(image_views.views) > 1 and self.info.rules.long_images == "squares":
            return self._answers(outputs, with_features=with_features).mean()
        return self._answers(mean_outputs(outputs, image_views.weights), with_features=with_features)

    def run_image(self, image_views: ImageViews, extra_outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Return the outputs for one image by name, one row each: the weighted mean over its views.

        Args:
            image_views: Views of the image, from `image_views`.
            extra_outputs: Names of further outputs, see `run`. The distance is the mean over views that are not blank;
                that of a tiny image is infinite.
        """
        return mean_outputs(self._run_views(image_views, extra_outputs), image_views.weights)

    def _run_views(self, image_views: ImageViews, extra_outputs: Sequence[str]) -> dict[str, Array]:
        """Return the outputs for the K views of an image by name, (K, ...) each; a tiny image counts as blank."""
        outputs = self.run(image_views.views, extra_outputs)
        if image_views.is_tiny and DISTANCE in outputs:
            outputs[DISTANCE] = np.full_like(outputs[DISTANCE], np.inf)
        return outputs

    def _extra_outputs(self, *, with_features: bool) -> list[str]:
        """Return the names of the outputs that answers need besides logits and distance."""
        if with_features and FEATURES not in self.engine.outputs:
            raise ConfigError(f"{self.name} gives no features; give another model, or export it again")
        if with_features or self.rating_head:
            return [FEATURES]
        return []

    def _answers(self, outputs: Mapping[str, Array], *, with_features: bool) -> Answers:
        """Return the answers for the network's outputs."""
        head = self.rating_head
        logits = outputs[LOGITS]
        distances = outputs.get(DISTANCE)
        values = answers_of(self.info, logits, distances)
        set_values = values
        if self.info.task != "affect":
            set_values = set_probabilities_of(self.info, logits, distances)
        return Answers(
            values=values,
            set_values=set_values,
            familiarity=familiarity_of(distances, self.info.distances),
            features=outputs[FEATURES] if with_features else None,
            ratings=None if head is None else head.rate(outputs[FEATURES], logits),
        )

    @cached_property
    def rating_head(self) -> RatingHead | None:
        """Head for valence and arousal; None in files without one.

        Raises:
            CheckpointError: For one that can't be read or belongs to another network.
        """
        if not self.info.ratings or FEATURES not in self.engine.outputs:
            return None
        return RatingHead.from_dict(self.info.ratings)

    def run(self, views: Sequence[Mapping[str, Pixels]], extra_outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Return outputs by name for N images' views: logits, the distance if there is one, and `extra_outputs`.

        The distance of a blank view is infinite.
        """
        has_distance = DISTANCE in self.engine.outputs and self.info.distances
        output_names = [LOGITS, *extra_outputs]
        if has_distance:
            output_names.insert(1, DISTANCE)
        batch_size = max(1, MAX_PX // self.info.size**2)
        parts = []
        for i in range(0, len(views), batch_size):
            batch = views[i : i + batch_size]
            pixels = {name: self.pixels(np.stack([view[name] for view in batch])) for name in self.info.views}
            parts.append(self.engine.run(output_names, pixels))
        columns = zip(*parts, strict=True)
        outputs = {name: np.concatenate(arrays) for name, arrays in zip(output_names, columns, strict=True)}
        if DISTANCE in outputs:
            are_blank = [is_blank(*view.values()) for view in views]
            outputs[DISTANCE] = np.where(are_blank, np.float32(np.inf), outputs[DISTANCE])
        return outputs

    def pixels(self, views: NDArray[np.uint8]) -> Array:
        """Normalise views (N, 3, S, S) uint8, RGB, to float32."""
        values = views.astype(np.float32)
        # In place, without two more arrays.
        values -= self._mean
        values /= self._std
        return values

    def logits(self, views: Mapping[str, Array]) -> Array:
        """Return logits (N, E), or valence and arousal (N, 2), of the network's views (N, 3, S, S), from `pixels`."""
        return self.engine.run([LOGITS], views)[0]

    def maps(self, scene: Array) -> Array | None:
        """Return class-activation maps (N, E, h, w) of scene views (N, 3, S, S); None if the network has none."""
        if MAPS not in self.engine.outputs or self.info.has_person:
            return None
        return self.engine.run([MAPS], {"scene": scene})[0]


class _OnnxEngine:
    """ONNX file in onnxruntime; see `Engine`."""

    def __init__(self, path: Path, threads: int | None, provider: str) -> None:
        _check_file(path)
        self._path = path
        self._provider = provider
        try:
            self._session = Session(path, threads=threads, provider=provider)
            session = self._session.wide
            metadata = session.get_modelmeta().custom_metadata_map
            self._is_one_by_one = is_one_by_one(session)
        except RUNTIME_ERRORS as error:
            raise CheckpointError(
                f"{path}: onnxruntime can't read it ({error}); export or download it again"
            ) from error
        if METADATA_KEY not in metadata:
            raise CheckpointError(
                f"{path} is an ONNX file, but not a uniemox classifier; uniemox finetune writes one as RUN/model.onnx"
            )
        try:
            self.info = read_info(metadata[METADATA_KEY])
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
        inputs = session.get_inputs()
        self.outputs = frozenset(part.name for part in session.get_outputs())
        size = self.info.size
        names = {part.name for part in inputs}
        fits = all(part.type == "tensor(float)" and part.shape[1:] == [3, size, size] for part in inputs)
        if names != set(self.info.views) or LOGITS not in self.outputs or not fits:
            signature = ", ".join(f"{part.name} {part.shape} {part.type}" for part in inputs)
            raise CheckpointError(
                f"{path}: expected inputs {', '.join(self.info.views)} [N, 3, {size}, {size}] as float and the output "
                f"logits, got {signature} and {', '.join(sorted(self.outputs))}; export it again"
            )

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of([self._path], "" if self._provider == "cpu" else self._provider)

    def run(self, outputs: Sequence[str], views: Mapping[str, Array]) -> list[Array]:
        try:
            arrays = run_views(self._session, outputs, views, one_by_one=self._is_one_by_one)
        except RUNTIME_ERRORS as error:
            raise CheckpointError(f"{self._path}: does not run on an image ({error}); export it again") from error
        count = len(next(iter(views.values())))
        for name, values in zip(outputs, arrays, strict=True):
            self._check_shape(name, values, count)
            if not np.isfinite(values).all():
                raise CheckpointError(f"{self._path}: {name} is not finite; download it again, or train it anew")
        return [np.asarray(values, np.float32) for values in arrays]

    def _check_shape(self, name: str, values: Any, count: int) -> None:
        """Raise CheckpointError for an output that is none of N images: (N, E), (N,), (N, D) or (N, E, h, w)."""
        labels = len(self.info.labels)
        ranks = {DISTANCE: 1, MAPS: 4}
        is_array = isinstance(values, np.ndarray) and values.dtype.kind in "fiub"
        shape = values.shape if is_array else ()
        is_right = is_array and shape[:1] == (count,) and len(shape) == ranks.get(name, 2) and 0 not in shape
        if is_right and name in (LOGITS, MAPS):
            is_right = list(shape)[1] == labels
        if not is_right:
            form = shape if is_array else "no numbers"
            raise CheckpointError(
                f"{self._path}: has {labels} labels, but gives {form} as {name} of {count} views; export it again"
            )


def is_one_by_one(session: InferenceSession) -> bool:
    """Return True if a file takes one image at a time; see ONE_BY_ONE."""
    return ONE_BY_ONE in session.get_modelmeta().custom_metadata_map


def run_views(
    session: InferenceSession | Session, outputs: Sequence[str], views: Mapping[str, Array], *, one_by_one: bool
) -> list[NDArray[Any]]:
    """Return outputs by name, (N, ...) each, for views by name, (N, 3, S, S) each.

    Args:
        session: Session of the file.
        outputs: Names of the outputs.
        views: Views of N images.
        one_by_one: True if the file takes one image at a time, see `is_one_by_one`.

    Raises:
        RUNTIME_ERRORS: One of them, if the network does not run.
    """
    count = len(next(iter(views.values())))
    if not one_by_one or count < 2:
        return session.run(list(outputs), dict(views))
    parts = [session.run(list(outputs), {name: view[i : i + 1] for name, view in views.items()}) for i in range(count)]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]


def mean_outputs(outputs: Mapping[str, Array], weights: Sequence[float]) -> dict[str, Array]:
    """Return the weighted mean of the outputs for K views of an image, one row each.

    Infinite distances, those of blank views, count only if all are.

    Args:
        outputs: Outputs by name, (K, ...) each.
        weights: Weight of each view, (K,).
    """
    if len(weights) == 1:
        return dict(outputs)
    means = {}
    for name, values in outputs.items():
        rows = values
        shares = np.array(weights)
        if name == DISTANCE and np.isfinite(values).any():
            rows = values[np.isfinite(values)]
            shares = shares[np.isfinite(values)]
        means[name] = np.average(rows, axis=0, weights=shares)[None].astype(np.float32)
    return means


def is_tiny(full_size: tuple[int, int]) -> bool:
    """Return True if an image is too small to be recognised.  full_size: width and height, px."""
    return min(full_size) < MIN_SIDE_PX


def is_blank(*views: Pixels) -> bool:
    """Return True if views (3, S, S) are blank: no channel varies by more than camera or JPEG noise."""
    return all(_is_blank(view.reshape(3, -1)) for view in views)


def _is_blank(pixels: Pixels) -> bool:
    """Return True if no channel of pixels (3, N) varies."""
    # The squared differences of some pixels from their mean are at most those of all pixels: photographs need no more.
    some = pixels[:, ::BLANK_STEP]
    if (some.var(axis=1) * some.shape[1] >= BLANK_STD**2 * pixels.shape[1]).any():
        return False
    return bool(pixels.std(axis=1).max() < BLANK_STD)


def _check_file(path: Path) -> None:
    """Raise CheckpointError for a file that is missing, empty, too large, or only a part of a model."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CheckpointError(f"{path} is not a file; expected an ONNX file of uniemox finetune")
        if not 0 < size <= MAX_BYTES:
            raise CheckpointError(f"{path}: {size / 2**30:.1f} GB; expected an ONNX file of up to 2 GB, all in one")
    except OSError as error:
        hint = did_you_mean(str(path), IN_PACKAGE)
        # A path such as ./embedded names a file, and has lost its ./ here.
        if str(path) in IN_PACKAGE:
            hint = f"; the model in the package is {path}, without ./"
        raise CheckpointError(f"{path} can't be read: {error.strerror or error}{hint}") from error
    refuse_external_files(path, CheckpointError)
