"""Heat map of the evidence for a prediction: drawing, and agreement of two maps; without torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from uniemox.errors import ShapeError
from uniemox.io.images import encode_image
from uniemox.persons.box import Box, Detection
from uniemox.ranks import rank_correlation

Array = NDArray[np.float32]
COLOURS = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""Colours from no evidence to the most, at equal steps, from matplotlib's "inferno", safe for colour blindness."""
OPACITY = 0.6
# Longer side of an overlay, at most.
MAX_SIDE_PX = 1024
# Factor for the brightness of parts that the model does not see.
DIMMED_BRIGHTNESS = 0.45
# Cells per side of the grid on which maps are compared.
GRID = 14
# Agreement below which two maps of an image count as unlike: the median agreement of the maps of two different images
# (docs/explain.md).
MIN_AGREEMENT = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Heat map of the parts of an image that support a label."""

    label: str
    probability: float
    """Probability of the label, 0 to 1; for valence and arousal the value itself."""
    method: str
    """cam, occlusion or grad-cam."""
    heat: Array
    """(h, w), 0 to 1, maximum 1 without a scale of the caller's; all 0 if nothing in the image supports the label."""
    box: Box
    """Part of the image, px, that the model sees and `heat` covers; it may exceed the edges by a px."""
    image: Image.Image
    """Upright, RGB."""
    persons: tuple[Detection, ...] | None = None
    """People from whom the person view was taken, px; None: no detector was run."""
    evidence: float = 0.0
    """Evidence at the hottest place, before scaling, at least 0: a part of the logit for cam, the fall of the
    log-probability for occlusion. Values for several labels of one image can be compared."""
    agreement: float | None = None
    """Rank correlation with the map of another method, -1 to 1 (`map_agreement`); None: not compared."""
    is_unfamiliar: bool = False
    """True if the image is unlike the training images, so that the answer is a guess (`Prediction.is_unfamiliar`)."""

    def __repr__(self) -> str:
        width, height = self.image.size
        return f"<Explanation of {self.label} ({self.probability:.3g}) by {self.method}, {width} x {height} px>"

    def _repr_png_(self) -> bytes:
        """Show the overlay in a notebook."""
        return encode_image(self.overlay(), "PNG")

    @property
    def is_unlike(self) -> bool:
        """True if another method's map points elsewhere."""
        return self.agreement is not None and self.agreement < MIN_AGREEMENT

    def shrunk(self, max_side_px: int) -> "Explanation":
        """Return the explanation with an image whose longer side is at most max_side_px."""
        scale = max_side_px / max(self.image.size)
        if scale >= 1:
            return self
        size = (max(1, round(self.image.width * scale)), max(1, round(self.image.height * scale)))
        image = self.image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3)
        box = Box(*(value * scale for value in self.box))
        return replace(self, image=image, box=box, persons=None)

    def overlay(self, max_side_px: int = MAX_SIDE_PX) -> Image.Image:
        """Draw the heat over the image, dark to bright; parts that the model does not see are dimmed.

        The image below the heat is grey, so all colours belong to the heat.

        Args:
            max_side_px: Larger images are reduced to this longer side.
        """
        small = self.shrunk(max_side_px)
        image = small.image.convert("RGB")
        (x1, y1, x2, y2) = map(round, small.box)
        # Rounding may put a corner one px outside of the image.
        x1 = min(max(0, x1), image.width - 1)
        y1 = min(max(0, y1), image.height - 1)
        size = (max(1, min(x2, image.width) - x1), max(1, min(y2, image.height) - y1))
        visible = image.crop((x1, y1, x1 + size[0], y1 + size[1])).convert("L").convert("RGB")
        sheet = ImageEnhance.Brightness(image).enhance(DIMMED_BRIGHTNESS)
        sheet.paste(Image.blend(visible, coloured(self.heat, size), OPACITY), (x1, y1))
        if size != image.size:
            outline = (x1, y1, x1 + size[0] - 1, y1 + size[1] - 1)
            ImageDraw.Draw(sheet).rectangle(outline, outline="white", width=max(1, min(image.size) // 300))
        return sheet


def normalised(values: NDArray[np.floating], full_scale: float | None = None) -> Array:
    """Scale a map (h, w) to heat: evidence against the label becomes 0; all 0 without evidence.

    Args:
        values: The map.
        full_scale: Evidence that becomes 1, positive; more is cut to 1. None: the largest value of the map.

    Raises:
        ShapeError: For values that are not finite.

    >>> normalised(np.array([[-1.0, 1.0], [0.0, 4.0]])).tolist()
    [[0.0, 0.25], [0.0, 1.0]]
    >>> normalised(np.array([[1.0, 4.0]]), full_scale=8).tolist()
    [[0.125, 0.5]]
    """
    if not np.isfinite(values).all():
        raise ShapeError(f"expected a map (h, w) of finite values, got {values.shape}; do the weights hold nan?")
    heat = np.maximum(values, 0).astype(np.float32)
    if full_scale is not None:
        return np.minimum(heat / np.float32(full_scale), 1)
    largest = heat.max()
    return heat / largest if largest > 0 else heat


def enlarged(heat: Array, size: tuple[int, int]) -> Array:
    """Resize a map (h, w) bilinearly to (width, height) px.  Returns (height, width)."""
    return np.asarray(_resized(heat, size))


def coloured(heat: Array, size: tuple[int, int]) -> Image.Image:
    """Draw heat (h, w), 0 to 1, as an image of (width, height) px in `COLOURS`."""
    image = _resized(heat * 255, size).convert("L")
    steps = np.linspace(0, 255, len(COLOURS))
    channels = [np.interp(np.arange(256), steps, [colour[i] for colour in COLOURS]) for i in range(3)]
    image.putpalette(np.stack(channels, axis=-1).round().astype(np.uint8).tobytes())
    return image.convert("RGB")


def _resized(values: Array, size: tuple[int, int]) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return image.resize(size, Image.Resampling.BILINEAR)


def map_agreement(first: Explanation, second: Explanation) -> float:
    """Return Spearman's rank correlation of two maps of one image, -1 to 1; 0 if one of them is constant."""
    return rank_correlation(*(enlarged(each.heat, (GRID, GRID)).ravel() for each in (first, second)))


def with_agreement(explanations: Sequence[Explanation]) -> list[Explanation]:
    """Return explanations with their agreement set.

    Args:
        explanations: Explanations in pairs, each by two methods for one prediction.
    """
    compared = []
    for first, second in zip(explanations[::2], explanations[1::2], strict=True):
        agreement = map_agreement(first, second)
        compared += [replace(first, agreement=agreement), replace(second, agreement=agreement)]
    return compared
