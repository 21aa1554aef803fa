"""A network that sees red spots: a plain engine behind a predictor, whose right explanation is known."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from uniemox.classifier_info import ClassifierInfo
from uniemox.network_spec import NetworkSpec
from uniemox.persons.box import Box, Detection
from uniemox.predict.network import Array, Network
from uniemox.predict.predictor import Predictor

SIZE = 64
CELLS = 8
LABELS = ("awe", "fear", "sadness")
PLACES = {"awe": (1, 2), "fear": (5, 5), "sadness": (6, 1)}
"""Row and column of the cell, of 8 x 8, whose red speaks for the label."""


class Spots:
    """Engine whose logits are 6 times the red of the label's cell, and whose maps show that cell."""

    def __init__(self, has_maps: bool) -> None:
        self.outputs = frozenset({"logits", *(["maps"] if has_maps else [])})
        self.fingerprint = "spots"
        self.passes = self.largest = 0

    def run(self, outputs: Sequence[str], views: Mapping[str, Array]) -> list[Array]:
        """See predict.network.Engine."""
        self.passes += len(next(iter(views.values())))
        self.largest = max(self.largest, *(len(view) for view in views.values()))
        side = SIZE // CELLS
        maps = np.zeros((len(next(iter(views.values()))), len(LABELS), CELLS, CELLS), np.float32)
        # The logits are the sum over the views, scene and person.
        for view in views.values():
            red = view[:, 0].reshape(len(view), CELLS, side, CELLS, side).mean(axis=(2, 4))  # (N, 8, 8)
            for k, (row, column) in enumerate(PLACES.values()):
                maps[:, k, row, column] += 6 * red[:, row, column] * CELLS**2
        return [maps if name == "maps" else maps.mean(axis=(2, 3)) for name in outputs]


class OnePerson:
    """Detector that finds one person in a fixed box."""

    fingerprint = name = "one person"

    def __init__(self, box: Box) -> None:
        self.box = box

    def detect(self, images: list[Image.Image]) -> list[tuple[Detection, ...]]:
        """See persons.detector.Detector."""
        return [(Detection(self.box, 0.9),) for _ in images]


def predictor(*, has_maps: bool = True, streams: str = "scene", finder: object = None, **changes: object) -> Predictor:
    """Return a predictor that sees the whole short side, with pixels from 0 to 1."""
    network = NetworkSpec(
        labels=changes.pop("labels", LABELS), streams=streams, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    fields = {"label_set": "spots", "kind": "evoked", "size": SIZE, "crop_fraction": 1.0}
    info = ClassifierInfo(network=network, **{**fields, **changes})  # type: ignore[arg-type]
    return Predictor(Network("spots", info, Spots(has_maps)), finder)  # type: ignore[arg-type]


def spotted(*labels: str, side: int = SIZE) -> Image.Image:
    """Return a grey image with the red spots of these labels."""
    image = Image.new("RGB", (side, side), (60, 60, 60))
    cell = side // CELLS
    for label in labels:
        row, column = PLACES[label]
        corner = (column * cell, row * cell)
        ImageDraw.Draw(image).rectangle((*corner, corner[0] + cell - 1, corner[1] + cell - 1), fill=(255, 0, 0))
    return image
