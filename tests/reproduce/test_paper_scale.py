"""Plans at the paper's scale: its recipe, its data sets, its networks."""

from pathlib import Path

import pytest

from tests.drawn import class_folders
from tests.reproduce.test_plan import FIGURES, plan
from tests.reproduce.trees import seven
from uniemox.data.source import split_sources
from uniemox.reproduce.plan import Plan, Run
from uniemox.reproduce.sources import Finders
from uniemox.reproduce.table3 import RELATING, SCRATCH

# The scale of the paper, with the seven data sets


@pytest.fixture(scope="module")
def given_seven(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return seven(tmp_path_factory.mktemp("seven"))


def runs_of(plan: Plan, command: str) -> list[Run]:
    return [run for run in plan.runs if run.words[0] == command]


def after(run: Run, option: str) -> str | None:
    return run.words[run.words.index(option) + 1] if option in run.words else None


def test_networks_without_blocks_to_skip_train_without_drop_path(given_seven: tuple[str, ...]) -> None:
    rows = {row.name: row for row in plan("table3", "paper", data=given_seven).rows}
    drop_paths = {
        name: after(row.cells["FI"].runs[0].needs[0], "--network.drop-path")
        for name, row in rows.items()
        if row.cells["FI"].runs and row.cells["FI"].runs[0].needs[0].words[0] == "finetune"
    }
    without = {name for name, value in drop_paths.items() if value == "0"}
    assert without == {"VGG-16", "DenseNet-121", "CLIP ViT-B/16, frozen, linear probe"}
    assert drop_paths["ResNet-50"] is None
    assert "vit_l_16-852ce7e3.pth" in rows["ViT"].cells["FI"].why  # torchvision's, as the paper says


def test_vit_from_scratch_is_trained_on_all_data_sets_of_a_kind_at_once(given_seven: tuple[str, ...]) -> None:
    made = plan("table3", "paper", data=given_seven, finders=Finders(detector="y.onnx"))
    cells = next(row for row in made.rows if row.name == SCRATCH).cells
    models = {name: cell.runs[0].needs[0] for name, cell in cells.items() if cell.runs}
    evoked = {models[name].key for name in ("UBE", "FI", "Emotion6", "EmoSet", "Emo8")}
    felt = {models[name].key for name in ("CAER-S", "HECO")}
    assert len(evoked) == len(felt) == 1
    data = open_data_words(models["FI"])
    assert [source.partition(":")[0] for source in split_sources(data)] == ["ube", "fi", "emotion6", "emoset", "emo8"]
    assert "fi:" in data
    assert data.count("?splits=") == 5  # a file of each
    assert cells["FI"].runs[0].scores == (next(one for one in given_seven if one.startswith("fi:")), "test")


def open_data_words(run: Run) -> str:
    """The data that a run trains on."""
    return run.words[run.words.index("--data") + 1]


def test_figures_show_the_papers_data_sets(given_seven: tuple[str, ...]) -> None:
    """Figures 4, 8 and 9 EmoSet, the first of them what is trained on; figure 6 Emo8; and the first given without."""
    kinds = {}
    for name in FIGURES:
        found = plan(name, "paper", data=given_seven)
        [run] = [run for run in found.runs if run.words[1] == "images" or "--schemes" in run.words]
        kinds[name] = (next(w for w in run.words if ":" in w).partition(":")[0], after(run, "--split"))
        assert "which was not given" not in "".join(found.about)
    assert kinds == {
        "fig4": ("emoset", "train"),
        "fig6": ("emo8", None),
        "fig8": ("emoset", "test"),
        "fig9": ("emoset", "test"),
    }
    fi = next(source for source in given_seven if source.startswith("fi:"))
    alone = plan("fig6", "paper", data=(fi,))
    assert alone.runs[-1].words[2] == fi
    assert "The images are of FI; the paper shows Emo8, which was not given." in alone.about


def test_figure_nine_has_a_column_of_maes_own_weights() -> None:
    run = plan("fig9", "paper", weights={"dBOT": "dbot.pth", "MAE": "mae_visualize.pth"}).more[0]
    assert run.words.count("--model") == 3
    assert run.words[run.words.index("--out") - 1] == "mae_visualize.pth"
    assert plan("fig9", "paper", weights={"dBOT": "dbot.pth"}).more[0].words.count("--model") == 2


def test_all_of_emoset_can_be_pretrained_on(given_seven: tuple[str, ...]) -> None:
    weights = {"dBOT": "dbot.pth"}
    for splits, absent, there in ((("train", "val"), 100300, 40), (("all",), 118000, 48), (("train",), 94400, 32)):
        for data, images in (((), absent), (given_seven, there)):
            found = plan("table7", "paper", weights=weights, data=data, pretrain_splits=splits)
            run = runs_of(found, "pretrain")[0]
            place = run.words.index("--split")
            assert run.words[place + 1 : place + 1 + len(splits)] == splits
            assert run.images == 200 * images
        seen = [run for run in runs_of(found, "evaluate") if "--allow-seen" in run.words]
        assert {run.scores[0].partition(":")[0] for run in seen if run.scores} == (
            {"emoset"} if "all" in splits else set()
        )


def networks_of(found: Plan) -> list[Run]:
    """Fine-tuning runs but those of the colour histogram, which sees the scene alone."""
    return [run for run in runs_of(found, "finetune") if after(run, "--method") != "histogram"]


def test_what_a_person_feels_is_learned_from_scene_and_person(given_seven: tuple[str, ...]) -> None:
    found = plan("table3", "paper", data=given_seven, weights={"dBOT": "dbot.pth"}, finders=Finders(detector="y.onnx"))
    streams: dict[str, set[tuple[str | None, ...]]] = {}
    options = ("--network.streams", "--network.fusion", "--network.pool")
    for run in networks_of(found):
        kind = (after(run, "--data") or "").partition(":")[0]
        if after(run, "--method") in RELATING.values():  # which look at what they need
            continue
        streams.setdefault(kind, set()).add(tuple(after(run, option) for option in options))
    both = {("both", "attention", None), ("both", None, "token")}  # ours brings its own Γ
    assert streams.pop("caer-s") == both
    assert streams.pop("heco") == both
    assert all(found == {(None, None, None)} for found in streams.values())
    persons = {run.words[2].partition(":")[0]: run for run in found.runs if run.words[:2] == ("data", "persons")}
    assert set(persons) == {"emoset", "caer-s"}  # HECO names the persons meant
    for command, kind in (("pretrain", "emoset"), ("finetune", "caer-s"), ("evaluate", "caer-s")):
        run = next(
            r for r in runs_of(found, command) if (after(r, "--data") or "").startswith(kind) and SCRATCH not in r.name
        )
        assert after(run, "--persons") == str(persons[kind].folder / "persons.jsonl")
    without = plan("table3", "paper", data=given_seven, weights={"dBOT": "dbot.pth"})
    assert {run.missing for run in runs_of(without, "finetune") if after(run, "--data") == given_seven[5]} == {
        "the people in CAER-S: --detector yolov3.cfg, or uniemox data persons beforehand"
    }


def test_a_demos_own_data_get_people_and_objects(tmp_path: Path) -> None:
    source = f"folder:{class_folders(tmp_path / 'photos', ('awe', 'fear'), 10)}"
    found = plan("table4", data=(source,), finders=Finders(objects="resnet18@r.pth"))
    made = {run.words[1]: run for run in runs_of(found, "data")}
    assert list(made) == ["split", "persons", "describe", "shard"]
    assert after(made["persons"], "--detector") == "embedded"
    people = str(made["persons"].folder / "persons.jsonl")
    assert after(made["describe"], "--persons") == after(made["shard"], "--persons") == people
    assert (after(made["describe"], "--classifier"), after(made["describe"], "--classifier-weights")) == (
        "resnet18",
        "r.pth",
    )
    assert {after(run, "--network.streams") for run in networks_of(found)} == {"both"}
    without = next(run for run in plan("table4", data=(source,)).runs if run.words[1] == "describe")
    assert "without objects" in without.name
