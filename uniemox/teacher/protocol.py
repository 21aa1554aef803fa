"""The teacher protocol, and teachers without a text side."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.errors import TeacherError


class ImageTower(Protocol):
    """The image side of a teacher, frozen."""

    @property
    def width(self) -> int:
        """C, channels of its features."""

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Ω of a batch, float32, not normalised.

        pixels: (N, 3, H, W) in [0, 1]; the tower resizes and normalises them itself.  keys: N names of the images,
        for towers that look features up.  Returns (N, C).
        """


class Teacher(ImageTower, Protocol):
    """Images and texts in one space, frozen."""

    @property
    def fingerprint(self) -> str:
        """A hash that changes with everything that its text features depend on."""

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Λ of a batch, float32, not normalised.  texts: N.  Returns (N, C)."""


@dataclass(frozen=True, slots=True)
class ImageTeacher:
    """A teacher that is an image tower alone, which serves L3: it raises TeacherError if it is asked about texts."""

    image: ImageTower

    @property
    def width(self) -> int:
        """C, channels of its features."""
        return self.image.width

    @property
    def fingerprint(self) -> str:
        """Of the text side, which it has not."""
        return self._no_text_side()

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Ω: see ImageTower."""
        return self.image.image_features(pixels, keys)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Λ, of the text side, which it has not."""
        return self._no_text_side()

    def _no_text_side(self) -> NoReturn:
        raise TeacherError("this teacher has no text side; fit one, or turn contrastive_feature_alignment (L2) off")


def fit_pixels(pixels: Tensor, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels at a tower's size and in its normalisation.

    pixels: (N, 3, H, W) floats in [0, 1].  Returns (N, 3, *size) float32. Raises TeacherError for integers.
    """
    if not pixels.is_floating_point():
        raise TeacherError(f"expected pixels in [0, 1], got {pixels.dtype}; divide by 255")
    if tuple(pixels.shape[-2:]) != size:
        pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0, 1)  # (N, 3, *size)
    return ((pixels - pixels.new_tensor(mean).view(3, 1, 1)) / pixels.new_tensor(std).view(3, 1, 1)).float()


def hash_module(module: nn.Module, *, without: str = "") -> str:
    """A hash of a module's structure and weights.

    without: leave out the parameters whose name starts so; an empty text leaves none out.
    """
    digest = hashlib.sha256(repr(module).encode())
    for name, value in sorted(module.state_dict().items()):
        if not without or not name.startswith(without):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
