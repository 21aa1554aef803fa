"""Networks of published methods before loading: sizes come from the tensors' shapes, names are timm's."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from uniemox.checkpoints.methods import METHODS, TABLE
from uniemox.checkpoints.reading import WeightFile, state_of
from uniemox.checkpoints.resizing import (
    Grid,
    resize_bias_bicubic,
    resize_bias_geometric,
    resize_position,
    resize_position_dino,
    resize_position_torchvision,
)
from uniemox.checkpoints.sizes import check_size, count_of, heads_of, positive, side_of
from uniemox.errors import CheckpointError, EncoderError, ShapeError
from uniemox.model.encoder import sincos_position
from uniemox.model.encoders import MixMAEEncoder
from uniemox.views.patches import patch_grid

SHARED_TABLE = f"rel_pos_bias.{TABLE}"
# Last rows of a BEiT table: CLS to token, token to CLS, CLS to CLS.
EXTRA_ROWS = 3
# Windows of MixMAE's own fine-tuning at 384 px; at other sizes windows grow with the image.
MIXMAE_WINDOWS_384 = (16, 16, 24, 12)
# Px of the image per position of the last of four stages.
LAST_STAGE_PX = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectedEncoder:
    """Tensors of a file that are its encoder, and the requested network."""

    file: WeightFile
    method: str
    tensors: dict[str, Tensor]  # by timm's names
    dropped: list[str]  # names of the file's other tensors
    heads: int | None  # requested, or in the header
    image_size: int | None  # side in px; None: as in pre-training
    has_mean_pool: bool = False  # a plain ViT gives the mean of its patch tokens, whatever the method's own head reads


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """Network of the right architecture before loading, and the tensors to load."""

    encoder: Any  # timm's networks are untyped
    state: dict[str, Tensor]  # the file's tensors under the encoder's names, position tables resized
    new: list[str]  # parameters that the method's own fine-tuning initialises
    resized: list[str]  # tables whose size differs from the file


def draft_encoder(selected: SelectedEncoder) -> Draft:
    """Build the encoder as the method's own fine-tuning does.

    Raises:
        CheckpointError: If the dimensions can't be derived or contradict each other.
        ShapeError: If the image size does not fit.
    """
    builders = {"vit": _draft_vit, "beit": _draft_beit, "swin": _draft_swin}
    return builders[METHODS[selected.method].network](selected)


def draft_start(selected: SelectedEncoder) -> Draft:
    """Build the plain ViT for pre-training.

    Args:
        selected: Result of `select_start`.

    Raises:
        CheckpointError: If the dimensions can't be derived or contradict each other.
        ShapeError: If the image size does not fit.
    """
    # SiameseIM replaces its norm, so its files have none.
    lacks_norm = selected.method == "siameseim" and "norm.weight" not in selected.tensors
    return _draft_plain(selected, pool="token", new_norm="norm" if lacks_norm else None)


def select_start(selected: SelectedEncoder) -> SelectedEncoder:
    """Return the tensors under the names of a plain ViT.

    Raises:
        EncoderError: With the method's name, if its network is not a plain ViT.
    """
    if not METHODS[selected.method].is_start:
        raise EncoderError(
            f"{selected.method} has relative positions or no CLS token: it can be fine-tuned, but pre-training starts "
            f"from plain ViTs ({', '.join(name for name, method in METHODS.items() if method.is_start)})"
        )
    if selected.method == "cae":
        return replace(selected, tensors=_plain_names(selected.tensors))
    return selected


# Plain ViTs, and BEiT's with relative positions


def _blocks_shape(
    selected: SelectedEncoder, side: int, heads: int | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return timm's constructor arguments of a network with equal blocks.

    Args:
        selected: Tensors and requested network.
        side: Side of its position table, in patches.
        heads: Number of attention heads; None: those of the published network of this width.
        options: Further arguments.
    """
    tensors = selected.tensors
    width, _, patch_size, _ = tensors["patch_embed.proj.weight"].shape
    shape = {
        "img_size": selected.image_size or side * patch_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": count_of(tensors),
        "num_heads": heads or heads_of(width, selected.method),
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "num_classes": 0,
        **options,
    }
    check_size(shape, tensors)
    return shape


