"""Plans at the paper's scale: its recipe, its data sets, its networks."""

from pathlib import Path

import pytest

from tests.data.tree import put
from tests.reproduce.made import plan, runs_of
from tests.reproduce.test_plan import FIGURES, networks_of, photos
from tests.reproduce.trees import seven
from uniemox.data.source import split_sources
from uniemox.labels import MIKELS
from uniemox.reproduce.study import HISTOGRAM
from uniemox.reproduce.table3 import RELATING, SCRATCH

# The scale of the paper, with the seven data sets


@pytest.fixture(scope="module")
def given_seven(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return seven(tmp_path_factory.mktemp("seven"))


def test_networks_without_blocks_to_skip_train_without_drop_path(given_seven: tuple[str, ...]) -> None:
    rows = {row.name: row for row in plan("table3", "paper", data=given_seven).rows}
    drop_paths = {
        name: model.config.network.drop_path  # type: ignore[union-attr]
        for name, row in rows.items()
        for model in [run.model for run in row.cells["FI"].runs if run.model]
        if model.options.get("method") != "histogram"
    }
    without = {name for name, value in drop_paths.items() if value == 0}
    assert without == {"VGG-16", "DenseNet-121", "CLIP ViT-B/16, frozen, linear probe"}
    assert drop_paths["ResNet-50"] == 0.2
    assert "vit_l_16-852ce7e3.pth" in rows["ViT"].cells["FI"].why  # torchvision's, as the paper says


def test_vit_from_scratch_is_trained_on_all_data_sets_of_a_kind_at_once(given_seven: tuple[str, ...]) -> None:
    made = plan("table3", "paper", data=given_seven, detector="y.onnx")
    cells = next(row for row in made.rows if row.name == SCRATCH).cells
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
    assert cells["FI"].runs[0].scores == (next(one for one in given_seven if one.startswith("fi:")), "test")


def test_figures_show_the_papers_data_sets(given_seven: tuple[str, ...]) -> None:
    """Figures 4, 8 and 9 EmoSet, the first of them what is trained on; figure 6 Emo8; and the first given without."""
    kinds = {}
    for name in FIGURES:
        found = plan(name, "paper", data=given_seven)
        [run] = [run for run in found.runs if run.kind == "reproduce images" or "schemes" in run.options]
        source = str(run.options.get("data") or run.arguments[0])
        kinds[name] = (source.partition(":")[0], run.options.get("split"))
        assert "which was not given" not in "".join(found.about)
    assert kinds == {
        "fig4": ("emoset", "train"),
        "fig6": ("emo8", None),
        "fig8": ("emoset", "test"),
        "fig9": ("emoset", "test"),
    }
    fi = next(source for source in given_seven if source.startswith("fi:"))
    alone = plan("fig6", "paper", data=(fi,))
    assert alone.runs[-1].arguments[0] == fi
    assert "The images are from FI; the paper shows Emo8, which was not given." in alone.about


def test_figure_nine_has_a_column_of_maes_own_weights() -> None:
    models = plan("fig9", "paper", weights=("dBOT=dbot.pth", "MAE=mae_visualize.pth")).more[0].options["model"]
    assert (len(models), models[-1]) == (3, "mae_visualize.pth")
    assert len(plan("fig9", "paper", weights=("dBOT=dbot.pth",)).more[0].options["model"]) == 2


def test_all_of_emoset_can_be_pretrained_on(given_seven: tuple[str, ...]) -> None:
    weights = ("dBOT=dbot.pth",)
    for splits, absent, there in ((("train", "val"), 100300, 40), (("all",), 118000, 48), (("train",), 94400, 32)):
        for data, images in (((), absent), (given_seven, there)):
            found = plan("table7", "paper", weights=weights, data=data, pretrain_split=splits)
            run = runs_of(found, "pretrain")[0]
            assert run.options["split"] == splits
            assert run.images == 200 * images
        seen = [run for run in runs_of(found, "evaluate") if "allow_seen" in run.options]
        assert {run.scores[0].partition(":")[0] for run in seen if run.scores} == (
            {"emoset"} if "all" in splits else set()
        )


def test_the_person_is_read_in_columns_of_their_own_alike_for_all_backbones(given_seven: tuple[str, ...]) -> None:
    found = plan("table3", "paper", data=given_seven, weights=("dBOT=dbot.pth",), detector="y.onnx")
    columns = ("CAER-S, scene and person", "HECO, scene and person")
    assert found.columns[-2:] == columns
    settings = set()
    names = set()
    for row in found.rows:
        if row.name == HISTOGRAM:
            continue
        for column in columns:
            for run in row.cells[column].runs:
                assert run.model is not None
                network = run.model.config.network  # type: ignore[union-attr]
                settings.add((network.streams, network.pool, network.fusion, network.fusion_heads, network.fused_width))
                names.add(row.name)
    assert settings == {("both", "mean", "scaled_attention", 3, 512)}  # no pre-training has this Γ: it is always new
    assert {"UniEmoX", "UniEmoX (authors' weights)", "dBOT", SCRATCH, "ResNet-50"} <= names
    assert not names & set(RELATING)  # these have views of their own
    persons = {str(run.arguments[0]).partition(":")[0]: run for run in runs_of(found, "data persons")}
    assert set(persons) == {"emoset", "caer-s"}  # HECO names the persons meant
    file = persons["caer-s"].folder / "persons.jsonl"
    cells = next(row for row in found.rows if row.name == "dBOT").cells
    [alone] = cells["CAER-S"].runs
    [together] = cells[columns[0]].runs
    assert alone.model is not None
    assert together.model is not None
    assert not [run for run in (alone, alone.model) if "persons" in run.options]
    assert [run.options["persons"] for run in (together, together.model)] == [file, file]
    assert runs_of(found, "pretrain")[0].options["persons"] == persons["emoset"].folder / "persons.jsonl"


def test_without_a_detector_only_runs_that_read_people_are_missing(given_seven: tuple[str, ...]) -> None:
    found = plan("table3", "paper", data=given_seven, weights=("dBOT=dbot.pth",))
    cells = next(row for row in found.rows if row.name == "dBOT").cells
    assert cells["CAER-S"].why == ""
    assert cells["CAER-S, scene and person"].why == (
        "the people in CAER-S: --detector yolov3.cfg, or run uniemox data persons first"
    )
    emoticon = next(row for row in found.rows if row.name == "EmotiCon + CCIM").cells["CAER-S"]
    assert emoticon.why == cells["CAER-S, scene and person"].why


def test_a_demos_own_data_get_people_and_objects(tmp_path: Path) -> None:
    source = photos(tmp_path, 10)
    found = plan("table4", data=(source,), objects="resnet18@r.pth")
    kinds = ("data split", "data persons", "data describe", "data shard")
    [split], [persons], [describe], [shard] = (runs_of(found, kind) for kind in kinds)
    assert found.runs[:4] == [split, persons, describe, shard]
    assert persons.options["detector"] == "embedded"
    people = persons.folder / "persons.jsonl"
    assert describe.options["persons"] == shard.options["persons"] == people
    assert (describe.options["classifier"], describe.options["classifier_weights"]) == ("resnet18", "r.pth")
    assert {run.options["network.streams"] for run in networks_of(found)} == {"both"}
    assert "without objects" in runs_of(plan("table4", data=(source,)), "data describe")[0].name


def test_splits_that_the_data_name_are_not_drawn_again(given_seven: tuple[str, ...], tmp_path: Path) -> None:
    """The authors' folders of FI: two images of each class for training and one each for val and test."""
    fi = next(source for source in given_seven if source.startswith("fi:"))
    authors = tmp_path / "authors"
    for word in MIKELS.labels:
        put(authors, f"train/{word}/0.jpg", f"train/{word}/1.jpg", f"val/{word}/2.jpg", f"test/{word}/3.jpg")
    drawn = [run for run in plan("table4", "paper", data=(fi,)).runs if run.kind == "data split"]
    made = plan("table4", "paper", data=(f"{fi}?splits={authors}",))
    assert len(drawn) == 1
    assert not [run for run in made.runs if run.kind == "data split"]
    [cell] = {row.cells["FI"].runs[0].scores for row in made.rows if row.cells["FI"].runs}
    assert cell == (f"{fi}?splits={authors}", "test")


def test_eap_has_no_row_where_no_annotation_has_words(given_seven: tuple[str, ...]) -> None:
    """Of the seven only EmoSet has words besides the labels; the paper's figure of UBE stays."""
    made = plan("table3", "paper", data=given_seven, weights=("dBOT=dbot.pth",), detector="y.onnx")
    cells = next(row for row in made.rows if row.name == "EAP").cells
    assert {name for name, cell in cells.items() if cell.runs} == {"EmoSet"}
    assert "uniemox data describe" in cells["UBE"].why
    assert cells["UBE"].paper == 81.77
