"""Heat maps of a predictor's answers: class-activation maps, occlusion for any network, or Grad-CAM, with torch."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, ShapeError
from uniemox.insight.explain.explanation import Array, Explanation, normalised
from uniemox.insight.explain.scores import MapScores, map_scores
from uniemox.io.borders import image_border
from uniemox.io.sized_image import SizedImage
from uniemox.persons.box import Detection, choose_person
from uniemox.predict.confidence import answers_of, is_unfamiliar, log_softmax
from uniemox.predict.images import ImageLike, name_of, read_any
from uniemox.predict.network import ImageViews, Network
from uniemox.predict.opening import open_finder, open_network
from uniemox.predict.predictor import Predictor

Method = Literal["auto", "cam", "occlusion", "grad-cam"]
Score = Callable[[Array], NDArray[np.floating]]
"""Function from pixels (N, 3, S, S) to the evidence for the label, (N,). It gives log-probabilities, which still differ
when probabilities are near 1."""

# Cells per side; an occlusion map has CELLS x CELLS values.
CELLS = 16
# Side and step of large covers, in cells: 7 x 7 covers.
COARSE = 4
COARSE_STEP = 2
# Side, in cells, and number of small covers.
FINE = 2
FINE_COVERS = 48
# Images at a time, so that 49 and 48 covers take four runs each.
BATCH = 14


class Explainer:
    """Explains predictions with heat maps, and scores the maps.

    Args:
        predictor: Predictor whose predictions are explained.
        method: Method of the maps, see `heat_map`.
    """

    def __init__(self, predictor: Predictor, method: Method = "auto") -> None:
        self.predictor = predictor
        self.method = method
        self.name = predictor.name
        self.needs_person = predictor.network.info.needs_person

    def __repr__(self) -> str:
        return f"<Explainer of {self.name}, method {self.method}>"

    def explain(
        self,
        image: ImageLike,
        label: str | None = None,
        persons: Sequence[Detection] | None = None,
        *,
        stream: str | None = None,
    ) -> Explanation:
        """Explain one image, see `heat_map`."""
        return heat_map(self.predictor, image, label, method=self.method, stream=stream, persons=persons)

    def score(self, explanation: Explanation) -> MapScores:
        """Measure one of the explainer's maps, see `map_scores`.

        The map of a long image is measured on its middle square.

        Raises:
            ConfigError: For valence and arousal.
        """
        network = self.predictor.network
        info = network.info
        if info.task == "affect":
            raise ConfigError(f"{self.name} predicts valence and arousal; deletion and insertion need probabilities")
        views = network.views_of(SizedImage.of(explanation.image), explanation.persons)
        pixels = {name: network.pixels(view[None]) for name, view in views.items()}
        view_name = info.views[0]
        index = info.labels.index(explanation.label)

        def classify(changed: Array) -> NDArray[np.floating]:
            logits = logits_of(network, pixels | {view_name: changed})
            return answers_of(info, logits)[:, index]

        return map_scores(classify, pixels[view_name][0], middle_square(explanation.heat))


def middle_square(heat: Array) -> Array:
    """Return the middle square of a map (h, w)."""
    side = min(heat.shape)
    y, x = ((length - side) // 2 for length in heat.shape)
    return heat[y : y + side, x : x + side]


def open_explainer(model: str | Path | None, method: Method = "auto") -> Explainer:
    """Open the explainer of a model.

    If the model reads the person view, the embedded detector finds people, as in `uniemox predict`.

    Args:
        model: Name or path of the model, see `uniemox.load`; None: the package's own. For grad-cam a fine-tuning run
            or its model.safetensors.
        method: Method of the maps, see `heat_map`. Only grad-cam needs torch.

    Raises:
        CheckpointError: For files that can't be used.
        HubError: For files that can't be fetched.
        ConfigError: For grad-cam without a run.
    """
    if method != "grad-cam":
        return Explainer(_open_predictor(model), method)
    if model is None:
        raise ConfigError("grad-cam needs a run: give --model RUN; the package's model has cam")
    from uniemox.insight.explain.grad_cam import open_in_torch  # noqa: PLC0415 - torch

    return Explainer(open_in_torch(Path(model)), method)


def open_explainers(
    models: Sequence[str | Path | None], method: Method | Literal["both"]
) -> tuple[list[Explainer], list[str]]:
    """Open and name the explainers of several models; method "both" opens cam and occlusion for each model.

    Args:
        models: Names or paths of the models, see `open_explainer`.
        method: Method of the maps, see `heat_map`; or both.

    Returns:
        The explainers and their names, all different.

    Raises:
        CheckpointError: For files that can't be used.
        HubError: For files that can't be fetched.
        ConfigError: For grad-cam without a run.
    """
    if method != "both":
        explainers = [open_explainer(model, method) for model in models]
        return explainers, unique_names([explainer.name for explainer in explainers])
    methods: tuple[Method, Method] = ("cam", "occlusion")
    explainers = []
    for model in models:
        predictor = _open_predictor(model)
        explainers += [Explainer(predictor, each_method) for each_method in methods]
    return explainers, unique_names([f"{explainer.name} ({explainer.method})" for explainer in explainers])


def _open_predictor(model: str | Path | None) -> Predictor:
    """Open a predictor that detects people only if its network needs them."""
    network = open_network(model)
    return Predictor(network, open_finder("embedded") if network.info.needs_person else None)


def unique_names(names: Sequence[str]) -> list[str]:
    """Number the names that occur more than once.

    >>> unique_names(["fi", "clip", "fi"])
    ['fi (1)', 'clip', 'fi (2)']
    """
    counts = Counter(names)
    numbers = Counter[str]()
    unique = []
    for name in names:
        numbers[name] += 1
        unique.append(f"{name} ({numbers[name]})" if counts[name] > 1 else name)
    return unique


def heat_map(
    predictor: Predictor,
    image: ImageLike,
    label: str | None = None,
    *,
    method: Method = "auto",
    stream: str | None = None,
    persons: Sequence[Detection] | None = None,
    full_scale: float | None = None,
) -> Explanation:
    """Explain which parts of an image support a label.

    Args:
        predictor: Predictor whose prediction is explained.
        image: Image in any form that `Predictor.predict` takes.
        label: Label to explain, one of the predictor's; None: the most probable.
        method: cam: class-activation map, which convolutional networks output in one pass. occlusion: any network, in
            about 100 passes. auto: cam if the network has it, else occlusion. grad-cam: for a predictor of
            `open_in_torch`.
        stream: Name of the view to explain; None: the scene, or the person if the network reads nothing else.
        persons: People in the image, px; None: the predictor's detector finds them if the network needs them.
        full_scale: Evidence that has the brightest colour, positive, such as the `evidence` of another label's map;
            None: the most that the map has.

    Raises:
        ImageError: For an unreadable image.
        LabelError: For an unknown label.
        ConfigError: For a method or a view that the network does not have.
    """
    if method not in get_args(Method):
        raise ConfigError(f"there is no method {method!r}; choose one of {', '.join(get_args(Method))}")
    if stream is not None and stream not in predictor.network.info.views:
        views = " and ".join(predictor.network.info.views)
        raise ConfigError(f"the network reads {views}; there is no map of {stream}")
    with image_border(name_of(image)):
        return _explain_one(
            predictor, image, label, method=method, stream=stream, persons=persons, full_scale=full_scale
        )


def _explain_one(
    predictor: Predictor,
    image: ImageLike,
    label: str | None,
    *,
    method: Method,
    stream: str | None,
    persons: Sequence[Detection] | None,
    full_scale: float | None,
) -> Explanation:
    """Explain one image; takes the arguments of `heat_map`."""
    network = predictor.network
    info = network.info
    sized = read_any(image)
    if persons is None and info.needs_person:
        persons = predictor.detect_persons(sized)
    image_views = network.image_views(sized, persons)
    answers = network.answer_image(image_views)
    answer = answers.values[0]  # (E,)
    index = int(answer.argmax()) if label is None else info.find_labels().index(label)
    view_name = stream or info.views[0]
    maps = []
    for views in image_views.views:
        pixels = {name: network.pixels(view[None]) for name, view in views.items()}
        used_method, values = _map_of_view(network, pixels, view_name, index, method)
        maps.append(values)
    box = image_views.box
    if view_name == "person":
        box = choose_person(persons, None, sized.full_size, info.person).box
    evidence = maps[0] if len(maps) == 1 else join_maps(maps, image_views)
    return Explanation(
        label=info.labels[index],
        probability=float(answer[index]),
        method=used_method,
        heat=normalised(evidence, full_scale),
        evidence=max(0.0, float(evidence.max())),
        box=box,
        image=sized.image,
        persons=None if persons is None else tuple(persons),
        is_unfamiliar=answers.familiarity is not None and is_unfamiliar(float(answers.familiarity[0])),
    )


def join_maps(maps: Sequence[Array], image_views: ImageViews) -> Array:
    """Join the maps of the squares along a long image: evidence for the weighted mean of their outputs.

    Args:
        maps: K maps (h, h), one for each square.
        image_views: The squares, with their positions and weights.

    Returns:
        (h', w') map of the part that all squares together show, as fine as the maps.
    """
    box = image_views.box
    side = maps[0].shape[0]
    scale = side / (image_views.parts[0].x2 - image_views.parts[0].x1)  # cells per px
    height = round((box.y2 - box.y1) * scale)
    width = round((box.x2 - box.x1) * scale)
    total = np.zeros((height, width), np.float32)
    for values, weight, part in zip(maps, image_views.weights, image_views.parts, strict=True):
        y = min(round((part.y1 - box.y1) * scale), height - side)
        x = min(round((part.x1 - box.x1) * scale), width - side)
        total[y : y + side, x : x + side] += weight * values
    return total


def _map_of_view(
    network: Network, views: Mapping[str, Array], view_name: str, index: int, method: Method
) -> tuple[str, Array]:
    """Return the name of the method used, and the map (h, w) of one view for a label's index."""
    if method == "grad-cam":
        gradient_maps = getattr(network.engine, "gradient_maps", None)
        if gradient_maps is None:
            raise ConfigError(f"{network.name} has no gradients; grad-cam needs a run in torch")
        return method, gradient_maps(views, index)[view_name]
    # Only the scene view has class-activation maps.
    maps = None if method == "occlusion" or view_name != "scene" else network.maps(views["scene"])
    if maps is not None:
        return "cam", maps[0, index]
    if method == "cam":
        raise ConfigError(
            f"{network.name} has no class-activation maps: it is not a convolutional network with a linear head, or "
            "its file is from an older version; use method occlusion"
        )

    def score(pixels: Array) -> NDArray[np.floating]:
        logits = logits_of(network, {**views, view_name: pixels})
        if network.info.task == "affect":
            return logits[:, index].astype(np.float64)
        if network.info.task == "multilabel":
            return answers_of(network.info, logits)[:, index]
        return log_softmax(logits)[:, index]

    return "occlusion", occlusion_map(score, views[view_name][0])


