"""Trains the start and the arms; a stopped run continues from its last saved step."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.continued.plan import ARMS, DISTILLATION, Arm, Job, Profile
from experiments.continued.probe import cross_fitted_recall, features_of
from experiments.continued.tensors import Batch, Images, batches
from uniemox.losses.config import LossWeights
from uniemox.model.config import DecoderConfig, ModelConfig, Precision
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.step import pretrain_step
from uniemox.training.hardware import autocast, ready_to_train
from uniemox.training.optimization import build_optimizer, train_step
from uniemox.views.patches import normalise

# Steps between saved states of an unfinished run.
SAVE_EVERY = 25
MAX_GRAD_NORM = 1.0
Step = Callable[[Batch], dict[str, float]]


class Supervised(nn.Module):
    """Encoder with a linear classifier on its CLS token."""

    def __init__(self, encoder: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, E) for normalised pixels (N, 3, S, S)."""
        return self.head(self.encoder(pixels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Length and learning rate of a run: linear warm-up, then a cosine to 0."""

    steps: int
    warm_up: int
    """Steps of the warm-up."""
    lr: float
    """Maximum learning rate."""
    seed: int
    """Random seed of order, crops and masks."""
    reads_emotion: bool = False


@dataclass(frozen=True, slots=True)
class Laboratory:
    """Images, sizes and folders that all runs of the experiment share."""

    profile: Profile
    images: Images
    """All images."""
    half: Tensor
    """0 or 1 for each image, on the CPU."""
    root: Path
    """Folder of unfinished and finished weights."""

    @property
    def device(self) -> torch.device:
        """Device of images and networks."""
        return self.images.pixels.device

    def part(self, half: str, *, unseen: bool = False) -> Images:
        """Return the images of a half, or those of the other one."""
        is_first = (half == "A") != unseen
        number = 0 if is_first else 1
        return self.images[(self.half == number).nonzero()[:, 0].to(self.device)]


def new_encoder(profile: Profile) -> nn.Module:
    """Return the encoder with random weights."""
    return build_encoder("vit_tiny_patch16_224", profile.side_px, **profile.encoder)


def pretraining_model(laboratory: Laboratory, encoder: nn.Module, losses: LossWeights, fusion: str | None) -> UniEmoX:
    """Return a pre-training model around an encoder."""
    profile = laboratory.profile
    decoder = DecoderConfig(width=profile.decoder_width, depth=profile.decoder_depth, heads=profile.decoder_heads)
    width = laboratory.images.image_features.shape[1]
    config = ModelConfig(losses=losses, fusion=fusion, decoder=decoder, teacher_width=width)
    return UniEmoX(encoder, config).train()


def train(laboratory: Laboratory, model: nn.Module, images: Images, path: Path, course: Course) -> None:
    """Train the parameters that require gradients, and save the weights.

    A stopped call resumes from its last saved step; a finished one only loads the weights.

    Args:
        laboratory: Images, sizes and folders.
        model: Model to train.
        images: Training images.
        path: File of the finished weights.
        course: Length and learning rate.
    """
    if path.exists():
        model.load_state_dict(torch.load(path, map_location=laboratory.device, weights_only=True))
        return
    partial = path.with_suffix(".partial")
    optimizer = build_optimizer(model, lr=course.lr)
    done = 0
    if partial.exists():
        state = torch.load(partial, map_location=laboratory.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    step = step_of(model, optimizer, laboratory.profile.precision)
    loader = batches(
        images,
        laboratory.profile,
        steps=course.steps,
        seed=course.seed,
        done=done,
        with_persons=isinstance(model, UniEmoX) and model.config.fusion is not None,
        reads_emotion=course.reads_emotion,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    for number, batch in enumerate(loader, start=done):
        lr = course.lr * scheduled(number, course.steps, course.warm_up)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        step(batch)
        if (number + 1) % SAVE_EVERY == 0 and number + 1 < course.steps:
            save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": number + 1}, partial)
    save(model.state_dict(), path)
    partial.unlink(missing_ok=True)


def save(state: object, path: Path) -> None:
    """Write a state completely or not at all."""
    partial = path.with_name(path.name + ".tmp")
    torch.save(state, partial)
    partial.replace(path)


def scheduled(step: int, steps: int, warm_up: int) -> float:
    """Return the factor of the learning rate: linear warm-up, then a cosine to 0.

    >>> [round(scheduled(step, 6, 2), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    if step < warm_up:
        return (step + 1) / warm_up
    return (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision) -> Step:
    """Return the function that takes one step."""
    if isinstance(model, UniEmoX):
        return lambda batch: pretrain_step(
            model, optimizer, [batch.views], precision=precision, max_grad_norm=MAX_GRAD_NORM
        )
    device = next(model.parameters()).device

    def losses_of(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(device, precision):
            logits = model(normalise(batch.views.scene, device))
        loss = nn.functional.cross_entropy(logits.float(), batch.labels)
        return loss, {"loss": loss}

    return lambda batch: train_step(model, optimizer, [batch], lambda part: len(part.labels), losses_of, MAX_GRAD_NORM)


def steps_of(laboratory: Laboratory, images: Images, epochs: float) -> int:
    """Return the number of steps of some epochs."""
    return max(1, round(epochs * max(1, len(images) // laboratory.profile.batch_size)))


def train_start(laboratory: Laboratory, half: str) -> tuple[nn.Module, list[float]]:
    """Distil the start of a half until more epochs gain too little.

    Returns:
        The encoder, and its recall on its own half after each stage, in percent.
    """
    profile = laboratory.profile
    images = laboratory.part(half)
    torch.manual_seed(0)
    model = pretraining_model(laboratory, new_encoder(profile), DISTILLATION, None)
    ready_to_train(model, laboratory.device)
    recalls: list[float] = []
    for stage in range(profile.max_additions + 1):
        epochs = profile.start_epochs if stage == 0 else profile.more_epochs
        train(
            laboratory,
            model,
            images,
            laboratory.root / f"start.{half}.{stage}.pt",
            Course(
                steps=steps_of(laboratory, images, epochs),
                warm_up=steps_of(laboratory, images, 1),
                lr=profile.start_lr,
                seed=100 + stage,
            ),
        )
        features = features_of(model.encoder, images, profile.side_px)
        recalls.append(cross_fitted_recall(features, images.labels.cpu().numpy()))
        if stage > 0 and recalls[-1] - recalls[-2] < profile.min_gain:
            break
    return model.encoder, recalls


def train_arm(laboratory: Laboratory, start: nn.Module, job: Job) -> nn.Module:
    """Continue a start in place, and return the encoder."""
    arm: Arm = ARMS[job.arm]
    if arm.losses is None and not arm.is_supervised:
        return start
    profile = laboratory.profile
    images = laboratory.part(job.half)
    torch.manual_seed(job.seed)
    model: nn.Module
    if arm.losses is not None:
        model = pretraining_model(laboratory, start, arm.losses, arm.fusion)
    else:
        classes = int(laboratory.images.labels.max()) + 1
        model = Supervised(start, profile.encoder["embed_dim"], classes)
    ready_to_train(model, laboratory.device)
    name = job.path(Path()).stem
    parameters = [parameter for parameter in start.parameters() if parameter.requires_grad]
    # First only the new modules after the encoder are trained, so that their random weights don't disturb it.
    for parameter in parameters:
        parameter.requires_grad_(False)
    course = Course(steps=0, warm_up=0, lr=0.0, seed=job.seed, reads_emotion=arm.reads_emotion)
    after_encoder = replace(
        course, steps=profile.warm_up_steps, warm_up=profile.warm_up_steps // 10, lr=profile.warm_up_lr
    )
    train(laboratory, model, images, laboratory.root / f"{name}.warm.pt", after_encoder)
    for parameter in parameters:
        parameter.requires_grad_(True)
    complete = replace(
        course,
        steps=steps_of(laboratory, images, profile.arm_epochs),
        warm_up=steps_of(laboratory, images, 1),
        lr=profile.arm_lr,
    )
    train(laboratory, model, images, laboratory.root / f"{name}.pt", complete)
    return start


def remaining(jobs: Iterable[Job], outcomes: Path) -> list[Job]:
    """Return the jobs without a stored outcome."""
    return [job for job in jobs if not job.path(outcomes).exists()]
