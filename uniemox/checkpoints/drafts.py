"""Networks of published methods before loading: sizes come from the tensors' shapes, names are timm's."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from uniemox.checkpoints.methods import METHODS, TABLE
from uniemox.checkpoints.reading import WeightFile, state_of
from uniemox.errors import CheckpointError, EncoderError, ShapeError
from uniemox.model.encoder import sincos_position
from uniemox.model.encoders import MixMAEEncoder
from uniemox.views.patches import patch_grid

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # heads of the published sizes, Ti to H, by width
SMALL_HEADS = {"moco_v3": 12, "cae": 12}  # of their ViT-S; all others have 6
SHARED_TABLE = f"rel_pos_bias.{TABLE}"
EXTRA_ROWS = 3  # extra rows of a BEiT table: CLS to token, token to CLS, CLS to CLS
MIXMAE_WINDOWS_384 = (16, 16, 24, 12)  # of its fine-tuning; at other sizes windows grow with the image
WHOLE_STAGE = 32  # px of the image per position of the last of four stages
MAX_NUMBER = 2048  # maximum heads, or px per side of an image, in a file

Grid = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """Encoder tensors of a file, and the requested network."""

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


def draft_encoder(given: Selected) -> Draft:
    """Return the encoder as the method's own fine-tuning builds it.

    Raises:
        CheckpointError: If the dimensions can't be derived or contradict each other.
        ShapeError: For the image size.
    """
    return {"vit": _draft_vit, "beit": _draft_beit, "swin": _draft_swin}[METHODS[given.method].network](given)


def draft_start(given: Selected) -> Draft:
    """Return the plain ViT for pre-training.  given: of `select_start`. Raises the errors of `draft_encoder`."""
    lacks_norm = given.method == "siameseim" and "norm.weight" not in given.tensors  # SiameseIM replaces its norm
    return _draft_plain(given, pool="token", new_norm="norm" if lacks_norm else None)


def select_start(given: Selected) -> Selected:
    """Return the tensors under the names of a plain ViT.

    Raises:
        EncoderError: By name, if the method has none.
    """
    if not METHODS[given.method].is_start:
        raise EncoderError(
            f"{given.method} has relative positions or no CLS token: it can be fine-tuned, but pre-training starts "
            f"from plain ViTs ({', '.join(name for name, method in METHODS.items() if method.is_start)})"
        )
    if given.method == "cae":
        return replace(given, tensors=_plain_names(given.tensors))
    return given


def count_of(names: Iterable[str], of: str = "blocks") -> int:
    """Count the blocks or layers that the names mention.

    Raises:
        CheckpointError: If one is missing.
    """
    numbers = {int(match[1]) for name in names if (match := re.match(rf"{re.escape(of)}\.(\d{{1,4}})\.", name))}
    gap = next((number for number in range(len(numbers)) if number not in numbers), None)
    if gap is not None or not numbers:
        raise CheckpointError(f"the encoder is not whole; missing: {of}.{gap or 0}")
    return len(numbers)


def side_of(table: Tensor, *, extra: int) -> int:
    """Return the number of patches along a side of the table's grid.

    Raises:
        CheckpointError: Unless it is square.
    """
    side = math.isqrt(table.shape[1] - extra)
    if side * side != table.shape[1] - extra:
        raise CheckpointError(
            f"its position table has {table.shape[1]} rows, expected {extra} more than a square number"
        )
    return side


def heads_of(width: int, method: str) -> int:
    """Return the heads of the published network of this width.

    Raises:
        CheckpointError: If there is none.
    """
    if width not in HEADS:
        raise CheckpointError(
            f"the tensors don't determine the number of heads of a ViT {width} wide; pass heads= (convert --heads)"
        )
    if width == 384:
        return SMALL_HEADS.get(method, HEADS[width])
    return HEADS[width]


def _check_size(shape: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError for a network far larger than its file, whose names and shapes may claim any size.

    If only a few tensors are missing, the built network names them.

    Args:
        shape: Timm's constructor arguments.
    """
    width = shape["embed_dim"]
    depths = shape.get("depths") or (shape["depth"],)
    squares = sum(depth * (width << stage) ** 2 for stage, depth in enumerate(depths))
    wanted = 3 * width * shape["patch_size"] ** 2 + round((4 + 2 * shape["mlp_ratio"]) * squares)  # attention and MLP
    held = sum(value.numel() for value in tensors.values())
    if wanted > 2 * held:
        raise CheckpointError(
            f"the encoder is not whole: {'+'.join(map(str, depths))} blocks from {width} wide have {wanted:,} "
            f"weights, the file holds {held:,} numbers"
        )


