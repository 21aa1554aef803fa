"""Published weights as encoders, loaded completely or not at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from uniemox.checkpoints.drafts import Draft, SelectedEncoder, draft_encoder, draft_start, select_start
from uniemox.checkpoints.methods import METHODS, check_method, encoder_tensors, pixels_of, recognise_method
from uniemox.checkpoints.reading import LoadReport, WeightFile, container_of, heads_in, on_meta_device, read_weight_file
from uniemox.checkpoints.sizes import positive
from uniemox.checkpoints.timm_networks import TIMM, load_timm
from uniemox.errors import CheckpointError, UniemoxError
from uniemox.model.encoder import check_plain

# Errors of arithmetic, and of timm's constructors, for tensors of impossible ranks and sizes.
MALFORMED = (AssertionError, TypeError, ValueError, IndexError, ZeroDivisionError, RuntimeError, AttributeError)

Pool = Literal["own", "mean"]
"""Feature of a plain ViT: that of the method's own fine-tuning, or the mean of the patch tokens through a new norm."""


def load_published(
    path: str | Path,
    method: str = "auto",
    heads: int | None = None,
    image_size: int | None = None,
    *,
    pool: Pool = "own",
) -> nn.Module:
    """Load a published encoder in eval mode, with the features that its own fine-tuning feeds to the head.

    Inside `torch.device("meta")` the encoder has no weights: this takes a moment and hardly any memory, and raises the
    same errors.

    Args:
        path: A weight file (MoCo v3, DINO, BEiT, MAE, SimMIM, TinyMIM, SiameseIM, MixMAE, dBOT, CAE, uniemox, timm, or
            a ViT of torchvision). timm:NAME is a timm network with its own weights, timm:NAME@FILE one with weights of
            a local file.
        method: "auto" recognises it; a name overrides this.
        heads: Attention heads, if neither the file nor the published sizes determine them.
        image_size: Side of the input in px; None: as in pre-training; position tables are resized as in the method's
            own fine-tuning.
        pool: Feature of a plain ViT. "own": that of the method's own fine-tuning, the CLS token for MoCo v3, DINO and
            classifiers. "mean": for every method, the mean of the patch tokens through a new norm. Other networks
            ignore it.

    Returns:
        The encoder, (N, 3, H, W) -> (N, D). Its `.report` lists what was loaded, resized, initialised and dropped.

    Raises:
        CheckpointError: With the missing names, if the file has no complete encoder of the method.
        ShapeError: If the image size does not fit.
    """
    return _load(path, method, heads, image_size, pool=pool)


def load_start(
    path: str | Path, method: str = "auto", heads: int | None = None, image_size: int | None = None
) -> VisionTransformer:
    """Load a published plain ViT for pre-training: with CLS token and final norm. Arguments as for `load_published`.

    Raises:
        EncoderError: For Swin and relative-position networks.
        CheckpointError: With the missing names, if the file has no complete encoder of the method.
        ShapeError: If the image size does not fit.
    """
    return _load(path, method, heads, image_size, is_start=True)


def _load(
    path: str | Path,
    method: str,
    heads: int | None,
    image_size: int | None,
    *,
    is_start: bool = False,
    pool: Pool = "own",
) -> Any:
    """Load an encoder.

    Args:
        path: As for `load_published`.
        method: As for `load_published`.
        heads: As for `load_published`.
        image_size: As for `load_published`.
        is_start: Build the plain ViT for pre-training instead of the encoder of fine-tuning.
        pool: As for `load_published`.
    """
    if str(path).startswith(TIMM):
        network = load_timm(str(path), image_size)
        if is_start:
            check_plain(network, str(path))
            network.reset_classifier(0, "token")
        return network.eval()
    is_meta = on_meta_device()
    file = read_weight_file(path, mapped=is_meta)
    try:
        # The values of tensors tell what the file is.
        with torch.device("cpu"):
            selected = replace(_select(file, method, heads, image_size), has_mean_pool=pool == "mean")
            if is_start:
                selected = select_start(selected)
        if is_meta:
            selected = replace(selected, tensors={name: value.to("meta") for name, value in selected.tensors.items()})
        draft = draft_start(selected) if is_start else draft_encoder(selected)
        return _load_draft(selected, draft)
    except KeyError as error:
        raise CheckpointError(f"{file.path}: the encoder is not whole; missing: {error.args[0]}") from error
    except MALFORMED as error:
        raise CheckpointError(
            f"{file.path}: there is no network of these dimensions: {error or type(error).__name__}"
        ) from error
    except UniemoxError as error:
        if str(file.path) in str(error):
            raise
        raise type(error)(f"{file.path}: {error}") from error


def _select(file: WeightFile, method: str, heads: int | None, image_size: int | None) -> SelectedEncoder:
    """Select the encoder's tensors of a file.

    Raises:
        CheckpointError: For numbers below 1, an unknown method, or arguments that contradict the file's header.
    """
    for name, value in (("heads", heads), ("image_size", image_size)):
        if value is not None and value < 1:
            raise CheckpointError(f"{name} must be at least 1, got {value}")
    used_method = recognise_method(file) if method == "auto" else check_method(method)
    if file.metadata is not None:
        header_heads = file.metadata.get("heads")
        if header_heads is not None:
            header_heads = positive(header_heads, "heads in its header")
        for name, requested, stored in (
            ("method", used_method, recognise_method(file)),
            ("heads", heads, header_heads),
        ):
            if stored is not None and requested not in (None, stored):
                raise CheckpointError(f"{name}={requested} contradicts the file's header: {stored}")
        heads = heads or header_heads
    tensors, dropped = encoder_tensors(file, used_method)
    return SelectedEncoder(
        file=file, method=used_method, tensors=tensors, dropped=dropped, heads=heads, image_size=image_size
    )


def _load_draft(selected: SelectedEncoder, draft: Draft) -> Any:
    """Load the tensors into the network, and attach the report.

    Raises:
        CheckpointError: Unless every parameter is loaded or declared new.
    """
    encoder = draft.encoder
    method = selected.method
    expected = encoder.state_dict()
    missing = [name for name in expected if name not in draft.state and name not in draft.new]
    if missing:
        raise CheckpointError(f"the encoder of {method} is not whole; missing: {', '.join(missing)}")

    loaded = {name: value for name, value in draft.state.items() if name in expected}
    for name, value in loaded.items():
        if value.shape != expected[name].shape:
            raise CheckpointError(
                f"{name} has shape {tuple(value.shape)}, expected {tuple(expected[name].shape)} for {method}"
            )

    unused = [name for name in draft.state if name not in expected]
    # Norms are left out on purpose: a pooled network has another one than a network with a CLS token.
    foreign = [name for name in unused if not name.startswith(("norm.", "fc_norm."))]
    if foreign:
        raise CheckpointError(f"{', '.join(foreign[:6])} belong to another network than {method}; see convert --method")

    encoder.load_state_dict(loaded, strict=False)
    # Parameters that were new when our file was written have not been trained since.
    new_when_written = map(str, (selected.file.metadata or {}).get("new") or ())
    encoder.report = LoadReport(
        path=str(selected.file.path),
        method=method,
        image_size=encoder.patch_embed.img_size[0],
        heads=heads_in(encoder),
        mean_std=pixels_of(selected.file, method),
        loaded=tuple(loaded),
        resized=tuple(draft.resized),
        new=(*draft.new, *(name for name in new_when_written if name in loaded)),
        dropped=(*selected.dropped, *unused),
        container=container_of(selected.file, METHODS[method].container),
    )
    return encoder.eval()