def _draft_vit(selected: SelectedEncoder) -> Draft:
    """Draft a ViT; a file's classifier after `norm` reads the CLS token, unless the mean is requested."""
    tensors = selected.tensors
    is_classifier = "head.weight" in selected.dropped and "norm.weight" in tensors
    has_own_norm = "fc_norm.weight" in tensors
    reads_token = METHODS[selected.method].reads_token or is_classifier
    if reads_token and not has_own_norm and not selected.has_mean_pool:
        return _draft_plain(selected, pool="token", new_norm=None)
    return _draft_plain(selected, pool="avg", new_norm=None if has_own_norm else "fc_norm")


def _draft_plain(selected: SelectedEncoder, *, pool: str, new_norm: str | None) -> Draft:
    """Draft a plain ViT.

    Args:
        selected: Tensors and requested network.
        pool: timm's global_pool, "token" or "avg".
        new_norm: Name of a norm that the file lacks and fine-tuning initialises; None without one.
    """
    tensors = selected.tensors
    options = {
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        # Any number adds a layer scale, whose values come from the file.
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,
        "global_pool": pool,
    }
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    prefix = _prefix_rows(selected, registers)
    if registers:
        options["reg_tokens"] = registers
    if prefix == 0:
        options["no_embed_class"] = True
    side = side_of(tensors["pos_embed"], extra=prefix)
    encoder = VisionTransformer(**_blocks_shape(selected, side, selected.heads, options))
    grid = patch_grid(encoder.patch_embed.img_size, encoder.patch_embed.patch_size[0])
    resized = {}
    if encoder.pos_embed.shape[1] != tensors["pos_embed"].shape[1]:
        table = tensors["pos_embed"]
        if selected.method == "dino" and not registers:
            resized["pos_embed"] = resize_position_dino(table, grid)
        elif selected.method == "torchvision":
            resized["pos_embed"] = resize_position_torchvision(table, grid)
        else:
            is_filtered = registers > 0 or selected.method == "timm"
            resized["pos_embed"] = resize_position(table, grid, extra=prefix, antialias=is_filtered)
    new = [] if new_norm is None else [f"{new_norm}.weight", f"{new_norm}.bias"]
    return Draft(encoder=encoder, state=tensors | resized, new=new, resized=list(resized))


def _prefix_rows(selected: SelectedEncoder, registers: int) -> int:
    """Count the rows of a ViT's position table before those of the patches: CLS token and registers, or none.

    Networks of timm may have none (no_embed_class); of published methods, DINOv2 with registers.
    """
    rows = selected.tensors["pos_embed"].shape[1]
    may_have_none = registers > 0 or selected.method in ("timm", "uniemox")
    if may_have_none and math.isqrt(rows) ** 2 == rows:
        return 0
    return 1 + registers