def positive(value: object, name: str) -> int:
    """Return a number claimed by a file.

    Raises:
        CheckpointError: If it is not from 1 to `MAX_NUMBER`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_NUMBER:
        raise CheckpointError(f"{name} must be a whole number from 1 to {MAX_NUMBER}, got {value!r}")
    return value


# Plain ViTs, and BEiT's with relative positions


def _blocks_shape(given: Selected, side: int, heads: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return timm's constructor arguments of a network with equal blocks.  side: of its position table, in patches."""
    tensors = given.tensors
    width, _, patch_size, _ = tensors["patch_embed.proj.weight"].shape
    shape = {
        "img_size": given.image_size or side * patch_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": count_of(tensors),
        "num_heads": heads or heads_of(width, given.method),
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "num_classes": 0,
        **options,
    }
    _check_size(shape, tensors)
    return shape


def _draft_vit(given: Selected) -> Draft:
    """Draft a ViT; a file's classifier after `norm` reads the CLS token, unless the mean is requested."""
    tensors = given.tensors
    is_classifier = "head.weight" in given.dropped and "norm.weight" in tensors
    has_own_norm = "fc_norm.weight" in tensors
    reads_token = METHODS[given.method].reads_token or is_classifier
    if reads_token and not has_own_norm and not given.has_mean_pool:
        return _draft_plain(given, pool="token", new_norm=None)
    return _draft_plain(given, pool="avg", new_norm=None if has_own_norm else "fc_norm")


def _draft_plain(given: Selected, *, pool: str, new_norm: str | None) -> Draft:
    tensors = given.tensors
    options = {
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "init_values": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,  # the file has the values
        "global_pool": pool,
    }
    if "reg_token" in tensors:
        registers = tensors["reg_token"].shape[1]
    else:
        registers = 0
    prefix = _prefix_rows(given, registers)
    if registers:
        options["reg_tokens"] = registers
    if prefix == 0:
        options["no_embed_class"] = True
    side = side_of(tensors["pos_embed"], extra=prefix)
    encoder = VisionTransformer(**_blocks_shape(given, side, given.heads, options))
    grid = patch_grid(encoder.patch_embed.img_size, encoder.patch_embed.patch_size[0])
    resized = {}
    if encoder.pos_embed.shape[1] != tensors["pos_embed"].shape[1]:
        if given.method == "dino" and not registers:
            resized["pos_embed"] = resize_position_dino(tensors["pos_embed"], grid)
        else:
            resized["pos_embed"] = resize_position(tensors["pos_embed"], grid, extra=prefix, antialias=registers > 0)
    if new_norm is None:
        new = []
    else:
        new = [f"{new_norm}.weight", f"{new_norm}.bias"]
    return Draft(encoder=encoder, state=tensors | resized, new=new, resized=list(resized))


