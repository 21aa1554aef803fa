"""Published methods: which of them wrote a weight file, and which tensors of the file are its encoder."""

import argparse
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import timm
from torch import Tensor

from uniemox.checkpoints.reading import STEM, WeightFile, container_of, is_sincos, state_of, tensors_only
from uniemox.errors import CheckpointError
from uniemox.views.patches import IMAGENET

# Parts of torchvision's names, and timm's parts that replace them.
TORCHVISION_NAMES = {
    "class_token": "cls_token",
    "conv_proj.": "patch_embed.proj.",
    "encoder.pos_embedding": "pos_embed",
    "encoder.layers.encoder_layer_": "blocks.",
    "encoder.ln.": "norm.",
    "heads.head.": "head.",
    ".ln_1.": ".norm1.",
    ".ln_2.": ".norm2.",
    ".self_attention.in_proj_": ".attn.qkv.",
    ".self_attention.out_proj.": ".attn.proj.",
    ".mlp.linear_1.": ".mlp.fc1.",
    ".mlp.linear_2.": ".mlp.fc2.",
    # Newer versions of torchvision number the layers of the MLP.
    ".mlp.0.": ".mlp.fc1.",
    ".mlp.3.": ".mlp.fc2.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedMethod:
    """Method with published weights: the marks of its files, and the network of its own fine-tuning."""

    network: Literal["vit", "beit", "swin"] = "vit"
    container: str | None = None
    """Key of the file's content that holds the weights; None: `state_of` finds it."""
    prefixes: tuple[str, ...] = ()
    """Prefixes of the encoder tensors' names, after those of wrappers, see `unwrapped`."""
    stem: str = STEM
    """Name of the first layer's weight in the file, without a prefix."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Parts of the names in the file, and timm's parts that replace them in this order."""
    droppable: tuple[str, ...] = ()
    """Beginnings of the names of tensors that only the method's own training needs, besides `DROPPABLE`."""
    reads_token: bool = False
    """True if the head reads the normed CLS token; False: a new norm of the mean patch token."""
    is_start: bool = True
    """True if pre-training can use it: it has absolute positions and a CLS token."""
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = IMAGENET
    """Normalisation of the input pixels; None: it differs between files."""


METHODS: dict[str, PublishedMethod] = {
    "moco_v3": PublishedMethod(prefixes=("base_encoder.",), droppable=("momentum_encoder.",), reads_token=True),
    "dino": PublishedMethod(
        container="teacher", droppable=("dino_head.", "ibot_head.", "prototypes"), reads_token=True
    ),
    "beit": PublishedMethod(
        network="beit", droppable=("cls_pt_layers.",), is_start=False, mean_std=((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    ),
    "mae": PublishedMethod(),
    "simmim": PublishedMethod(network="beit", prefixes=("encoder.",), is_start=False),
    "simmim_swin": PublishedMethod(network="swin", prefixes=("encoder.",), is_start=False),
    "tinymim": PublishedMethod(),
    "siameseim": PublishedMethod(droppable=("mm_",)),
    "mixmae": PublishedMethod(network="swin", is_start=False),
    "dbot": PublishedMethod(),
    "cae": PublishedMethod(network="beit", prefixes=("encoder.",), droppable=("pretext_neck.", "teacher.")),
    "uniemox": PublishedMethod(
        prefixes=("encoder.",), droppable=("embed.", "fusion.", "project.", "norm.", "method.", "distance.")
    ),
    "timm": PublishedMethod(reads_token=True, mean_std=None),
    "torchvision": PublishedMethod(stem="conv_proj.weight", names=TORCHVISION_NAMES, reads_token=True),
}
DROPPABLE = (
    "head",
    "lm_head.",
    "classifier.",
    "fc.",
    "mask_token",
    "decoder",
    "projector",
    "projection_head",
    "predictor",
    "num_batches_tracked",
)
"""Beginnings of the names of tensors that no features depend on: heads, decoders and projectors of a training."""
ENCODER_NAMES = re.compile(
    r"(cls_token|reg_token|register_tokens|pos_embed|absolute_pos_embed)$"
    r"|(patch_embed|blocks|layers|norm|fc_norm|rel_pos_bias)\."
)
# CAE's files have this tensor next to encoder.pos_embed, which SimMIM's ViT lacks.
CAE_MARK = "encoder.blocks.0.attn.q_bias"
TABLE = "relative_position_bias_table"
# Buffers that the architecture determines.
REBUILT = re.compile(r"(relative_position_index|attn_mask)$")


def recognise_method(file: WeightFile) -> str:
    """Return the method that wrote the file, from its container and the names of its tensors.

    Raises:
        CheckpointError: If no method is recognised.
    """
    if file.metadata is not None:
        return check_method(str(file.metadata.get("method")))
    content = file.content
    if isinstance(content.get("teacher"), dict) and isinstance(content.get("student"), dict):
        return "dino"
    state = state_of(file)
    if "visual.conv1.weight" in state or "visual.proj" in state:
        raise CheckpointError(
            f"{file.path} is a CLIP model: it can be the teacher, not the encoder of a pre-training; to fine-tune its "
            f"image encoder: --init clip:NAME@{file.path}, with open_clip's name of its architecture, such as ViT-B-16"
        )
    if "encoder.pos_embed" in state and CAE_MARK not in state and "embed.weight" not in state:
        # A plain ViT as part of a larger network. SimMIM's has no pos_embed.
        state = {name.removeprefix("encoder."): value for name, value in state.items()}
    is_inside = "encoder.cls_token" in state or "encoder.patch_embed.proj.weight" in state
    # The first mark that a file has decides, so the order matters: files may have several.
    marks = {
        "torchvision": {"conv_proj.weight", "class_token", "encoder.pos_embedding"} <= state.keys(),
        "moco_v3": any(name.startswith("base_encoder.") for name in state),
        # The state of the whole pre-training model.
        "uniemox": is_inside and "embed.weight" in state and "encoder.norm.weight" in state,
        "simmim_swin": is_inside and any(name.startswith("encoder.layers.") for name in state),
        # Without CAE_MARK the prefix encoder. has been removed above.
        "cae": is_inside and "encoder.pos_embed" in state,
        "simmim": is_inside,
        "mixmae": "absolute_pos_embed" in state,
        "beit": any(name.endswith(TABLE) and not name.startswith("layers.") for name in state),
        "siameseim": any(name.startswith("mm_") for name in state),
        "dbot": "decoder_predp.weight" in state,
        "mae": "decoder_pred.weight" in state,
    }
    for method, is_marked in marks.items():
        if is_marked:
            return method
    if "pos_embed" in state and "patch_embed.proj.weight" in state:
        return _recognise_plain(file, state)
    raise CheckpointError(
        f"{file.path} is of no method that uniemox knows; its first names are {', '.join(list(state)[:5])}. If "
        f"timm has the network, such as DINOv3: timm:NAME@{file.path}. If you know its method: uniemox convert FILE "
        f"NEW.safetensors --method {'|'.join(METHODS)}"
    )


def _recognise_plain(file: WeightFile, state: dict[str, Tensor]) -> str:
    """Recognise a plain ViT without a decoder, which several methods publish under the same names.

    Their fixed position tables distinguish some of them: MoCo v3's and SiameseIM's begin with the row, MAE's, dBOT's
    and TinyMIM's with the column, DINO's and timm's are learned.
    """
    # DINOv2's name of the registers; timm's is reg_token.
    if "register_tokens" in state:
        return "dino"
    if "reg_token" in state or timm_arch(file) is not None:
        return "timm"
    is_pooled = "fc_norm.weight" in state
    has_head = "head.weight" in state
    if is_sincos(state["pos_embed"], rows_first=True):
        if "norm.weight" in state:
            return "moco_v3"
        return "siameseim"
    if container_of(file) is not None:
        is_trained_longer = is_pooled or has_head or "optimizer" not in file.content
        return "mae" if is_trained_longer else "tinymim"
    if file.is_safetensors or has_head:
        return "timm"
    # Files of weights alone, without a container.
    if is_pooled or is_sincos(state["pos_embed"], rows_first=False):
        return "mae"
    return "dino"


def check_method(name: str) -> str:
    """Return the name of a method unchanged.

    Raises:
        CheckpointError: If there is no such method.
    """
    if name not in METHODS:
        raise CheckpointError(f"there is no method {name!r}; choose one of auto, {', '.join(METHODS)}")
    return name


def encoder_tensors(file: WeightFile, method: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the encoder's tensors under timm's names, in float32, and the names of all other tensors.

    The other names are those of the file without the prefixes of wrappers.

    Raises:
        CheckpointError: If the file holds no encoder of that method, or tensors that its features depend on and that
            the encoder has no place for.
    """
    if file.metadata is not None:
        state = tensors_only(file.content, file.path)
        prefix = ""
    else:
        state = state_of(file, METHODS[method].container)
        prefix = _prefix(state, method)
    # Names in the file, by the encoder's names.
    sources = {}
    for name in state:
        short = name.removeprefix(prefix)
        for theirs, ours in METHODS[method].names.items():
            short = short.replace(theirs, ours)
        if name.startswith(prefix) and ENCODER_NAMES.match(short):
            sources[short] = name
    tensors = {short: state[name].float() for short, name in sources.items() if not REBUILT.search(short)}
    if STEM not in tensors:
        raise CheckpointError(
            f"{file.path} holds no encoder of {method}: {prefix}{STEM} is missing; its first names are "
            f"{', '.join(list(state)[:5])}. Give the method that wrote it, or fetch the pre-training file; names of "
            "another library must be renamed to timm's"
            + (" (a stem of several convolutions is not supported)" if "patch_embed.proj.0.weight" in tensors else "")
        )
    used = set(sources.values())
    dropped = [name for name in state if name not in used or REBUILT.search(name)]
    _check_dropped(file, method, prefix, dropped)
    return _with_registers(tensors), dropped


def _prefix(state: Mapping[str, Tensor], method: str) -> str:
    """Return the prefix of the encoder's names: the method's own, none, or encoder. if nothing else is in the file."""
    prefixes = [*METHODS[method].prefixes, ""]
    if not _foreign(state, method, "encoder."):
        prefixes.append("encoder.")
    return next((prefix for prefix in prefixes if f"{prefix}{METHODS[method].stem}" in state), "")


def _foreign(names: Iterable[str], method: str, prefix: str) -> list[str]:
    """Return the names of tensors that are neither of the encoder, with this prefix, nor only of a training."""
    allowed = (*DROPPABLE, *METHODS[method].droppable)
    return [
        name
        for name in names
        if not name.startswith(allowed)
        and not (name.startswith(prefix) and ENCODER_NAMES.match(name.removeprefix(prefix)))
        and not (name.startswith(prefix) and name.removeprefix(prefix).startswith(allowed))
    ]


def _check_dropped(file: WeightFile, method: str, prefix: str, dropped: list[str]) -> None:
    """Check the tensors that the encoder has no place for.

    Raises:
        CheckpointError: If features may depend on one of them.
    """
    foreign = _foreign(dropped, method, prefix)
    if foreign:
        names = ", ".join(foreign[:6]) + (f" and {len(foreign) - 6} more" if len(foreign) > 6 else "")
        raise CheckpointError(
            f"{file.path}: {names} are not of a plain encoder of {method}, and its features may depend on them; give "
            f"networks of timm as timm:NAME@{file.path}, or a file without these tensors"
        )


def _with_registers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename DINOv2's registers as timm does: the CLS token includes its position, as registers have none.

    DINOv2 adds positions to the CLS token and the patches, and then inserts the registers between them.
    """
    if "register_tokens" not in tensors:
        return tensors
    renamed = dict(tensors)
    renamed["reg_token"] = renamed.pop("register_tokens")
    renamed["cls_token"] = tensors["cls_token"] + tensors["pos_embed"][:, :1]  # (1, 1, C)
    renamed["pos_embed"] = tensors["pos_embed"][:, 1:]  # (1, L, C)
    return renamed


def timm_arch(file: WeightFile) -> str | None:
    """Return the name of timm's network in a checkpoint of timm's training script; None for any other file."""
    arch = file.content.get("arch")
    is_timm = isinstance(arch, str) and isinstance(file.content.get("state_dict"), dict) and timm.is_model(arch)
    return arch if is_timm else None


def pixels_of(file: WeightFile, method: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std of the input pixels; None: unknown.

    Networks of timm have those of our header, or of timm's training script: its options or, without them, the
    network's own.

    Raises:
        CheckpointError: If the file's values are not three finite numbers each.
    """
    if METHODS[method].mean_std is not None:
        return METHODS[method].mean_std
    if file.metadata is not None:
        stats = file.metadata.get("mean_std")
        if stats is None:
            return None
        return _checked_stats(stats, file.path)
    arch = timm_arch(file)
    if arch is None:
        return None
    config = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    options = file.content.get("args")
    if isinstance(options, argparse.Namespace):
        options = vars(options)
    if not isinstance(options, dict):
        options = {}
    stats = [options.get(name) or getattr(config, name, None) for name in ("mean", "std")]
    if None in stats:
        return None
    return _checked_stats(stats, file.path)


def _checked_stats(stats: Any, path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of three channels.

    Raises:
        CheckpointError: For other numbers of channels, and for values that are not finite or out of range.
    """
    try:
        mean, std = (tuple(float(value) for value in values) for values in stats)
        if not (len(mean) == len(std) == 3 and all(map(math.isfinite, mean)) and all(0 < value < 1e6 for value in std)):
            raise ValueError("three finite numbers are needed for each")
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: mean and std of its pixels are {stats!r}: {error}; write the file again"
        ) from error
    return mean, std
