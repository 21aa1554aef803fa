"""Faces in an image and their expressions, which are not what the people feel."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from PIL import Image, ImageOps

from uniemox.errors import ConfigError
from uniemox.persons.box import Box, Detection
from uniemox.persons.detector import Detector
from uniemox.predict.network import Network
from uniemox.predict.views import Pixels, scaled_px

MIN_FACE_PX = 16  # minimum shorter side of a face; smaller ones get no prediction
SIDE = 1.14
RISE = 0.02
"""Faces of FER+ fill squares of 1.14 times the geometric mean of their box's sides. The square's centre is 2 % of the
side higher than the box's. Both are medians over YuNet's detections in the validation part."""
MIN_INSIDE = 0.7  # minimum share of a face's box inside its owner's box


def detect_in(detector: Detector, image: Image.Image, full: tuple[int, int]) -> tuple[Detection, ...]:
    """Detect in an image that may be a smaller copy; boxes are in px of the full image, most confident first."""
    [detections] = detector.detect([image])
    x, y = full[0] / image.width, full[1] / image.height
    return tuple(Detection(Box(b.x1 * x, b.y1 * y, b.x2 * x, b.y2 * y), confidence) for b, confidence in detections)


class FaceReader:
    """Detects faces and crops them as for the training of the expression network.

    Args:
        network: Of kind expressed.
        finder: Face detector; None: the whole image is a face.

    Raises:
        ConfigError: For a network of another kind.
    """

    def __init__(self, network: Network, finder: Detector | None) -> None:
        info = network.info
        if info.kind != "expressed" or info.streams != "scene":
            raise ConfigError(
                f"{network.name} predicts {info.kind} emotions from the {info.streams} view; a face model must predict "
                "expressed emotions from the face alone (streams scene)"
            )
        self.network = network
        self.finder = finder

    def find(self, image: Image.Image, full: tuple[int, int]) -> tuple[Detection, ...]:
        """Detect faces, in px of the full image, most confident first.  image: RGB, which may be a smaller copy."""
        if self.finder is None:
            return (Detection(Box(0, 0, *full), 1.0),)
        return detect_in(self.finder, image, full)

    def look(self, image: Image.Image, full: tuple[int, int], face: Box) -> tuple[dict[str, Pixels], ...]:
        """Return views of a face and its mirror image, whose predictions are averaged; () for a small face."""
        if min(face.x2 - face.x1, face.y2 - face.y1) < MIN_FACE_PX:
            return ()
        if self.finder is None:
            square = Box(0, 0, *full)
        else:
            square = face_square(face)
        part = image.crop(scaled_px(square, image.size, full))  # black outside of the image
        grey = part.convert("L").convert("RGB")  # FER+ images are grey
        return tuple(self.network.look(one, one.size, None) for one in (grey, ImageOps.mirror(grey)))


def face_square(face: Box) -> Box:
    """Return the square around a face that is classified; it may reach beyond the image.

    >>> [round(value, 1) for value in face_square(Box(100, 100, 180, 200))]
    [89.0, 97.0, 191.0, 198.9]
    """
    width, height = face.x2 - face.x1, face.y2 - face.y1
    half = SIDE * math.sqrt(width * height) / 2
    x, y = (face.x1 + face.x2) / 2, (face.y1 + face.y2) / 2 - RISE * 2 * half
    return Box(x - half, y - half, x + half, y + half)


def owners(faces: Sequence[Box], persons: Sequence[Box]) -> list[int | None]:
    """Return the index of each face's owner among the persons; None without one.

    A face belongs to the person whose box contains the largest share of it, at least 0.7. If several boxes contain the
    same share, the smallest box wins. If two faces have the same owner, only the larger one is assigned.
    """
    indices: list[int | None] = [None] * len(faces)
    for i in sorted(range(len(faces)), key=lambda i: -faces[i].area):
        shares = [(_inside(faces[i], box), -box.area, k) for k, box in enumerate(persons) if k not in indices]
        share, _, owner = max(shares, default=(0.0, 0.0, 0))
        if share >= MIN_INSIDE:
            indices[i] = owner
    return indices


def _inside(face: Box, person: Box) -> float:
    """Return the share of a face's box inside a person's."""
    shared = Box(max(face.x1, person.x1), max(face.y1, person.y1), min(face.x2, person.x2), min(face.y2, person.y2))
    return shared.area / face.area if face.area > 0 else 0.0


def summarise_faces(expressions: Sequence[Mapping[str, float] | None]) -> str:
    """Count faces and their most probable expressions, most frequent first: describes a group, not one person.

    Args:
        expressions: Probabilities of each face; None: too small to tell.

    >>> summarise_faces([{"happiness": 0.9, "fear": 0.1}, {"happiness": 0.6, "fear": 0.4}, None])
    '3 faces: 2 happiness, 1 too small to tell'
    """
    if not expressions:
        return "no face found"
    words = Counter(max(one, key=one.__getitem__) for one in expressions if one)
    parts = [f"{count} {word}" for word, count in words.most_common()]
    if unknown := len(expressions) - words.total():
        parts.append(f"{unknown} too small to tell")
    return f"{len(expressions)} face{'' if len(expressions) == 1 else 's'}: {', '.join(parts)}"
