"""One step of pre-training: batches, teacher, forward, backward, update."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from timm.utils import unwrap_model
from torch import Tensor, nn

from uniemox.data.prompts import teacher_text
from uniemox.errors import ConfigError, TeacherError
from uniemox.losses.config import LossWeights
from uniemox.model.config import ModelConfig, Precision
from uniemox.model.uniemox import ModelOutput, UniEmoX
from uniemox.teacher.protocol import Teacher
from uniemox.training.hardware import autocast
from uniemox.training.optimization import train_step
from uniemox.training.processes import gather_rows
from uniemox.views.loader import ViewBatch
from uniemox.views.patches import normalise
from uniemox.views.transfer import to_device


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainBatch:
    """N samples, ready for the model. Fields that a setting turns off may be None."""

    scene: Tensor  # (N, 3, H, W) uint8, RGB
    person: Tensor | None = None  # (N, 3, H, W) uint8, RGB
    texts: Sequence[str] = ()  # N descriptions
    keys: Sequence[str] = ()  # N names of the images, for teachers that look features up
    image_features: Tensor | None = None  # (N, C) Ω; None: computed by the teacher
    text_features: Tensor | None = None  # (N, C) Λ; None: computed by the teacher
    scene_noise: Tensor | None = None  # (N, L) draws of the masks; None: torch's generator
    person_noise: Tensor | None = None  # (N, L)


ExtraLoss = Callable[[ModelOutput, PretrainBatch], Tensor]
"""An additional loss: a function that returns a scalar, the mean over the batch's images."""


