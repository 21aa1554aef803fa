"""The network of a fine-tuning run: initial weights from a run, a published checkpoint or timm, and further layers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor, nn

from uniemox.checkpoints.classifier import CLASSIFIER_KEY, describe_encoder, is_classifier, load_classifier
from uniemox.checkpoints.detector_weights import load_detector_weights
from uniemox.checkpoints.onnx_encoders import load_embedded
from uniemox.checkpoints.published import load_published, load_start
from uniemox.checkpoints.reading import check_shapes, is_sincos
from uniemox.checkpoints.timm_networks import TIMM, load_timm
from uniemox.classifier_info import ClassifierInfo, read_info
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import CheckpointError, ConfigError, ShapeError
from uniemox.finetune.config import INIT_MISSING, FinetuneConfig, LoraConfig, NetworkConfig
from uniemox.io.run_files import ENCODER, WEIGHTS
from uniemox.io.run_record import required_field
from uniemox.io.weight_names import CLIP, Init, is_in_package
from uniemox.model.building import build_classifier
from uniemox.model.classifier import Classifier, set_drop_path
from uniemox.model.colour_histogram import HISTOGRAM_WIDTH
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.model.config import is_foreign, refuse_foreign
from uniemox.model.encoder import start_as_mae
from uniemox.model.encoders import COLOUR_HISTOGRAM, build_encoders
from uniemox.model.eval_mode import eval_mode
from uniemox.model.fusion import build_fusion
from uniemox.model.lora import add_adapters
from uniemox.model.methods.relation import method_class
from uniemox.model.regions import feature_map
from uniemox.network_spec import EncoderSpec, NetworkSpec
from uniemox.views.patches import IMAGENET, PixelStats


@dataclass(frozen=True, slots=True)
class BuiltNetwork:
    """A classifier with its initial weights, and its description."""

    classifier: Classifier
    spec: NetworkSpec

    @property
    def stats(self) -> PixelStats:
        """Normalisation of the pixels that the encoder was trained on."""
        return PixelStats(self.spec.mean, self.spec.std)


class SavedFusion(NamedTuple):
    """The fusion of a pre-training or fine-tuning run."""

    name: str
    heads: int
    width: int  # C3
    tensors: Mapping[str, Tensor] = {}  # of the projection ("embed.") and the fusion; {} for a planned run


def network_of(config: FinetuneConfig, data: DataSet, train: Sequence[Sample]) -> BuiltNetwork:
    """Build the network that a run trains; random weights are drawn from torch's generator.

    Args:
        config: Settings of the run.
        data: The run's data set.
        train: Training samples, on which the options of a region method depend.

    Raises:
        CheckpointError: If initial weights can't be read.
        EncoderError: If the network can't be used as an encoder.
        ShapeError: If the size of the views does not fit the encoder.
        ConfigError: If settings and initial weights conflict.
    """
    labels = data.labels.labels
    outputs = len(data.axes) if config.task == "affect" else len(labels)
    if config.fit == "histogram":
        spec = NetworkSpec(
            encoders=(EncoderSpec(name=COLOUR_HISTOGRAM),),
            feature_width=HISTOGRAM_WIDTH,
            outputs=outputs,
            streams=config.network.streams,
        )
        return BuiltNetwork(build_classifier(spec).train(), spec)
    if config.region_method is not None:
        return _build_region_network(config, config.region_method, data, train)
    network = build_network(
        config.init, config.network, size=config.view.size, outputs=outputs, unit_features=config.fit == "prototypes"
    )
    if config.fit == "lora":
        adapt(network.classifier, config.lora)
    return network


def adapt(classifier: Classifier, config: LoraConfig) -> None:
    """Freeze the encoder of a classifier, and add trained low-rank changes to its layers, in place.

    Raises:
        ConfigError: If the encoder has no layers that method lora changes.
    """
    add_adapters(classifier.encoder, rank=config.rank, layers=config.layers)
    # Running means and variances are frozen like all other numbers of the encoder.
    classifier.keeps_norm_statistics = True


def build_network(
    init: str, config: NetworkConfig, *, size: int, outputs: int, unit_features: bool = False
) -> BuiltNetwork:
    """Build the classifier that `init` names; random weights are drawn from torch's generator.

    Args:
        init: Initial weights, see `FinetuneConfig.init`.
        config: Settings of the network.
        size: Side of the views, px.
        outputs: E, number of outputs.
        unit_features: Scale the encoder's features to length 1 before the head.

    Raises:
        CheckpointError: If initial weights can't be read.
        EncoderError: If the network can't be used as an encoder.
        ShapeError: If the size of the views does not fit the encoder.
        ConfigError: If settings and initial weights conflict.
    """
    encoder, spec = open_start(init, config, size)
    spec = replace(spec, unit_features=unit_features)
    parsed = Init.parse(init)
    first = parsed.networks[0]
    saved = None
    if config.streams == "both" and not parsed.from_scratch and not is_in_package(first) and Path(first).is_dir():
        saved = _read_fusion(Path(first), config.fusion)
    spec = replace(spec, feature_width=feature_width(encoder, size), outputs=outputs, streams=config.streams)
    spec = replace(spec, **fusion_settings(saved, config))
    classifier = build_classifier(spec, encoder)
    if saved is not None and spec.fusion == saved.name:
        classifier.embed.load_state_dict(_under(saved.tensors, "embed."))
        assert classifier.fusion is not None
        classifier.fusion.load_state_dict(_under(saved.tensors, "fusion."))
    classifier.keeps_norm_statistics = config.keep_norm_statistics or spec.folded_norms
    return BuiltNetwork(classifier.train(), spec)


def _build_region_network(config: FinetuneConfig, method: str, data: DataSet, train: Sequence[Sample]) -> BuiltNetwork:
    """Build the classifier of a region method on the encoder of `init`."""
    settings = config.network
    size = config.view.size
    labels = data.labels
    encoder, spec = open_start(config.init, settings, size)
    spec = replace(
        spec,
        feature_width=_freeze_unused(encoder, size),
        outputs=len(labels),
        labels=labels.labels,
        method=method,
        fused_width=settings.fused_width,
        skip=settings.skip,
        has_detector=bool(settings.objects),
        has_face_finder=bool(settings.faces),
        method_options=method_class(method).options_for(train, labels),
    )
    classifier = build_classifier(spec, encoder)
    assert classifier.method is not None
    reader = classifier.method.reader
    reader.dropout = settings.dropout
    for detector, path in ((reader.detector, settings.objects), (reader.face_finder, settings.faces)):
        if detector is not None:
            load_detector_weights(detector, Path(path))
    classifier.keeps_norm_statistics = settings.keep_norm_statistics or spec.folded_norms
    return BuiltNetwork(classifier.train(), replace(spec, streams=classifier.streams))


def open_start(init: str, config: NetworkConfig, size: int) -> tuple[Any, NetworkSpec]:
    """Open the encoder that `init` names, with the description of a network that has only this encoder."""
    parsed = Init.parse(init)
    if not parsed.networks:
        raise ConfigError(INIT_MISSING)
    starts = [_open_encoder(source, config.pool, size, parsed.from_scratch) for source in parsed.networks]
    encoder, spec = starts[0] if len(starts) == 1 else _concatenate(starts)
    set_drop_path(encoder, config.drop_path)
    if config.confounders:
        spec = replace(spec, head="ccim", confounders=(config.confounders, feature_width(encoder, size)))
    return encoder, spec


def _concatenate(starts: Sequence[tuple[Any, NetworkSpec]]) -> tuple[Any, NetworkSpec]:
    """Concatenate several encoders into one, whose input has ImageNet's normalisation."""
    if any(len(spec.encoders) > 1 for _, spec in starts):
        raise ConfigError(
            "one of these already has several encoders: give small instead of embedded, and instead of such a run "
            "the encoders that it was built from"
        )
    encoder = ConcatEncoder([encoder for encoder, _ in starts], [PixelStats(spec.mean, spec.std) for _, spec in starts])
    described = tuple(replace(spec.encoders[0], pixels=(spec.mean, spec.std)) for _, spec in starts)
    return encoder, NetworkSpec(encoders=described, folded_norms=any(spec.folded_norms for _, spec in starts))


