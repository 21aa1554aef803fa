"""Plain ViTs: MAE, dBOT, SiameseIM, TinyMIM, MoCo v3, DINO, our own, timm's and torchvision's."""

import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from uniemox.checkpoints.draft import Draft, check_size, count_of
from uniemox.checkpoints.recognition import MethodName
from uniemox.checkpoints.resizing import resize_position, resize_position_dino
from uniemox.errors import CheckpointError
from uniemox.views.patches import patch_grid

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # of the published sizes, Ti to H, by width
MOCO_SMALL_HEADS = 12  # where everybody else has 6
# The head reads the normed CLS token; elsewhere a new norm of the mean patch.
TOKEN_POOLED = ("moco_v3", "dino", "torchvision")


def draft_vit(
    tensors: dict[str, Tensor], *, method: MethodName, heads: int | None, image_size: int | None, has_head: bool
) -> Draft:
    """The encoder as the method's fine-tuning builds it.

    has_head: the file holds a classifier too; one that follows `norm` reads the CLS token.
    Raises CheckpointError if dimensions can't be told or contradict each other, ShapeError for the image size.
    """
    shape = vit_shape(tensors, method=method, heads=heads, image_size=image_size)
    reads_token = method in TOKEN_POOLED or (has_head and "norm.weight" in tensors) or method == "timm"
    pool = "token" if reads_token and "fc_norm.weight" not in tensors else "avg"
    encoder = VisionTransformer(**shape, num_classes=0, global_pool=pool)
    state, resized = place(tensors, encoder, method)
    new = [] if pool == "token" or "fc_norm.weight" in tensors else ["fc_norm.weight", "fc_norm.bias"]
    return Draft(encoder=encoder, state=state, new=new, resized=resized)


def draft_start(tensors: dict[str, Tensor], *, method: MethodName, heads: int | None, image_size: int | None) -> Draft:
    """The same network as a start of pre-training: with its final norm, which only SiameseIM starts anew."""
    shape = vit_shape(tensors, method=method, heads=heads, image_size=image_size)
    encoder = VisionTransformer(**shape, num_classes=0, global_pool="token")
    state, resized = place(tensors, encoder, method)
    new = ["norm.weight", "norm.bias"] if method == "siameseim" and "norm.weight" not in tensors else []
    return Draft(encoder=encoder, state=state, new=new, resized=resized)


def vit_shape(
    tensors: dict[str, Tensor], *, method: MethodName, heads: int | None, image_size: int | None
) -> dict[str, object]:
    """timm's constructor arguments, read off the tensors. Raises CheckpointError where they don't tell."""
    patch = tensors["patch_embed.proj.weight"]
    width, patch_size = patch.shape[0], patch.shape[2]
    shape: dict[str, object] = {
        "img_size": image_size or side_of(tensors["pos_embed"], extra=1) * patch_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": count_of(tensors),
        "num_heads": heads or heads_of(width, method),
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,  # the file has the values
    }
    check_size(shape, tensors)
    return shape


def heads_of(width: int, method: MethodName) -> int:
    """Heads of the published network of that width. Raises CheckpointError if there is none."""
    if method in ("moco_v3", "cae") and width == 384:
        return MOCO_SMALL_HEADS
    if width not in HEADS:
        raise CheckpointError(
            f"the tensors can't tell the number of heads of a ViT {width} wide; pass heads= (--heads)"
        )
    return HEADS[width]


def side_of(table: Tensor, *, extra: int) -> int:
    """Patches along one side of the square grid behind a position table. Raises CheckpointError if it isn't square."""
    side = math.isqrt(table.shape[1] - extra)
    if side * side != table.shape[1] - extra:
        raise CheckpointError(
            f"its position table has {table.shape[1]} rows, expected {extra} more than a square number"
        )
    return side


def place(
    tensors: dict[str, Tensor], encoder: VisionTransformer, method: MethodName
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors with the position table at the encoder's input size, and the names of what was resized."""
    grid = patch_grid(encoder.patch_embed.img_size, encoder.patch_embed.patch_size[0])
    if encoder.pos_embed.shape[1] == tensors["pos_embed"].shape[1]:
        return tensors, []
    resize = resize_position_dino if method == "dino" else resize_position
    return tensors | {"pos_embed": resize(tensors["pos_embed"], grid)}, ["pos_embed"]


def plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """CAE's tensors under the names of a plain ViT: one bias for q, k (zero) and v, layer scale, its norm.

    The zero tables of relative positions that CAE's fine-tuning begins with are left out. Raises CheckpointError if
    they have been trained.
    """
    if any(name.endswith("relative_position_bias_table") and value.any() for name, value in tensors.items()):
        raise CheckpointError("it was fine-tuned with relative positions, which a plain ViT has not")
    plain = {}
    for name, value in tensors.items():
        if name.endswith("attn.q_bias"):
            v_bias = tensors[name.replace("q_bias", "v_bias")]
            plain[name.replace("q_bias", "qkv.bias")] = torch.cat([value, torch.zeros_like(value), v_bias])
        elif not name.endswith(("attn.v_bias", "relative_position_bias_table")):
            short = name.replace("fc_norm.", "norm.")  # as its fine-tuning calls the same norm
            plain[short.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = value
    return plain
