"""Parts of the data, arms, sizes and jobs of the experiment; PLAN.md explains them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.continued.plan import DISTILLATION, Profile
from experiments.published_start.start import PATCH_PX
from uniemox.losses.config import LossWeights

TRAIN = "train"
"""Part of FI that arms are trained on; only the supervised arm reads its labels."""
CHOICE = "choice"
"""Part of FI that chooses learning rates. No network is trained on it, and no figure comes from it."""
SCORED = "scored"
"""Part of FI that no arm has seen: probes and fine-tuning are fitted and scored here."""
HELD_OUT = "held out"
"""FI's validation part: scored only."""
UNLABELLED = "unlabelled"
"""Images with captions: arms are trained on them too."""

START = "start"
L3 = "L3"
L2_L3 = "L2 + L3"
FULL = "full"
SUPERVISED = "supervised"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to continue the start."""

    losses: LossWeights | None = None
    """Weights of the pre-training losses; None: cross-entropy with the labels."""
    fusion: str | None = None
    """Name of Γ; None: without person and fusion."""


ARMS: Mapping[str, Arm] = {
    L3: Arm(losses=DISTILLATION),
    FULL: Arm(losses=LossWeights(), fusion="attention"),
    SUPERVISED: Arm(),
    L2_L3: Arm(losses=LossWeights(scene_reconstruction=0.0, person_reconstruction=0.0)),
}
"""The arms that are trained, in the order of a seed's jobs."""

CONTROL = "positive control"
CONTRASTS: Mapping[str, tuple[str, str]] = {
    CONTROL: (SUPERVISED, START),
    "claim": (FULL, START),
    "mechanism": (FULL, L3),
    "distillation": (L3, START),
    "texts": (L2_L3, L3),
}
"""Differences of two arms. Of each budget, the first is the condition of all others."""
CLAIMS = ("claim", "mechanism")
"""The two contrasts that are tested; the others are reported."""

ALL = "all labels"
TENTH = "a tenth of the labels"
TUNED = "fine-tuning"
BUDGETS = (ALL, TENTH, TUNED)
"""Outcomes with a verdict each."""
SECONDARY = ("all labels, held out", "a tenth of the labels, held out", "fine-tuning, held out")
"""The same on FI's validation part; they have no verdict."""
FINE_TUNED = (START, L3, FULL, SUPERVISED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Sizes and lengths on one kind of machine."""

    profile: Profile
    """Sizes of views and modules, batch size, length of the arms; its start is not used."""
    rates: tuple[float, ...] = (2e-5, 6e-5, 2e-4)
    """Maximum learning rates to choose from."""
    choice_epochs: float = 1
    """Length of the runs that choose, in epochs of the arm's images."""
    tuning_epochs: float = 2
    """Length of a fine-tuning."""


CPU = Study(
    profile=Profile(
        name="cpu",
        side_px=112,
        patch_px=PATCH_PX,
        decoder_width=192,
        decoder_depth=4,
        decoder_heads=6,
        batch_size=64,
        arm_epochs=3,
        warm_up_steps=200,
        seeds=5,
    )
)
GPU = replace(CPU, profile=replace(CPU.profile, name="gpu", side_px=224))
TINY = Study(
    profile=replace(
        CPU.profile,
        name="tiny",
        side_px=28,
        encoder={"embed_dim": 24, "depth": 1, "num_heads": 2},
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=2,
        batch_size=16,
        arm_epochs=1,
        warm_up_steps=2,
        seeds=2,
    ),
    rates=(2e-5, 6e-5),
    choice_epochs=1,
    tuning_epochs=1,
)
CHOICE_SEED = 100


@dataclass(frozen=True, slots=True, order=True)
class ChoiceJob:
    """A short run that tells how good a learning rate is."""

    arm: str
    lr: float

    def path(self, outcomes: Path) -> Path:
        """Return the file of its outcome."""
        return outcomes / "choice" / f"{file_name(self.arm)}.{self.lr:g}.json"


@dataclass(frozen=True, slots=True, order=True)
class Job:
    """One encoder that is trained and scored."""

    arm: str
    seed: int

    def path(self, outcomes: Path) -> Path:
        """Return the file of its outcome."""
        return outcomes / f"{file_name(self.arm)}.{self.seed}.npz"


def file_name(arm: str) -> str:
    """Return the name of an arm in the names of files.

    >>> file_name("L2 + L3")
    'L2-L3'
    """
    return arm.replace(" + ", "-")


def choice_jobs(study: Study) -> Iterator[ChoiceJob]:
    """Yield the runs that choose learning rates."""
    for arm in ARMS:
        for lr in study.rates:
            yield ChoiceJob(arm, lr)


def jobs_of(study: Study) -> Iterator[Job]:
    """Yield all jobs, complete seeds first."""
    for seed in range(study.profile.seeds):
        for arm in (START, *ARMS):
            yield Job(arm, seed)