def _open_encoder(source: str, pool: str, size: int, from_scratch: bool) -> tuple[Any, NetworkSpec]:
    """Open the encoder of a file, of a run, of timm, of a CLIP, or of a model in the package."""
    if is_in_package(source):
        return _encoder_of_classifier(*load_embedded(source), from_scratch)
    if source.startswith(CLIP):
        from uniemox.teacher.clip_encoder import open_clip_encoder  # noqa: PLC0415 - open_clip takes a second

        encoder, described = open_clip_encoder(source, size)
        return _described(encoder, described, from_scratch)
    if source.startswith(TIMM) and from_scratch:
        encoder = load_timm(source, size, pretrained=False)
        # Its weights are random already, as timm draws them.
        return _described(encoder, describe_encoder(encoder), from_scratch=False)
    if not source.startswith(TIMM) and Path(source).is_dir():
        return _open_encoder_of_run(Path(source), pool, size, from_scratch)
    encoder = _load_weights(source, pool, size)
    return _described(encoder, describe_encoder(encoder), from_scratch)


def _open_encoder_of_run(folder: Path, pool: str, size: int, from_scratch: bool) -> tuple[Any, NetworkSpec]:
    """Open the encoder of a run of pre-training or fine-tuning."""
    if not (folder / ENCODER).is_file():
        raise CheckpointError(f"{folder} has no {ENCODER}: is it a finished run?")
    if is_classifier(folder / WEIGHTS):
        classifier, info = load_classifier(folder / WEIGHTS)
        encoders = info.network.encoders
        # Such an encoder has position tables for one size only.
        if len(encoders) == 1 and "img_size" in encoders[0].options and info.size != size:
            raise ConfigError(f"{folder} was fine-tuned at {info.size} px; give --view.size {info.size}")
        return _encoder_of_classifier(classifier.encoder, info, from_scratch)
    try:
        encoder = _load_weights(str(folder / ENCODER), pool, size)
    except ShapeError as error:
        trained_size = required_field(folder, "config", "view", "size")
        raise ShapeError(
            f"{error}; {folder} was pre-trained at {trained_size} px, which --view.size {trained_size} (or its preset) "
            "sets"
        ) from error
    return _described(encoder, describe_encoder(encoder), from_scratch)


