"""The encoder: a plain timm VisionTransformer, run over the visible patches only (MAE, arXiv 2111.06377)."""

from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from uniemox.errors import EncoderError, ShapeError
from uniemox.model.position import sincos_position
from uniemox.views.patches import patch_grid


def build_encoder(name: str, image_size: int | None = None, **timm_options: object) -> VisionTransformer:
    """A plain ViT of timm with random weights, CLS token and fixed sin-cos position table.

    name: any plain ViT of timm, e.g. "vit_small_patch16_224".  image_size: side in px, a multiple of the patch;
    None: the size that timm built the network for.
    timm_options: passed to timm, e.g. embed_dim, depth, num_heads.
    Raises EncoderError if timm has no such model or it is no plain ViT, ShapeError if the patch doesn't fit the image.
    """
    if not timm.is_model(name):
        raise EncoderError(f"timm has no model {name!r}; timm.list_models('vit_*') lists what it has")
    if image_size is not None and image_size < 1:
        raise ShapeError(f"the image size must be at least one patch, e.g. 224 px, got {image_size}")
    options = {"num_classes": 0, "global_pool": "token"} | ({} if image_size is None else {"img_size": image_size})
    try:
        vit = timm.create_model(name, **options | timm_options)
    except (TypeError, AssertionError) as error:  # other networks' constructors know no such option; timm asserts
        with torch.device("meta"):
            kind = timm.create_model(name, num_classes=0)
        raise EncoderError(_refusal(name, _why_not_plain(kind) or f"timm says: {error}")) from error
    check_plain(vit, name)
    if vit.embed_dim % 4:
        raise EncoderError(f"{name!r}: the sin-cos position table needs a width that 4 divides, got {vit.embed_dim}")
    patch_grid(vit.patch_embed.img_size, vit.patch_embed.patch_size[0])
    with torch.no_grad():
        vit.pos_embed.copy_(sincos_position(vit.embed_dim, vit.patch_embed.grid_size))
    start_as_mae(vit)
    nn.init.normal_(vit.cls_token, std=0.02)
    return vit


def start_as_mae(module: nn.Module) -> None:
    """Draw all matrices, the patch embedding's too, as MAE does: Xavier uniform, biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight.view(len(layer.weight), -1))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def check_plain(vit: nn.Module, name: str) -> None:
    """Raise EncoderError, with name and reason, unless `encode_visible` computes what the network itself would."""
    reason = _why_not_plain(vit)
    if reason:
        raise EncoderError(_refusal(name, reason))


def encode_visible(vit: VisionTransformer, patches: Tensor, visible: Tensor) -> Tensor:
    """Tokens of the visible patches: embedding, position, CLS token, blocks, final norm (section III-B of the paper).

    vit: a network that `check_plain` accepts.  patches: (N, L, P) as `patchify` cuts them.  visible: (N, K) indices.
    Returns (N, 1 + K, C2), the CLS token first.
    """
    x = F.linear(take_rows(patches, visible), _patch_weight(vit), vit.patch_embed.proj.bias)  # (N, K, C2)
    x = vit.patch_embed.norm(x)
    x = x + vit.pos_embed[0, 1:][visible].to(x.dtype)
    cls = (vit.cls_token + vit.pos_embed[:, :1]).to(x.dtype).expand(len(x), -1, -1)  # (N, 1, C2)
    x = vit.norm_pre(torch.cat([cls, x], dim=1))  # (N, 1 + K, C2)
    x = checkpoint_seq(vit.blocks, x) if vit.grad_checkpointing else vit.blocks(x)
    return vit.norm(x)


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Of each sample, some rows. x: (N, L, C), rows: (N, K) indices.  Returns (N, K, C)."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))


def _patch_weight(vit: VisionTransformer) -> Tensor:
    """The patch embedding's convolution as a matrix over patches in our pixel order. Returns (C2, P)."""
    return vit.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)


def _why_not_plain(vit: Any) -> str | None:
    if type(vit) is not VisionTransformer:
        return f"it is of class {type(vit).__name__}"
    if type(vit.patch_embed) is not PatchEmbed or vit.dynamic_img_size:
        return "its patch embedding is not one convolution over a fixed grid"
    if vit.num_prefix_tokens != 1 or not vit.has_class_token:
        return "it has register tokens or no CLS token"
    if vit.pos_embed is None or vit.no_embed_class:
        return "it has no absolute position table with a row for the CLS token"
    blocks = list(vit.blocks)
    if any(type(block) is not Block for block in blocks):
        return f"its blocks are {type(blocks[0]).__name__}"
    if isinstance(vit.norm, nn.Identity):
        return "it has no final norm (load_start and global_pool='token' give networks with one)"
    if not isinstance(vit.head, nn.Identity):
        return "it has a classifier, which pre-training would leave untrained: build it with num_classes=0"
    if vit.pos_drop.p > 0 or not isinstance(vit.patch_drop, nn.Identity):
        return "it drops positions or patches on its own"
    if vit.patch_embed.proj.in_channels != 3:
        return "its images are not RGB"
    return None


def _refusal(name: str, reason: str) -> str:
    return (
        f"{name!r} cannot be the encoder of the pre-training: {reason}. It takes plain ViTs of timm with a CLS token "
        "and an absolute position table, such as vit_tiny_patch16_224 to vit_huge_patch14_224"
    )
