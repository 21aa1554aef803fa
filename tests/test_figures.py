"""Figures of README, docs and model card are those of the commands next to them, where the command takes seconds.

Commands that take longer are listed in `SLOW`, so that a new command is checked or listed.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import mean, median

import pytest

import uniemox
from tests.runs import uniemox_here
from uniemox.evaluate.compare import compare
from uniemox.evaluate.evaluation import Evaluation
from uniemox.evaluate.scores import ClassScores
from uniemox.paper import paper_tables
from uniemox_paper.config import ReproduceConfig
from uniemox_paper.targets import plan_of

ROOT = Path(__file__).resolve().parents[1]
CARD = "uniemox/predict/embedded/MODEL_CARD.md"
EMBEDDED = ROOT / "uniemox" / "predict" / "embedded"
NUMBER = r"([+-]?\d[\d,]*(?:\.\d+)?)"
# Processors round differently, which may change the answer about one of 480 images.
ONE_IMAGE = 0.25

SLOW = {
    "benchmarks.curate_load",
    "benchmarks.curate_many",
    "benchmarks.growth",
    "benchmarks.load",
    "benchmarks.loading",
    "benchmarks.models",
    "benchmarks.peers",
    "benchmarks.resume",
    "benchmarks.train",
    "benchmarks.two_nodes",
    "experiments.does_it_help.probe",
    "recipes.copies",
    "recipes.crossfit",
    "recipes.detectors",
    "recipes.efficientnet_lite",
    "recipes.faces",
    "recipes.finder",
    "recipes.int8",
    "recipes.int8_scene",
    "recipes.last_layer",
    "recipes.neighbours",
    "recipes.robust_features",
    "recipes.robustness",
    "recipes.smoothing",
    "tools.core_install",
    "tools.coverage",
    "tools.fuzz",
    "tools.mutations",
    "tools.near_duplicates",
    "tools.near_recall",
    "tools.serve_fuzz",
    "tools.survey_screen",
    "tools.unseen",
}
"""Commands that train, measure speed, or take minutes."""
CHECKED = {
    # The tables of the experiments have tests of their own (tests/experiments).
    "experiments.continued",
    "experiments.does_it_help",
    "experiments.published_start",
    "experiments.does_it_help.cost",
    "recipes.coverage",
    # Its tolerances are those of tests/model, tests/losses and tests/checkpoints.
    "tools.fidelity",
}
"""Commands whose figures tests compare."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of a document with its figures."""

    file: str
    sentence: str
    """{} stands for a figure."""
    values: Callable[[], Sequence[float]]
    tolerance: float | None = None
    """Allowed difference; None: half of the last printed digit."""

    def check(self) -> None:
        """Compare the printed figures with the computed ones."""
        pattern = NUMBER.join(re.escape(part) for part in self.sentence.split("{}"))
        text = (ROOT / self.file).read_text("utf-8")
        found = re.findall(pattern, text)
        assert found, f"{self.file} has no sentence like {self.sentence!r}"
        expected = self.values()
        for groups in found:
            printed = [groups] if isinstance(groups, str) else list(groups)
            for figure, value in zip(printed, expected, strict=True):
                decimals = len(figure.partition(".")[2])
                tolerance = self.tolerance or 0.5001 * 10**-decimals
                assert abs(float(figure.replace(",", "")) - value) <= tolerance, (self.file, printed, expected)


def full_row() -> Mapping[str, float]:
    """Return table IV's row of the complete method."""
    row: Mapping[str, float] = paper_tables()["table4_ablation"]["full"]
    return row


def row_of(method: str) -> Mapping[str, float]:
    """Return a row of table III."""
    return next(row for row in paper_tables()["table3"] if row["method"] == method)


def gains_of_parts(*, with_heco: bool) -> list[float]:
    """Return the mean gain of L1, L2, L3 and the fusion in table IV."""
    full = full_row()
    sets = [name for name in full if with_heco or name != "HECO"]
    table = paper_tables()["table4_ablation"]
    parts = ("without_L1", "without_L2", "without_L3", "without_fusion")
    return [mean(full[name] - table[part][name] for name in sets) for part in parts]


def averages() -> list[float]:
    """Return the averages in the order of docs/paper-vs-code.md."""
    l1, l2, l3, fusion = gains_of_parts(with_heco=True)
    other_l1, other_l2, other_l3, other_fusion = gains_of_parts(with_heco=False)
    return [l1, fusion, 0.95, 2.69, l2, l3, other_l2, other_l3, other_fusion, other_l1]