def _described(encoder: Any, description: EncoderSpec, from_scratch: bool) -> tuple[Any, NetworkSpec]:
    """Return an opened encoder, with its own weights or random ones, and the network that has it alone."""
    mean, std = encoder.report.mean_std or IMAGENET
    spec = NetworkSpec(encoders=(description,), mean=mean, std=std)
    if from_scratch:
        restart(encoder, spec)
    return encoder.train(), spec


def _load_weights(source: str, pool: str, size: int) -> Any:
    """Load an encoder from a weight file, with the pooling of a fine-tuning."""
    if pool == "token":
        return load_start(source, image_size=size)
    return load_published(source, image_size=size, pool="mean" if pool == "mean" else "own")


def _encoder_of_classifier(encoder: nn.Module, info: ClassifierInfo, from_scratch: bool) -> tuple[Any, NetworkSpec]:
    """Take the encoder of a classifier, with its own weights or random ones."""
    if from_scratch:
        restart(encoder, info.network)
    folded = info.network.folded_norms and not from_scratch
    spec = NetworkSpec(encoders=info.network.encoders, folded_norms=folded, mean=info.mean, std=info.std)
    return encoder.train(), spec


@torch.no_grad()
def restart(encoder: nn.Module, spec: NetworkSpec) -> None:
    """Draw random weights: matrices as MAE does; norms, learned tables and scales as timm initialises them.

    Sin-cos position tables stay unchanged.

    Args:
        encoder: The encoder, changed in place.
        spec: Description of the encoder.
    """
    # On the meta device there are no weights to draw.
    if next(encoder.parameters()).is_meta:
        return
    # Building the encoder again must not change what torch's generator draws next.
    with torch.random.fork_rng(devices=[]):
        fresh = dict(build_encoders(spec).named_parameters())
    initialised = set()
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d | nn.Linear | nn.Conv2d):
            initialised |= {id(parameter) for parameter in module.parameters(recurse=False)}
    start_as_mae(encoder)
    for name, parameter in encoder.named_parameters():
        if name.endswith(("cls_token", "mask_token")):
            nn.init.normal_(parameter, std=0.02)
        elif id(parameter) not in initialised and not _is_position_table(parameter):
            parameter.copy_(fresh[name])


