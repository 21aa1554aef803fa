"""Checks weight files and networks of a plan without training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from uniemox.checkpoints.classifier import is_classifier, load_classifier, load_detector_weights, load_embedded
from uniemox.checkpoints.published import draft_published
from uniemox.checkpoints.start_decoder import take_decoder
from uniemox.checkpoints.timm_networks import TIMM, TimmSource, is_cached, load_timm
from uniemox.classifier_info import NetworkSpec
from uniemox.errors import CheckpointError, TeacherError
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.network import SavedFusion, fusion_settings
from uniemox.io.files import ENCODER, WEIGHTS
from uniemox.io.weight_names import IN_PACKAGE, Init
from uniemox.model.classifier import set_drop_path
from uniemox.model.detectors import YoloxNano, YuNet
from uniemox.model.encoder import ConcatEncoder, build_encoder, check_plain
from uniemox.model.encoders import build
from uniemox.model.regions import feature_map
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.config import PretrainConfig
from uniemox.teacher.config import FitConfig
from uniemox.teacher.opening import open_teacher
from uniemox.views.patches import IMAGENET

META = torch.device("meta")


@dataclass(frozen=True, slots=True)
class Trained:
    """Output of a planned run."""

    build: Callable[[], nn.Module]
    """Function that builds its encoder on the meta device."""
    fusion: SavedFusion | None
    """Its Γ; None without one."""
    key: str
    """Key that determines both; runs with the same key are checked once."""


Planned = Mapping[str, Trained]
"""Planned runs by folder."""


def pretraining_network(
    config: PretrainConfig, planned_teachers: Mapping[str, FitConfig], batch: int
) -> tuple[str, Trained, str]:
    """Return the shapes of a forward pass of a batch with every loss, the run's output, and its initial weights.

    Raises the run's own errors.

    Args:
        planned_teachers: Teachers that runs of the plan fit, by folder.
        batch: Number of images.
    """
    if config.model.needs_image_features:
        width = teacher_width(config.teacher.source, planned_teachers)
    else:
        width = None
    encoder, start = _start_of(config)
    with META:
        model = UniEmoX(encoder, replace(config.model, teacher_width=width)).train()
    if config.encoder.start is not None:
        start = f"{start}, {take_decoder(model, config.encoder.start, is_fresh=config.fresh_decoder)}"
    fusion = model.config.fusion
    if fusion:
        left = SavedFusion(fusion, model.config.fusion_heads, model.config.decoder.width)
    else:
        left = None
    key = f"{config.encoder} {left} {config.view.size}"
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model.to_empty(device="cpu")  # fake tensors, because autocast does not support the meta device
        pixels = torch.zeros(batch, 3, *model.image_size)
        if width is None:
            features = None
        else:
            features = torch.zeros(batch, width)
        output = model(pixels, pixels, image_features=features, text_features=features)
    made = "none" if output.fused is None else tuple(output.fused.shape)
    shapes = f"batch {tuple(pixels.shape)}, features {made}, losses {', '.join(output.losses)}"
    return shapes, Trained(lambda: _start_of(config)[0], left, key), start


def start_key(config: FinetuneConfig, planned: Planned) -> str:
    """Return the settings that determine the network of a fine-tuning run."""
    if config.init in planned:
        start = planned[config.init].key
    else:
        start = config.init
    return f"{start} {config.method} {config.network} {config.view.size}"


def finetuning_network(config: FinetuneConfig, planned: Planned, labels: tuple[str, ...]) -> tuple[int, Trained, str]:
    """Return the width of the head's input, the run's output, and its initial weights.

    Raises the run's own errors.

    Args:
        planned: Runs that are not done.
        labels: Of its data.
    """
    settings = config.network
    pixels = torch.zeros(2, 3, config.view.size, config.view.size, device=META)
    encoder, start = _encoder_of(config, planned)
    set_drop_path(encoder, settings.drop_path)
    for network, file in ((YoloxNano(), settings.objects), (YuNet(), settings.faces)):
        if file:
            load_detector_weights(network, Path(file))
    if config.region_method is not None:
        spec = NetworkSpec(feature_width=feature_map(encoder.eval(), pixels).shape[1], labels=labels)
        method = config.region_method
        skip = settings.skip
        spec = replace(spec, method=method, fused_width=settings.fused_width, skip=skip)
    else:
        if config.init in planned:
            saved = planned[config.init].fusion
        else:
            saved = None
        fusion = fusion_settings(saved, settings)
        spec = NetworkSpec(feature_width=encoder.eval()(pixels).shape[1], streams=settings.streams, **fusion)
    if spec.fusion is None:
        left = None
    else:
        left = SavedFusion(spec.fusion, spec.fusion_heads, spec.fused_width)
    key = f"encoder of {start_key(config, planned)}"
    return build(spec, nn.Identity()).width, Trained(lambda: _encoder_of(config, planned)[0], left, key), start


def teacher_width(source: str, planned: Mapping[str, FitConfig]) -> int:
    """Return the number of a teacher's feature channels.

    Raises:
        TeacherError: If it can't be loaded.
    """
    kind, _, what = source.partition(":")
    if kind == "fitted" and what in planned:
        return planned[what].width
    if kind == "clip" and not what.startswith("local-dir:"):
        name, _, weights = what.partition("@")
        config = open_clip.get_model_config(name)
        tags = open_clip.list_pretrained_tags_by_model(name)
        if config is None:
            raise TeacherError(f"open_clip has no model {name!r}; open_clip.list_models() lists what it has")
        if weights and weights not in tags and not Path(weights).is_file():
            raise TeacherError(
                f"{name} has no weights {weights!r}, and there is no such file; it has {', '.join(tags)}"
            )
        return int(config["embed_dim"])
    return open_teacher(source).width


def _start_of(config: PretrainConfig) -> tuple[Any, str]:
    """Return the encoder of a pre-training run, and a description of its weights."""
    start = config.encoder.start
    size = config.view.size
    if start is None:
        with META:
            return build_encoder(config.encoder.name, size, **config.encoder.timm_options), "random weights"
    if start.startswith(TIMM):
        encoder, weights = _from_timm(start, size)
        check_plain(encoder, start)
        encoder.reset_classifier(0, "token")
        return encoder, weights
    if Path(start).is_dir():
        path = Path(start) / ENCODER
    else:
        path = Path(start)
    encoder = draft_published(path, size, is_start=True)
    return encoder, f"{encoder.report.method} of {path}"


def _encoder_of(config: FinetuneConfig, planned: Planned) -> tuple[Any, str]:
    """Return the encoder of a fine-tuning run, and a description of its weights."""
    init = Init.parse(config.init)
    pairs = [_one(name, config, planned) for name in init.networks]
    if init.from_scratch:
        starts = ["random weights"]
    else:
        starts = [start for _, start in pairs]
    if len(pairs) == 1:
        return pairs[0][0], starts[0]
    encoders = [encoder for encoder, _ in pairs]
    return ConcatEncoder(encoders, [IMAGENET] * len(encoders)), ", ".join(starts)


def _one(source: str, config: FinetuneConfig, planned: Planned) -> tuple[Any, str]:
    size = config.view.size
    folder = Path(source)
    if source in IN_PACKAGE:
        return load_embedded(source)[0].to(META), f"{source}, from the package"
    if source in planned:
        return planned[source].build(), f"the run {folder.name}"
    if source.startswith(TIMM):
        return _from_timm(source, size)
    if folder.is_dir() and is_classifier(folder / WEIGHTS):
        return load_classifier(folder / WEIGHTS)[0].encoder.to(META), f"the run {folder.name}"
    pool = config.network.pool
    file = folder / ENCODER if folder.is_dir() else folder
    encoder = draft_published(file, size, is_start=pool == "token", pool="mean" if pool == "mean" else "own")
    start = f"{encoder.report.method} of {source}"
    return encoder, start


def _from_timm(source: str, size: int) -> tuple[Any, str]:
    """Return a timm network, and the source of its weights.

    Raises:
        CheckpointError: If it has none.
    """
    with META:
        encoder = load_timm(source, size, pretrained=False)
    parsed = TimmSource.parse(source)
    if parsed.file:
        return encoder, f"weights of {parsed.file}"
    config = timm.get_pretrained_cfg(parsed.name)
    if config is None or not config.has_weights:
        raise CheckpointError(f"{source}: timm has no weights for it; give timm:NAME.TAG or timm:NAME@FILE")
    return encoder, f"{source}, {'in the cache' if is_cached(parsed.name) else 'fetched from the hub when it starts'}"
