"""One step of pre-training: batches, teacher, forward, backward, update."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from timm.utils import unwrap_model
from torch import Tensor, nn

from uniemox.data.prompts import text_of
from uniemox.errors import ConfigError, TeacherError
from uniemox.losses.config import LossWeights
from uniemox.model.config import ModelConfig, Precision
from uniemox.model.uniemox import ModelOutput, UniEmoX
from uniemox.teacher.protocol import Teacher
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
        batches: One, or several whose gradients accumulate. Their sizes may differ, because every image counts the
            same; every process gives the same number. L2 compares with the texts of one batch at a time.
        teacher: Computes features that losses need and the batch lacks.
        max_grad_norm: L2 norm to which the gradient is clipped; None: no clipping.
        weights: Weights of the losses in this step; None: those of the model's configuration.
        extra_losses: Functions of output and batch, by name, whose scalars are added to the sum.

    Returns:
        Every loss by name, "total", the diagnostics of Υ (see `fused_diagnostics`) and "grad_norm": means over all
        images of all processes; with max_grad_norm also "clipped", 1 if this step's gradient was clipped.

    Raises:
        NonFiniteLossError: With the loss's name, before any weight changes.
        ConfigError: On all processes for batches that are empty or differ in number.
    """

    def losses_of(batch: PretrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(model, precision):
            output = model(**model_inputs(model, batch, teacher), weights=weights)
            extra = {name: loss(output, batch) for name, loss in extra_losses.items()}
        total = sum(extra.values(), start=output.total)
        return total, output.losses | extra | {"total": total} | output.diagnostics

    return train_step(model, optimizer, batches, lambda batch: len(batch.scene), losses_of, max_grad_norm)


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
        norms[f"grad_norm_{name}"] = nn.utils.get_total_norm([one for one in gradients if one is not None])
    return dict(zip(norms, torch.stack(list(norms.values())).tolist(), strict=True))


def forward(
    model: nn.Module, batch: PretrainBatch, *, teacher: Teacher | None = None, precision: Precision = "float32"
) -> ModelOutput:
    """Return the model's output for a batch, including every loss. Takes and raises the same as `pretrain_step`."""
    with autocast(model, precision):
        return model(**model_inputs(model, batch, teacher))


def autocast(model: nn.Module, precision: Precision) -> torch.autocast:
    """Return the autocast context for this precision on the model's device."""
    device = next(model.parameters()).device
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def model_inputs(model: nn.Module, batch: PretrainBatch, teacher: Teacher | None) -> dict[str, Tensor | None]:
    """Return the model's arguments for a batch: normalised views, Ω, Λ of all processes, draws of the masks."""
    config = unwrap_model(model).config
    device = next(model.parameters()).device
    batch = replace(batch, scene=to_device(batch.scene, device))  # once, for teacher and student
    scene = batch.scene
    person = batch.person if config.needs_person else None
    scene_noise = batch.scene_noise
    if person is None:
        person_noise = None
    else:
        person_noise = batch.person_noise
    image, text = teacher_features(batch, teacher, config, device)
    return {
        "scene": normalise(scene, device),
        "person": None if person is None else normalise(person, device),
        "image_features": image,
        "text_features": None if text is None else gather_rows(text),
        "scene_noise": None if scene_noise is None else to_device(scene_noise, device),
        "person_noise": None if person_noise is None else to_device(person_noise, device),
    }


def teacher_features(
    batch: PretrainBatch, teacher: Teacher | None, config: ModelConfig, device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """Return Ω and Λ of a batch, (N, C) each, from the batch or else the teacher; None if no loss needs them."""
    image = None
    text = None
    if config.needs_image_features:
        image = batch.image_features
        if image is None:
            pixels = to_device(batch.scene, device).float() / 255
            image = _required(teacher).image_features(pixels, batch.keys)
            if len(image) != len(pixels):
                raise TeacherError(
                    f"{len(pixels)} images have {len(image)} features; a stored teacher needs the images' keys"
                )
    if config.needs_text_features:
        text = batch.text_features
        if text is None and len(batch.texts) != len(batch.scene):
            raise ConfigError(f"L2 needs a text for every image: {len(batch.scene)} images, {len(batch.texts)} texts")
        if text is None:
            with torch.autocast(device.type, enabled=False):  # as stored ones: same precision for every run
                text = _required(teacher).text_features(batch.texts)
    return (
        None if image is None else to_device(image, device).float(),
        None if text is None else to_device(text, device).float(),
    )


def _required(teacher: Teacher | None) -> Teacher:
    if teacher is None:
        raise TeacherError("L2 or L3 is on, but there is neither a teacher nor features in the batch")
    return teacher


def make_batch(views: ViewBatch, *, with_emotion: bool) -> PretrainBatch:
    """Make the batch of a step.  views: from `TrainViews` with masks.  with_emotion: see `text_of`."""
    # for a batch without images
    if views.noise is None:
        noise = torch.empty(2, 0, 0)
    else:
        noise = views.noise
    return PretrainBatch(
        scene=views.scene,
        person=views.person,
        texts=[text_of(sample, with_emotion) for sample in views.samples],
        keys=[sample.key for sample in views.samples],
        scene_noise=noise[0],
        person_noise=noise[1],
    )