def logits_of(network: Network, views: Mapping[str, Array]) -> Array:
    """Return logits (N, E) of views by name; a view of one image is repeated."""
    count = max(len(view) for view in views.values())
    repeated = {name: view if len(view) == count else np.repeat(view, count, axis=0) for name, view in views.items()}
    return network.logits(repeated)


def occlusion_map(score: Score, pixels: Array) -> Array:
    """Measure how much the score falls when parts of the image are covered (arXiv 1311.2901), in 98 passes.

    The map is negative where covering raises the score. A cover has the mean colour of the image.

    Args:
        score: Evidence for the label.
        pixels: (3, S, S), normalised; S at least 16.

    Returns:
        (16, 16): for each cell the mean fall over the large covers on it, plus the mean over the small covers on it,
        which cover the 48 hottest cells.

    Raises:
        ShapeError: For smaller pixels.
    """
    if min(pixels.shape[1:]) < CELLS:
        raise ShapeError(f"expected pixels (3, S, S) with S at least {CELLS}, got {pixels.shape}")
    before = float(score(pixels[None])[0])
    starts = range(0, CELLS - COARSE + 1, COARSE_STEP)
    large = [(row, column) for row in starts for column in starts]
    coarse = _mean_fall(before, large, COARSE, score, pixels)
    hottest = np.argsort(-coarse, axis=None, kind="stable")
    # A cover that starts in the last row or column moves inside, which makes duplicates.
    corners = ((min(int(i) // CELLS, CELLS - FINE), min(int(i) % CELLS, CELLS - FINE)) for i in hottest)
    small = list(dict.fromkeys(corners))[:FINE_COVERS]
    return coarse + _mean_fall(before, small, FINE, score, pixels)


def _mean_fall(before: float, corners: list[tuple[int, int]], side: int, score: Score, pixels: Array) -> Array:
    """Return the mean fall of the score over the covers on each cell, 0 without covers: (CELLS, CELLS)."""
    falls = np.concatenate([before - score(batch) for batch in _covered(corners, side, pixels)])  # (M,)
    total = np.zeros((CELLS, CELLS))
    count = np.zeros((CELLS, CELLS))
    for (row, column), fall in zip(corners, falls, strict=True):
        total[row : row + side, column : column + side] += fall
        count[row : row + side, column : column + side] += 1
    return (total / np.maximum(count, 1)).astype(np.float32)


def _covered(corners: list[tuple[int, int]], side: int, pixels: Array) -> Iterator[Array]:
    """Yield batches (n, 3, S, S) of the image, each with one square of cells covered."""
    mean = pixels.mean(axis=(1, 2), keepdims=True)  # (3, 1, 1)
    rows, columns = (np.linspace(0, length, CELLS + 1).round().astype(int) for length in pixels.shape[1:])
    for first in range(0, len(corners), BATCH):
        squares = corners[first : first + BATCH]
        batch = np.repeat(pixels[None], len(squares), axis=0)
        for covered, (row, column) in zip(batch, squares, strict=True):
            covered[:, rows[row] : rows[row + side], columns[column] : columns[column + side]] = mean
        yield batch
