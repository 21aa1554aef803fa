"""Decoder in a file of initial weights: MAE's layer that computes α and β (`embed`), and the decoder after it."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from uniemox.checkpoints.methods import recognise_method
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
# The fixed table of positions, which the model computes.
COMPUTED = "decoder_pos_embed"


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderReport:
    """Origin of the weights of `embed` and the decoder at the beginning of a run. Names are the model's."""

    source: str
    """File or network that the run starts from, or why no tensor was loaded."""
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
        is_fresh: Keep the random weights.

    Returns:
        A report of which tensors were loaded, and which are new.

    Raises:
        CheckpointError: If the file can't be read, or a tensor is not finite.
    """
    parameters = {name: value for name, value in model.state_dict().items() if name.startswith(OWN_PREFIXES)}
    if start is None:
        return DecoderReport(source="the run has no initial weights", new=tuple(parameters))
    if is_fresh:
        return DecoderReport(source="--fresh-decoder", new=tuple(parameters))
    if start.startswith(TIMM) or Path(start).is_dir():
        return DecoderReport(source=f"{start} is taken as an encoder alone", new=tuple(parameters))
    stored = decoder_tensors(Path(start))
    if not stored:
        return DecoderReport(source=f"{start} has no decoder", new=tuple(parameters))
    unfit_layers = {
        _layer_of(name)
        for name, value in parameters.items()
        if name not in stored or stored[name][1].shape != value.shape
    }
    taken = tuple(name for name in parameters if _layer_of(name) not in unfit_layers)
    if not next(iter(parameters.values())).is_meta:
        with torch.no_grad():
            for name in taken:
                parameters[name].copy_(stored[name][1])
    return DecoderReport(
        source=start,
        taken=taken,
        new=tuple(name for name in parameters if name not in taken),
        unfit=tuple(file_name for name, (file_name, _) in stored.items() if name not in taken),
    )


def decoder_tensors(path: Path) -> dict[str, tuple[str, Tensor]]:
    """Read the decoder of a weight file.

    Returns:
        The file's name of each tensor, and the tensor, by the name in `UniEmoX`; empty if the file has no decoder.
        Tensors of a decoder that `UniEmoX` has no name for keep the file's name.

    Raises:
        CheckpointError: If the file can't be read, or its method is not recognised.
    """
    file = read_weight_file(path, mapped=True)
    # Our own files of this form hold an encoder alone.
    if file.metadata is not None:
        return {}
    method = recognise_method(file)
    # DINO's container has two networks, neither of which has a decoder.
    if method == "dino":
        return {}
    state = state_of(file)
    if method == "uniemox":
        return {name: (name, value) for name, value in state.items() if name.startswith(OWN_PREFIXES)}
    # A mask token alone may be one of the encoder.
    if "decoder_embed.weight" not in state:
        return {}
    tensors = {}
    for file_name, value in state.items():
        prefix = next((prefix for prefix in MAE_NAMES if file_name.startswith(prefix)), None)
        if prefix is not None:
            tensors[MAE_NAMES[prefix] + file_name.removeprefix(prefix)] = (file_name, value)
        elif "decoder_" in file_name and file_name != COMPUTED:
            tensors[file_name] = (file_name, value)
    return tensors


def _layer_of(name: str) -> str:
    """Return the layer of a tensor: a block, or a module outside of the blocks.

    >>> [_layer_of(name) for name in ("embed.bias", "decoder.blocks.3.attn.qkv.bias", "decoder.mask_token")]
    ['embed', 'decoder.blocks.3', 'decoder.mask_token']
    """
    match = re.match(r"decoder\.blocks\.\d+|embed|decoder\.\w+", name)
    return name if match is None else match[0]


def _modules(names: tuple[str, ...]) -> str:
    """List layers instead of tensors, the first four."""
    layers = list(dict.fromkeys(re.sub(r"\.(weight|bias)$", "", name) for name in names))
    return ", ".join(layers[:4]) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")
