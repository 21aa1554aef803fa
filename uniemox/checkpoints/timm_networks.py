"""Networks of timm in the form of --init: timm:NAME, timm:NAME@FILE, timm:local-dir:FOLDER, with ?OPTION=VALUE&..."""

import ssl
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from timm.models.vision_transformer import VisionTransformer

from uniemox.checkpoints.methods import pixels_of
from uniemox.checkpoints.reading import (
    LoadReport,
    WeightFile,
    container_of,
    heads_in,
    on_meta_device,
    read_weight_file,
    state_of,
)
from uniemox.errors import CheckpointError
from uniemox.io.typed import read_json
from uniemox.model.encoders import build_timm

TIMM = "timm:"
LOCAL = "local-dir:"
# Names of weight files in a folder of the hub, the preferred one first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_FILES = (*WEIGHT_FILES, "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
HUB_TIMEOUT_S = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TimmSource:
    """Network of timm with the source of its weights."""

    name: str
    options: Mapping[str, str]
    """Options for building it: pad_type, needed by networks converted from TensorFlow; conv_head=none, without the last
    convolution, for files that lack it. An EfficientNet-B0 then has 320 features. global_pool=avg, a ViT that gives the
    mean of its patch tokens through a norm of its own."""
    pixels: Mapping[str, tuple[float, ...]]
    """mean and std of its input pixels, one number per channel, if they differ from timm's."""
    file: str
    """Local file of weights; empty: the published ones, fetched from the hub or its cache."""

    @classmethod
    def parse(cls, text: str) -> "TimmSource":
        """Parse NAME?OPTION=VALUE&...@FILE, with or without timm: before it; only the name is required.

        local-dir:FOLDER is a folder with config.json and weights, as on the Hugging Face hub.

        Raises:
            CheckpointError: For another option, a name unknown to timm, or a missing file.

        >>> TimmSource.parse("timm:mobilenetv2_100?pad_type=same&mean=0.5").pixels
        {'mean': (0.5, 0.5, 0.5)}
        """
        source = text.removeprefix(TIMM)
        if source.startswith(LOCAL):
            return _read_folder(Path(source.removeprefix(LOCAL)))
        name, _, file = source.partition("@")
        name, _, query = name.partition("?")
        options: dict[str, str] = {}
        pixels: dict[str, tuple[float, ...]] = {}
        for pair in filter(None, query.split("&")):
            key, _, value = pair.partition("=")
            if key == "pad_type" or pair in ("conv_head=none", "global_pool=avg"):
                options[key] = value
                continue
            try:
                if key not in ("mean", "std"):
                    raise ValueError("no such option")
                pixels[key] = (float(value),) * 3
            except ValueError as error:
                raise CheckpointError(
                    f"timm:{source}: {pair!r} is not an option; use pad_type, conv_head=none, global_pool=avg, mean or "
                    f"std: {error}"
                ) from error
        if not timm.is_model(name):
            raise CheckpointError(f"timm has no model {name!r}; timm.list_models('*') lists what it has")
        if file and not Path(file).is_file():
            raise CheckpointError(f"there is no file {file} with weights for {name}")
        return cls(name=name, options=options, pixels=pixels, file=file)


@dataclass(frozen=True, slots=True)
class PixelStatistics:
    """Mean and standard deviation of pixels by channel, on the scale of 0 to 1; None: those of the architecture."""

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class HubConfig:
    """Part of config.json in timm's repositories that is read; older ones have the statistics at the top."""

    architecture: str
    pretrained_cfg: PixelStatistics | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def _read_folder(folder: Path) -> TimmSource:
    """Read the network in a folder of the Hugging Face hub.

    Raises:
        CheckpointError: If it is no network of timm, or has no weights.
    """
    remedy = "give a folder like a repository of timm's on the Hugging Face hub"
    config = read_json(folder / "config.json", HubConfig, remedy=remedy, error_class=CheckpointError)
    name = config.architecture
    statistics = config.pretrained_cfg or PixelStatistics(config.mean, config.std)
    pixels = {key: values for key, values in asdict(statistics).items() if values is not None}
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if not timm.is_model(name):
        raise CheckpointError(f"{folder}/config.json names the architecture {name!r}, which timm does not have")
    if file is None:
        raise CheckpointError(f"{folder} has no weights; expected {' or '.join(WEIGHT_FILES)}")
    return TimmSource(name=name, options={}, pixels=pixels, file=str(file))