def _plain_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename CAE's tensors to those of a plain ViT: one bias for q, k (zero) and v, layer scale, its norm.

    The zero tables of relative positions from the beginning of CAE's fine-tuning are left out.

    Raises:
        CheckpointError: If they have been trained.
    """
    if any(name.endswith(TABLE) and value.any() for name, value in tensors.items()):
        raise CheckpointError("it was fine-tuned with relative positions, which a plain ViT lacks")
    plain = {}
    for name, value in tensors.items():
        if name.endswith("attn.q_bias"):
            v_bias = tensors[name.replace("q_bias", "v_bias")]
            plain[name.replace("q_bias", "qkv.bias")] = torch.cat([value, torch.zeros_like(value), v_bias])
        elif not name.endswith(("attn.v_bias", TABLE)):
            # CAE's fine-tuning renames the norm.
            short = name.replace("fc_norm.", "norm.")
            plain[short.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = value
    return plain


def _draft_beit(selected: SelectedEncoder) -> Draft:
    """Draft a BEiT: one table per block, a norm of the mean patch token."""
    tensors = selected.tensors
    tables = {name: value for name, value in tensors.items() if name.endswith(TABLE) and name != SHARED_TABLE}
    # Pre-training shares one table; fine-tuning begins with a copy in every block.
    if SHARED_TABLE in tensors:
        tables = {f"blocks.{i}.attn.{TABLE}": tensors[SHARED_TABLE] for i in range(count_of(tensors))} | tables
    options = {
        # Any number adds a layer scale, whose values come from the file.
        "init_values": 0.1 if "blocks.0.gamma_1" in tensors else None,
        "use_abs_pos_emb": "pos_embed" in tensors,
        "use_rel_pos_bias": True,
        "global_pool": "avg",
    }
    side, heads = _side_and_heads(selected, next(iter(tables.values()), None))
    encoder = Beit(**_blocks_shape(selected, side, heads, options))
    grid = patch_grid(encoder.patch_embed.img_size, encoder.patch_embed.patch_size[0])
    state = {name: value for name, value in tensors.items() if name != SHARED_TABLE} | tables
    if selected.method == "cae":
        return _draft_cae(state, encoder, grid)
    resized = {}
    for name, table in tables.items():
        rows = len(encoder.get_parameter(name))
        if rows != len(table):
            resized[name] = resize_bias_geometric(table, rows, extra=EXTRA_ROWS)
    if "pos_embed" in state and state["pos_embed"].shape != encoder.pos_embed.shape:
        resized["pos_embed"] = resize_position(state["pos_embed"], grid)
    new = [] if "fc_norm.weight" in tensors else ["fc_norm.weight", "fc_norm.bias"]
    return Draft(encoder=encoder, state=state | resized, new=new, resized=list(resized))


def _side_and_heads(selected: SelectedEncoder, table: Tensor | None) -> tuple[int, int | None]:
    """Return patches along one side, and attention heads, None for CAE's tensors, which don't determine them."""
    if selected.method == "cae":
        return side_of(selected.tensors["pos_embed"], extra=1), selected.heads
    if table is None:
        raise CheckpointError(f"{selected.method}: the table of relative positions ({SHARED_TABLE}) is missing")
    # A table has a row for each distance, of which there are 2 * side - 1 along a side.
    distances = side_of(table[None], extra=EXTRA_ROWS)
    heads = table.shape[1]
    if selected.heads not in (None, heads):
        raise CheckpointError(f"heads={selected.heads} contradicts the file's table of relative positions: {heads}")
    return (distances + 1) // 2, heads


def _draft_cae(state: dict[str, Tensor], encoder: Beit, grid: Grid) -> Draft:
    """Apply CAE's rules: its norm becomes the pooled one; resized position tables and zero tables are replaced."""
    encoder.get_parameter("pos_embed").requires_grad_(False)
    if "fc_norm.weight" not in state:
        state = {re.sub(r"^norm\.", "fc_norm.", name): value for name, value in state.items()}
    resized = {}
    if state["pos_embed"].shape != encoder.pos_embed.shape:
        resized["pos_embed"] = sincos_position(encoder.embed_dim, grid, rows_first=True)
    new = []
    for name, parameter in encoder.named_parameters():
        if name.endswith(TABLE) and (name not in state or state[name].shape != parameter.shape):
            nn.init.zeros_(parameter)
            state.pop(name, None)
            new.append(name)
    return Draft(encoder=encoder, state=state | resized, new=new, resized=list(resized))


# Hierarchical networks: SimMIM's Swin and MixMAE


