"""Which patches the encoder sees (MAE, arXiv 2111.06377, section 3)."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uniemox.errors import ConfigError


class Mask(NamedTuple):
    """One draw of the mask for a batch. K patches are visible, L - K hidden."""

    visible: Tensor  # (N, K) indices of the visible patches, in the order the encoder sees them
    hidden: Tensor  # (N, L) float32, 1 hidden, 0 visible


def visible_count(length: int, ratio: float) -> int:
    """K = int(L * (1 - ratio)). Raises ConfigError if the ratio leaves nothing to see or nothing to reconstruct."""
    if not 0 < ratio < 1:
        raise ConfigError(f"mask ratio must lie strictly between 0 and 1, got {ratio}")
    keep = int(length * (1 - ratio))
    if not 0 < keep < length:
        raise ConfigError(
            f"mask ratio {ratio} of {length} patches leaves {keep} to see and {length - keep} to reconstruct; "
            "both must be at least 1: change the ratio or use more patches"
        )
    return keep


def random_mask(noise: Tensor, ratio: float) -> Mask:
    """Hide the patches with the largest noise, per image.

    noise: (N, L) random numbers, which decide everything: the same noise gives the same mask.
    ratio: the fraction hidden, strictly between 0 and 1.  Raises ConfigError if nothing would be seen or hidden.
    """
    keep = visible_count(noise.shape[1], ratio)
    visible = noise.argsort(dim=1, stable=True)[:, :keep]  # (N, K)
    hidden = torch.ones(noise.shape, device=noise.device).scatter(1, visible, 0)  # (N, L)
    return Mask(visible, hidden)


def mask_noise(keys: Sequence[str], length: int, *, seed: int, epoch: int, stream: str) -> Tensor:
    """Noise for `random_mask`, a function of seed, epoch, sample and stream alone: no order of work can change it.

    keys: N names of samples.  length: L.  Returns (N, L) float32 in [0, 1).
    """
    rows = [
        np.random.Generator(np.random.PCG64(_number(f"{seed}/{epoch}/{stream}/{key}"))).random(length, np.float32)
        for key in keys
    ]
    return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, length)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16], "big")
