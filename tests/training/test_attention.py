"""The lean attention is timm's attention, in value and gradient; where it can't be, timm's own runs."""

import copy

import pytest
import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from uniemox.training.attention import LeanAttention, attend


def plain(qkv: Tensor, heads: int, scale: float) -> Tensor:
    """Equation 1 of arXiv 1706.03762, step by step."""
    n, length, width = qkv.shape
    q, k, v = qkv.reshape(n, length, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) * scale).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(n, length, width // 3)


def lean(module: Attention) -> LeanAttention:
    other = copy.deepcopy(module)
    other.__class__ = LeanAttention
    return other


@pytest.mark.parametrize("shape", [(2, 5, 24), (1, 1, 12), (3, 7, 36)])
def test_value_and_gradient_are_right(shape: tuple[int, ...]) -> None:
    """Float64, finite differences."""
    torch.manual_seed(0)
    qkv = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(attend(qkv, 4, 0.3), plain(qkv, 4, 0.3), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: attend(x, 4, 0.3), qkv)


def test_it_is_timms_attention() -> None:
    torch.manual_seed(0)
    module = Attention(48, num_heads=4, qkv_bias=True)
    module.fused_attn = False
    other = lean(module)
    x = torch.randn(2, 9, 48)
    gradients = []
    for one in (module, other):
        given = x.clone().requires_grad_()
        out = one(given)
        out.square().sum().backward()
        gradients.append([out, given.grad, *(weight.grad for weight in one.parameters())])
    for ours, timms in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, timms, rtol=1e-5, atol=1e-5)


def test_bf16_is_as_exact_as_the_plain_form() -> None:
    torch.manual_seed(0)
    exact = torch.randn(4, 60, 3 * 64, requires_grad=True)
    errors = []
    plain(exact, 2, 32**-0.5).sin().sum().backward()
    for attention in (plain, attend):
        rounded = exact.detach().bfloat16().requires_grad_()
        attention(rounded, 2, 32**-0.5).sin().sum().backward()
        errors.append(float((rounded.grad.float() - exact.grad).norm() / exact.grad.norm()))
    assert errors[1] < 1.2 * errors[0]


@pytest.mark.parametrize("settings", [{"attn_drop": 0.5}, {"qk_norm": True, "norm_layer": nn.LayerNorm}])
def test_other_attention_is_left_to_timm(settings: dict[str, object]) -> None:
    module = Attention(16, num_heads=2, **settings)
    module.fused_attn = False
    x = torch.randn(2, 5, 16)
    results = []
    for one in (module, lean(module)):
        torch.manual_seed(1)
        results.append(one.train()(x))
    assert torch.equal(*results)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    plain_module = Attention(16, num_heads=2)
    plain_module.fused_attn = False
    torch.testing.assert_close(lean(plain_module)(x, attn_mask=mask), plain_module(x, attn_mask=mask))
    assert not torch.allclose(lean(plain_module)(x, attn_mask=mask), plain_module(x))
