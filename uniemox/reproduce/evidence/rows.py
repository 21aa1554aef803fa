"""The rows of the experiment: what is pre-trained how, at what cost, and how much is run."""

from collections.abc import Mapping
from dataclasses import dataclass

SIDE_PX = 112
NO_RECONSTRUCTION = ("--model.losses.scene-reconstruction", "0", "--model.losses.person-reconstruction", "0")
NO_PERSON = ("--model.losses.person-reconstruction", "0", "--model.fusion", "none")
NO_FUSION = ("--model.fusion", "none")
NO_TEXT = ("--model.losses.contrastive-feature-alignment", "0")
NO_TEACHER = (*NO_TEXT, "--model.losses.semantic-visual-alignment", "0")
SHAPE = {"patch_size": 14, "embed_dim": 192, "depth": 6, "num_heads": 6}  # 2.7 million parameters
NETWORK = (
    *(word for name, value in SHAPE.items() for word in (f"--encoder.{name.replace('_', '-')}", str(value))),
    *("--model.decoder.width", "128"),
)
PRETRAINING = (
    *("--view.size", str(SIDE_PX), "--view.min-area", "0.3", "--batch-size", "64", "--teacher.view", "whole"),
    *("--teacher.no-with-emotion", "--optimizer.base-lr", "4e-3", "--save.no-keep-finished"),
)
TUNING = (
    *("--network.streams", "scene", "--network.pool", "mean", "--view.size", str(SIDE_PX), "--view.min-area", "0.3"),
    *("--view.crop-fraction", "1.0", "--class-weighting", "balanced", "--select", "last", "--no-probe-first"),
    *("--head-lr-scale", "1", "--schedule.warmup-epochs", "1", "--optimizer.base-lr", "2e-3"),
    "--save.no-keep-finished",
)
TUNING_COST = 3.5  # core seconds of an image that is fine-tuned on, over plain distillation's, measured likewise
SHARES, TUNED_SHARES = (0.01, 0.05, 0.1, 1.0), (0.1, 1.0)
START, PLAIN, SCRATCH = "the start alone", "plain distillation (L3)", "random weights"
ALL = "all of it (L1, L2, L3, Γ2)"
TEACHER, COLOURS = "the teacher's features (ceiling)", "colour histogram"
SHORT = "plain distillation, on as few images as all of it"
PRIMARY = (ALL, PLAIN)
TUNED_WHOLLY = (START, PLAIN, ALL, SCRATCH)  # with all labels too


@dataclass(frozen=True, slots=True)
class PretrainingRow:
    """A pre-training that continues from the start."""

    changes: tuple[str, ...]
    """Options of `uniemox pretrain`."""
    cost: float
    """Core seconds of an image over those of plain distillation, measured; see docs/experiments.md."""
    share: float = 1.0
    """Share of the compute that the others get, above 0 and at most 1."""

    def epochs(self, of_plain: float) -> float:
        """How many it gets, of_plain being those of plain distillation."""
        return self.share * of_plain / self.cost


ALL_COST = 3.33
DISTILLATION = (*NO_RECONSTRUCTION, *NO_TEXT, *NO_FUSION)
VARIANTS: Mapping[str, PretrainingRow] = {
    PLAIN: PretrainingRow(DISTILLATION, 1.0),
    "L1 and L3": PretrainingRow((*NO_TEXT, *NO_FUSION), 3.36),
    "L2 and L3": PretrainingRow((*NO_RECONSTRUCTION, *NO_FUSION), 1.43),
    ALL: PretrainingRow(("--model.fusion", "attention"), ALL_COST),
    "all without fusion": PretrainingRow(NO_FUSION, 3.45),
    "all without persons": PretrainingRow(NO_PERSON, 2.10),
    "reconstruction of the scene alone (MAE)": PretrainingRow((*NO_PERSON, *NO_TEACHER), 2.07),
    SHORT: PretrainingRow(DISTILLATION, 1.0, share=1 / ALL_COST),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is run."""

    hold_out: int = 2000
    """Images of train that are scored once, at the end."""
    fraction: float = 1.0
    """Of train that is used at all."""
    teacher_epochs: int = 16
    start_epochs: float = 12.0
    """Of plain distillation from random weights, from which all continue."""
    epochs: float = 12.0
    """Of plain distillation from that start; others get as many core seconds."""
    seeds: int = 2
    """Seeds of pre-training of all other rows."""
    primary_seeds: int = 3
    """Seeds of pre-training of the two rows whose difference is the outcome, and of the row that explains it."""
    label_seeds: int = 3
    fusion_seeds: int = 10
    tuning_epochs: tuple[int, ...] = (15, 3)
    """With 10 % and with all labels."""
    tuning_seeds: int = 1


FULL = Budget()
QUICK = Budget(
    hold_out=300,
    fraction=0.1,
    teacher_epochs=2,
    start_epochs=2,
    epochs=2,
    seeds=1,
    primary_seeds=1,
    label_seeds=1,
    fusion_seeds=1,
    tuning_epochs=(4, 2),
)
