"""The decoder: from the visible patches' tokens to the pixels of all patches (MAE, arXiv 2111.06377)."""

import torch
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from uniemox.model.config import DecoderConfig
from uniemox.model.encoder import sincos_position, start_as_mae
from uniemox.views.patches import Mask


class Decoder(nn.Module):
    """Decoder that fills hidden patches with one learned token, adds positions, and predicts every patch's pixels."""

    pos_embed: Tensor

    def __init__(self, config: DecoderConfig, *, grid: tuple[int, int], patch_size: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.width).normal_(std=0.02))
        self.register_buffer("pos_embed", sincos_position(config.width, grid), persistent=False)
        self.blocks = nn.Sequential(*(Block(config.width, config.heads, qkv_bias=True) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.pred = nn.Linear(config.width, patch_size**2 * 3)
        self.grad_checkpointing = False
        start_as_mae(self)

    def forward(self, tokens: Tensor, mask: Mask) -> Tensor:
        """Return the predicted patches (N, L, P).  tokens: (N, 1 + K, C3), embedded, the CLS token first."""
        cls, visible = tokens[:, :1], tokens[:, 1:]
        index = mask.visible[..., None].expand_as(visible)
        x = self.mask_token.to(tokens.dtype).expand(*mask.hidden.shape, -1).scatter(1, index, visible)  # (N, L, C3)
        x = torch.cat([cls, x], dim=1) + self.pos_embed.to(tokens.dtype)  # (N, 1 + L, C3)
        x = checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)
        x = self.norm(x)
        return self.pred(x[:, 1:])  # (N, L, P)