def _is_position_table(parameter: Tensor) -> bool:
    """Return True for a sin-cos position table, whichever axis of the grid comes first."""
    return is_sincos(parameter, rows_first=True) or is_sincos(parameter, rows_first=False)


@torch.no_grad()
def feature_width(encoder: nn.Module, size: int) -> int:
    """Return D, the number of channels of the encoder's features.

    Raises:
        CheckpointError: If the encoder's output is not (N, D).
    """
    with eval_mode(encoder):
        features = encoder(torch.zeros(1, 3, size, size))
    if features.ndim != 2:
        raise CheckpointError(f"expected features (N, D) of the encoder, got {tuple(features.shape)}")
    return features.shape[1]


def fusion_settings(saved: SavedFusion | None, config: NetworkConfig) -> dict[str, Any]:
    """Return the fusion fields of a NetworkSpec: those of the saved fusion if the config asks for it, else new ones."""
    if config.streams != "both":
        return {}
    name = config.fusion or (saved.name if saved else None)
    if name is None:
        raise ConfigError(
            "streams both needs a fusion, and --init has none (scratch: takes over none of a run): give "
            "--network.fusion, one of static, dynamic, attention, scaled_attention, gated, or --network.streams scene"
        )
    if saved is not None and name == saved.name:
        heads = saved.heads
        width = saved.width
    else:
        heads = config.fusion_heads
        width = config.fused_width
    return {"fusion": name, "fusion_heads": heads, "fused_width": width}


def _read_fusion(folder: Path, requested: str | None) -> SavedFusion | None:
    """Read a run's own fusion; None if it has none.

    Args:
        folder: Folder of the run.
        requested: Fusion that the user names, and therefore allows even if it is from a package of the user's.

    Raises:
        CheckpointError: If the weights do not fit the fusion, or if it is from a package that the user does not name.
    """
    path = folder / WEIGHTS
    # The file is complete, because the encoder came from this run.
    with safetensors.safe_open(str(path), "pt") as file:
        names = [name for name in file.keys() if name.startswith(("embed.", "fusion."))]  # noqa: SIM118
        tensors = {name: file.get_tensor(name) for name in names}
        header = (file.metadata() or {}).get(CLASSIFIER_KEY)
    if not any(name.startswith("fusion.") for name in tensors):
        return None
    # `load_classifier` has checked the header of a classifier.
    if header is not None:
        spec: Any = read_info(header).network
        return SavedFusion(spec.fusion, spec.fusion_heads, spec.fused_width, tensors)
    fields = (("fusion",), ("fusion_heads",), ("decoder", "width"))
    name, heads, width = (required_field(folder, "config", "model", *field) for field in fields)
    fusion = SavedFusion(name, heads, width, tensors)
    if requested not in (None, fusion.name) and is_foreign(fusion.name):
        return None
    try:
        refuse_foreign([fusion.name] if fusion.name != requested else [])
        # config.json may claim any size, so no memory is allocated before the shapes are checked.
        with torch.device("meta"):
            draft = build_fusion(fusion.name, fusion.width, fusion.heads)
        check_shapes(draft, {key: tuple(value.shape) for key, value in _under(tensors, "fusion.").items()})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return fusion


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _freeze_unused(encoder: nn.Module, size: int) -> int:
    """Freeze parameters that the last feature map does not use, such as a pooling: DDP would wait for them.

    Returns:
        D, the number of channels of the map.
    """
    with eval_mode(encoder):
        last_map = feature_map(encoder, torch.zeros(1, 3, size, size))  # (1, D, h, w)
        last_map.sum().backward()
    for parameter in encoder.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    return last_map.shape[1]


def checkpoint_activations(encoder: Any) -> None:
    """Let the encoder recompute activations instead of storing them.

    Raises:
        ConfigError: If the encoder can't.
    """
    if not hasattr(encoder, "set_grad_checkpointing"):
        raise ConfigError(f"hardware.grad_checkpointing does not work with a {type(encoder).__name__}; turn it off")
    encoder.set_grad_checkpointing(True)
