"""Self-attention with a backward pass of few passes over memory, for training on the CPU in bf16."""

from typing import Any

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LeanAttention(Attention):
    """timm's attention, with `attend` in place of its three steps where it has neither mask, dropout, norm nor gate."""

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """x: (N, L, C).  Returns (N, L, C); all arguments as timm's."""
        plain = attn_mask is None and not is_causal and self.gate is None and self.attn_drop.p == 0
        if not plain or not all(isinstance(norm, nn.Identity) for norm in (self.q_norm, self.k_norm)):
            return super().forward(x, attn_mask, is_causal)
        return self.proj_drop(self.proj(self.norm(attend(self.qkv(x), self.num_heads, self.scale))))


def attend(qkv: Tensor, heads: int, scale: float) -> Tensor:
    """softmax(q kᵀ · scale) v for every head (arXiv 1706.03762, equation 1).

    qkv: (N, L, 3 · heads · D), queries, keys and values side by side.  Returns (N, L, heads · D).
    """
    return _Attend.apply(qkv, heads, scale)


class _Attend(torch.autograd.Function):
    """The gradient of the scores is p · (dp - Σ do · o), as in FlashAttention (arXiv 2205.14135, appendix B.2).

    torch's own softmax backward takes five times as long in bf16 on the CPU.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int, scale: float) -> Tensor:
        n, length, width = qkv.shape
        dim = width // (3 * heads)
        q, k, v = qkv.view(n, length, 3, heads, dim).permute(2, 0, 3, 1, 4).reshape(3, n * heads, length, dim)
        p = _product(q, k.transpose(1, 2), scale).softmax(dim=-1)  # (N · heads, L, L)
        o = torch.bmm(p, v)  # (N · heads, L, D)
        ctx.save_for_backward(q, k, v, p, o)
        ctx.heads, ctx.scale = heads, scale
        return o.view(n, heads, length, dim).transpose(1, 2).reshape(n, length, heads * dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        q, k, v, p, o = ctx.saved_tensors
        n, length, width = gradients[0].shape
        split = (n, ctx.heads, length, width // ctx.heads)
        do = gradients[0].view(n, length, ctx.heads, -1).transpose(1, 2).reshape(o.shape)  # (N · heads, L, D)
        dqkv = do.new_empty(n, length, 3, ctx.heads, width // ctx.heads)
        dq, dk, dv = dqkv.permute(2, 0, 3, 1, 4)  # (N, heads, L, D) each
        dv.copy_(torch.bmm(p.transpose(1, 2), do).view(split))
        ds = torch.bmm(do, v.transpose(1, 2)).sub_((do * o).sum(dim=-1, keepdim=True)).mul_(p)  # (N · heads, L, L)
        dq.copy_(_product(ds, k, ctx.scale).view(split))
        dk.copy_(_product(ds.transpose(1, 2), q, ctx.scale).view(split))
        return dqkv.view(n, length, 3 * width), None, None


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale · a b, for batches of matrices, scaled inside the product."""
    nothing = a.new_empty(1).expand(len(a), a.shape[1], b.shape[2])
    return torch.baddbmm(nothing, a, b, beta=0, alpha=scale)
