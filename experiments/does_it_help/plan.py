"""The runs: rows, settings that are searched, budgets and seeds. PLAN.md explains them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SIDE_PX = 112
SHAPE = {"patch_size": 14, "embed_dim": 192, "depth": 6, "num_heads": 6}  # 2.7 million parameters
BATCH = 64
FEW = 1000  # images of the small version
CLIP_NORM = 10.0  # far above a usual gradient norm: a guard against spikes that shapes no row
LRS, RECONSTRUCTION_WEIGHTS = (4e-3, 1e-3, 2.5e-4), (1.0, 0.1)
DISTILLATION, DISTILLATION_FEW_LOOKS, FULL = "distillation", "distillation, equal images", "full"
UNTRAINED, HISTOGRAM, TEACHER = "untrained", "colour histogram", "teacher"
NO_L1 = ("--model.losses.scene-reconstruction", "0", "--model.losses.person-reconstruction", "0")
NO_L2 = ("--model.losses.contrastive-feature-alignment", "0")
NO_L3 = ("--model.losses.semantic-visual-alignment", "0")
NO_FUSION = ("--model.fusion", "none")
NO_PERSON = ("--model.losses.person-reconstruction", "0", *NO_FUSION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to pre-train."""

    changes: tuple[str, ...] = ()
    """Options of `uniemox pretrain` that the recipe does not set."""
    cost: float = 1.0
    """Core time per image, relative to distillation alone."""
    reconstructs: bool = True
    """Whether it has L1, whose weight the grid then searches."""
    fusions: tuple[str, ...] = ("none",)
    """Fusions that the grid searches."""
    recipe_of: str = ""
    """The row whose recipe it takes; empty: its own is searched."""
    seeds: int = 2
    equals_images: bool = False
    """Whether it gets as many images as the full objective, instead of as much compute as distillation."""


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
SMALL_ROWS = (DISTILLATION, DISTILLATION_FEW_LOOKS, FULL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Epochs of distillation alone; every other row gets the same core time."""

    main: float = 30.0
    """17 minutes on one of two busy hyperthreads of an AMD EPYC (9 core minutes on an idle Zen 5)."""
    grid: float = 5.0
    few: float = 150.0
    """On `FEW` images."""
    doses: tuple[float, ...] = (1.0, 3.6, 12.0)
    """Of the positive control, besides 0 and `main`."""
    seeds: int = 3
    """Largest number of seeds."""


FULL_BUDGET = Budget()
QUICK = Budget(main=2.0, grid=0.5, few=4.0, doses=(0.5,), seeds=1)


@dataclass(frozen=True, slots=True, order=True)
class Recipe:
    """What the grid chooses for a row."""

    lr: float
    """For 256 images; the rate of a run is a quarter of it."""
    reconstruction: float
    """Weight of L1, both streams."""
    fusion: str

    @property
    def name(self) -> str:
        """For folders and tables."""
        return f"lr {self.lr:g} L1 x {self.reconstruction:g} {self.fusion}"

    def words(self, row: Row) -> tuple[str, ...]:
        """Options of `uniemox pretrain`; those of the row come after and win."""
        weight = f"{self.reconstruction:g}"
        losses = ("--model.losses.scene-reconstruction", weight, "--model.losses.person-reconstruction", weight)
        options = {"--optimizer.base-lr": (f"{self.lr:g}",), "--model.fusion": (self.fusion,)}
        options |= {losses[0]: (losses[1],), losses[2]: (losses[3],)}
        changes = iter(row.changes)
        options |= {name: (next(changes),) for name in changes}
        return tuple(word for name, values in options.items() for word in (name, *values))


@dataclass(frozen=True, slots=True)
class Job:
    """One command and the file that it writes last."""

    name: str
    command: tuple[str, ...]
    """What follows `python -m`, or of a probe `python`."""
    makes: Path = Path()
    prints: Path | None = None
    """File for its standard output; None: its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Where everything is, and how much is run."""

    root: Path
    shards: str
    """KIND:PATH of all images, with people, texts, and the splits train and val."""
    few: Path
    """Splits in which test is `FEW` images of train, those of the small version."""
    teacher: Path
    """Stored features of all images and texts."""
    budget: Budget = FULL_BUDGET

    def grid(self) -> Iterator[tuple[str, Recipe, list[Job]]]:
        """Short runs of every row and setting, each with its score on the validation part."""
        for name, row in ROWS.items():
            if row.recipe_of:
                continue
            for recipe in recipes_of(row):
                jobs = self._trained(f"grid/{name}/{recipe.name}", row, recipe, self.budget.grid / row.cost, seed=0)
                yield name, recipe, jobs

    def control(self, recipe: Recipe) -> Iterator[tuple[float, list[Job]]]:
        """Distillation alone for longer and longer; the longest is the main row."""
        yield 0.0, [self._probe("control/0", f"untrained:{self._folder(f'main/{DISTILLATION}/seed 0')}")]
        for epochs in self.budget.doses:
            yield epochs, self._trained(f"control/{epochs:g}", ROWS[DISTILLATION], recipe, epochs, seed=0)

    def main(self, recipes: Mapping[str, Recipe]) -> Iterator[tuple[str, int, list[Job]]]:
        """Every row with its seeds, on all images; the contrast first."""
        for seed in range(self.budget.seeds):
            for name, row in sorted(ROWS.items(), key=lambda item: -item[1].seeds):
                if seed < row.seeds:
                    recipe, epochs = recipes[row.recipe_of or name], _epochs(row, self.budget.main)
                    yield name, seed, self._trained(f"main/{name}/seed {seed}", row, recipe, epochs, seed=seed)

    def small(self, recipes: Mapping[str, Recipe]) -> Iterator[tuple[str, int, list[Job]]]:
        """The contrasts on few images, each of which is looked at hundreds of times."""
        for seed in range(self.budget.seeds):
            for name in SMALL_ROWS:
                row = ROWS[name]
                recipe, epochs = recipes[row.recipe_of or name], _epochs(row, self.budget.few)
                jobs = self._trained(f"few/{name}/seed {seed}", row, recipe, epochs, seed=seed, few=True)
                yield name, seed, jobs

    def baselines(self) -> Iterator[tuple[str, list[Job]]]:
        """What every table is compared with: the least and the most that a probe can reach here."""
        yield HISTOGRAM, [self._probe(f"baseline/{HISTOGRAM}", "histogram")]
        yield TEACHER, [self._probe(f"baseline/{TEACHER}", f"stored:{self.teacher}")]

    def _trained(
        self, name: str, row: Row, recipe: Recipe, epochs: float, *, seed: int, few: bool = False
    ) -> list[Job]:
        """Pre-training and its probe."""
        run = self._folder(name)
        words = ["uniemox", "pretrain", "--preset", "demo", "--data", self.shards]
        words += ["--splits", str(self.few), "--split", "test"] if few else ["--split", "train"]
        words += ["--out", str(run), "--resume", "--seed", str(seed)]
        words += [w for key, value in SHAPE.items() for w in (f"--encoder.{key.replace('_', '-')}", str(value))]
        words += ["--model.decoder.width", "128", "--view.size", str(SIDE_PX), "--view.min-area", "0.3"]
        words += ["--batch-size", str(BATCH), "--teacher.view", "whole", "--teacher.no-with-emotion"]
        words += ["--teacher.source", f"stored:{self.teacher}", "--optimizer.max-grad-norm", f"{CLIP_NORM:g}"]
        words += ["--schedule.epochs", f"{epochs:.4g}", "--schedule.warmup-epochs", f"{_warmup(epochs, few):.4g}"]
        words += ["--save.every-steps", "1000", "--save.no-keep-finished", "--diagnose-every", "200"]
        words += recipe.words(row)
        trained = Job(f"train {name}", tuple(words), run / "encoder.safetensors")
        return [trained, self._probe(name, str(run))]

    def _folder(self, name: str) -> Path:
        """A run's folder, without the commas and blanks that --init would divide."""
        return self.root / name.replace(", ", "-").replace(" + ", "-").replace(" ", "-")

    def _probe(self, name: str, init: str) -> Job:
        out = self._folder(name) / "probe.npz"
        words = ("-m", "experiments.does_it_help.probe", "--init", init, "--data", self.shards)
        words += ("--teacher", str(self.teacher), "--out", str(out))
        words += ("--validation-only",) if name.startswith("grid/") else ()
        return Job(f"probe {name}", words, out)


def recipes_of(row: Row) -> list[Recipe]:
    """The settings that the grid tries: all rates and weights with the paper's fusion, the middle rate with others."""
    weights = RECONSTRUCTION_WEIGHTS if row.reconstructs else (1.0,)
    first, *others = row.fusions
    found = [Recipe(lr, weight, first) for lr in LRS for weight in weights]
    return found + [Recipe(LRS[1], weight, fusion) for fusion in others for weight in weights]


def _epochs(row: Row, of_distillation: float) -> float:
    return of_distillation / (ROWS[FULL].cost if row.equals_images else row.cost)


def _warmup(epochs: float, few: bool) -> float:
    """Epochs of warm-up: as many steps in every row, about those of one epoch of all images."""
    return min(10.0 if few else 1.0, epochs / 3)
