"""Grad-CAM of a fine-tuned network, as in figure 8 of the paper (arXiv 1610.02391)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.checkpoints.classifier import load_classifier
from uniemox.errors import CheckpointError, ConfigError
from uniemox.insight.explain.explanation import Array
from uniemox.io.run_files import WEIGHTS
from uniemox.model.classifier import Classifier
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.predict.network import DISTANCE, LOGITS, Network
from uniemox.predict.opening import open_finder
from uniemox.predict.predictor import Predictor


class TorchEngine:
    """A fine-tuned network in torch; see `Engine`."""

    fingerprint = "torch"

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier.eval()
        self.outputs = frozenset({LOGITS} if classifier.distance is None else {LOGITS, DISTANCE})

    @torch.no_grad()
    def run(self, outputs: Sequence[str], views: Mapping[str, Array]) -> list[Array]:
        """Return outputs, see `Engine`."""
        values: Any = dict(zip((LOGITS, DISTANCE), self.classifier.answer(**self.tensors(views)), strict=True))
        return [values[name].float().cpu().numpy() for name in outputs]

    def gradient_maps(self, views: Mapping[str, Array], index: int) -> dict[str, Array]:
        """Return the map (h, w) of each view of one image, for the output at an index; see `grad_cam_maps`."""
        maps = grad_cam_maps(self.classifier, index, **self.tensors(views))  # (V, h, w)
        return dict(zip(views, maps.cpu().numpy(), strict=True))

    def tensors(self, views: Mapping[str, Array]) -> dict[str, Tensor]:
        """Return the views on the network's device."""
        device = next(self.classifier.parameters()).device
        return {name: torch.from_numpy(view).to(device) for name, view in views.items()}


def open_in_torch(path: Path) -> Predictor:
    """Open a fine-tuning run, or its model.safetensors.

    Raises:
        CheckpointError: For other files, and for weights that can't be read.
    """
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file() or weights.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: grad-cam needs a fine-tuning run, or its {WEIGHTS}; its ONNX file has no gradients"
        )
    # A run is named after its folder, also if its weight file is given.
    name = path.parent.name if path.name == WEIGHTS and not path.is_dir() else path.name
    classifier, info = load_classifier(weights)
    finder = open_finder("embedded") if info.needs_person else None
    return Predictor(Network(name or str(path), info, TorchEngine(classifier)), finder)


def grad_cam_maps(classifier: Classifier, index: int, **views: Tensor) -> Tensor:
    """Return maps of one output, by view: (V, h, w), V = 2 with both streams, scene first; before ReLU.

    Each channel of the last feature map A is weighted by the mean of its gradient over positions (arXiv 1610.02391,
    equations 1 and 2). For a ViT, A is the output of the first norm of the last block, without prefix tokens, as in
    pytorch-grad-cam; for a convolutional network its last map with more than one position. Maps of several encoders are
    added at the size of the largest.

    Args:
        classifier: Fine-tuned network.
        index: Index of the output.
        views: Views scene and person of one image, as `Classifier.forward` takes them.

    Raises:
        ConfigError: For a network without such a feature map.
    """
    classifier.eval()
    encoder: Any = classifier.encoder
    encoders = list(encoder.encoders) if isinstance(encoder, ConcatEncoder) else [encoder]
    # The inputs need gradients, because the encoder's weights may be frozen.
    inputs = {name: view.detach().clone().requires_grad_(True) for name, view in views.items()}
    with torch.enable_grad(), _record_feature_maps(encoders) as feature_maps:
        output = classifier(**inputs)[0, index]
        if len(feature_maps) != len(encoders):
            raise ConfigError(f"{type(encoder).__name__} has no last feature map that Grad-CAM could use")
        gradients = torch.autograd.grad(output, [feature_maps[i] for i in range(len(encoders))])
    maps = []
    for i, gradient in enumerate(gradients):
        values = _as_grid(encoders[i], feature_maps[i].detach().float())  # (V, C, h, w)
        slopes = _as_grid(encoders[i], gradient.detach().float())  # (V, C, h, w)
        weights = slopes.mean(dim=(2, 3), keepdim=True)  # (V, C, 1, 1)
        maps.append((weights * values).sum(dim=1))  # (V, h, w)
    size = max((part.shape[1], part.shape[2]) for part in maps)
    enlarged = [F.interpolate(part[:, None], size, mode="bilinear")[:, 0] for part in maps]  # (V, H, W) each
    return torch.stack(enlarged).sum(dim=0)


@contextmanager
def _record_feature_maps(encoders: Sequence[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Record the last feature map of each encoder's forward pass, by the encoder's index."""
    maps: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for i, encoder in enumerate(encoders):
            norm = _last_norm(encoder)
            if norm is not None:
                layers = [norm]
            else:
                # Every layer overwrites the map of the one before, so that the last usable map stays.
                layers = [layer for layer in encoder.modules() if layer is not encoder]

            def record(_: nn.Module, __: Any, output: Any, *, i: int = i, of_tokens: bool = norm is not None) -> None:
                if isinstance(output, Tensor) and (of_tokens or (output.ndim == 4 and output.shape[2:].numel() > 1)):
                    maps[i] = output

            for layer in layers:
                hooks.enter_context(layer.register_forward_hook(record))
        yield maps


def _last_norm(encoder: Any) -> nn.Module | None:
    """Return the first norm of the last block of a ViT or Swin; None for other networks."""
    blocks = getattr(encoder, "blocks", None)
    if blocks is None and hasattr(encoder, "layers"):
        blocks = getattr(encoder.layers[-1], "blocks", None)
    if blocks is not None and len(blocks):
        return getattr(blocks[-1], "norm1", None)
    return None


def _as_grid(encoder: Any, x: Tensor) -> Tensor:
    """Return a feature map as (V, C, h, w), from tokens (V, prefix + L, C), Swin's (V, h, w, C), or unchanged."""
    if _last_norm(encoder) is None:
        return x
    if x.ndim == 4:
        return x.permute(0, 3, 1, 2)
    tokens = x[:, getattr(encoder, "num_prefix_tokens", 1) :]  # (V, L, C)
    return tokens.transpose(1, 2).unflatten(2, encoder.patch_embed.grid_size)
