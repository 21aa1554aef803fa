"""Writes encoders and converted checkpoints as safetensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from uniemox.checkpoints.methods import METHODS
from uniemox.checkpoints.published import load_published, load_start
from uniemox.checkpoints.reading import METADATA_KEY, LoadReport, heads_in
from uniemox.checkpoints.timm_networks import TIMM
from uniemox.data.seen import seen_by, seen_file, write_hashes
from uniemox.errors import CheckpointError
from uniemox.io.files import replacing
from uniemox.model.encoders import MixMAEEncoder


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file.

    Raises:
        CheckpointError: If it can't be written.
    """
    values = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        with replacing(path, CheckpointError) as partial:
            safetensors.torch.save_file(values, partial, {"format": "pt", **(metadata or {})})
            _sort_metadata(partial)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} can't be written: {error}") from error


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file; its writer's order is random."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        # The format allows blanks after the header, so the length stays.
        if len(text) <= length:
            file.seek(8)
            file.write(text.ljust(length))


def save_encoder(encoder: Any, path: str | Path, *, method: str = "uniemox") -> None:
    """Write an encoder atomically.

    Args:
        encoder: Result of `load_published`, `load_start` or `build_encoder`.
        path: File to write.
        method: Method whose rules are used when the file is loaded.

    Raises:
        CheckpointError: If the file can't be written.
    """
    path = Path(path)
    report: LoadReport | None = getattr(encoder, "report", None)
    new = () if report is None else report.new
    header: dict[str, object] = {
        "method": method,
        "heads": heads_in(encoder) if hasattr(encoder, "blocks") else None,
        "image_size": encoder.patch_embed.img_size[0],
        "new": new,
    }
    if report is not None and METHODS[method].mean_std is None:
        header["mean_std"] = report.mean_std
    write_tensors(path, encoder.state_dict(), {METADATA_KEY: json.dumps(header)})


def convert(
    source: str | Path,
    target: str | Path,
    *,
    method: str = "auto",
    heads: int | None = None,
    image_size: int | None = None,
) -> tuple[LoadReport, str]:
    """Load a published encoder and write it as safetensors.

    Plain ViTs are written as pre-trained, with CLS token and final norm, so nothing is lost. Parameters that
    fine-tuning replaces are drawn when the file is loaded.

    Args:
        source: File to read, as for `load_published`.
        target: File to write; must end in .safetensors.
        method: As for `load_published`.
        heads: As for `load_published`.
        image_size: As for `load_published`.

    Returns:
        The load's report and a Python line that loads the new file: with timm if timm has the architecture.

    Raises:
        CheckpointError: For another target, for a source that timm loads itself, and as `load_published`.
    """
    if Path(target).suffix != ".safetensors":
        raise CheckpointError(f"{target} must end in .safetensors, the output format")
    if str(source).startswith(TIMM):
        raise CheckpointError(f"{source} is already timm's own: timm.create_model loads it")
    encoder: Any = load_published(source, method=method, heads=heads, image_size=image_size)
    # A new norm would replace the trained one, so write the network of pre-training instead.
    if isinstance(encoder, VisionTransformer) and "fc_norm.weight" in encoder.report.new:
        encoder = load_start(source, method=method, heads=heads, image_size=image_size)
    save_encoder(encoder, target, method=encoder.report.method)
    if hashes := seen_by(str(source)):
        write_hashes(seen_file(Path(target)), hashes)
    return encoder.report, loading_line(encoder, target)


def loading_line(encoder: Any, path: str | Path) -> str:
    """Return Python code that loads a written file with timm, or with uniemox if timm lacks the architecture.

    timm's `resolve_model_data_config` then returns the encoder's pixel statistics.

    Args:
        encoder: Encoder with its report.
        path: The written file.
    """
    if isinstance(encoder, MixMAEEncoder):
        return f"uniemox.checkpoints.load_published({str(path)!r})"
    name, options = timm_model(encoder)
    size = encoder.patch_embed.img_size[0]
    pixels: dict[str, object] = {"input_size": (3, size, size)}
    if encoder.report.mean_std is not None:
        pixels |= dict(zip(("mean", "std"), encoder.report.mean_std, strict=True))
    options["pretrained_cfg_overlay"] = pixels
    arguments = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"timm.create_model({name!r}, {arguments}, checkpoint_path={str(path)!r})"


def timm_model(encoder: Any) -> tuple[str, dict[str, object]]:
    """Return a timm name and options that give exactly this network.

    Raises:
        CheckpointError: For a network that is neither a plain ViT nor a BEiT nor a Swin.
    """
    is_swin = isinstance(encoder, SwinTransformer)
    block = encoder.layers[0].blocks[0] if is_swin else encoder.blocks[0]
    ratio = block.mlp.fc1.out_features / encoder.embed_dim
    options: dict[str, object] = {"num_classes": 0, "img_size": encoder.patch_embed.img_size[0]}
    # 4 is timm's default.
    if ratio != 4:
        options["mlp_ratio"] = ratio
    options |= {"patch_size": encoder.patch_embed.patch_size[0], "embed_dim": encoder.embed_dim}
    if is_swin:
        windows = tuple(stage.blocks[0].window_size[0] for stage in encoder.layers)
        depths = tuple(len(stage.blocks) for stage in encoder.layers)
        options |= {"depths": depths, "num_heads": heads_in(encoder), "window_size": windows}
        return "swin_base_patch4_window7_224", options
    options |= {"depth": len(encoder.blocks), "num_heads": heads_in(encoder), "global_pool": encoder.global_pool}
    if isinstance(encoder, Beit):
        options |= {"use_abs_pos_emb": encoder.pos_embed is not None, "init_values": 0.1}
        return "beit_base_patch16_224", options
    if not isinstance(encoder, VisionTransformer):
        raise CheckpointError(f"there is no line for a {type(encoder).__name__}")
    # Any number adds a layer scale, whose values come from the file.
    if hasattr(block.ls1, "gamma"):
        options["init_values"] = 1e-5
    if block.attn.qkv.bias is None:
        options["qkv_bias"] = False
    if encoder.num_reg_tokens:
        options["reg_tokens"] = encoder.num_reg_tokens
    if encoder.no_embed_class:
        options["no_embed_class"] = True
    return "vit_base_patch16_224", options
