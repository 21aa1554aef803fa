"""Decoder in a file of initial weights: MAE's layer that makes α and β (`embed`), and the decoder after it."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uniemox.checkpoints.methods import recognise
from uniemox.checkpoints.reading import read_weight_file, state_of
from uniemox.checkpoints.timm_networks import TIMM

MAE_NAMES = {
    "decoder_embed.": "embed.",
    "decoder_blocks.": "decoder.blocks.",
    "decoder_norm.": "decoder.norm.",
    "decoder_pred.": "decoder.pred.",
    "mask_token": "decoder.mask_token",
}
"""Prefixes of names in MAE's files (and dBOT's, but for its prediction layer), and those of `UniEmoX`."""
OWN_PREFIXES = ("embed.", "decoder.")
COMPUTED = "decoder_pos_embed"  # the fixed table of positions, which the model computes


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderReport:
    """Origin of the weights of `embed` and the decoder at the beginning of a run. Names are the model's."""

    source: str
    """File or network that the run starts from, or why nothing was taken."""
    taken: tuple[str, ...] = ()
    """Tensors with the file's values."""
    new: tuple[str, ...] = ()
    """Tensors with random values."""
    unfit: tuple[str, ...] = ()
    """Tensors of the file's decoder that the model has no place for, by the file's names."""

    def __str__(self) -> str:
        parts = [f"{len(self.taken)} tensors of embed and decoder from {self.source}"]
        if not self.taken:
            parts = [f"embed and decoder start from random weights: {self.source}"]
        if self.taken and self.new:
            parts.append(f"new: {_modules(self.new)}")
        if self.unfit:
            parts.append(f"not used: {_modules(self.unfit)}")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def take_decoder(model: nn.Module, start: str | None, *, is_fresh: bool = False) -> DecoderReport:
    """Load `embed` and the decoder of a file of initial weights into a model, where they fit.

    A layer is taken if the file has all its tensors with the model's shapes, so that no layer mixes old and new
    weights. A model on the meta device gets no values, only the report. Files don't tell the number of the decoder's
    attention heads; MAE's and dBOT's have 16, the default of `DecoderConfig`.

    Args:
        model: A `UniEmoX` with random weights.
        start: Value of `EncoderConfig.start`.
        is_fresh: Take nothing.

    Returns:
        A report of what was taken, and what is new.

    Raises:
        CheckpointError: The file can't be read, or a tensor is not finite.
    """
    wanted = {name: value for name, value in model.state_dict().items() if name.startswith(OWN_PREFIXES)}
    if start is None:
        return DecoderReport(source="the run has no initial weights", new=tuple(wanted))
    if is_fresh:
        return DecoderReport(source="--fresh-decoder", new=tuple(wanted))
    if start.startswith(TIMM) or Path(start).is_dir():
        return DecoderReport(source=f"{start} is taken as an encoder alone", new=tuple(wanted))
    found = decoder_tensors(Path(start))
    if not found:
        return DecoderReport(source=f"{start} has no decoder", new=tuple(wanted))
    fitting = {
        layer
        for layer in {_layer_of(name) for name in wanted}
        if all(
            name in found and found[name][1].shape == value.shape
            for name, value in wanted.items()
            if _layer_of(name) == layer
        )
    }
    taken = tuple(name for name in wanted if _layer_of(name) in fitting)
    if not next(iter(wanted.values())).is_meta:
        with torch.no_grad():
            for name in taken:
                wanted[name].copy_(found[name][1])
    return DecoderReport(
        source=start,
        taken=taken,
        new=tuple(name for name in wanted if name not in taken),
        unfit=tuple(theirs for name, (theirs, _) in found.items() if name not in taken),
    )


def decoder_tensors(path: Path) -> dict[str, tuple[str, Tensor]]:
    """Read the decoder of a weight file: its own name and the tensor, by the name in `UniEmoX`.

    Empty if the file has no decoder. Tensors of a decoder that `UniEmoX` has no name for keep their own name.
    """
    file = read_weight_file(path, mapped=True)
    if file.metadata is not None:  # our own files of this form hold an encoder alone
        return {}
    method = recognise(file)
    if method == "dino":  # a container of two networks, neither of which has a decoder
        return {}
    state = state_of(file)
    if method == "uniemox":
        return {name: (name, value) for name, value in state.items() if name.startswith(OWN_PREFIXES)}
    if "decoder_embed.weight" not in state:  # a mask token alone may be one of the encoder
        return {}
    tensors = {}
    for theirs, value in state.items():
        prefix = next((prefix for prefix in MAE_NAMES if theirs.startswith(prefix)), None)
        if prefix is not None:
            tensors[MAE_NAMES[prefix] + theirs.removeprefix(prefix)] = (theirs, value)
        elif "decoder_" in theirs and theirs != COMPUTED:
            tensors[theirs] = (theirs, value)
    return tensors


def _layer_of(name: str) -> str:
    """Return the layer of a tensor: a block, or what lies outside of the blocks.

    >>> [_layer_of(name) for name in ("embed.bias", "decoder.blocks.3.attn.qkv.bias", "decoder.mask_token")]
    ['embed', 'decoder.blocks.3', 'decoder.mask_token']
    """
    match = re.match(r"decoder\.blocks\.\d+|embed|decoder\.\w+", name)
    return name if match is None else match[0]


def _modules(names: tuple[str, ...]) -> str:
    """List layers instead of tensors, the first four."""
    layers = list(dict.fromkeys(re.sub(r"\.(weight|bias)$", "", name) for name in names))
    return ", ".join(layers[:4]) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")
