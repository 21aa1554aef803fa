"""AdamW, as MAE and the paper use it."""

import timm.optim
import torch
from torch import nn

from uniemox.training.parameter_groups import parameter_groups


def build_optimizer(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.95),
    layer_decay: float | None = None,
) -> torch.optim.AdamW:
    """Fused AdamW over the parameters that train; biases, norms and tokens are not decayed (timm's rule).

    lr: the learning rate itself, not base_lr.  layer_decay: of the layers of `model.encoder`, see `parameter_groups`.
    """
    if layer_decay is not None:
        groups = parameter_groups(model, weight_decay, layer_decay)
        return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    tokens = [name for name, _ in model.named_parameters() if name.endswith(("cls_token", "mask_token"))]
    groups = timm.optim.param_groups_weight_decay(model, weight_decay, no_weight_decay_list=tokens)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
