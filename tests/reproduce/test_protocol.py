"""Protocol of every cell next to a figure of the paper, against a table written from the paper's text.

The paper is arXiv 2409.18877; the authors' code is github.com/chincharles/u-emo.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.reproduce.plans import plan
from tests.reproduce.trees import seven
from uniemox.finetune.config import FinetuneConfig
from uniemox.paper import paper_tables
from uniemox_paper.config import Name
from uniemox_paper.plan import Cell, TableRow
from uniemox_paper.table3 import RELATING, SCRATCH

TABLES: tuple[Name, ...] = ("table3", "table4", "table5", "table6", "table7")

# "Metric ... SVEA: UBE, FI, Emotion6, EmoSet, Emo8; PVEA: CAER-S, HECO" (table III), with the number of classes of
# table II: "Emotion6 Ekman (6)", "UBE - (6)", "HECO - (8)", "FI Mikels (8)", "CAER-S - (7)", "Emo8 Mikels (8)". Section
# IV-A lists Mikels' labels: "amusement, awe, contentment, excitement, anger, disgust, fear, and sadness"; EmoSet has
# them too. The words of the others are those of their own publications.
MIKELS = {"amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness"}
LABELS = {
    "UBE": {"anger", "fear", "joy", "love", "sadness", "surprise"},
    "FI": MIKELS,
    "Emotion6": {"anger", "disgust", "fear", "joy", "sadness", "surprise"},
    "EmoSet": MIKELS,
    "Emo8": MIKELS,
    "CAER-S": {"angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"},
    "HECO": {"surprise", "excitement", "happiness", "peace", "disgust", "anger", "fear", "sadness"},
}
# Data sets whose labels describe the image, and a person in it.
SCENE_SETS = {"UBE", "FI", "Emotion6", "EmoSet", "Emo8"}
PERSON_SETS = {"CAER-S", "HECO"}

# "To ensure fairness and generality, pretrained models for the traditional backbone networks are sourced from the
# official PyTorch repository" (section V-C): these have no patch tokens. MixMAE's Swin has none either.
OTHER_NETWORKS = {"VGG-16", "ResNet-50", "DenseNet-121", "MixMAE"}


@dataclass(frozen=True)
class Expected:
    """The paper's protocol of a backbone's cell."""

    trained_on: set[str]
    views: str
    pooling: str
    head: str
    augmentation: str
    epoch: str
    labels: set[str]


def expected(row: str, column: str) -> Expected:
    trained_on = {column}
    if row == SCRATCH:
        # "we also train a ViT-L model from scratch using training data from multiple datasets and evaluate it on the
        # corresponding test sets" (section V-C). It names no data sets; ours are all of one kind of label.
        trained_on = SCENE_SETS if column in SCENE_SETS else PERSON_SETS
    return Expected(
        trained_on=trained_on,
        # "During the fine-tuning stage for downstream tasks, the parameters from the backbone network are transferred
        # to the VIT architecture, followed by the addition of a linear classification layer tailored to the number of
        # task labels" (section III-A): one image in, no person stream, no fusion.
        views="the scene",
        head="linear",
        # Not in the paper. The authors' fine-tuning is MAE's, whose ViT averages the patch tokens (main_finetune.py).
        pooling="the network's own" if row in OTHER_NETWORKS else "mean of the patch tokens",
        # "we employ soft targets" (section III-E): those of mixup, CutMix and label smoothing in the authors' code.
        augmentation="crops, flips, RandAugment, mixup, CutMix, erasing, label smoothing 0.1",
        # Not in the paper. The authors' code keeps the epoch with the highest accuracy on the validation part.
        epoch="highest accuracy on all held-out images",
        labels=LABELS[column],
    )


def cells_next_to_a_figure_of_the_paper(name: Name, data: tuple[str, ...]) -> Iterator[tuple[TableRow, str, Cell]]:
    weights = ("dBOT=dbot.pth",) if name in ("table3", "table4", "table7") else ()
    detector = "y.onnx" if data else None
    for row in plan(name, "paper", data=data, detector=detector, weights=weights).rows:
        for column, cell in row.cells.items():
            if cell.paper is not None and cell.runs:
                yield row, column, cell


@pytest.mark.parametrize("has_data", [False, True], ids=["without data", "with data"])
@pytest.mark.parametrize("name", TABLES)
def test_every_cell_has_the_papers_protocol(
    name: Name, has_data: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = seven(tmp_path_factory.mktemp("seven")) if has_data else ()
    count = 0
    for row, column, cell in cells_next_to_a_figure_of_the_paper(name, data):
        cell_name = f"{row.name} on {column}"
        assert cell.protocol is not None, cell_name
        protocol = cell.protocol
        # "Accuracy denotes the ratio of correctly classified samples" (section V-B), of all test images: each label of
        # the test set must be one that the model can predict.
        assert (protocol.scored_on, protocol.split) == (column, "test"), cell_name
        assert set(protocol.scored_labels.labels) == LABELS[column], cell_name
        if row.name in RELATING:
            # "As the source code for previous SOTA methods in VAE is not publicly available, their results are cited
            # from the original papers" (section V-C): their views and heads are those of their own papers.
            count += 1
            continue
        actual = Expected(
            trained_on=set(protocol.trained_on.split(" + ")),
            views=protocol.views,
            pooling=protocol.pooling,
            head=protocol.head,
            augmentation=protocol.augmentation,
            epoch=protocol.epoch,
            labels=set(protocol.scored_labels.labels),
        )
        assert actual == expected(row.name, column), cell_name
        assert_settings(cell, cell_name)
        count += 1
    table = paper_tables()
    if name == "table3":
        figures = [entry for entry in table["table3"] for column in LABELS if entry.get(column) is not None]
        ours = sum(entry["method"] == "UniEmoX" for entry in figures)  # stand next to two rows
        # EAP learns words, which the drawn data do not have: its cells are not run.
        without_words = sum(entry["method"] == "EAP" for entry in figures) if has_data else 0
        assert count == len(figures) + ours - without_words
    else:
        rows = {"table4": 5, "table5": 4, "table6": 4, "table7": 2}
        assert count == 7 * rows[name]


def assert_settings(cell: Cell, cell_name: str) -> None:
    """Compare the settings of the runs with the protocol's description."""
    for run in cell.runs:
        model = run.model
        assert model is not None
        assert isinstance(model.config, FinetuneConfig)
        network = model.config.network
        assert (model.config.method, network.streams, network.pool) == ("full", "scene", "mean"), cell_name
        assert "persons" not in {**model.options, **run.options}, cell_name
        # "256 px on the short side, then the middle 224 px": MAE's evaluation, which the authors' code uses.
        assert model.config.view.crop_fraction == 224 / 256, cell_name
        assert model.config.select == "accuracy", cell_name
        assert run.options["split"] == "test", cell_name


def test_methods_with_a_detector_have_a_reference_with_the_same_augmentation() -> None:
    """They train without RandAugment, mixup, CutMix and erasing, so dBOT's row differs in more than the method."""
    weights = ("dBOT=dbot.pth", "YOLOX-nano=y.onnx", "YuNet=f.onnx")
    rows = {row.name: row.cells["FI"].protocol for row in plan("table3", "paper", weights=weights).rows}
    reference = rows["dBOT, crops and flips only"]
    assert reference is not None
    assert reference.augmentation == "crops, flips, label smoothing 0.1"
    augmented = {name for name in RELATING if rows[name].augmentation != reference.augmentation}  # type: ignore[union-attr]
    assert augmented == {"MDAN", "EAP"}
    table = plan("table3", "paper", weights=weights)
    about = " ".join([table.title, *table.about])
    assert "under one protocol" not in about
    assert "dBOT, crops and flips only" in about
    assert "differ in the method alone" not in about
