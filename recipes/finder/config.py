"""Settings of a person finder."""

from dataclasses import dataclass
from typing import Literal

from uniemox.errors import ConfigError
from uniemox.training.config import check_numbers

# Stride of the coarsest map, px; sides of images are multiples of it.
SIDE_STEP = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class FinderConfig:
    """Settings for training a person finder."""

    start: str
    """Initial network: timm:NAME, or timm:NAME@FILE with the weights of a file."""
    size: int = 320
    """Side of the input that images are squashed to, px; a multiple of 32."""
    coarsest: Literal[16, 32] = 32
    """Stride of the coarsest map that is used: 16 for small things such as faces, with a third of the weights."""
    width: int = 96
    """Channels of neck and heads."""
    epochs: int = 10
    """Passes over the images."""
    batch_size: int = 16
    """Number of images per step."""
    lr: float = 1e-3
    """Highest learning rate, of neck and heads."""
    start_lr_scale: float = 0.1
    """Learning rate of the initial network as a share of `lr`. Its frozen norms don't limit the change: at 0.3 its last
    layers died."""
    min_confidence: float = 0.3
    """Minimum confidence of people to learn; less sure boxes count as neither found nor missed."""
    held_out: float = 0.1
    """Share of the images that are not trained on, 0 to 0.5: the minimum confidence is chosen on them."""
    seed: int = 0
    """Random seed for the weights, the held-out images, the crops and the order."""
    workers: int = 1
    """Number of processes that read images; 0 reads in this one. The result is the same for any number."""
    max_unreadable: int = 20
    """Maximum number of unreadable images to skip before the training stops."""

    def __post_init__(self) -> None:
        minimums = {"width": 1, "epochs": 1, "batch_size": 1, "seed": 0, "workers": 0, "max_unreadable": 0}
        check_numbers(self, above={"lr": 0, "start_lr_scale": 0}, at_least=minimums)
        if self.size < 2 * SIDE_STEP or self.size % SIDE_STEP:
            raise ConfigError(f"size must be a multiple of {SIDE_STEP} px, at least two of them, got {self.size}")
        if not 0 <= self.min_confidence <= 1:
            raise ConfigError(f"min_confidence must be from 0 to 1, got {self.min_confidence}")
        if not 0 < self.held_out <= 0.5:
            raise ConfigError(f"held_out must be above 0 and at most 0.5, got {self.held_out}")
