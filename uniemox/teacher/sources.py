"""Teacher networks: CLIP, and image towers of timm or ONNX."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import timm
import timm.data
import timm.models
import torch
from torch import Tensor, nn

from uniemox.errors import TeacherError
from uniemox.io.onnx_external import check_external_files
from uniemox.io.onnx_sessions import RUNTIME_ERRORS, Session, pick_provider
from uniemox.io.weight_archives import ARCHIVE_ERRORS
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.teacher.protocol import fit_pixels, refuse_texts
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD, PixelStats
from uniemox.views.transfer import to_device

# Weights of a CLIP model that is named without any.
OPENAI = "openai"


class ClipTeacher:
    """Image and text features of a frozen open_clip model, with its own normalisation and tokenizer.

    Args:
        model: Model of open_clip; usually use `ClipTeacher.load`.
        tokenizer: The model's tokenizer, which cuts off texts longer than the model's context.
    """

    # Any, because open_clip's classes are not typed.
    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, name: str = "ViT-B-16", weights: str = OPENAI, device: str | torch.device = "cpu") -> "ClipTeacher":
        """Load a model of open_clip with weights.

        Args:
            name: open_clip's name of the architecture, or local-dir:FOLDER with open_clip_config.json and weights in
                it.
            weights: open_clip's name of published weights, fetched from the hub or its cache, or a local file. For
                OpenAI's weights from a file use the architectures ending in -quickgelu.
            device: Where the teacher runs; give the student's.

        Raises:
            TeacherError: If there is no such model or its weights can't be loaded.
        """
        import open_clip  # noqa: PLC0415

        model = load_clip(name, weights)
        try:
            tokenizer = open_clip.get_tokenizer(name)
        except (ImportError, NameError, *ARCHIVE_ERRORS) as error:
            # Messages of transformers have several lines.
            reason = str(error).partition("\n")[0]
            raise TeacherError(
                f"the tokenizer of the CLIP model {name} could not be loaded: {reason}. Give local-dir:FOLDER with the "
                "files of its repository on the hub; SigLIP's tokenizer also needs the package transformers"
            ) from error
        return cls(model.to(device), tokenizer)

    @cached_property
    def width(self) -> int:
        """C, number of feature channels."""
        return int(self.text_features([""]).shape[1])

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @torch.no_grad()
    def image_features(self, pixels: Tensor, keys: Sequence[str] = ()) -> Tensor:
        """Return features (N, C) float32, not normalised.  pixels: (N, 3, H, W) in [0, 1].  keys: ignored."""
        visual = self.model.visual
        size = visual.image_size
        if not isinstance(size, tuple):
            size = (size, size)
        pixels = fit_pixels(pixels.to(self._device), size, visual.image_mean, visual.image_std)
        return self.model.encode_image(pixels).float()  # (N, C)

    @torch.no_grad()
    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return features (N, C) float32, not normalised.  texts: N."""
        tokens = self.tokenizer(list(texts), context_length=self.model.context_length)  # (N, context)
        return self.model.encode_text(to_device(tokens, self._device)).float()  # (N, C)


def load_clip(name: str, weights: str = OPENAI) -> Any:
    """Load a model of open_clip with weights, without its tokenizer; arguments as for `ClipTeacher.load`.

    Raises:
        TeacherError: If there is no such model or its weights can't be loaded.
    """
    # Takes a second to import, which other teachers do not need.
    import open_clip  # noqa: PLC0415

    is_folder = name.startswith("local-dir:")
    if not is_folder:
        clip_width(name, weights)
    try:
        return open_clip.create_model(name, pretrained=None if is_folder else weights, require_pretrained=True)
    except ARCHIVE_ERRORS as error:
        raise TeacherError(
            f"the CLIP model {name} could not be loaded with weights {weights}: {error}. Give a local file, or a "
            f"name that open_clip.list_pretrained_tags_by_model({name!r}) lists, with network"
        ) from error


def clip_width(name: str, weights: str) -> int:
    """Return the number of feature channels of a CLIP model, without loading it.

    Args:
        name: open_clip's name of the architecture.
        weights: open_clip's name of published weights, or a local file.

    Raises:
        TeacherError: If open_clip has no such model, or no such weights of it and there is no such file.
    """
    import open_clip  # noqa: PLC0415

    config = open_clip.get_model_config(name)
    if config is None:
        raise TeacherError(f"open_clip has no model {name!r}; open_clip.list_models() lists what it has")
    if not open_clip.get_pretrained_cfg(name, weights) and not Path(weights).is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise TeacherError(f"{name} has no weights {weights!r}, and there is no such file; it has {tags}")
    return int(config["embed_dim"])


# Images per batch on a CPU: more don't fit into its caches.
CPU_BATCH_SIZE = 16


