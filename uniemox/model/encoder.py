"""Vision transformers as encoders: position tables and visible tokens."""

from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from uniemox.errors import EncoderError, ShapeError
from uniemox.views.patches import patch_grid


def sincos_position(channels: int, grid: tuple[int, int], *, rows_first: bool = False) -> Tensor:
    """Return a table of sin-cos position vectors: the first half encodes the column, the second the row.

    The CLS token, which comes first, has zeros.

    Args:
        channels: C, a multiple of 4.
        grid: Rows and columns.
        rows_first: Encode the row in the first half, as MoCo v3, CAE and SiameseIM do; MAE, dBOT, TinyMIM and MixMAE
            encode the column first. Source: facebookresearch/mae, util/pos_embed.py; facebookresearch/moco-v3, vits.py.

    Returns:
        (1, 1 + rows * columns, C).
    """
    rows, columns = grid
    frequencies = 10000.0 ** -(torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))  # (C/4,)
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    axes = (row, column) if rows_first else (column, row)
    angles = [coordinate.flatten()[:, None] * frequencies for coordinate in axes]  # 2 x (L, C/4)
    table = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)  # (L, C)
    return torch.cat([table.new_zeros(1, channels), table])[None].float()  # (1, 1 + L, C)


def build_encoder(name: str, image_size: int | None = None, **timm_options: object) -> VisionTransformer:
    """Build a plain ViT of timm with random weights, CLS token and fixed sin-cos position table.

    Args:
        name: Any plain ViT of timm, such as "vit_small_patch16_224".
        image_size: Side of the input in px, a multiple of the patch; None: the size of the named network.
        timm_options: Options of timm's constructor, such as embed_dim, depth, num_heads.

    Raises:
        EncoderError: If timm has no such model or it is not a plain ViT.
        ShapeError: If the patch does not divide the image.
    """
    if not timm.is_model(name):
        raise EncoderError(f"timm has no model {name!r}; timm.list_models('vit_*') lists what it has")
    if image_size is not None and image_size < 1:
        raise ShapeError(f"the image size must be at least one patch, e.g. 224 px, got {image_size}")
    options: dict[str, object] = {"num_classes": 0, "global_pool": "token"}
    if image_size is not None:
        options["img_size"] = image_size
    # Networks of other classes lack an option (TypeError); for values that do not fit, timm asserts.
    try:
        vit = timm.create_model(name, **options | timm_options)
    except (TypeError, AssertionError) as error:
        with torch.device("meta"):
            network = timm.create_model(name, num_classes=0)
        raise EncoderError(_not_plain_message(name, _reason_not_plain(network) or f"timm says: {error}")) from error
    check_plain(vit, name)
    if vit.embed_dim % 4:
        raise EncoderError(f"{name!r}: the sin-cos position table needs a width that 4 divides, got {vit.embed_dim}")
    patch_grid(vit.patch_embed.img_size, vit.patch_embed.patch_size[0])
    with torch.no_grad():
        table = sincos_position(vit.embed_dim, vit.patch_embed.grid_size)[:, 1:]
        # The CLS token and registers keep zeros.
        vit.pos_embed.zero_()
        vit.pos_embed[:, prefix_rows(vit) :] = table
    start_as_mae(vit)
    nn.init.normal_(vit.cls_token, std=0.02)
    return vit


def start_as_mae(module: nn.Module) -> None:
    """Initialise all matrices, including the patch embedding, as MAE does: Xavier uniform, biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            # A convolution's kernel is initialised as the matrix that it is over a patch.
            nn.init.xavier_uniform_(layer.weight.view(len(layer.weight), -1))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def check_plain(vit: nn.Module, name: str) -> None:
    """Raise EncoderError, with name and reason, unless `encode_visible` gives the network's own result."""
    reason = _reason_not_plain(vit)
    if reason:
        raise EncoderError(_not_plain_message(name, reason))


def prefix_rows(vit: VisionTransformer) -> int:
    """Count the rows of the position table before those of the patches: CLS token and registers, or 0 without them."""
    return 0 if vit.no_embed_class else vit.num_prefix_tokens


def encode_visible(vit: VisionTransformer, patches: Tensor, visible: Tensor) -> Tensor:
    """Encode the visible patches: embedding, position, CLS token, blocks, final norm (section III-B of the paper).

    Registers (arXiv 2309.16588) are encoded between the CLS token and the patches, and left out of the result.

    Args:
        vit: A network that `check_plain` accepts.
        patches: (N, L, P) from `patchify`.
        visible: (N, K) indices of the visible patches.

    Returns:
        Tokens (N, 1 + K, C2), the CLS token first.
    """
    # The convolution as a matrix over the pixels of a patch, in the order of `patchify`: row, column, channel.
    weight = vit.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)  # (C2, P)
    x = patches.gather(1, visible[..., None].expand(-1, -1, patches.shape[-1]))  # (N, K, P)
    x = F.linear(x, weight, vit.patch_embed.proj.bias)  # (N, K, C2)
    x = vit.patch_embed.norm(x)
    rows = prefix_rows(vit)
    # Under autocast, the float32 of the position table keeps the sum over the blocks in float32, as timm and MAE do.
    x = x + vit.pos_embed[0, rows:][visible]

    if vit.reg_token is None:
        prefix = vit.cls_token
    else:
        prefix = torch.cat([vit.cls_token, vit.reg_token], dim=1)
    if rows:
        prefix = prefix + vit.pos_embed[:, :rows]
    prefix = prefix.expand(len(x), -1, -1)  # (N, 1 + R, C2), R registers

    x = vit.norm_pre(torch.cat([prefix, x], dim=1))  # (N, 1 + R + K, C2)
    if vit.grad_checkpointing:
        x = checkpoint_seq(vit.blocks, x)
    else:
        x = vit.blocks(x)
    x = vit.norm(x)
    if vit.reg_token is None:
        return x
    return torch.cat([x[:, :1], x[:, vit.num_prefix_tokens :]], dim=1)  # (N, 1 + K, C2)


def _reason_not_plain(vit: Any) -> str | None:
    """Return why `encode_visible` would not give the network's own result; None if it does."""
    if type(vit) is not VisionTransformer:
        return f"it is of class {type(vit).__name__}"
    if type(vit.patch_embed) is not PatchEmbed or vit.dynamic_img_size:
        return "its patch embedding is not one convolution over a fixed grid"
    if not vit.has_class_token:
        return "it has no CLS token"
    if vit.pos_embed is None:
        return "it has no absolute position table"
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


def _not_plain_message(name: str, reason: str) -> str:
    return (
        f"{name!r} cannot be the encoder of the pre-training: {reason}. It takes plain ViTs of timm with a CLS token "
        "and an absolute position table, such as vit_tiny_patch16_224 to vit_huge_patch14_224"
    )
