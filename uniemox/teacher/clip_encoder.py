"""The image encoder of a CLIP or SigLIP as a network of timm, which a classifier can store and export."""

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import QuickGELU, VisionTransformer
from timm.models.vision_transformer import _convert_openai_clip
from torch import Tensor, nn

from uniemox.checkpoints.reading import LoadReport, on_meta_device
from uniemox.errors import CheckpointError, TeacherError
from uniemox.io.weight_names import CLIP
from uniemox.model.encoders import build_timm
from uniemox.network_spec import EncoderSpec
from uniemox.teacher.opening import clip_parts, open_teacher
from uniemox.teacher.sources import ClipTeacher, load_clip

# timm's networks with the norms of CLIP, with its first activation function and with the usual one.
QUICK_VIT = "vit_base_patch16_clip_quickgelu_224"
VIT = "vit_base_patch16_clip_224"
# Largest difference between the two forms of an encoder, relative to the largest feature.
TOLERANCE = 1e-3


def open_clip_encoder(source: str, image_size: int) -> tuple[Any, EncoderSpec]:
    """Open the image encoder of clip:NAME@WEIGHTS or clip:local-dir:FOLDER, see `open_teacher`.

    Args:
        source: Name of the CLIP.
        image_size: Side of the input, px; the position table is resized as timm does.

    Returns:
        The encoder in eval mode, (N, 3, H, W) -> (N, C) in the space of CLIP's texts, with its report, and its
        description.

    Raises:
        CheckpointError: If the CLIP can't be opened, or if timm has no such network.
    """
    try:
        # The texts, and so their tokenizer, are not needed. open_clip can't build a model on the meta device.
        with torch.device("cpu"):
            model = load_clip(*clip_parts(source.removeprefix(CLIP)))
    except TeacherError as error:
        raise CheckpointError(str(error)) from error
    visual = model.eval().visual
    clip_size = _side(visual, source)
    if isinstance(visual, VisionTransformer):
        name, options, state = _plain_vit(visual, clip_size)
    elif isinstance(visual, TimmModel):
        name, options, state = _timm_network(visual, source)
    else:
        raise _unknown_network(source, type(visual).__name__)
    if on_meta_device():
        state = {key: value.to("meta") for key, value in state.items()}
    try:
        encoder: Any = build_timm(name, **options)
        encoder.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise _unknown_network(source, f"{type(visual).__name__} that timm builds differently ({error})") from error
    encoder.eval()
    _check_same(encoder, visual, clip_size, source)
    resized: tuple[str, ...] = ()
    if "img_size" in options and image_size != clip_size:
        encoder.set_input_size(img_size=image_size)
        options = {**options, "img_size": image_size}
        resized = ("pos_embed",)
    encoder.report = LoadReport(
        path=source,
        method="clip",
        image_size=image_size,
        heads=options.get("num_heads"),
        mean_std=(tuple(visual.image_mean), tuple(visual.image_std)),
        loaded=tuple(state),
        resized=resized,
    )
    return encoder, EncoderSpec(name=name, options=options)


def open_clip_teacher(source: str) -> ClipTeacher:
    """Open a CLIP by its name, see `open_teacher`.

    Raises:
        TeacherError: If the name is not that of a CLIP, or it can't be loaded.
    """
    clip = open_teacher(source)
    if not isinstance(clip, ClipTeacher):
        raise TeacherError(f"{source} is not a CLIP; write clip:NAME@WEIGHTS or clip:local-dir:FOLDER")
    return clip


def _side(visual: Any, source: str) -> int:
    """Return the side of the input, px.

    Raises:
        CheckpointError: For an input that is not square.
    """
    size = visual.image_size
    height, width = size if isinstance(size, tuple) else (size, size)
    if height != width:
        raise CheckpointError(f"{source} takes images of {height} x {width} px; choose one with a square input")
    return int(width)


def _plain_vit(visual: VisionTransformer, image_size: int) -> tuple[str, dict[str, Any], Mapping[str, Tensor]]:
    """Return name, options and weights in timm of open_clip's own ViT; the projection becomes timm's head."""
    blocks = visual.transformer.resblocks
    width, _, patch_size, _ = visual.conv1.weight.shape
    is_quick = isinstance(blocks[0].mlp.gelu, QuickGELU)
    options: dict[str, Any] = {
        "img_size": image_size,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": len(blocks),
        "num_heads": blocks[0].attn.num_heads,
        "mlp_ratio": blocks[0].mlp.c_fc.out_features / width,
        "num_classes": 0 if visual.proj is None else visual.proj.shape[1],
    }
    state = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    return (QUICK_VIT if is_quick else VIT), options, _convert_openai_clip(state, None)


def _timm_network(visual: TimmModel, source: str) -> tuple[str, dict[str, Any], Mapping[str, Tensor]]:
    """Return name, options and weights in timm of a network of timm; a linear projection becomes its classifier.

    Raises:
        CheckpointError: If more than a linear layer follows the network.
    """
    trunk = visual.trunk
    name = str(trunk.pretrained_cfg["architecture"])
    state = dict(trunk.state_dict())
    outputs = trunk.num_classes
    after = dict(visual.head.named_children())
    projection = after.get("proj")
    if after.keys() - {"drop", "proj"}:
        raise _unknown_network(source, f"{name} with {', '.join(after)} after it")
    if isinstance(projection, nn.Linear):
        outputs = projection.out_features
        classifier = trunk.pretrained_cfg["classifier"]
        state[f"{classifier}.weight"] = projection.weight
        # timm's classifiers have a bias.
        no_bias = projection.weight.new_zeros(outputs)
        state[f"{classifier}.bias"] = no_bias if projection.bias is None else projection.bias
    options: dict[str, Any] = {"num_classes": outputs}
    if isinstance(trunk.global_pool, str):
        options["global_pool"] = trunk.global_pool
    size = getattr(getattr(trunk, "patch_embed", None), "img_size", None)
    if size:
        options["img_size"] = size[0]
    return name, options, state


@torch.no_grad()
def _check_same(encoder: nn.Module, visual: nn.Module, size: int, source: str) -> None:
    """Compare the encoder's features of one image with those of the CLIP.

    Raises:
        CheckpointError: If they differ by more than rounding.
    """
    if on_meta_device():
        return
    pixels = torch.linspace(-2, 2, 3 * size * size).sin().reshape(1, 3, size, size)
    expected = visual(pixels)  # (1, C)
    features = encoder(pixels)
    is_same = features.shape == expected.shape and bool(
        (features - expected).abs().max() <= TOLERANCE * expected.abs().max()
    )
    if not is_same:
        raise _unknown_network(source, f"{type(visual).__name__} whose features timm does not compute")


def _unknown_network(source: str, description: str) -> CheckpointError:
    return CheckpointError(
        f"the image encoder of {source} is a {description}; --init takes CLIPs with a ViT, or with a network of timm "
        "and at most a linear layer after it, such as ViT-B-16 or ViT-B-16-SigLIP"
    )
