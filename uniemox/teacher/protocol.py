"""The teacher protocol, and teachers made of two towers."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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


class TextTower(Protocol):
    """The text side of a teacher, frozen."""

    @property
    def width(self) -> int:
        """C, channels of its features."""

    @property
    def fingerprint(self) -> str:
        """A hash that changes with everything that its text features depend on."""

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Λ of a batch, float32, not normalised.  texts: N.  Returns (N, C)."""


class Teacher(ImageTower, TextTower, Protocol):
    """Both sides, in one space."""


@dataclass(frozen=True, slots=True)
class PairedTeacher:
    """A teacher of two towers. Without a text side it serves L3 alone.

    Raises TeacherError if the widths differ.
    """

    image: ImageTower
    text: TextTower | None = None

    def __post_init__(self) -> None:
        if self.text is not None and self.text.width != self.image.width:
            raise TeacherError(
                f"the image tower gives {self.image.width} channels, the text tower {self.text.width}; a teacher needs "
                "both in one space"
            )

    @property
    def width(self) -> int:
        """C, channels of its features."""
        return self.image.width

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the text side."""
        return self._text().fingerprint

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Ω: see ImageTower."""
        return self.image.image_features(pixels, keys)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Λ: see TextTower. Raises TeacherError without a text side."""
        return self._text().text_features(texts)

    def _text(self) -> TextTower:
        if self.text is None:
            raise TeacherError("this teacher has no text side; fit one, or turn contrastive_feature_alignment (L2) off")
        return self.text


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
