"""Heat maps of what a predictor says, without torch: class-activation maps, or occlusion for any network."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uniemox.errors import ConfigError
from uniemox.persons.box import Box, Detection
from uniemox.persons.crop import choose_person
from uniemox.predict.explain.explanation import Array, Explanation, normalised
from uniemox.predict.explain.occlusion import occlusion_map
from uniemox.predict.images import ImageLike, read_any
from uniemox.predict.network import Network
from uniemox.predict.predictor import Predictor
from uniemox.predict.views import scene_box

__all__ = ["Explanation", "Method", "heat_map"]

Method = Literal["auto", "cam", "occlusion"]


def heat_map(
    predictor: Predictor,
    image: ImageLike,
    label: str | None = None,
    *,
    method: Method = "auto",
    persons: Sequence[Detection] | None = None,
) -> Explanation:
    """Which parts of an image speak for a label.

    label: one of the predictor's; None: the most probable.
    method: cam, the class-activation map that convolutional networks have as an output, in one pass; occlusion, for any
    network, in about a hundred; auto, cam where it is there.
    persons: people in the image, px; None: those that the predictor's finder finds, if the network looks at people.
    The map is of the scene view; of the person view for a network that sees nothing else.
    Raises ImageError for what is no image, LabelError for an unknown label, ConfigError for cam where there is none.
    """
    if method not in get_args(Method):
        raise ConfigError(f"there is no method {method!r}; choose one of {', '.join(get_args(Method))}")
    decoded, _ = read_any(image)
    network = predictor.network
    if persons is None and network.info.needs_person:
        persons = predictor.find_people(decoded, decoded.size)
    views, box = views_of(network, decoded, persons)
    answer = network.answer([network.look(decoded, decoded.size, persons)]).values[0]  # (E,)
    index = int(answer.argmax()) if label is None else network.info.find_labels().index(label)
    maps = None if method == "occlusion" or "scene" not in views else network.maps(views["scene"])
    if maps is not None:
        values = maps[0, index]
    elif method == "cam":
        raise ConfigError(
            f"{predictor.name} has no class-activation maps: it is no convolutional network with a linear head, or its "
            "file is from before they were written; take method occlusion"
        )
    else:
        seen = network.info.views[0]
        values = occlusion_map(lambda pixels: _score(network, views | {seen: pixels}, index), views[seen][0])
    return Explanation(
        label=network.info.labels[index],
        probability=float(answer[index]),
        method="occlusion" if maps is None else "cam",
        heat=normalised(values),
        box=box,
        image=decoded,
        persons=None if persons is None else tuple(persons),
    )


def views_of(network: Network, image: Image.Image, persons: Sequence[Detection] | None) -> tuple[dict[str, Array], Box]:
    """What a network sees of an image, and which part of the image the first view shows, px.

    persons: in px; None: no detector was run.  Returns views (1, 3, S, S), normalised, by name.
    """
    info = network.info
    views = {name: network.pixels(view[None]) for name, view in network.look(image, image.size, persons).items()}
    if "scene" in views:
        return views, scene_box(image.size, info.size, info.crop_fraction)
    return views, choose_person(persons, None, image.size, info.person).box


def logits_of(network: Network, views: Mapping[str, Array]) -> Array:
    """Logits (N, E) of views by name, of which those of one image are repeated."""
    count = max(len(view) for view in views.values())
    whole = {name: view if len(view) == count else np.repeat(view, count, axis=0) for name, view in views.items()}
    return network.logits(whole.get("scene"), whole.get("person"))


def _score(network: Network, views: dict[str, Array], index: int) -> NDArray[np.floating]:
    """Log-probability of a label, or the value itself for valence and arousal: (N,)."""
    logits = logits_of(network, views).astype(np.float64)
    if network.info.task == "affect":
        return logits[:, index]
    highest = logits.max(axis=1, keepdims=True)
    return logits[:, index] - highest[:, 0] - np.log(np.exp(logits - highest).sum(axis=1))
