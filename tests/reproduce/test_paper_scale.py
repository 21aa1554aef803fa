"""Plans at the paper's scale: its recipe, its data sets, its networks."""

from pathlib import Path

import pytest

from tests.data.tree import put
from tests.reproduce.plans import plan, runs_of
from tests.reproduce.test_plan import FIGURES, networks_of, photos
from tests.reproduce.trees import seven
from uniemox.data.source import split_sources
from uniemox.labels import MIKELS
from uniemox_paper.study import HISTOGRAM
from uniemox_paper.table3 import RELATING, SCRATCH


@pytest.fixture(scope="module")
def seven_sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return seven(tmp_path_factory.mktemp("seven"))


def test_networks_without_blocks_to_skip_train_without_drop_path(seven_sources: tuple[str, ...]) -> None:
    rows = {row.name: row for row in plan("table3", "paper", data=seven_sources).rows}
    drop_paths = {
        name: model.config.network.drop_path  # type: ignore[union-attr]
        for name, row in rows.items()
        for model in [run.model for run in row.cells["FI"].runs if run.model]
        if model.options.get("method") != "histogram"
    }
    without = {name for name, value in drop_paths.items() if value == 0}
    assert without == {"VGG-16", "DenseNet-121", "CLIP ViT-B/16, frozen, linear probe"}
    assert drop_paths["ResNet-50"] == 0.2
    # The paper uses torchvision's weights.
    assert "vit_l_16-852ce7e3.pth" in rows["ViT"].cells["FI"].why


def test_a_frozen_clip_has_rows_for_a_probe_and_for_lora(seven_sources: tuple[str, ...]) -> None:
    rows = {row.name: row for row in plan("table3", "paper", data=seven_sources).rows}
    for method, head in (("linear probe", "logistic regression"), ("LoRA", "trained changes of rank 8")):
        cell = rows[f"CLIP ViT-B/16, frozen, {method}"].cells["FI"]
        [model] = {run.model.options["init"] for run in cell.runs if run.model}
        assert model == "timm:vit_base_patch16_clip_224.openai"
        assert head in str(cell.protocol)


def test_vit_from_scratch_is_trained_jointly_on_data_sets_of_a_kind(seven_sources: tuple[str, ...]) -> None:
    joined_plan = plan("table3", "paper", data=seven_sources, detector="y.onnx")
    cells = next(row for row in joined_plan.rows if row.name == SCRATCH).cells
    models = {name: cell.runs[0].needs[0] for name, cell in cells.items() if cell.runs}
    evoked = {models[name].key for name in ("UBE", "FI", "Emotion6", "EmoSet", "Emo8")}
    felt = {models[name].key for name in ("CAER-S", "HECO")}
    assert len(evoked) == len(felt) == 1
    data = models["FI"].options["data"]
    assert [source.partition(":")[0] for source in split_sources(data)] == ["ube", "fi", "emotion6", "emoset", "emo8"]
    assert "fi:" in data
    assert data.count("splits=") == 5  # a file of each
    assert "?splits=" in data
    assert data.count("union=joined") == 1
    assert cells["FI"].runs[0].scores == (next(source for source in seven_sources if source.startswith("fi:")), "test")


def test_figures_show_the_papers_data_sets(seven_sources: tuple[str, ...]) -> None:
    """Figures 4, 8 and 9 show EmoSet, figure 4 its training images; figure 6 shows Emo8, else the first given data."""
    kinds = {}
    for name in FIGURES:
        figure_plan = plan(name, "paper", data=seven_sources)
        [run] = [run for run in figure_plan.runs if run.kind == "reproduce images" or "schemes" in run.options]
        source = str(run.options.get("data") or run.arguments[0])
        kinds[name] = (source.partition(":")[0], run.options.get("split"))
        assert "which was not given" not in "".join(figure_plan.about)
    assert kinds == {
        "fig4": ("emoset", "train"),
        "fig6": ("emo8", None),
        "fig8": ("emoset", "test"),
        "fig9": ("emoset", "test"),
    }
    fi = next(source for source in seven_sources if source.startswith("fi:"))
    alone = plan("fig6", "paper", data=(fi,))
    assert alone.runs[-1].arguments[0] == fi
    assert "The images are from FI; the paper shows Emo8, which was not given." in alone.about


def test_figure_nine_has_a_column_for_given_mae_weights() -> None:
    models = plan("fig9", "paper", weights=("dBOT=dbot.pth", "MAE=mae_visualize.pth")).more[0].options["model"]
    assert (len(models), models[-1]) == (3, "mae_visualize.pth")
    assert len(plan("fig9", "paper", weights=("dBOT=dbot.pth",)).more[0].options["model"]) == 2


def test_pretrain_split_sets_the_images_of_pretraining(seven_sources: tuple[str, ...]) -> None:
    weights = ("dBOT=dbot.pth",)
    for splits, images_absent, images_given in (
        (("train", "val"), 100300, 40),
        (("all",), 118000, 48),
        (("train",), 94400, 32),
    ):
        for data, images in (((), images_absent), (seven_sources, images_given)):
            table = plan("table7", "paper", weights=weights, data=data, pretrain_split=splits)
            run = runs_of(table, "pretrain")[0]
            assert run.options["split"] == splits
            assert run.images == 200 * images
        evaluations = [run for run in runs_of(table, "evaluate") if "allow_seen" in run.options]
        assert {run.scores[0].partition(":")[0] for run in evaluations if run.scores} == (
            {"emoset"} if "all" in splits else set()
        )


