"""BEiT blocks: BEiT, SimMIM's ViT (relative positions) and CAE (absolute positions)."""

from timm.models.beit import Beit
from torch import Tensor, nn

from uniemox.checkpoints.draft import Draft, check_size, count_of
from uniemox.checkpoints.recognition import MethodName
from uniemox.checkpoints.resizing import EXTRA_ROWS, resize_bias_geometric, resize_position
from uniemox.checkpoints.vit import heads_of, side_of
from uniemox.errors import CheckpointError
from uniemox.model.position import sincos_position
from uniemox.views.patches import patch_grid

SHARED = "rel_pos_bias.relative_position_bias_table"
TABLE = "relative_position_bias_table"


def draft_beit(tensors: dict[str, Tensor], *, method: MethodName, heads: int | None, image_size: int | None) -> Draft:
    """The encoder as the method's fine-tuning builds it: one table per block, a norm of the mean patch token.

    Raises CheckpointError if dimensions can't be told or contradict each other, ShapeError for the image size.
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
    """CAE's own rules: its norm becomes the pooled one, a position table of another size is made anew, zero tables."""
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
