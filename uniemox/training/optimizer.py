"""AdamW, as MAE and the paper use it."""

from dataclasses import dataclass

import timm.optim
import torch
from torch import nn

from uniemox.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW's settings."""

    base_lr: float = 1e-3
    """Highest learning rate for 256 images a step; that of a run is base_lr * batch_size / 256."""
    weight_decay: float = 0.05
    """Of matrices; biases, norms and tokens are not decayed."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the running means of the gradient and of its square."""
    max_grad_norm: float | None = None
    """L2 norm to which a step's gradient is clipped; None does not clip."""

    def __post_init__(self) -> None:
        if not 0 < self.base_lr < float("inf"):
            raise ConfigError(f"optimizer.base_lr must be above 0, got {self.base_lr}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ConfigError(f"optimizer.weight_decay must be at least 0, got {self.weight_decay}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optimizer.betas must be two numbers from 0 to below 1, got {self.betas}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ConfigError(f"optimizer.max_grad_norm must be above 0, got {self.max_grad_norm}; none does not clip")

    def lr(self, batch_size: int) -> float:
        """The highest learning rate for steps of so many images (arXiv 1706.02677, section 2.1)."""
        return self.base_lr * batch_size / 256


def build_optimizer(
    model: nn.Module, *, lr: float, weight_decay: float = 0.05, betas: tuple[float, float] = (0.9, 0.95)
) -> torch.optim.AdamW:
    """Fused AdamW over the parameters that train; biases, norms and tokens are not decayed (timm's rule).

    lr: the learning rate itself, not base_lr.
    """
    tokens = [name for name, _ in model.named_parameters() if name.endswith(("cls_token", "mask_token"))]
    groups = timm.optim.param_groups_weight_decay(model, weight_decay, no_weight_decay_list=tokens)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
