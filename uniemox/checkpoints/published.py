"""Published weights as encoders: loaded whole, or not at all."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from uniemox.checkpoints.reading import (
    MethodName,
    WeightFile,
    check_method,
    encoder_tensors,
    read_weight_file,
    recognise,
    state_of,
)
from uniemox.checkpoints.swin import draft_swin
from uniemox.checkpoints.timm_networks import TIMM, load_timm
from uniemox.checkpoints.vit import Draft, draft_beit, draft_start, draft_vit, plain_names
from uniemox.errors import CheckpointError, EncoderError, UniemoxError
from uniemox.model.encoder import check_plain
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD

BEIT_LIKE = ("beit", "simmim", "cae")
SWIN_LIKE = ("simmim_swin", "mixmae")
# What tensors of impossible ranks and sizes make of the arithmetic on them, and of timm's constructors.
MALFORMED = (AssertionError, TypeError, ValueError, IndexError, ZeroDivisionError, RuntimeError, AttributeError)
MOST = 2048  # heads, or px of the side of an image, that a file may tell
NO_START = ("beit", "simmim", "simmim_swin", "mixmae")  # relative positions, or no CLS token
IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
INCEPTION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # BEiT's


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """Report of loading a weight file. Names are the encoder's, those under `dropped` the file's."""

    path: str
    method: str
    image_size: int  # side in px that the encoder takes
    heads: int | tuple[int, ...] | None  # attention heads, per stage where they differ; None: not asked of timm
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None  # of the input pixels; None: the file doesn't tell
    loaded: tuple[str, ...]
    resized: tuple[str, ...]  # of the loaded ones, tables made for another image size
    new: tuple[str, ...]  # not in the file: the method's own fine-tuning starts them anew
    dropped: tuple[str, ...]  # in the file, not of the encoder or not used by its fine-tuning

    def __str__(self) -> str:
        pixels = "unknown" if self.mean_std is None else " and ".join(map(str, self.mean_std))
        lines = [
            f"{self.path}: {self.method}, {self.image_size} px, heads {self.heads}",
            f"  mean and deviation of its pixels {pixels}",
            f"  loaded {len(self.loaded)}",
        ]
        for what, names in (("resized", self.resized), ("new", self.new), ("dropped", self.dropped)):
            shown = ", ".join(names[:6]) + (f", and {len(names) - 6} more" if len(names) > 6 else "")
            lines.append(f"  {what} {len(names)}{': ' + shown if names else ''}")
        return "\n".join(lines)


def load_published(
    path: str | Path, method: str = "auto", heads: int | None = None, image_size: int | None = None
) -> nn.Module:
    """A published encoder in eval mode, giving the features that the method's own fine-tuning feeds its head.

    path: a weight file (MoCo v3, DINO, BEiT, MAE, SimMIM, TinyMIM, SiameseIM, MixMAE, dBOT, CAE, ours, timm's, a ViT of
    torchvision's). timm:NAME is a network of timm with its own weights, timm:NAME@FILE one with the weights of a local
    file.  method: "auto" recognises it; a name insists.
    heads: attention heads, where neither the file nor the published sizes tell.  image_size: side of the input in px;
    None: that of the pre-training; position tables are resized as the method's own fine-tuning does it.
    The module maps (N, 3, H, W) to (N, D); `.report` says what was loaded, resized, newly made and dropped.
    Raises CheckpointError if the file is no whole encoder of the method, with the missing names, and ShapeError if the
    image size does not fit.
    """
    if str(path).startswith(TIMM):
        return report_timm(load_timm(str(path), image_size), str(path), image_size).eval()
    file = read_weight_file(path)
    with _explained(file):
        known, tensors, dropped = _select(file, method, heads, image_size)
        return _finish(file, known, _draft(file, known, tensors, dropped, heads, image_size), dropped)


def load_start(
    path: str | Path, method: str = "auto", heads: int | None = None, image_size: int | None = None
) -> VisionTransformer:
    """A published plain ViT as the start of pre-training: with CLS token and final norm. Arguments as `load_published`.

    Raises EncoderError for Swin and relative-position networks, by name; CheckpointError and ShapeError as there.
    """
    if str(path).startswith(TIMM):
        encoder = load_timm(str(path), image_size)
        check_plain(encoder, str(path))
        return report_timm(encoder, str(path), image_size)
    file = read_weight_file(path)
    with _explained(file):
        known, tensors, dropped = _select(file, method, heads, image_size)
        tensors = _start_tensors(known, tensors)
        heads = heads or _own(file, "heads")
        draft = draft_start(tensors, method=known, heads=heads, image_size=image_size)
        return _finish(file, known, draft, dropped)


def draft_published(path: str | Path, image_size: int | None = None, *, is_start: bool = False) -> Any:
    """The encoder that `load_published`, or `load_start`, makes of a file, on the meta device: all but its numbers.

    It takes a moment and hardly any memory. Arguments, `.report` and errors as there; path: of a file.
    """
    file = read_weight_file(path, mapped=True)
    with _explained(file):
        known, tensors, dropped = _select(file, "auto", None, image_size)
        tensors = _start_tensors(known, tensors) if is_start else tensors
        shapes = {name: value.to("meta") for name, value in tensors.items()}
        with torch.device("meta"):
            if is_start:
                draft = draft_start(shapes, method=known, heads=_own(file, "heads"), image_size=image_size)
            else:
                draft = _draft(file, known, shapes, dropped, None, image_size)
            return _finish(file, known, draft, dropped)


def _draft(
    file: WeightFile,
    method: MethodName,
    tensors: dict[str, Tensor],
    dropped: list[str],
    heads: int | None,
    image_size: int | None,
) -> Draft:
    """The encoder as the method's own fine-tuning builds it."""
    if method in SWIN_LIKE:
        size = _pretrained_size(file)
        return draft_swin(tensors, method=method, pretrained_size=size, image_size=image_size)
    heads = heads or _own(file, "heads")
    if method in BEIT_LIKE:
        return draft_beit(tensors, method=method, heads=heads, image_size=image_size)
    has_head = "head.weight" in dropped
    return draft_vit(tensors, method=method, heads=heads, image_size=image_size, has_head=has_head)


def _start_tensors(method: MethodName, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of a plain ViT. Raises EncoderError, by name, if the method has none."""
    if method in NO_START:
        raise EncoderError(
            f"{method} has relative positions or no CLS token: it can be fine-tuned, but pre-training starts from "
            "plain ViTs (mae, dbot, moco_v3, dino, siameseim, tinymim, cae, timm, torchvision)"
        )
    return plain_names(tensors) if method == "cae" else tensors


def _select(
    file: WeightFile, method: str, heads: int | None, image_size: int | None
) -> tuple[MethodName, dict[str, Tensor], list[str]]:
    """The method, the encoder's tensors and the names of the rest."""
    for name, value in (("heads", heads), ("image_size", image_size)):
        if value is not None and value < 1:
            raise CheckpointError(f"{name} must be at least 1, got {value}")
    known = recognise(file) if method == "auto" else check_method(method)
    if file.metadata is not None:
        told = {"method": recognise(file), "heads": _own(file, "heads")}
        asked = {"method": known, "heads": heads}
        for name, own in told.items():
            if own is not None and asked[name] not in (None, own):
                raise CheckpointError(f"{name}={asked[name]} contradicts the file's header: {own}")
    tensors, dropped = encoder_tensors(file, known)
    foreign = [name for name in dropped if not name.startswith("head")]
    if known == "timm" and foreign:
        raise CheckpointError(f"{', '.join(foreign[:6])} are not of a plain ViT; give networks of timm as timm:NAME")
    return known, tensors, dropped


def report_timm(encoder: Any, path: str, image_size: int | None) -> Any:
    """A network that timm loaded, with a report like the others'."""
    config = encoder.pretrained_cfg
    encoder.report = LoadReport(
        path=path,
        method="timm",
        image_size=image_size or config["input_size"][1],
        heads=_heads_in(encoder) if isinstance(encoder, VisionTransformer) else None,
        mean_std=(config["mean"], config["std"]),
        loaded=tuple(encoder.state_dict()),
        resized=(),
        new=(),
        dropped=(),
    )
    return encoder


@contextmanager
def _explained(file: WeightFile) -> Iterator[None]:
    """Errors of the inner functions with the file's name, and timm's as ours."""
    try:
        yield
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


def _own(file: WeightFile, field: str) -> int | None:
    """A number in the header of a file of ours. Raises CheckpointError if it is none."""
    value = None if file.metadata is None else file.metadata.get(field)
    return None if value is None else _positive(value, f"{field} in its header")


def _positive(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST:
        raise CheckpointError(f"{what} must be a whole number from 1 to {MOST}, got {value!r}")
    return value


def _pretrained_size(file: WeightFile) -> int | None:
    """Side in px of the images that a Swin was pre-trained on: in our header, in SimMIM's config, or in its masks."""
    if file.metadata is not None:
        return _own(file, "image_size")
    config = file.content.get("config")
    if isinstance(config, dict) and isinstance(config.get("DATA"), dict) and "IMG_SIZE" in config["DATA"]:
        return _positive(config["DATA"]["IMG_SIZE"], "config.DATA.IMG_SIZE")
    state = state_of(file)
    masks = [mask for name, mask in state.items() if name.endswith("layers.0.blocks.1.attn_mask")]
    patches = [weight for name, weight in state.items() if name.endswith("patch_embed.proj.weight")]
    if not masks or not patches:
        return None
    windows, area, _ = masks[0].shape
    return math.isqrt(windows) * math.isqrt(area) * patches[0].shape[-1]


def _new_when_written(file: WeightFile) -> list[str]:
    """List tensors of a converted file that no training produced."""
    return [] if file.metadata is None else [str(name) for name in file.metadata.get("new") or []]


def _heads_in(encoder: Any) -> int | tuple[int, ...]:
    if hasattr(encoder, "blocks"):
        return encoder.blocks[0].attn.num_heads
    return tuple(stage.blocks[0].attn.num_heads for stage in encoder.layers)


def _finish(file: WeightFile, method: MethodName, draft: Draft, dropped: list[str]) -> Any:
    """Load the draft and attach the report. Raises CheckpointError unless every parameter is loaded or declared new."""
    encoder: Any = draft.encoder  # timm's networks are not typed
    wanted = encoder.state_dict()
    missing = [name for name in wanted if name not in draft.state and name not in draft.new]
    if missing:
        raise CheckpointError(f"{file.path}: the encoder of {method} is not whole; missing: {', '.join(missing)}")
    loaded = {name: value for name, value in draft.state.items() if name in wanted}
    for name, value in loaded.items():
        if value.shape != wanted[name].shape:
            raise CheckpointError(
                f"{file.path}: {name} has shape {tuple(value.shape)}, expected {tuple(wanted[name].shape)} for {method}"
            )
    unused = [name for name in draft.state if name not in wanted]
    foreign = [name for name in unused if not name.startswith(("norm.", "fc_norm."))]  # those are left out on purpose
    if foreign:
        raise CheckpointError(
            f"{file.path}: {', '.join(foreign[:6])} belong to another architecture than {method}; name the method"
        )
    encoder.load_state_dict(loaded, strict=False)
    encoder.report = LoadReport(
        path=str(file.path),
        method=method,
        image_size=encoder.patch_embed.img_size[0],
        heads=_heads_in(encoder),
        mean_std={"beit": INCEPTION, "timm": None}.get(method, IMAGENET),
        loaded=tuple(loaded),
        resized=tuple(draft.resized),
        new=(*draft.new, *(name for name in _new_when_written(file) if name in loaded)),
        dropped=(*dropped, *unused),
    )
    return encoder.eval()
