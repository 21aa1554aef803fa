"""Copies from the host to a GPU for which the host does not wait."""

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device.

    A GPU reads pinned memory while the host continues; from other memory the host would wait for the copy, and with it
    for all work before it. So a tensor that is not pinned is copied to pinned memory first.
    """
    if device.type == "cuda" and x.device.type == "cpu" and not x.is_pinned():
        x = x.pin_memory()
    return x.to(device, non_blocking=True)
