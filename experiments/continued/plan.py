"""Arms, sizes and budgets of the experiment; PLAN.md explains them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniemox.losses.config import LossWeights
from uniemox.model.config import Precision

HALVES = ("A", "B")
START = "start"
L3 = "L3"
L2_L3 = "L2 + L3"
FULL = "full"
FULL_EMOTION = "full, emotion word"
SUPERVISED = "supervised"
# Smallest effect of interest, in points of recall: our choice (PLAN.md, changes of 1 December).
SMALLEST_EFFECT = 1.0
DISTILLATION = LossWeights(scene_reconstruction=0.0, person_reconstruction=0.0, contrastive_feature_alignment=0.0)
BUDGETS = ("tenth", "all", "grey")
"""Outcomes of an encoder: a tenth of the labels (primary), all labels, and a tenth with grey images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to continue the start."""

    losses: LossWeights | None = None
    """Weights of the pre-training losses; None: no pre-training."""
    fusion: str | None = None
    """Name of Γ; None: without person and fusion."""
    reads_emotion: bool = False
    """True if the texts contain the emotion word."""
    is_supervised: bool = False
    """True for cross-entropy with the labels."""


ARMS: Mapping[str, Arm] = {
    START: Arm(),
    L3: Arm(losses=DISTILLATION),
    L2_L3: Arm(losses=LossWeights(scene_reconstruction=0.0, person_reconstruction=0.0)),
    FULL: Arm(losses=LossWeights(), fusion="attention"),
    FULL_EMOTION: Arm(losses=LossWeights(), fusion="attention", reads_emotion=True),
    SUPERVISED: Arm(is_supervised=True),
}
CONTRASTS = {
    "positive control": (SUPERVISED, START),
    "claim": (FULL, START),
    "mechanism": (FULL, L3),
    "label leakage": (FULL_EMOTION, FULL),
    "further distillation": (L3, START),
    "texts": (L2_L3, L3),
}
"""Differences of two arms, by name; the first is the condition of all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Sizes of the networks and lengths of the runs on one kind of machine."""

    name: str
    side_px: int
    """Side of the views."""
    patch_px: int = 16
    """Side of the encoder's patches."""
    precision: Precision = "bfloat16"
    """Precision of training."""
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """Options of timm's ViT."""
    decoder_width: int = 192
    decoder_depth: int = 4
    decoder_heads: int = 6
    batch_size: int = 128
    start_epochs: int = 150
    more_epochs: int = 45
    """Epochs that are added to the start until they gain less than `min_gain`."""
    max_additions: int = 4
    min_gain: float = 0.5
    """Points of recall on the start's own half."""
    start_lr: float = 1e-3
    """Maximum learning rate of the start."""
    arm_epochs: int = 8
    warm_up_steps: int = 300
    """Steps in which only the modules after the encoder are trained."""
    warm_up_lr: float = 1e-3
    seeds: int = 3

    @property
    def arm_lr(self) -> float:
        """Maximum learning rate of all arms."""
        return self.start_lr / 10


CPU = Profile(name="cpu", side_px=112, encoder={"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3})
GPU = Profile(
    name="gpu",
    side_px=128,
    encoder={"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6},
    decoder_width=256,
    decoder_heads=8,
    batch_size=256,
)
TINY = Profile(
    name="tiny",
    side_px=32,
    encoder={"patch_size": 16, "embed_dim": 24, "depth": 1, "num_heads": 2},
    decoder_width=16,
    decoder_depth=1,
    decoder_heads=2,
    batch_size=16,
    start_epochs=1,
    more_epochs=1,
    max_additions=1,
    arm_epochs=1,
    warm_up_steps=2,
    seeds=1,
)


@dataclass(frozen=True, slots=True, order=True)
class Job:
    """One encoder that is trained and scored."""

    arm: str
    half: str
    """Half on which it is trained; the other one is scored."""
    seed: int

    def path(self, outcomes: Path) -> Path:
        """Return the file of its outcome."""
        name = self.arm.replace(", ", "-").replace(" + ", "-").replace(" ", "-")
        return outcomes / f"{name}.{self.half}.{self.seed}.npz"


def jobs_of(profile: Profile) -> Iterator[Job]:
    """Yield all jobs, complete seeds first. A start has no seed of its own."""
    for half in HALVES:
        yield Job(START, half, 0)
    for seed in range(profile.seeds):
        for arm in ARMS:
            for half in HALVES:
                if arm != START:
                    yield Job(arm, half, seed)