def gains_over_dbot() -> list[float]:
    """Return our subtraction of dBOT's row by data set, its mean, and the mean for MAE's row."""
    full = full_row()
    gains = [full[name] - row_of("dBOT")[name] for name in full]
    return [*gains, mean(gains), mean(full[name] - row_of("MAE")[name] for name in full)]


def half_of_the_differences() -> list[float]:
    """Return number and median of table IV's differences, and HECO's test images with their interval."""
    full = full_row()
    table = paper_tables()["table4_ablation"]
    differences = [abs(full[name] - row[name]) for key, row in table.items() if key != "full" for name in full]
    accuracy = full["HECO"] / 100
    images = 1877
    return [len(differences), median(differences), images, 196 * (accuracy * (1 - accuracy) / images) ** 0.5]


def ties() -> list[float]:
    """Return the accuracies that two other methods share with UniEmoX."""
    full = full_row()
    assert row_of("dBOT")["UBE"] == full["UBE"]
    assert row_of("SiameseIM")["Emotion6"] == full["Emotion6"]
    return [full["UBE"], full["Emotion6"]]


def disk_gb() -> list[float]:
    """Return the disk space of table III on 1, 8 and 64 GPUs."""
    words = "reproduce table3 --scale paper --plan --images-per-s 900 --json"
    return [machine["disk_gb"] for machine in json.loads(uniemox_here(*words.split()).stdout)]


def cost_ratios() -> list[float]:
    """Return the cost of the full objective over distillation with the teacher's features stored, and computed."""
    from experiments.does_it_help.cost import lines

    computed, stored = (float(line.rpartition(" ")[2]) for line in lines())
    return [stored, computed]


def plan_costs(name: str) -> list[float]:
    """Return runs, pre-trainings and EFLOP of a target at the paper's scale, with three seeds but for table III."""
    plan = plan_of(name, ReproduceConfig(scale="paper"))  # type: ignore[arg-type]
    eflop = sum(run.images * run.gflop for run in plan.runs) / 1e9
    return [len(plan.runs), sum(run.kind == "pretrain" for run in plan.runs), eflop]


def sizes_mb() -> list[float]:
    """Return the sizes of the model card's five networks."""
    names = ("scene", "small", "finder", "faces", "expressions")
    return [(EMBEDDED / f"{name}.onnx").stat().st_size / 1e6 for name in names]


PAPER = "docs/paper-vs-code.md"
CLAIMS = [
    Claim(
        PAPER,
        "The means of two columns are {} (without L1) and {} (without fusion), not {} and {}; {} and {} are correct. "
        "Without HECO, they fall to {} (without L2), {} (without L3), {} (without fusion) and {} (without L1).",
        averages,
    ),
    Claim(
        PAPER,
        "the difference is {} on UBE, {} on FI, {} on Emotion6, {} on EmoSet, {} on Emo8, {} on CAER-S and {} on HECO; "
        "the mean is {}. The paper does not say from which weights table IV starts. From MAE's row, the same mean "
        "is {}",
        gains_over_dbot,
    ),
    Claim(PAPER, "dBOT has the same {} % on UBE, and SiameseIM the same {} % on Emotion6", ties),
    Claim(
        PAPER,
        "half of table IV's {} differences are below {} points; with HECO's {} test images, a 95 % interval is ± {} "
        "points",
        half_of_the_differences,
    ),
    Claim("docs/scaling.md", "the disk needs {} GB on one GPU, {} GB on eight and {} GB on 64", disk_gb),
    Claim("docs/scaling.md", "activations | {} GB |", lambda: disk_gb()[1:2]),
    Claim(
        "docs/experiments.md",
        "an image costs {} times as much with the full objective if the teacher's features are stored, {} times with "
        "CLIP",
        cost_ratios,
    ),
    *(
        Claim("docs/reproduce.md", f"| `{name}` | {{}} | {{}} | {{}} |", lambda name=name: plan_costs(name))  # type: ignore[misc]
        for name in ("table3", "table4", "table7", "fig7", "cross")
    ),
    Claim("docs/reproduce.md", "| `table5`, `table6`, each | {} | {} | {} |", lambda: plan_costs("table5")),
    Claim("docs/reproduce.md", "| `table5`, `table6`, each | {} | {} | {} |", lambda: plan_costs("table6")),
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.sentence[:40])
def test_figures_are_those_of_their_command(claim: Claim) -> None:
    claim.check()


def test_model_card_has_the_sizes_and_hashes_of_the_files() -> None:
    names = ("scene", "small", "finder", "faces", "expressions")
    card = (ROOT / CARD).read_text("utf-8")
    for name, size in zip(names, sizes_mb(), strict=True):
        [printed] = re.findall(rf"\| `{name}\.onnx` \|.*\| {NUMBER} MB \|", card)
        assert abs(float(printed) - size) <= 0.05
        digest = sha256((EMBEDDED / f"{name}.onnx").read_bytes()).hexdigest()
        assert f"| `{name}.onnx` | `{digest}` |" in card
    Claim(CARD, "The package contains five networks, {} MB in all", lambda: [sum(sizes_mb())]).check()


