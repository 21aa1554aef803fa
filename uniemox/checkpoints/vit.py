"""Published weights of plain ViTs and BEiT under timm's names, with resized position tables."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from uniemox.checkpoints.reading import MethodName
from uniemox.errors import CheckpointError
from uniemox.model.encoder import sincos_position
from uniemox.views.patches import patch_grid


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A network of the right architecture, not yet loaded, and what shall go into it."""

    encoder: nn.Module
    state: dict[str, Tensor]  # the file's tensors under the encoder's names, position tables resized
    new: list[str]  # parameters that the method's own fine-tuning starts anew
    resized: list[str]  # tables of another size than in the file


def count_of(names: Iterable[str], of: str = "blocks") -> int:
    """Count the blocks or layers that the names mention. Raises CheckpointError if one is missing."""
    numbers = {int(found[1]) for name in names if (found := re.match(rf"{re.escape(of)}\.(\d{{1,4}})\.", name))}
    gap = next((number for number in range(len(numbers)) if number not in numbers), None)
    if gap is not None or not numbers:
        raise CheckpointError(f"the encoder is not whole; missing: {of}.{gap or 0}")
    return len(numbers)


def check_size(shape: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse to build a network far larger than its file, whose names and shapes may ask for any amount.

    Where only a few tensors are missing, the built network names them.
    shape: timm's constructor arguments.  Raises CheckpointError.
    """
    width, depths = shape["embed_dim"], shape.get("depths") or (shape["depth"],)
    squares = sum(depth * (width << stage) ** 2 for stage, depth in enumerate(depths))
    wanted = 3 * width * shape["patch_size"] ** 2 + round((4 + 2 * shape["mlp_ratio"]) * squares)  # attention and MLP
    held = sum(value.numel() for value in tensors.values())
    if wanted > 2 * held:
        raise CheckpointError(
            f"the encoder is not whole: {'+'.join(map(str, depths))} blocks from {width} wide have {wanted:,} "
            f"weights, the file holds {held:,} numbers"
        )


Grid = tuple[int, int]
EXTRA_ROWS = 3  # of a BEiT table: CLS to token, token to CLS, CLS to CLS


def resize_position(table: Tensor, grid: Grid, *, extra: int = 1) -> Tensor:
    """Bicubic, to a size; `extra` leading rows are kept. MAE, dBOT, SiameseIM, TinyMIM, DeiT (MoCo v3), MixMAE.

    table: (1, extra + L, C), L a square.  Returns (1, extra + rows * columns, C).
    Source: facebookresearch/mae, util/pos_embed.py; Sense-X/MixMIM, util/pos_embed.py (extra = 0).
    """
    return _resize(table, extra, lambda x: F.interpolate(x, size=grid, mode="bicubic", align_corners=False))


def resize_position_dino(table: Tensor, grid: Grid) -> Tensor:
    """Bicubic, by a scale factor that is a tenth of a patch too large. DINO.

    table: (1, 1 + L, C), L a square.  Returns (1, 1 + rows * columns, C).
    Source: facebookresearch/dino, vision_transformer.py, interpolate_pos_encoding.
    """
    side = math.sqrt(table.shape[1] - 1)
    scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
    return _resize(table, 1, lambda x: F.interpolate(x, scale_factor=scale, mode="bicubic"))


def _resize(table: Tensor, extra: int, interpolate: Callable[[Tensor], Tensor]) -> Tensor:
    side = math.isqrt(table.shape[1] - extra)
    kept, patches = table[:, :extra], table[:, extra:]
    patches = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)  # (1, C, side, side)
    patches = interpolate(patches.float()).flatten(2).transpose(1, 2)  # (1, rows * columns, C)
    return torch.cat([kept, patches], dim=1)


def resize_bias_bicubic(table: Tensor, rows: int) -> Tensor:
    """A relative-position table by plain bicubic interpolation. MixMAE.

    table: (S*S, heads); rows: D*D.  Returns (rows, heads).  Source: Sense-X/MixMIM, util/pos_embed.py.
    """
    source, target = math.isqrt(len(table)), math.isqrt(rows)
    x = table.T.reshape(1, -1, source, source).float()  # (1, heads, S, S)
    x = F.interpolate(x, size=(target, target), mode="bicubic", align_corners=False)
    return x.flatten(2)[0].T.contiguous()  # (D*D, heads)


def resize_bias_geometric(table: Tensor, rows: int, *, extra: int = 0) -> Tensor:
    """A relative-position table by a cubic spline over distances that grow as q^k. BEiT, SimMIM.

    table: (S*S + extra, heads); rows: D*D + extra; the last `extra` rows are kept.  Returns (rows, heads).
    Distances beyond the source grid take its border value, as scipy's interp2d did, whose place RectBivariateSpline
    takes as scipy documents.  Source: microsoft/unilm, beit/run_class_finetuning.py; microsoft/SimMIM, utils.py.
    """
    from scipy.interpolate import RectBivariateSpline  # noqa: PLC0415 - a quarter of a second to import

    body, kept = table[: len(table) - extra], table[len(table) - extra :]
    source, target = math.isqrt(len(body)), math.isqrt(rows - extra)
    if source == target:
        return table
    if table.is_meta:  # where only shapes are asked for
        return table.new_empty(rows, table.shape[1])
    distances = np.cumsum(_growth(source // 2, target // 2) ** np.arange(source // 2))
    x = np.concatenate([-distances[::-1], [0.0], distances])  # (S,)
    wanted = np.arange(-(target // 2), target // 2 + 1)  # (D,)
    heads = body.float().reshape(source, source, -1).numpy()
    resized = [RectBivariateSpline(x, x, heads[:, :, i])(wanted, wanted).ravel() for i in range(heads.shape[2])]
    return torch.cat([torch.from_numpy(np.stack(resized, axis=1)).float(), kept.float()])


def _growth(source: int, target: int) -> float:
    """q such that 1 + q + ... + q^(source - 1) is close to target, by the official bisection, its bounds included."""
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q**source) / (1 - q) > target:
            high = q
        else:
            low = q
    return q


HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # of the published sizes, Ti to H, by width
MOCO_SMALL_HEADS = 12  # where everybody else has 6
# The head reads the normed CLS token; elsewhere a new norm of the mean patch.
TOKEN_POOLED = ("moco_v3", "dino", "torchvision")


def draft_vit(
    tensors: dict[str, Tensor], *, method: MethodName, heads: int | None, image_size: int | None, has_head: bool
) -> Draft:
    """The encoder as the method's fine-tuning builds it.

    has_head: the file holds a classifier too; one that follows `norm` reads the CLS token.
    Raises CheckpointError if the dimensions can't be derived or contradict each other, ShapeError for the image size.
    """
    shape = vit_shape(tensors, method=method, heads=heads, image_size=image_size)
    reads_token = method in TOKEN_POOLED or (has_head and "norm.weight" in tensors) or method == "timm"
    pool = "token" if reads_token and "fc_norm.weight" not in tensors else "avg"
    encoder = VisionTransformer(**shape, num_classes=0, global_pool=pool)
    state, resized = place(tensors, encoder, method)
    new = [] if pool == "token" or "fc_norm.weight" in tensors else ["fc_norm.weight", "fc_norm.bias"]
    return Draft(encoder=encoder, state=state, new=new, resized=resized)


def draft_start(tensors: dict[str, Tensor], *, method: MethodName, heads: int | None, image_size: int | None) -> Draft:
    """The same network as a start of pre-training: with its final norm, which only SiameseIM replaces."""
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


SHARED = "rel_pos_bias.relative_position_bias_table"
TABLE = "relative_position_bias_table"


def draft_beit(tensors: dict[str, Tensor], *, method: MethodName, heads: int | None, image_size: int | None) -> Draft:
    """The encoder as the method's fine-tuning builds it: one table per block, a norm of the mean patch token.

    Raises CheckpointError if the dimensions can't be derived or contradict each other, ShapeError for the image size.
    """
    depth = count_of(tensors)
    tables = {f"blocks.{i}.attn.{TABLE}": tensors[SHARED] for i in range(depth) if SHARED in tensors}
    tables |= {name: value for name, value in tensors.items() if name.endswith(TABLE) and name != SHARED}
    encoder = Beit(**_shape(tensors, tables, method, heads, image_size), num_classes=0, global_pool="avg")
    patch_grid(encoder.patch_embed.img_size, encoder.patch_embed.patch_size[0])
    state = {name: value for name, value in tensors.items() if name != SHARED} | tables
    if method == "cae":
        state, new, resized = _place_cae(state, encoder)
    else:
        new = [] if "fc_norm.weight" in tensors else ["fc_norm.weight", "fc_norm.bias"]
        rows = {name: len(encoder.get_parameter(name)) for name in tables}
        resized = [name for name in rows if rows[name] != len(tables[name])]
        state |= {name: resize_bias_geometric(tables[name], rows[name], extra=EXTRA_ROWS) for name in resized}
        if "pos_embed" in state and state["pos_embed"].shape != encoder.pos_embed.shape:
            state["pos_embed"] = resize_position(state["pos_embed"], encoder.patch_embed.grid_size)
            resized.append("pos_embed")
    return Draft(encoder=encoder, state=state, new=new, resized=resized)


def _shape(
    tensors: dict[str, Tensor], tables: dict[str, Tensor], method: MethodName, heads: int | None, image_size: int | None
) -> dict[str, object]:
    """timm's constructor arguments, read off the tensors."""
    width, _, patch_size, _ = tensors["patch_embed.proj.weight"].shape
    table = next(iter(tables.values()), None)
    if method == "cae":
        side, heads = side_of(tensors["pos_embed"], extra=1), heads or heads_of(width, method)
    elif table is None:
        raise CheckpointError(f"{method}: the table of relative positions ({SHARED}) is missing")
    else:
        span = side_of(table[None], extra=EXTRA_ROWS)  # 2 * side - 1
        side = (span + 1) // 2
        if heads not in (None, table.shape[1]):
            raise CheckpointError(f"heads={heads} contradicts the file's table of relative positions: {table.shape[1]}")
        heads = table.shape[1]
    shape: dict[str, object] = {
        "img_size": image_size or side * patch_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": count_of(tensors),
        "num_heads": heads,
        "mlp_ratio": tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "init_values": 0.1 if "blocks.0.gamma_1" in tensors else None,  # the file has the values
        "use_abs_pos_emb": "pos_embed" in tensors,
        "use_rel_pos_bias": True,
    }
    check_size(shape, tensors)
    return shape


def _place_cae(state: dict[str, Tensor], encoder: Beit) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """CAE's rules: its norm becomes the pooled one, a position table of another size and zero tables are replaced."""
    pos_embed, resized = encoder.get_parameter("pos_embed"), []
    pos_embed.requires_grad_(False)
    if "fc_norm.weight" not in state:
        state = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: value
                 for name, value in state.items()}  # fmt: skip
    if state["pos_embed"].shape != pos_embed.shape:
        fresh = sincos_position(encoder.embed_dim, encoder.patch_embed.grid_size, rows_first=True)
        state, resized = state | {"pos_embed": fresh}, ["pos_embed"]
    new = []
    for name, parameter in encoder.named_parameters():
        if name.endswith(TABLE) and (name not in state or state[name].shape != parameter.shape):
            nn.init.zeros_(parameter)
            state.pop(name, None)
            new.append(name)
    return state, new, resized