def _prefix_rows(given: Selected, registers: int) -> int:
    """Return the rows of a ViT's position table before those of the patches: one for each token there, or none.

    Networks of timm may have none (no_embed_class); of published methods, DINOv2 with registers.
    """
    rows = given.tensors["pos_embed"].shape[1]
    may_have_none = registers > 0 or given.method in ("timm", "uniemox")
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
            short = name.replace("fc_norm.", "norm.")  # its fine-tuning renames the norm
            plain[short.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = value
    return plain


def _draft_beit(given: Selected) -> Draft:
    """Draft a BEiT: one table per block, a norm of the mean patch token."""
    tensors = given.tensors
    tables = {name: value for name, value in tensors.items() if name.endswith(TABLE) and name != SHARED_TABLE}
    if SHARED_TABLE in tensors:
        tables = {f"blocks.{i}.attn.{TABLE}": tensors[SHARED_TABLE] for i in range(count_of(tensors))} | tables
    options = {
        "init_values": 0.1 if "blocks.0.gamma_1" in tensors else None,  # the file has the values
        "use_abs_pos_emb": "pos_embed" in tensors,
        "use_rel_pos_bias": True,
        "global_pool": "avg",
    }
    side, heads = _side_and_heads(given, next(iter(tables.values()), None))
    encoder = Beit(**_blocks_shape(given, side, heads, options))
    grid = patch_grid(encoder.patch_embed.img_size, encoder.patch_embed.patch_size[0])
    state = {name: value for name, value in tensors.items() if name != SHARED_TABLE} | tables
    if given.method == "cae":
        return _place_cae(state, encoder, grid)
    resized = {}
    for name, table in tables.items():
        rows = len(encoder.get_parameter(name))
        if rows != len(table):
            resized[name] = resize_bias_geometric(table, rows, extra=EXTRA_ROWS)
    if "pos_embed" in state and state["pos_embed"].shape != encoder.pos_embed.shape:
        resized["pos_embed"] = resize_position(state["pos_embed"], grid)
    if "fc_norm.weight" in tensors:
        new = []
    else:
        new = ["fc_norm.weight", "fc_norm.bias"]
    return Draft(encoder=encoder, state=state | resized, new=new, resized=list(resized))


def _side_and_heads(given: Selected, table: Tensor | None) -> tuple[int, int | None]:
    """Return patches along one side, and attention heads, None for CAE's tensors, which don't determine them."""
    if given.method == "cae":
        return side_of(given.tensors["pos_embed"], extra=1), given.heads
    if table is None:
        raise CheckpointError(f"{given.method}: the table of relative positions ({SHARED_TABLE}) is missing")
    # 2 * side - 1
    span = side_of(table[None], extra=EXTRA_ROWS)
    heads = table.shape[1]
    if given.heads not in (None, heads):
        raise CheckpointError(f"heads={given.heads} contradicts the file's table of relative positions: {heads}")
    return (span + 1) // 2, heads


def _place_cae(state: dict[str, Tensor], encoder: Beit, grid: Grid) -> Draft:
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


# Hierarchical ones: SimMIM's Swin and MixMAE


def _draft_swin(given: Selected) -> Draft:
    """Draft a Swin: mean of the positions after the file's own norm."""
    patch_size = given.tensors["patch_embed.proj.weight"].shape[2]
    if given.method == "mixmae":
        pretrained_size = side_of(given.tensors["absolute_pos_embed"], extra=0) * patch_size
    else:
        pretrained_size = _pretrained_size(given.file) or given.image_size or 0
    if not pretrained_size:
        raise CheckpointError("the file doesn't give the size of its windows; pass image_size= (convert --image-size)")
    shape = _swin_shape(given.tensors, patch_size, given.image_size or pretrained_size)
    windows = _windows(given, len(shape["depths"]), pretrained_size, shape["img_size"])
    encoder = (MixMAEEncoder if given.method == "mixmae" else SwinTransformer)(**shape, window_size=windows)
    state = given.tensors
    if any(name.startswith("layers.0.downsample.") for name in state):  # at the end of a stage; timm: at its beginning
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
            if given.method == "mixmae":
                resize = resize_bias_bicubic
            else:
                resize = resize_bias_geometric
            resized[name] = resize(state[name], len(parameter))
    return Draft(encoder=encoder, state=state | resized, new=[], resized=list(resized))


def _swin_shape(tensors: dict[str, Tensor], patch_size: int, image_size: int) -> dict[str, Any]:
    """Return timm's constructor arguments, except the windows."""
    stages = count_of(tensors, "layers")
    width = tensors["patch_embed.proj.weight"].shape[0]
    if image_size % (patch_size * 2 ** (stages - 1)):
        raise ShapeError(
            f"an image of {image_size} px does not fit {stages} stages; choose a multiple of {WHOLE_STAGE} px"
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
    _check_size(shape, tensors)
    return shape


def _windows(given: Selected, stages: int, pretrained_size: int, image_size: int) -> tuple[int, ...]:
    """Return the side of the attention windows per stage at this image size.

    Raises:
        ShapeError: If none fits.
    """
    tables = [given.tensors[f"layers.{i}.blocks.0.attn.{TABLE}"] for i in range(stages)]
    windows = [(side_of(table[None], extra=0) + 1) // 2 for table in tables]  # a table has 2 * window - 1 a side
    if given.method == "mixmae" and image_size == 384 and pretrained_size == 224:
        return MIXMAE_WINDOWS_384
    if any(window * image_size % pretrained_size for window in windows):
        step = pretrained_size // math.gcd(pretrained_size, *windows)
        raise ShapeError(
            f"windows made for {pretrained_size} px ({', '.join(map(str, windows))}) don't fit {image_size} px; "
            f"choose a multiple of {math.lcm(step, WHOLE_STAGE)} px"
        )
    return tuple(window * image_size // pretrained_size for window in windows)


def _pretrained_size(file: WeightFile) -> int | None:
    """Return the px per side of a Swin's pre-training images: from our header, SimMIM's config, or its masks."""
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


# Position tables at another size


def resize_position(table: Tensor, grid: Grid, *, extra: int = 1, antialias: bool = False) -> Tensor:
    """Resize a table bicubically; `extra` leading rows stay. For MAE, dBOT, SiameseIM, TinyMIM, DeiT (MoCo v3), MixMAE.

    Source: facebookresearch/mae, util/pos_embed.py; Sense-X/MixMIM, util/pos_embed.py (extra = 0);
    facebookresearch/dinov2, hub/backbones.py (interpolate_antialias=True, interpolate_offset=0.0).

    Args:
        table: (1, extra + L, C), L a square.
        antialias: As timm, and as DINOv2 with registers.

    Returns:
        (1, extra + rows * columns, C).
    """
    return resample_abs_pos_embed(table, list(grid), num_prefix_tokens=extra, antialias=antialias)


def resize_position_dino(table: Tensor, grid: Grid) -> Tensor:
    """Resize a table bicubically by a scale factor that is a tenth of a patch too large. DINO.

    Source: facebookresearch/dino, vision_transformer.py, interpolate_pos_encoding.

    Args:
        table: (1, 1 + L, C), L a square.

    Returns:
        (1, 1 + rows * columns, C).
    """
    side = math.isqrt(table.shape[1] - 1)
    scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
    patches = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, C, side, side)
    patches = F.interpolate(patches.float(), scale_factor=scale, mode="bicubic")  # (1, C, rows, columns)
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


def resize_bias_bicubic(table: Tensor, rows: int) -> Tensor:
    """Resize a relative-position table by plain bicubic interpolation. MixMAE.

    Source: Sense-X/MixMIM, util/pos_embed.py.

    Args:
        table: (S*S, heads); rows: D*D.

    Returns:
        (rows, heads).
    """
    side = math.isqrt(rows)
    return resize_position(table[None], (side, side), extra=0)[0]


def resize_bias_geometric(table: Tensor, rows: int, *, extra: int = 0) -> Tensor:
    """Resize a relative-position table by a cubic spline over distances that grow as q^k. BEiT, SimMIM.

    Distances beyond the source grid get its border value, as in scipy's interp2d; RectBivariateSpline replaces it, as
    scipy documents. Source: microsoft/unilm, beit/run_class_finetuning.py; microsoft/SimMIM, utils.py.

    Args:
        table: (S*S + extra, heads); rows: D*D + extra; the last `extra` rows are kept.

    Returns:
        (rows, heads).
    """
    from scipy.interpolate import RectBivariateSpline  # noqa: PLC0415 - a quarter of a second to import

    table, kept = table[: len(table) - extra], table[len(table) - extra :]
    source = math.isqrt(len(table))
    target = math.isqrt(rows - extra)
    if table.is_meta:  # where only shapes are asked for
        return table.new_empty(rows, table.shape[1])
    distances = np.cumsum(growth(source // 2, target // 2) ** np.arange(source // 2))
    x = np.concatenate([-distances[::-1], [0.0], distances])  # (S,)
    wanted = np.arange(-(target // 2), target // 2 + 1)  # (D,)
    heads = table.float().reshape(source, source, -1).numpy()
    resized = [RectBivariateSpline(x, x, heads[:, :, i])(wanted, wanted).ravel() for i in range(heads.shape[2])]
    return torch.cat([torch.from_numpy(np.stack(resized, axis=1)).float(), kept.float()])


def growth(source: int, target: int) -> float:
    """Return q such that 1 + q + ... + q^(source - 1) is close to target, by the official bisection and its bounds."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q**source) / (1 - q) > target:
            high = q
        else:
            low = q
    return q
