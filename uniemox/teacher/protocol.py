"""Interface of teachers, and what they share."""

from collections.abc import Sequence
from typing import NoReturn, Protocol

import torch.nn.functional as F
from torch import Tensor

from uniemox.errors import TeacherError
from uniemox.views.patches import PixelStats, pixel_constants


class Teacher(Protocol):
    """Frozen encoder of images and texts into one space. An image-only teacher suffices for L3, see `refuse_texts`."""

    @property
    def width(self) -> int:
        """C, number of feature channels."""

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Return Ω of a batch, (N, C) float32, not normalised.

        Args:
            pixels: (N, 3, H, W) in [0, 1]; the teacher resizes and normalises them itself.
            keys: N names of the images, for teachers that look features up.
        """

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return Λ of a batch, (N, C) float32, not normalised.  texts: N."""


def refuse_texts(teacher: object, texts: Sequence[str] = ()) -> NoReturn:
    """Refuse texts; a teacher without a text encoder uses it as `text_features`.

    Raises:
        TeacherError: Always.
    """
    raise TeacherError("this teacher has no text encoder; fit one, or turn off contrastive_feature_alignment (L2)")


def fit_pixels(pixels: Tensor, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resize pixels to a tower's size and normalise them.

    Args:
        pixels: (N, 3, H, W) floats in [0, 1].
        size: Height and width of the tower's input in px.
        mean: Mean of the tower's input by channel, on the scale of 0 to 1.
        std: Standard deviation of the tower's input by channel.

    Returns:
        (N, 3, *size) float32.

    Raises:
        TeacherError: For integers.
    """
    if not pixels.is_floating_point():
        raise TeacherError(f"expected pixels in [0, 1], got {pixels.dtype}; divide by 255")
    if tuple(pixels.shape[-2:]) != size:
        pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)  # (N, 3, *size)
    mean_of_channels, std_of_channels = pixel_constants(PixelStats(tuple(mean), tuple(std)), pixels.device)
    return ((pixels - mean_of_channels) / std_of_channels).float()  # (N, 3, *size)