def load_timm(text: str, image_size: int | None, *, pretrained: bool = True) -> Any:
    """Load a network of timm without classifier; `.report` lists what was loaded.

    Args:
        text: Name of the network, see `TimmSource.parse`. A local file's classifier is left out; if the file has a
            moving average (EMA), its weights are loaded.
        image_size: Side of the input in px, if the network is built for one.
        pretrained: False keeps random weights.

    Raises:
        CheckpointError: If timm has no such model or weights, or they can't be fetched.
    """
    source = TimmSource.parse(text)
    # On the meta device this is fast: it only shows whether the network is built for one image size.
    with torch.device("meta"):
        embedding = getattr(timm.create_model(source.name, num_classes=0), "patch_embed", None)
    is_meta = on_meta_device()
    if pretrained and not source.file:
        published = timm.get_pretrained_cfg(source.name)
        if published is None or not published.has_weights:
            raise CheckpointError(f"{text}: timm has no weights for it; give timm:NAME.TAG or timm:NAME@FILE")
        if not is_meta:
            check_hub(source.name)
    options: dict[str, Any] = dict(source.options)
    if image_size is not None and hasattr(embedding, "img_size"):
        options["img_size"] = image_size
    file = read_weight_file(source.file, mapped=is_meta) if source.file and pretrained else None
    resized: list[str] = []
    try:
        network: Any = build_timm(
            source.name,
            pretrained=pretrained and not source.file and not is_meta,
            num_classes=0,
            pretrained_cfg_overlay=dict(source.pixels) or None,
            **options,
        )
        if file is not None:
            resized = load_without_head(network, file)
    except (RuntimeError, OSError, TypeError, ValueError, LookupError, AssertionError, SafetensorError) as error:
        raise CheckpointError(f"timm:{text.removeprefix(TIMM)} could not be built with its weights: {error}") from error
    config = network.pretrained_cfg
    pixels = (config["mean"], config["std"])
    # A checkpoint of timm's training script has the statistics of its training.
    if file is not None and not source.pixels:
        pixels = pixels_of(file, "timm") or pixels
        # timm's `resolve_model_data_config` then returns them, too.
        network.pretrained_cfg = {**config, "mean": pixels[0], "std": pixels[1]}
    network.report = LoadReport(
        path=f"{TIMM}{text.removeprefix(TIMM)}",
        method="timm",
        image_size=image_size or config["input_size"][1],
        heads=heads_in(network) if isinstance(network, VisionTransformer) else None,
        mean_std=pixels,
        loaded=tuple(network.state_dict()),
        resized=tuple(resized),
        container=None if file is None else container_of(file),
    )
    return network


def is_cached(name: str) -> bool:
    """Return True if the hub's cache has the published weights of a network of timm."""
    config = timm.get_pretrained_cfg(name)
    if not config or not config.hf_hub_id:
        return False
    # The result is a path only if the file is cached.
    return any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in HUB_FILES)


def check_hub(name: str) -> None:
    """Check, within seconds, that the hub responds if a network's weights must be fetched.

    The hub's own client would retry for a minute.

    Raises:
        CheckpointError: If the weights are not in the cache and the hub does not respond.
    """
    if constants.HF_HUB_OFFLINE or is_cached(name):
        return
    reasons = [f"no answer in {HUB_TIMEOUT_S} s"]

    def request_hub() -> None:
        try:
            urlopen(constants.ENDPOINT, timeout=HUB_TIMEOUT_S).close()
        # The hub responds; its client decides whether to trust it.
        except (HTTPError, ssl.SSLError):
            pass
        except OSError as error:
            if not isinstance(getattr(error, "reason", None), ssl.SSLError):
                reasons.append(str(error))
                return
        reasons.clear()

    # In a thread, because a socket's timeout does not cover name resolution.
    request = threading.Thread(target=request_hub, daemon=True)
    request.start()
    request.join(HUB_TIMEOUT_S)
    if reasons:
        raise CheckpointError(
            f"the weights of timm:{name} are not in the cache, and {constants.ENDPOINT} can't be reached "
            f"({reasons[-1]}): give timm:{name}@FILE with a local file, or fine-tune offline from the model that comes "
            "with uniemox (--init embedded, or --init small)"
        )


def load_without_head(network: Any, file: WeightFile) -> list[str]:
    """Load a file of timm's weights, with or without a classifier, into a network without one.

    Official files of DINOv2, CLIP and others are renamed as timm does, and position tables of another image size are
    resized as timm does.

    Returns:
        The names of resized tables.

    Raises:
        CheckpointError: For a file without weights.
        RuntimeError: For weights of another network; timm's functions may raise other errors for them.
    """
    classifiers: Any = network.pretrained_cfg.get("classifier") or ()
    if isinstance(classifiers, str):
        classifiers = [classifiers]
    prefixes = tuple(f"{classifier}." for classifier in classifiers)
    state = {key: value for key, value in state_of(file).items() if not key.startswith(prefixes)}
    # timm's modules have a function that renames and resizes the tensors of official files.
    module = sys.modules[type(network).__module__]
    convert = getattr(module, "checkpoint_filter_fn", None)
    converted: dict[str, Any] = state if convert is None else convert(dict(state), network)
    # timm makes a classifier of CLIP's projection into the space of texts.
    converted = {key: value for key, value in converted.items() if not key.startswith(prefixes)}
    network.load_state_dict(converted)
    return [name for name, value in converted.items() if name in state and state[name].shape != value.shape]
