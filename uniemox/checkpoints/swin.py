"""Hierarchical encoders: SimMIM's Swin and MixMAE."""

import math
import re

from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from uniemox.checkpoints.reading import MethodName
from uniemox.checkpoints.vit import (
    Draft,
    check_size,
    count_of,
    resize_bias_bicubic,
    resize_bias_geometric,
    resize_position,
    side_of,
)
from uniemox.errors import CheckpointError, ShapeError
from uniemox.model.encoders import MixMAEEncoder

TABLE = "relative_position_bias_table"
MIXMAE_WINDOWS_384 = (16, 16, 24, 12)  # its fine-tuning's choice; at other sizes windows grow with the image
WHOLE_STAGE = 32  # px of the image that one place of the last of four stages covers


def draft_swin(
    tensors: dict[str, Tensor], *, method: MethodName, pretrained_size: int | None, image_size: int | None
) -> Draft:
    """The encoder as the method's fine-tuning builds it: mean of the normed places, the file's own norm.

    pretrained_size: of SimMIM's images in px, None: that of image_size; MixMAE's position table tells it.
    Raises CheckpointError if the dimensions can't be derived, ShapeError if windows don't fit the image size.
    """
    if method == "mixmae":
        pretrained_size = side_of(tensors["absolute_pos_embed"], extra=0) * _patch_size(tensors)
    pretrained_size = pretrained_size or image_size
    if pretrained_size is None:
        raise CheckpointError("the file doesn't tell for which image size its windows were made; pass image_size=")
    image_size = image_size or pretrained_size
    shape = _shape(tensors, image_size)
    shape["window_size"] = _windows(tensors, method, pretrained_size, image_size)
    encoder = (MixMAEEncoder if method == "mixmae" else SwinTransformer)(**shape)
    state, resized = _place(_timm_names(tensors), encoder, method)
    return Draft(encoder=encoder, state=state, new=[], resized=resized)


def _shape(tensors: dict[str, Tensor], image_size: int) -> dict[str, object]:
    """timm's constructor arguments, read off the tensors."""
    stages = count_of(tensors, "layers")
    width, fc1 = tensors["patch_embed.proj.weight"].shape[0], tensors["layers.0.blocks.0.mlp.fc1.weight"]
    if image_size % (_patch_size(tensors) * 2 ** (stages - 1)):
        raise ShapeError(
            f"an image of {image_size} px does not fit {stages} stages; choose a multiple of {WHOLE_STAGE} px"
        )
    shape: dict[str, object] = {
        "img_size": image_size,
        "patch_size": _patch_size(tensors),
        "embed_dim": width,
        "depths": tuple(count_of(tensors, f"layers.{i}.blocks") for i in range(stages)),
        "num_heads": tuple(tensors[f"layers.{i}.blocks.0.attn.{TABLE}"].shape[1] for i in range(stages)),
        "mlp_ratio": fc1.shape[0] / width,
        "drop_path_rate": 0.0,
        "num_classes": 0,
    }
    check_size(shape, tensors)
    return shape


def _windows(tensors: dict[str, Tensor], method: MethodName, pretrained_size: int, image_size: int) -> tuple[int, ...]:
    """Side of the attention windows per stage at this image size. Raises ShapeError where none fits."""
    stages = [name for name in tensors if re.match(r"layers\.\d+\.blocks\.0\.attn\." + TABLE, name)]
    spans = [side_of(tensors[name][None], extra=0) for name in sorted(stages)]  # 2 * window - 1
    windows = [(span + 1) // 2 for span in spans]
    if method == "mixmae" and image_size == 384 and pretrained_size == 224:
        return MIXMAE_WINDOWS_384
    if any(window * image_size % pretrained_size for window in windows):
        step = pretrained_size // math.gcd(pretrained_size, *windows)
        raise ShapeError(
            f"windows made for {pretrained_size} px ({', '.join(map(str, windows))}) don't fit {image_size} px; "
            f"choose a multiple of {math.lcm(step, WHOLE_STAGE)} px"
        )
    return tuple(window * image_size // pretrained_size for window in windows)


def _timm_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official files downsample at the end of a stage, timm at the start of the next."""
    if not any(name.startswith("layers.0.downsample.") for name in tensors):
        return tensors
    return {
        re.sub(r"^layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", name): value
        for name, value in tensors.items()
    }


def _place(
    state: dict[str, Tensor], encoder: SwinTransformer, method: MethodName
) -> tuple[dict[str, Tensor], list[str]]:
    """Every table at the encoder's size, and the names of those that were resized."""
    resized = {}
    for name, parameter in encoder.named_parameters():
        if name not in state or state[name].shape == parameter.shape:
            continue
        if name == "absolute_pos_embed":
            resized[name] = resize_position(state[name], encoder.patch_embed.grid_size, extra=0)
        elif name.endswith(TABLE):
            resize = resize_bias_bicubic if method == "mixmae" else resize_bias_geometric
            resized[name] = resize(state[name], len(parameter))
    return state | resized, list(resized)


def _patch_size(tensors: dict[str, Tensor]) -> int:
    return tensors["patch_embed.proj.weight"].shape[2]
