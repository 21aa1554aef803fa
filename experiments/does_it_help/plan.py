"""Runs of the experiment: rows, searched settings, budgets and seeds. PLAN.md explains them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SIDE_PX = 112
# Encoder with 2.7 million parameters.
SHAPE = {"patch_size": 14, "embed_dim": 192, "depth": 6, "num_heads": 6}
BATCH = 64
# Number of images in the small version.
FEW = 1000
# Far above a usual gradient norm: only a guard against spikes.
CLIP_NORM = 10.0
LRS = (4e-3, 1e-3, 2.5e-4)
RECONSTRUCTION_WEIGHTS = (1.0, 0.1)
DISTILLATION = "distillation"
DISTILLATION_FEW_LOOKS = "distillation, equal images"
FULL = "full"
UNTRAINED = "untrained"
HISTOGRAM = "histogram"
TEACHER = "teacher"
LABELS = "labels.npz"
TUNED_LABELS = "labels_finetune.npz"
# Images of train that fine-tuning does not read and is scored on.
HELD_OUT = 2000
# Epochs of fine-tuning by the share of the labels.
TUNING_EPOCHS = {0.1: 20, 1.0: 4}
# Learning rates of fine-tuning, for a batch of 256 images.
TUNING_LRS = (5e-4, 1.25e-4)
NO_L1 = ("--model.losses.scene-reconstruction", "0", "--model.losses.person-reconstruction", "0")
NO_L2 = ("--model.losses.contrastive-feature-alignment", "0")
NO_L3 = ("--model.losses.semantic-visual-alignment", "0")
NO_FUSION = ("--model.fusion", "none")
NO_PERSON = ("--model.losses.person-reconstruction", "0", *NO_FUSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One form of pre-training."""

    changes: tuple[str, ...] = ()
    """Options of `uniemox pretrain` in addition to the searched settings."""
    cost: float = 1.0
    """Core time per image, relative to distillation alone."""
    reconstructs: bool = True
    """True if it has L1, whose weight the grid then searches."""
    fusions: tuple[str, ...] = ("none",)
    """Fusions that the grid searches."""
    recipe_of: str = ""
    """Row whose settings it uses; empty: its own are searched."""
    seeds: int = 2
    equals_images: bool = False
    """True if it gets as many images as the full objective, instead of the compute of distillation."""


ROWS: Mapping[str, Row] = {
    DISTILLATION: Row(changes=(*NO_L1, *NO_L2), reconstructs=False, seeds=3),
    DISTILLATION_FEW_LOOKS: Row(
        changes=(*NO_L1, *NO_L2), reconstructs=False, recipe_of=DISTILLATION, seeds=3, equals_images=True
    ),
    FULL: Row(cost=3.33, fusions=("attention", "scaled_attention"), seeds=3),
    "L2 + L3": Row(changes=NO_L1, cost=1.43, reconstructs=False),
    "L1 + L3": Row(changes=NO_L2, cost=3.36),
    "full without fusion": Row(changes=NO_FUSION, cost=3.45, recipe_of=FULL),
    "full without persons": Row(changes=NO_PERSON, cost=2.10, recipe_of=FULL),
    "full, second crop": Row(changes=("--view.person", "second_crop"), cost=3.33, recipe_of=FULL),
    "MAE": Row(changes=(*NO_L2, *NO_L3, *NO_PERSON), cost=2.07, reconstructs=False),
}
CONTRAST = (DISTILLATION, DISTILLATION_FEW_LOOKS, FULL)
"""Rows of the primary contrasts; they run first."""
TUNED = (*CONTRAST, UNTRAINED, HISTOGRAM)
"""Rows that are fine-tuned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Epochs of distillation alone; every other row gets the same core time."""

    main: float = 15.0
    grid: float = 2.5
    few: float = 75.0
    """Epochs on `FEW` images."""
    doses: tuple[float, ...] = (1.0, 3.6)
    """Epochs of the positive control, besides 0 and `main`."""
    long_dose: float = 45.0
    """Epochs of the positive control's last run."""
    seeds: int = 3
    """Maximum number of seeds."""


FULL_BUDGET = Budget()
QUICK = Budget(main=2.0, grid=0.5, few=4.0, doses=(0.5,), long_dose=4.0, seeds=1)


