"""Faces in an image and their expressions, which are not what the people feel."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from PIL import ImageOps

from uniemox.errors import ConfigError
from uniemox.io.sized_image import SizedImage
from uniemox.persons.box import Box, Detection
from uniemox.persons.detector import Detector
from uniemox.predict.network import Network
from uniemox.predict.views import Pixels, crop

# Minimum shorter side of a face; smaller ones get no prediction.
MIN_FACE_PX = 16
# Faces of FER+ fill squares of 1.14 times the geometric mean of their box's sides. The square's centre is 2 % of the
# side higher than the box's. Both are medians over YuNet's detections in the validation part.
SIDE = 1.14
RISE = 0.02
# Minimum share of a face's box inside its owner's box.
MIN_INSIDE = 0.7


def detect_in(detector: Detector, sized: SizedImage) -> tuple[Detection, ...]:
    """Detect people or faces.  Returns detections in px of the full size, most confident first."""
    [detections] = detector.detect([sized.image])
    full_width, full_height = sized.full_size
    scale_x = full_width / sized.image.width
    scale_y = full_height / sized.image.height
    return tuple(
        Detection(Box(box.x1 * scale_x, box.y1 * scale_y, box.x2 * scale_x, box.y2 * scale_y), confidence)
        for box, confidence in detections
    )


class FaceReader:
    """Detects faces and crops them as for the training of the expression network.

    Args:
        network: Expression network, of kind expressed.
        finder: Face detector; None: the whole image is one face.

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

    def find(self, sized: SizedImage) -> tuple[Detection, ...]:
        """Detect faces.  Returns detections in px of the full size, most confident first."""
        if self.finder is None:
            return (Detection(Box(0, 0, *sized.full_size), 1.0),)
        return detect_in(self.finder, sized)

    def views_of(self, sized: SizedImage, face: Box) -> tuple[dict[str, Pixels], ...]:
        """Return views of a face and its mirror image, whose predictions are averaged; () for a small face."""
        if min(face.x2 - face.x1, face.y2 - face.y1) < MIN_FACE_PX:
            return ()
        square = Box(0, 0, *sized.full_size) if self.finder is None else face_square(face)
        # The images of FER+, on which the network is trained, are grey.
        grey = crop(sized, square).convert("L").convert("RGB")
        return tuple(self.network.views_of(SizedImage.of(view), None) for view in (grey, ImageOps.mirror(grey)))


def face_square(face: Box) -> Box:
    """Return the square around a face that is classified; it may reach beyond the image.

    >>> [round(value, 1) for value in face_square(Box(100, 100, 180, 200))]
    [89.0, 97.0, 191.0, 198.9]
    """
    width = face.x2 - face.x1
    height = face.y2 - face.y1
    half_side = SIDE * math.sqrt(width * height) / 2
    centre_x = (face.x1 + face.x2) / 2
    centre_y = (face.y1 + face.y2) / 2 - RISE * 2 * half_side
    return Box(centre_x - half_side, centre_y - half_side, centre_x + half_side, centre_y + half_side)


def owners(faces: Sequence[Box], persons: Sequence[Box]) -> list[int | None]:
    """Return the index of each face's owner among the persons; None without one.

    A face belongs to the person whose box contains the largest share of it, at least 0.7. If several boxes contain the
    same share, the smallest box wins. If two faces have the same owner, only the larger one is assigned.
    """
    indices: list[int | None] = [None] * len(faces)
    # Larger faces choose first, and each person has one face.
    for i in sorted(range(len(faces)), key=lambda i: -faces[i].area):
        # Of equal shares, `max` takes the smallest box because its negative area is the largest.
        shares = [(_share_inside(faces[i], box), -box.area, k) for k, box in enumerate(persons) if k not in indices]
        share, _, owner = max(shares, default=(0.0, 0.0, 0))
        if share >= MIN_INSIDE:
            indices[i] = owner
    return indices


def _share_inside(face: Box, person: Box) -> float:
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
    counts = Counter(
        max(probabilities, key=probabilities.__getitem__) for probabilities in expressions if probabilities
    )
    parts = [f"{count} {label}" for label, count in counts.most_common()]
    if unknown := len(expressions) - counts.total():
        parts.append(f"{unknown} too small to tell")
    return f"{len(expressions)} face{'' if len(expressions) == 1 else 's'}: {', '.join(parts)}"