def test_columns_with_the_person_have_the_same_fusion_for_all_backbones(seven_sources: tuple[str, ...]) -> None:
    table = plan("table3", "paper", data=seven_sources, weights=("dBOT=dbot.pth",), detector="y.onnx")
    columns = ("CAER-S, scene and person", "HECO, scene and person")
    assert table.columns[-2:] == columns
    settings = set()
    names = set()
    for row in table.rows:
        if row.name == HISTOGRAM:
            continue
        for column in columns:
            for run in row.cells[column].runs:
                assert run.model is not None
                network = run.model.config.network  # type: ignore[union-attr]
                settings.add((network.streams, network.pool, network.fusion, network.fusion_heads, network.fused_width))
                names.add(row.name)
    # No pre-training has this Γ, so it is always new.
    assert settings == {("both", "mean", "scaled_attention", 3, 512)}
    assert {"UniEmoX", "UniEmoX (authors' weights)", "dBOT", SCRATCH, "ResNet-50"} <= names
    # These methods have views of their own.
    assert not names & set(RELATING)
    persons = {str(run.arguments[0]).partition(":")[0]: run for run in runs_of(table, "data persons")}
    # HECO names its target persons.
    assert set(persons) == {"emoset", "caer-s"}
    file = persons["caer-s"].folder / "persons.jsonl"
    cells = next(row for row in table.rows if row.name == "dBOT").cells
    [alone] = cells["CAER-S"].runs
    [together] = cells[columns[0]].runs
    assert alone.model is not None
    assert together.model is not None
    assert not [run for run in (alone, alone.model) if "persons" in run.options]
    assert [run.options["persons"] for run in (together, together.model)] == [file, file]
    assert runs_of(table, "pretrain")[0].options["persons"] == persons["emoset"].folder / "persons.jsonl"


def test_without_a_detector_only_runs_that_read_people_are_missing(seven_sources: tuple[str, ...]) -> None:
    table = plan("table3", "paper", data=seven_sources, weights=("dBOT=dbot.pth",))
    cells = next(row for row in table.rows if row.name == "dBOT").cells
    assert cells["CAER-S"].why == ""
    assert cells["CAER-S, scene and person"].why == (
        "the people in CAER-S: --detector yolov3.cfg, or run uniemox data persons first"
    )
    emoticon = next(row for row in table.rows if row.name == "EmotiCon + CCIM").cells["CAER-S"]
    assert emoticon.why == cells["CAER-S, scene and person"].why


def test_demo_on_own_data_adds_people_and_objects(tmp_path: Path) -> None:
    source = photos(tmp_path, 10)
    demo = plan("table4", data=(source,), objects="resnet18@r.pth")
    kinds = ("data split", "data persons", "data describe", "data shard")
    [split], [persons], [describe], [shard] = (runs_of(demo, kind) for kind in kinds)
    assert demo.runs[:4] == [split, persons, describe, shard]
    assert persons.options["detector"] == "embedded"
    people = persons.folder / "persons.jsonl"
    assert describe.options["persons"] == shard.options["persons"] == people
    assert (describe.options["classifier"], describe.options["classifier_weights"]) == ("resnet18", "r.pth")
    assert {run.options["network.streams"] for run in networks_of(demo)} == {"both"}
    assert "without objects" in runs_of(plan("table4", data=(source,)), "data describe")[0].name


def test_splits_named_by_the_data_are_used_unchanged(seven_sources: tuple[str, ...], tmp_path: Path) -> None:
    """The authors' folders of FI: two images of each class for training and one each for val and test."""
    fi = next(source for source in seven_sources if source.startswith("fi:"))
    authors = tmp_path / "authors"
    for word in MIKELS.labels:
        put(authors, f"train/{word}/0.jpg", f"train/{word}/1.jpg", f"val/{word}/2.jpg", f"test/{word}/3.jpg")
    split_runs = [run for run in plan("table4", "paper", data=(fi,)).runs if run.kind == "data split"]
    named_plan = plan("table4", "paper", data=(f"{fi}?splits={authors}",))
    assert len(split_runs) == 1
    assert not [run for run in named_plan.runs if run.kind == "data split"]
    [cell] = {row.cells["FI"].runs[0].scores for row in named_plan.rows if row.cells["FI"].runs}
    assert cell == (f"{fi}?splits={authors}", "test")


def test_eap_runs_only_on_data_whose_annotations_have_words(seven_sources: tuple[str, ...]) -> None:
    """Of the seven only EmoSet has words in addition to the labels; the paper's figure for UBE stays."""
    table = plan("table3", "paper", data=seven_sources, weights=("dBOT=dbot.pth",), detector="y.onnx")
    cells = next(row for row in table.rows if row.name == "EAP").cells
    assert {name for name, cell in cells.items() if cell.runs} == {"EmoSet"}
    assert "uniemox data describe" in cells["UBE"].why
    assert cells["UBE"].paper == 81.77