@dataclass(frozen=True, slots=True, order=True)
class Recipe:
    """Settings that the grid chooses for a row."""

    lr: float
    """Learning rate for 256 images; a run uses a quarter of it."""
    reconstruction: float
    """Weight of L1, for both streams."""
    fusion: str

    @property
    def name(self) -> str:
        """Name for folders and tables."""
        return f"lr {self.lr:g} L1 x {self.reconstruction:g} {self.fusion}"

    def words(self, row: Row) -> tuple[str, ...]:
        """Return options of `uniemox pretrain`; the row's options follow and take precedence."""
        weight = f"{self.reconstruction:g}"
        losses = ("--model.losses.scene-reconstruction", weight, "--model.losses.person-reconstruction", weight)
        options = {"--optimizer.base-lr": (f"{self.lr:g}",), "--model.fusion": (self.fusion,)}
        options |= {losses[0]: (losses[1],), losses[2]: (losses[3],)}
        changes = iter(row.changes)
        options |= {name: (next(changes),) for name in changes}
        return tuple(word for name, values in options.items() for word in (name, *values))


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings of a fine-tuning run."""

    fraction: float
    """Share of each class of the images for fine-tuning."""
    lr: float
    """Maximum learning rate for 256 images."""
    seed: int

    def path(self, row: str) -> Path:
        """Return the path of its outcome."""
        return outcome_path("finetune", row, f"{100 * self.fraction:g} lr {self.lr:g} {self.seed}")


@dataclass(frozen=True, slots=True)
class Job:
    """A command and the file that it writes last."""

    name: str
    command: tuple[str, ...]
    """Words after `python -m`, or for a probe after `python`."""
    outcome: Path | None = None
    """Stored outcome of a probe. If it exists, neither the probe nor its training runs again."""
    prints: Path | None = None
    """File for standard output; None: its log."""

    @property
    def is_stored(self) -> bool:
        """True if its outcome is stored."""
        return self.outcome is not None and self.outcome.exists()


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All paths, and the budget."""

    root: Path
    """Folder of the runs."""
    outcomes: Path
    """Folder of the stored outcomes, which a later session or another machine can continue."""
    shards: str
    """KIND:PATH of all images, with people, texts, and the splits train and val."""
    few: Path
    """Splits whose test is `FEW` images of train, for the small version."""
    teacher: Path
    """Stored features of all images and texts."""
    budget: Budget = FULL_BUDGET

    def grid(self, rows: Collection[str] = ROWS) -> Iterator[Job]:
        """Yield short runs of these rows' settings, each with its score on the validation part."""
        for name in rows:
            row = ROWS[name]
            for recipe in () if row.recipe_of else recipes_of(row):
                path = outcome_path("grid", name, recipe.name)
                yield from self._trained(path, row, recipe, self.budget.grid / row.cost, seed=0)

    def control(self, recipe: Recipe) -> Iterator[Job]:
        """Yield distillation alone for increasing times, and its initial network."""
        yield self._probe(outcome_path("control", "0"), UNTRAINED)
        for epochs in (*self.budget.doses, self.budget.long_dose):
            path = outcome_path("control", f"{epochs:g}")
            yield from self._trained(path, ROWS[DISTILLATION], recipe, epochs, seed=0)

    def main(self, recipes: Mapping[str, Recipe], rows: Collection[str] = ROWS) -> Iterator[Job]:
        """Yield rows with their seeds, on all images.

        Args:
            recipes: Settings by row, of these rows at least.
            rows: Rows to yield.
        """
        yield from self._rows("main", recipes, rows, self.budget.main)

    def small(self, recipes: Mapping[str, Recipe]) -> Iterator[Job]:
        """Yield the contrasts on few images, with many epochs."""
        yield from self._rows("few", recipes, CONTRAST, self.budget.few)

    def tuned(self, tunings: Mapping[str, Collection[Tuning]]) -> Iterator[tuple[str, Job]]:
        """Yield the row and the job of every fine-tuning run. The pre-trained encoders are those of the main table."""
        for name, settings in tunings.items():
            for tuning in settings:
                run = self.root / outcome_path("main", name, tuning.seed).with_suffix("")
                out = self.outcomes / tuning.path(name)
                options = [
                    "-m",
                    "experiments.does_it_help.finetuning",
                    "--init",
                    str(run if name in CONTRAST else name),
                ]
                options += ["--data", self.shards, "--out", str(out), "--labels", str(self.outcomes / TUNED_LABELS)]
                options += ["--fraction", f"{tuning.fraction:g}", "--lr", f"{tuning.lr:g}", "--seed", str(tuning.seed)]
                yield name, Job(f"finetune {tuning.path(name).with_suffix('')}", tuple(options), out)

    def baselines(self) -> Iterator[Job]:
        """Yield the trivial baseline and the ceiling."""
        yield self._probe(outcome_path("baseline", HISTOGRAM), HISTOGRAM)
        yield self._probe(outcome_path("baseline", TEACHER), f"stored:{self.teacher}")

    def _rows(self, stage: str, recipes: Mapping[str, Recipe], rows: Collection[str], epochs: float) -> Iterator[Job]:
        for seed in range(self.budget.seeds):
            for name in rows:
                row = ROWS[name]
                if seed < row.seeds:
                    path = outcome_path(stage, name, seed)
                    recipe = recipes[row.recipe_of or name]
                    yield from self._trained(path, row, recipe, _epochs(row, epochs), seed=seed, few=stage == "few")

    def _trained(
        self, path: Path, row: Row, recipe: Recipe, epochs: float, *, seed: int, few: bool = False
    ) -> Iterator[Job]:
        """Yield pre-training and its probe."""
        run = self.root / path.with_suffix("")
        words = ["uniemox", "pretrain", "--preset", "demo", "--data", self.shards]
        words += ["--splits", str(self.few), "--split", "test"] if few else ["--split", "train"]
        words += ["--out", str(run), "--resume", "--seed", str(seed)]
        words += [word for key, value in SHAPE.items() for word in (f"--encoder.{key.replace('_', '-')}", str(value))]
        words += ["--model.decoder.width", "128", "--view.size", str(SIDE_PX), "--view.min-area", "0.3"]
        words += ["--batch-size", str(BATCH), "--teacher.view", "whole", "--teacher.no-with-emotion"]
        words += ["--teacher.source", f"stored:{self.teacher}", "--optimizer.max-grad-norm", f"{CLIP_NORM:g}"]
        words += ["--schedule.epochs", f"{epochs:.4g}", "--schedule.warmup-epochs", f"{_warmup(epochs, few):.4g}"]
        words += ["--save.every-steps", "1000", "--save.no-keep-finished", "--diagnose-every", "200"]
        words += recipe.words(row)
        yield Job(f"train {path.with_suffix('')}", tuple(words))
        yield self._probe(path, str(run))

    def _probe(self, path: Path, init: str) -> Job:
        out = self.outcomes / path
        words = ["-m", "experiments.does_it_help.probe", "--init", init, "--data", self.shards]
        words += ["--teacher", str(self.teacher), "--out", str(out), "--labels", str(self.outcomes / LABELS)]
        if path.parts[0] == "grid":
            words += ["--validation-only"]
        return Job(f"probe {path.with_suffix('')}", tuple(words), out)


def outcome_path(stage: str, row: str, suffix: str | int = "") -> Path:
    """Return the path of an outcome in its folder, without blanks and commas, because --init splits at commas.

    >>> str(outcome_path("main", "distillation, equal images", 0))
    'main/distillation-equal-images/0.npz'
    """
    words = "/".join(str(part) for part in (stage, row, suffix) if part != "")
    return Path(words.replace(", ", "-").replace(" + ", "-").replace(" ", "-") + ".npz")


def recipes_of(row: Row) -> list[Recipe]:
    """Return the grid's settings: all rates and weights with the paper's fusion, the middle rate with others."""
    weights = RECONSTRUCTION_WEIGHTS if row.reconstructs else (1.0,)
    first, *others = row.fusions
    recipes = [Recipe(lr, weight, first) for lr in LRS for weight in weights]
    return recipes + [Recipe(LRS[1], weight, fusion) for fusion in others for weight in weights]


def _epochs(row: Row, of_distillation: float) -> float:
    return of_distillation / (ROWS[FULL].cost if row.equals_images else row.cost)


def _warmup(epochs: float, few: bool) -> float:
    """Return epochs of warm-up: the same number of steps in every row, about one epoch of all images."""
    return min(10.0 if few else 1.0, epochs / 3)