def pretrain_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[PretrainBatch],
    *,
    teacher: Teacher | None = None,
    precision: Precision = "float32",
    max_grad_norm: float | None = None,
    weights: LossWeights | None = None,
    extra_losses: Mapping[str, ExtraLoss] = {},
) -> dict[str, float]:
    """Run forward and backward over the batches of all processes, then update the weights once.

    Args:
        model: A UniEmoX, or DistributedDataParallel around it.
        optimizer: Optimizer of the model's parameters.
        batches: One, or several whose gradients accumulate. Their sizes may differ, because every image counts the
            same; every process gives the same number. L2 compares with the texts of one batch at a time.
        teacher: Computes features that losses need and the batch lacks.
        precision: Precision of matrix products and activations.
        max_grad_norm: L2 norm to which the gradient is clipped; None: no clipping.
        weights: Weights of the losses in this step; None: those of the model's configuration.
        extra_losses: Functions of output and batch, by name, whose scalars are added to the sum.

    Returns:
        Every loss by name, "total", the diagnostics of Υ (see `fused_diagnostics`) and "grad_norm": means over all
        images of all processes; with max_grad_norm also "clipped", 1 if this step's gradient was clipped.

    Raises:
        NonFiniteLossError: If a loss or the gradient is not finite; names it, before any weight changes.
        ConfigError: On all processes, if batches are empty or differ in number.
        TeacherError: If a loss needs features that neither the batch nor a teacher has.
    """

    def losses_of(batch: PretrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(next(model.parameters()).device, precision):
            output = model(**model_inputs(model, batch, teacher), weights=weights)
            extra = {name: loss(output, batch) for name, loss in extra_losses.items()}
        total = sum(extra.values(), start=output.total)
        return total, output.losses | extra | {"total": total} | output.diagnostics

    def size_of(batch: PretrainBatch) -> int:
        return len(batch.scene)

    return train_step(model, optimizer, batches, size_of, losses_of, max_grad_norm)


def loss_gradient_norms(
    model: UniEmoX,
    batch: PretrainBatch,
    teacher: Teacher | None = None,
    precision: Precision = "float32",
    weights: LossWeights | None = None,
) -> dict[str, float]:
    """Measure the influence of each loss on the encoder: L2 norm of the gradient of each weighted loss there.

    Costs one forward pass and one backward pass per loss; changes neither weights nor gradients. Takes and raises the
    same as `pretrain_step`; the norms are of this process's batch.

    Returns:
        "grad_norm_NAME" by loss name.
    """
    output = forward(model, batch, teacher=teacher, precision=precision)
    parameters = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    norms = {}
    for name, loss in output.losses.items():
        weighted = getattr(weights or model.config.losses, name) * loss
        gradients = torch.autograd.grad(weighted, parameters, retain_graph=True, allow_unused=True)
        used = [gradient for gradient in gradients if gradient is not None]
        norms[f"grad_norm_{name}"] = nn.utils.get_total_norm(used)
    # One transfer from the device instead of one per loss.
    return dict(zip(norms, torch.stack(list(norms.values())).tolist(), strict=True))


def forward(
    model: nn.Module, batch: PretrainBatch, *, teacher: Teacher | None = None, precision: Precision = "float32"
) -> ModelOutput:
    """Return the model's output for a batch, including every loss. Takes and raises the same as `pretrain_step`."""
    with autocast(next(model.parameters()).device, precision):
        return model(**model_inputs(model, batch, teacher))


def model_inputs(model: nn.Module, batch: PretrainBatch, teacher: Teacher | None) -> dict[str, Tensor | None]:
    """Return the model's arguments for a batch: normalised views, Ω, Λ of all processes, draws of the masks."""
    config = unwrap_model(model).config
    device = next(model.parameters()).device
    # Teacher and student share one copy of the scene on the device.
    batch = replace(batch, scene=to_device(batch.scene, device))
    person = batch.person if config.needs_person else None
    person_noise = None if person is None else batch.person_noise
    image_features, text_features = teacher_features(batch, teacher, config, device)
    return {
        "scene": normalise(batch.scene, device),
        "person": None if person is None else normalise(person, device),
        "image_features": image_features,
        "text_features": None if text_features is None else gather_rows(text_features),
        "scene_noise": _moved(batch.scene_noise, device),
        "person_noise": _moved(person_noise, device),
    }


def _moved(x: Tensor | None, device: torch.device) -> Tensor | None:
    """Return a tensor on the device; None for None."""
    return None if x is None else to_device(x, device)


def teacher_features(
    batch: PretrainBatch, teacher: Teacher | None, config: ModelConfig, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return Ω and Λ of a batch, (N, C) each, from the batch or else the teacher; None if no loss needs them."""
    image_features = None
    text_features = None
    if config.needs_image_features:
        image_features = to_device(_image_features(batch, teacher, device), device).float()
    if config.needs_text_features:
        text_features = to_device(_text_features(batch, teacher, device), device).float()
    return image_features, text_features


def _image_features(batch: PretrainBatch, teacher: Teacher | None, device: torch.device) -> Tensor:
    """Return Ω, (N, C), from the batch or else the teacher."""
    if batch.image_features is not None:
        return batch.image_features
    pixels = to_device(batch.scene, device).float() / 255
    features = _required(teacher).image_features(pixels, batch.keys)
    if len(features) != len(pixels):
        raise TeacherError(
            f"{len(pixels)} images have {len(features)} features; a stored teacher needs the images' keys"
        )
    return features


def _text_features(batch: PretrainBatch, teacher: Teacher | None, device: torch.device) -> Tensor:
    """Return Λ, (N, C), from the batch or else the teacher."""
    if batch.text_features is not None:
        return batch.text_features
    if len(batch.texts) != len(batch.scene):
        raise ConfigError(f"L2 needs a text for every image: {len(batch.scene)} images, {len(batch.texts)} texts")
    # Stored features are float32, so every run's are.
    with torch.autocast(device.type, enabled=False):
        return _required(teacher).text_features(batch.texts)


def _required(teacher: Teacher | None) -> Teacher:
    if teacher is None:
        raise TeacherError("L2 or L3 is on, but there is neither a teacher nor features in the batch")
    return teacher


def make_batch(views: ViewBatch, *, with_emotion: bool) -> PretrainBatch:
    """Make the batch of a step.

    Args:
        views: Views from `TrainViews` with masks.
        with_emotion: Append the emotion to texts, see `teacher_text`.
    """
    # Only a batch without images has no draws.
    noise = torch.empty(2, 0, 0) if views.noise is None else views.noise
    return PretrainBatch(
        scene=views.scene,
        person=views.person,
        texts=[teacher_text(sample, with_emotion) for sample in views.samples],
        keys=[sample.key for sample in views.samples],
        scene_noise=noise[0],
        person_noise=noise[1],
    )
