"""Pixels on their way to a device."""

import torch
import torch.nn.functional as F

from uniemox.teacher.protocol import fit_pixels
from uniemox.views.patches import IMAGENET, PixelStats, normalise, pixel_constants
from uniemox.views.transfer import to_device

CPU = torch.device("cpu")


def test_a_tensor_on_the_device_is_not_copied() -> None:
    x = torch.ones(3)
    assert to_device(x, CPU) is x


def test_pixels_are_pinned_before_they_go_to_a_gpu() -> None:
    """The meta device stands for a GPU: it shows the order of calls, not the copy."""
    calls = []

    class Recorded(torch.Tensor):
        def is_pinned(self) -> bool:
            return False

        def pin_memory(self) -> torch.Tensor:  # type: ignore[override]
            calls.append("pin")
            return self

        def to(self, device: torch.device, *, non_blocking: bool) -> torch.Tensor:  # type: ignore[override]
            calls.append(f"to {device}, non_blocking={non_blocking}")
            return self

    to_device(torch.ones(3).as_subclass(Recorded), torch.device("cuda", 1))
    assert calls == ["pin", "to cuda:1, non_blocking=True"]


def test_constants_of_pixels_are_cached() -> None:
    """On a GPU, making them in every step would let the host wait."""
    assert pixel_constants(IMAGENET, CPU)[0] is pixel_constants(IMAGENET, CPU)[0]
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    expected = (1 - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)
    torch.testing.assert_close(normalise(white, CPU)[0, :, 0, 0], expected)


def test_constants_made_in_inference_mode_can_be_used_in_training() -> None:
    """Autograd refuses tensors of inference mode. The meta device stands for a GPU: there, the copy makes a tensor."""
    pixel_constants.cache_clear()
    with torch.inference_mode():
        constants = pixel_constants(IMAGENET, torch.device("meta"))
    assert not any(values.is_inference() for values in constants)


def test_pixels_of_a_teacher_are_resized_and_normalised() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    stats = PixelStats((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    resized = F.interpolate(pixels, size=(4, 4), mode="bicubic", antialias=True).clamp(0, 1)
    expected = (resized - torch.tensor(stats.mean)[:, None, None]) / torch.tensor(stats.std)[:, None, None]
    torch.testing.assert_close(fit_pixels(pixels, (4, 4), list(stats.mean), list(stats.std)), expected)
