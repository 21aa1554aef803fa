"""The teacher protocol."""

import hashlib
from collections.abc import Sequence
from typing import NoReturn, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.errors import TeacherError


class Teacher(Protocol):
    """Images and texts in one space, frozen. A teacher of images alone serves L3, see `refuse_texts`."""

    @property
    def width(self) -> int:
        """C, channels of its features."""

    @property
    def fingerprint(self) -> str:
        """A hash that changes with everything that its text features depend on."""

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Ω of a batch, float32, not normalised.

        pixels: (N, 3, H, W) in [0, 1]; the teacher resizes and normalises them itself.  keys: N names of the images,
        for teachers that look features up.  Returns (N, C).
        """

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Λ of a batch, float32, not normalised.  texts: N.  Returns (N, C)."""


def refuse_texts(teacher: object, texts: Sequence[str] = ()) -> NoReturn:
    """Raise TeacherError in place of the fingerprint and the text features of a teacher of images alone."""
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