@pytest.fixture(scope="module")
def on_fi(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Evaluation]:
    """Scores of both built-in models on FI's validation part, saved in the working folder."""
    folder = tmp_path_factory.mktemp("fi")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = uniemox.open_data(f"fi:{shared / 'data' / 'fi'}").only("val")
        # One image shows a training image in other colours (docs/results.md).
        return {name: uniemox.evaluate(name, data, allow_seen=True) for name in ("embedded", "small")}


@pytest.mark.thorough
def test_accuracy_on_fi(on_fi: dict[str, Evaluation]) -> None:
    """README, results and card have the figures of `uniemox evaluate --data fi:fi --split val`."""

    def accuracy(name: str) -> list[float]:
        scores = on_fi[name]
        return [100 * value for value in (scores.accuracy, *scores.accuracy_interval)]

    claims = [
        Claim("README.md", "| {} % (95 % interval {} to {}) |", lambda: accuracy("embedded"), ONE_IMAGE),
        Claim(
            "docs/results.md",
            "features of altered photographs** | **{} %** | {} to {} % |",
            lambda: accuracy("embedded"),
            ONE_IMAGE,
        ),
        Claim(
            "docs/results.md",
            "features of altered photographs and 8-bit weights | {} % | {} to {} % |",
            lambda: accuracy("small"),
            ONE_IMAGE,
        ),
        Claim(CARD, "It is **{} %** ({} to {};", lambda: accuracy("embedded"), ONE_IMAGE),
        Claim(CARD, "On the same images, its accuracy is {} % ({} to {})", lambda: accuracy("small"), ONE_IMAGE),
    ]
    scores = on_fi["embedded"].scores
    assert isinstance(scores, ClassScores)
    assert scores.ece_calibrated is not None
    claims.append(Claim(CARD, "The calibration error is {}.", lambda: [scores.ece_calibrated or 0.0], 0.003))
    for claim in claims:
        claim.check()


@pytest.mark.thorough
def test_difference_of_the_built_in_models(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = f"fi:{shared / 'data' / 'fi'}"
    for name in ("embedded", "small"):
        uniemox_here("evaluate", "--model", name, "--data", data, "--split", "val", "--allow-seen", "--json")
    [comparison] = compare([Path("embedded")], [Path("small")])
    difference = comparison.difference
    assert difference.interval is not None
    values = [100 * value for value in (difference.difference, *difference.interval)]
    sentence = "`embedded` is {} points more accurate than `small` (paired interval over images {} to {})"
    Claim("docs/results.md", sentence, lambda: values, ONE_IMAGE).check()
    sentence = "# difference {}% ({}% to {}%)"
    Claim("docs/results.md", sentence, lambda: values, ONE_IMAGE).check()


@pytest.mark.thorough
def test_coverage_on_other_data(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """README, results and card have the figures of `python -m recipes.coverage`."""
    from recipes.coverage import main

    main([f"{kind}:{shared / 'data' / kind}" for kind in ("fi", "abstract", "emotion6")])
    lines = capsys.readouterr().out.splitlines()[2:]
    fi, abstract, emotion6 = (
        [float(number) for number in re.findall(r"[\d.]+(?=%? \|)", line.split("|", 2)[2])] for line in lines
    )
    # Images, accuracy, most frequent label, confidence, unfamiliar, likely set, labels in it.
    rows = "| {} | {} % | {} % | {} % | {} % | {} % | {} |"
    for name, values in (("FI, validation part", fi), ("Abstract", abstract), ("Emotion6, labels mapped", emotion6)):
        Claim("docs/results.md", f"| {name} {rows}", lambda values=values: values, 0.5).check()  # type: ignore[misc]
    Claim(
        "README.md",
        "| Abstract: {} paintings | {} % | {} % | {} % | {} % |",
        lambda: [abstract[column] for column in (0, 1, 2, 5, 4)],
        0.5,
    ).check()


def test_every_command_next_to_figures_is_checked_or_slow() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / CARD,
        ROOT / "recipes" / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
    ]
    commands = {
        module
        for page in pages
        for module in re.findall(
            r"python -m ((?:recipes|experiments|benchmarks|tools)(?:\.\w+)+)", page.read_text("utf-8")
        )
    }
    assert commands - SLOW - CHECKED == set()
    assert (SLOW | CHECKED) - commands == set()