class TimmImageTower:
    """Pooled features of a frozen timm network, with its own input size and normalisation.

    Args:
        model: Network built with num_classes=0; usually use `open_timm_tower`.

    Raises:
        TeacherError: For a network with a classifier or without pooling.
    """

    text_features = refuse_texts

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        config = timm.data.resolve_model_data_config(model)
        self.size: tuple[int, int] = config["input_size"][1:]
        self.mean = config["mean"]
        self.std = config["std"]
        device = next(model.parameters()).device
        features = self.image_features(torch.zeros(1, 3, *self.size, device=device))
        if features.ndim != 2 or getattr(model, "num_classes", None):
            raise TeacherError(
                f"expected pooled features without a classifier, got {tuple(features.shape)} and {model.num_classes} "
                "classes; build the network with num_classes=0 and pooling"
            )
        self.width: int = features.shape[1]

    @torch.no_grad()
    def image_features(self, pixels: Tensor, keys: Sequence[str] = ()) -> Tensor:
        """Return features (N, C) float32, not normalised.  pixels: (N, 3, H, W) in [0, 1].  keys: ignored."""
        return network_features(self.model, pixels, self.size, self.mean, self.std)


def network_features(
    network: nn.Module, pixels: Tensor, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Return a frozen network's features (N, C) float32.

    On a CPU it computes a few images at a time. Convolutional networks get images with channels last.

    Args:
        network: Network with pooled features.
        pixels: (N, 3, H, W) in [0, 1].
        size: Height and width of the network's input, see `fit_pixels`.
        mean: Mean of the network's input.
        std: Standard deviation of the network's input.
    """
    device = next(network.parameters()).device
    # Batch norms show that a network has convolutions, which run faster with channels last.
    is_convolutional = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    layout = torch.channels_last if is_convolutional else torch.contiguous_format
    batch_size = CPU_BATCH_SIZE if device.type == "cpu" else max(1, len(pixels))
    features = []
    for batch in pixels.split(batch_size):
        fitted = fit_pixels(batch.to(device), size, mean, std)  # (n, 3, *size)
        features.append(network(fitted.contiguous(memory_format=layout)).float())  # (n, C)
    return torch.cat(features)  # (N, C)


def join_networks(networks: Sequence[nn.Module]) -> nn.Module:
    """Join several timm networks into one with concatenated features; returns a single one unchanged.

    All get the image at the largest input size, each with its own normalisation.
    """
    if len(networks) == 1:
        return networks[0]
    configs = [timm.data.resolve_model_data_config(network) for network in networks]
    joined: Any = ConcatEncoder(networks, [PixelStats(config["mean"], config["std"]) for config in configs])
    size = max(config["input_size"] for config in configs)
    # timm's functions read the input's size and normalisation here.
    joined.pretrained_cfg = {"input_size": size, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    return joined


class OnnxImageTower:
    """Features of a frozen ONNX network: input (N, 3, H, W), first output (N, C).

    Args:
        path: The ONNX file.
        mean: Mean of its input pixels by channel, on the scale of 0 to 1; ImageNet's by default.
        std: Standard deviation of its input pixels by channel; ImageNet's by default.

    Raises:
        TeacherError: If the file is not such a network.
    """

    text_features = refuse_texts

    def __init__(
        self, path: str | Path, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        self.mean = mean
        self.std = std
        if not Path(path).is_file():
            raise TeacherError(f"there is no file {path}")
        check_external_files(Path(path), TeacherError)
        try:
            self.session = Session(Path(path), provider=pick_provider(None))
        except RUNTIME_ERRORS as error:
            raise TeacherError(f"{path} is no ONNX network that onnxruntime can run: {error}") from error
        inputs = self.session.wide.get_inputs()
        batch, channels, height, width = inputs[0].shape if len(inputs[0].shape) == 4 else (None,) * 4
        if len(inputs) != 1 or channels != 3 or not isinstance(height, int) or not isinstance(width, int):
            raise TeacherError(
                f"{path}: expected one input of shape (N, 3, H, W) with H and W fixed, got "
                f"{', '.join(f'{i.name} {i.shape}' for i in inputs)}"
            )
        self.path = path
        self.size = (height, width)
        self.batch = batch if isinstance(batch, int) else None
        try:
            features = self.image_features(torch.zeros(1, 3, height, width, device="cpu"))
        except RUNTIME_ERRORS as error:
            raise TeacherError(f"{path} does not take float32 images of {height} x {width} px: {error}") from error
        if features.ndim != 2:
            raise TeacherError(
                f"{path}: expected features of shape (N, C), its first output is {tuple(features.shape)}"
            )
        self.width: int = features.shape[1]

    def image_features(self, pixels: Tensor, keys: Sequence[str] = ()) -> Tensor:
        """Return features (N, C) float32 on the pixels' device.  pixels: (N, 3, H, W) in [0, 1].  keys: ignored."""
        fitted = fit_pixels(pixels, self.size, self.mean, self.std).cpu().numpy()  # (N, 3, H, W)
        chunks = [fitted] if self.batch is None else np.split(fitted, range(self.batch, len(fitted), self.batch))
        outputs = [self._run(chunk) for chunk in chunks]
        return torch.from_numpy(np.concatenate(outputs)).float().to(pixels.device)

    def _run(self, chunk: np.ndarray) -> np.ndarray:
        """Run one chunk; a short chunk is padded to a fixed batch, and its result is cut again."""
        padding = 0 if self.batch is None else self.batch - len(chunk)
        padded = chunk
        if padding:
            padded = np.concatenate([chunk, np.zeros((padding, *chunk.shape[1:]), chunk.dtype)])
        name = self.session.wide.get_inputs()[0].name
        return self.session.run(None, {name: padded})[0][: len(chunk)]