def _draft_swin(selected: SelectedEncoder) -> Draft:
    """Draft a Swin: mean of the positions after the file's own norm."""
    patch_size = selected.tensors["patch_embed.proj.weight"].shape[2]
    if selected.method == "mixmae":
        pretrained_size = side_of(selected.tensors["absolute_pos_embed"], extra=0) * patch_size
    else:
        pretrained_size = _pretrained_size(selected.file) or selected.image_size or 0
    if not pretrained_size:
        raise CheckpointError("the file doesn't give the size of its windows; pass image_size= (convert --image-size)")
    shape = _swin_shape(selected.tensors, patch_size, selected.image_size or pretrained_size)
    windows = _windows(selected, len(shape["depths"]), pretrained_size, shape["img_size"])
    encoder = (MixMAEEncoder if selected.method == "mixmae" else SwinTransformer)(**shape, window_size=windows)
    state = selected.tensors
    # The official code reduces the map at the end of a stage, timm at the beginning of the next one.
    if any(name.startswith("layers.0.downsample.") for name in state):
        state = {
            re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", name): value
            for name, value in state.items()
        }
    resized = {}
    for name, parameter in encoder.named_parameters():
        if name not in state or state[name].shape == parameter.shape:
            continue
        if name == "absolute_pos_embed":
            resized[name] = resize_position(state[name], encoder.patch_embed.grid_size, extra=0)
        elif name.endswith(TABLE):
            resize = resize_bias_bicubic if selected.method == "mixmae" else resize_bias_geometric
            resized[name] = resize(state[name], len(parameter))
    return Draft(encoder=encoder, state=state | resized, new=[], resized=list(resized))


def _swin_shape(tensors: dict[str, Tensor], patch_size: int, image_size: int) -> dict[str, Any]:
    """Return timm's constructor arguments of a Swin, except the windows.

    Raises:
        ShapeError: If the stages do not divide the image.
    """
    stages = count_of(tensors, "layers")
    width = tensors["patch_embed.proj.weight"].shape[0]
    if image_size % (patch_size * 2 ** (stages - 1)):
        raise ShapeError(
            f"an image of {image_size} px does not fit {stages} stages; choose a multiple of {LAST_STAGE_PX} px"
        )
    shape = {
        "img_size": image_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depths": tuple(count_of(tensors, f"layers.{i}.blocks") for i in range(stages)),
        "num_heads": tuple(tensors[f"layers.{i}.blocks.0.attn.{TABLE}"].shape[1] for i in range(stages)),
        "mlp_ratio": tensors["layers.0.blocks.0.mlp.fc1.weight"].shape[0] / width,
        "drop_path_rate": 0.0,
        "num_classes": 0,
    }
    check_size(shape, tensors)
    return shape


def _windows(selected: SelectedEncoder, stages: int, pretrained_size: int, image_size: int) -> tuple[int, ...]:
    """Return the side of the attention windows per stage at this image size.

    Raises:
        ShapeError: If none fits.
    """
    tables = [selected.tensors[f"layers.{i}.blocks.0.attn.{TABLE}"] for i in range(stages)]
    # A table has 2 * window - 1 rows along a side.
    windows = [(side_of(table[None], extra=0) + 1) // 2 for table in tables]
    if selected.method == "mixmae" and image_size == 384 and pretrained_size == 224:
        return MIXMAE_WINDOWS_384
    if any(window * image_size % pretrained_size for window in windows):
        step = pretrained_size // math.gcd(pretrained_size, *windows)
        raise ShapeError(
            f"windows made for {pretrained_size} px ({', '.join(map(str, windows))}) don't fit {image_size} px; "
            f"choose a multiple of {math.lcm(step, LAST_STAGE_PX)} px"
        )
    return tuple(window * image_size // pretrained_size for window in windows)


def _pretrained_size(file: WeightFile) -> int | None:
    """Return the side of a Swin's pre-training images in px: from our header, SimMIM's config, or its masks.

    None if the file has none of these.
    """
    if file.metadata is not None:
        value = file.metadata.get("image_size")
        if value is None:
            return None
        return positive(value, "image_size in its header")
    config = file.content.get("config")
    if isinstance(config, dict) and isinstance(config.get("DATA"), dict) and "IMG_SIZE" in config["DATA"]:
        return positive(config["DATA"]["IMG_SIZE"], "config.DATA.IMG_SIZE")
    state = state_of(file)
    masks = [mask for name, mask in state.items() if name.endswith("layers.0.blocks.1.attn_mask")]
    patches = [weight for name, weight in state.items() if name.endswith("patch_embed.proj.weight")]
    if not masks or not patches:
        return None
    windows, area, _ = masks[0].shape
    return math.isqrt(windows) * math.isqrt(area) * patches[0].shape[-1]
