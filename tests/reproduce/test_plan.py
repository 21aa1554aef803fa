"""Plans: what names a run, what it needs, and that every command is one that the command line takes."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
from cyclopts import CycloptsError
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn import class_folders
from uniemox.cli import app
from uniemox.cli.reproduce import reproduce
from uniemox.cli.reproduce_plan import _weights
from uniemox.errors import ConfigError
from uniemox.finetune.presets import PRESETS as FINETUNINGS
from uniemox.labels import CAER, MIKELS, POLARITY
from uniemox.paper import paper_tables
from uniemox.reproduce.ablations import _obstacle
from uniemox.reproduce.names import NAMES
from uniemox.reproduce.plan import Plan, Run, plan_run
from uniemox.reproduce.results import HISTOGRAM
from uniemox.reproduce.sources import PAPER_SIZES, parse_given
from uniemox.reproduce.study import BATCH
from uniemox.reproduce.table3 import EXTRAS, START, ZERO_SHOT
from uniemox.reproduce.table8 import ModelsToAsk
from uniemox.reproduce.targets import ReproduceOptions, plan_of

FIGURES = ("fig4", "fig6", "fig8", "fig9")


def plan(name: str, scale: str = "demo", **asked: object) -> Plan:
    return plan_of(ReproduceOptions(name=name, scale=scale, root=Path("r"), **asked))  # type: ignore[arg-type]


planned = cache(plan)


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5), st.lists(st.text(max_size=8), max_size=3))
def test_a_run_is_named_by_words_and_data_alone(words: list[str], data: list[str]) -> None:
    first = plan_run(Path("a"), "one", words, makes=None, data=data)
    moved = plan_run(Path("elsewhere/b"), "another", words, makes="x", data=data[::-1])
    assert first.key == moved.key
    assert first.folder.name == moved.folder.name
    assert plan_run(Path("a"), "one", [*words, "more"], makes=None, data=data).key != first.key
    assert plan_run(Path("a"), "one", words, makes=None, data=[*data, "more"]).key != first.key


def test_what_a_run_needs_is_part_of_its_name(tmp_path: Path) -> None:
    found = []
    for count in (8, 16):
        packed = plan_run(tmp_path, "pack", ["data", "shard", f"synthetic:{count}", "{out}"], makes="shards.json")
        found.append(
            plan_run(tmp_path, "train", ["pretrain", "--data", f"shards:{packed.folder}"], makes="x", needs=[packed])
        )
    assert found[0].key != found[1].key
    assert found[0].needs[0].folder.name in found[0].command


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_runs_come_after_what_they_need_and_once(name: str, scale: str) -> None:
    runs = planned(name, scale).runs
    keys = [run.key for run in runs]
    assert len(set(keys)) == len(keys)
    for place, run in enumerate(runs):
        assert {needed.key for needed in run.needs} <= set(keys[:place])
        assert run.folder.parent == Path("r/runs")
    if scale == "paper":
        assert all(run.missing for run in runs if run.words[0] in ("pretrain", "finetune", "evaluate"))
    elif name not in ("table8", "table9"):
        assert all(run.missing is None for run in runs if "--weights" not in (run.missing or ""))


@pytest.mark.parametrize("name", ["table3", "table4", "fig7", "cross"])
@pytest.mark.parametrize("with_emotion", [False, True])
def test_texts_name_the_emotion_only_if_asked_for_and_the_page_says_so(name: str, with_emotion: bool) -> None:
    made = planned(name, with_emotion=with_emotion)
    teachers = [run.words for run in made.runs if run.words[:2] == ("teacher", "fit")]
    assert ["--without-emotion" in words for words in teachers] == [not with_emotion]
    told = [run.words for run in made.runs if "--teacher.source" in run.words]
    assert told
    flag = "--teacher.with-emotion" if with_emotion else "--teacher.no-with-emotion"
    assert all(flag in words for words in told)
    said = [words for words in made.about if "The texts that teacher and pre-training read" in words]
    assert [("do not name the emotion" in words) for words in said] == [not with_emotion]


@pytest.mark.parametrize("name", ["table3", "table4"])
def test_texts_end_with_the_emotion_at_the_papers_scale_unless_asked_otherwise(name: str) -> None:
    for asked, flag in ((None, "--teacher.with-emotion"), (False, "--teacher.no-with-emotion")):
        pretrainings = [
            run.words for run in planned(name, "paper", with_emotion=asked).runs if run.words[0] == "pretrain"
        ]
        assert pretrainings
        assert all(flag in words for words in pretrainings)


def after(run: Run, option: str) -> str | None:
    """The value of an option in a run's words."""
    return run.words[run.words.index(option) + 1] if option in run.words else None


def test_pretrain_seeds_are_shared_by_the_seeds_of_fine_tuning_in_turn() -> None:
    made = plan("table4", seeds=4, pretrain_seeds=2)
    starts = {
        after(run, "--seed"): after(run, "--init")
        for run in made.runs
        if run.words[0] == "finetune" and "as it is" in run.name
    }
    assert starts["0"] == starts["2"] != starts["1"] == starts["3"]
    of_pretrainings = [after(run, "--seed") for run in made.runs if run.words[0] == "pretrain"]
    assert sorted(map(str, of_pretrainings)) == ["1"] * 5 + ["None"] * 5
    assert "done with 2 seeds" in made.about[-1]
    with pytest.raises(ConfigError, match="--pretrain-seeds must be at least 1 and at most --seeds, which is 1, got 2"):
        plan("table4", seeds=1, pretrain_seeds=2)


def test_figure_9_shows_each_quarter_of_the_pre_training_that_the_tables_share() -> None:
    whole = next(run for run in planned("fig9", "paper").runs if run.name == "pretrain as it is")
    assert "--save.no-keep-finished" in whole.words  # but for these:
    every = int(after(whole, "--save.keep-every") or 0)
    steps = 200 * round(118_000 * 0.8) // 1024
    assert [step // every for step in (every, steps)] == [1, 4]
    assert whole.key in {run.key for run in planned("table3", "paper").runs}


def test_table7_compares_teachers_and_pre_trainings_that_read_the_emotion_with_some_that_do_not() -> None:
    found = [run.words for run in planned("table7").runs if run.words[0] in ("teacher", "pretrain")]
    assert sum("--without-emotion" in words for words in found) == 1
    assert sum("--teacher.with-emotion" in words for words in found) == 1
    assert sum("--teacher.no-with-emotion" in words for words in found) == 1
    assert len({words[words.index("--teacher.source") + 1] for words in found if words[0] == "pretrain"}) == 2


def shape_of(words: tuple[str, ...]) -> tuple[str, ...]:
    """Commands of one shape differ in values alone."""
    return (words[0], *sorted({word for word in words if word.startswith("--")}))


def test_every_command_is_one_that_the_command_line_takes() -> None:
    if "reproduce" not in app:
        app.command(reproduce)
    known = set(app)
    shapes = {}
    for name in NAMES:
        for scale in ("demo", "paper"):
            for run in planned(name, scale).runs:
                shapes[shape_of(run.words)] = run.words
    assert {words[0] for words in shapes.values()} >= {"data", "teacher", "pretrain", "finetune", "evaluate"}
    for words in shapes.values():
        if words[0] in known:
            try:
                app.parse_args(list(words), exit_on_error=False, print_error=False)
            except CycloptsError as error:
                pytest.fail(f"{words}: {error}")


def test_table_three_has_every_row_of_the_paper_and_what_it_leaves_out() -> None:
    rows = {row.name: row for row in planned("table3", "demo").rows}
    trainable = [entry["method"] for entry in paper_tables()["table3"]]
    assert len(trainable) == 22
    assert set(trainable) <= set(rows)
    for name in trainable:
        told = rows[name].network.removeprefix("the same run as ") if rows[name].is_cited else name
        assert rows[told].cells["Scenes"].runs, name
        assert not rows[told].cells["Scenes"].why
    assert rows["EmotiCon + CCIM"].cells["CAER-S"].paper == 91.17
    for extra in EXTRAS:
        assert "--weights" in rows[extra.name].cells["Scenes"].why
    assert set(planned("table3", "demo").columns) == {"Scenes", *PAPER_SIZES}


def test_what_a_plan_has_made_does_not_change_its_runs(tmp_path: Path) -> None:
    """A start from random weights takes its network from a run of ours, which is there the second time."""

    def keys() -> list[str]:
        return [run.key for run in plan_of(ReproduceOptions(name="table3", scale="demo", root=tmp_path)).runs]

    before = keys()
    for run in plan_of(ReproduceOptions(name="table3", scale="demo", root=tmp_path)).runs:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / (run.makes or "made")).write_text("made")
    assert keys() == before


def test_the_same_network_from_the_same_weights_is_one_row() -> None:
    found = planned("table3", "demo")
    runs = [cell.runs for row in found.rows if (cell := row.cells["Scenes"]).runs]
    assert len(set(runs)) == len(runs)
    rows = {row.name: row for row in found.rows}
    one = rows["the demo's ViT, random weights"]
    assert found.reference == one.name
    assert one.network.startswith("stands for ViT from scratch, ViT, ")
    assert one.network.endswith(f", {START}")
    assert START not in rows
    assert rows["MAE"].network == f"the same run as {one.name}"
    assert rows["MAE"].cells["FI"].paper == next(
        entry["FI"] for entry in paper_tables()["table3"] if entry["method"] == "MAE"
    )
    assert rows["VGG-16"].network == "RepVGG-A0, random weights"
    assert not rows["VGG-16"].is_cited


@pytest.mark.parametrize("name", ["table3", "table4", "table5", "table6", "table7", "fig7", "cross"])
@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_every_row_is_compared_with_a_histogram_of_the_same_labels(name: str, scale: str) -> None:
    found = planned(name, scale)
    rows = {row.name: row for row in found.rows}
    for row in found.rows:
        cells = {column: cell for column, cell in row.cells.items() if cell.runs}
        if cells and not row.name.startswith(HISTOGRAM):
            assert row.baseline is not None, row.name
        for column, cell in cells.items() if row.baseline is not None else ():
            [scored] = rows[row.baseline].cells[column].runs
            assert scored.scores == cell.runs[0].scores
            assert row.name == ZERO_SHOT or part_of(scored) == part_of(cell.runs[0])
    fitted = [run for run in found.runs if "histogram" in run.words]
    assert all("--init" not in run.words and "scene" in run.words and run.processes == 1 for run in fitted)
    sets = 1 if scale == "demo" else 7
    assert len(fitted) == sets * {"fig7": 4 if scale == "demo" else 6, "cross": 2}.get(name, 1)


def part_of(scored: Run) -> str:
    """The share of the labels that the scored run learned from."""
    return part_of_labels(scored.needs[0])


def test_random_weights_see_as_many_images_as_our_pretraining_and_fine_tuning() -> None:
    runs = planned("fig7", "demo").runs
    [pretrained] = [run for run in runs if run.words[0] == "pretrain"]
    tuned = [run for run in runs if run.words[0] == "finetune" and "histogram" not in run.words]
    images = {(is_random(run), part_of_labels(run)): run.images for run in tuned}
    for part in ("0.1", "0.25", "0.5", "1"):
        more = images[True, part] - images[False, part]
        assert more == pytest.approx(pretrained.images, abs=float(part) * 2464)  # whole epochs
    assert sum(is_random(run) for run in tuned) == 4
    assert sum(not is_random(run) for run in tuned) == 4 * 3
    paper = [run for run in planned("table3", "paper").runs if run.words[0] == "finetune" and is_random(run)]
    assert paper
    assert all("--schedule.epochs" not in run.words for run in paper)  # the published recipe


def is_random(run: Run) -> bool:
    return "--init" in run.words and run.words[run.words.index("--init") + 1].startswith("scratch:")


def part_of_labels(run: Run) -> str:
    return run.words[run.words.index("--fraction") + 1] if "--fraction" in run.words else "1"


def test_a_demo_on_drawn_scenes_is_headed_as_a_check(tmp_path: Path) -> None:
    assert planned("table4", "demo").title == "A check on drawn scenes: Table IV: parts of the method"
    assert "not evidence for the paper" in planned("table4", "demo").about[0]
    own = plan("table4", data=(f"folder:{class_folders(tmp_path / 'photos', ('awe', 'fear'), 30)}",))
    assert own.title == "Table IV: parts of the method"
    assert "drawn" not in own.about[0]


def test_a_checkpoint_gives_a_row_a_run_of_its_own() -> None:
    rows = {row.name: row for row in plan("table3", weights=_weights(["mae=mae.pth"])).rows}
    [run] = rows["MAE"].cells["Scenes"].runs
    assert run.needs[0].words[run.needs[0].words.index("--init") + 1] == "mae.pth"
    assert rows["dBOT"].network == "the same run as the demo's ViT, random weights"
    with pytest.raises(ConfigError, match="nothing is called 'mea' that has weights"):
        _weights(["mea=mae.pth"])
    with pytest.raises(ConfigError, match="takes NAME=VALUE"):
        _weights(["mae"])


def keys_of(name: str, **asked: object) -> set[str]:
    return {run.key for run in plan(name, **asked).runs}


def test_weights_that_change_make_other_runs(tmp_path: Path) -> None:
    file = tmp_path / "mae.pth"
    file.write_bytes(b"one")
    before = keys_of("table3", weights={"MAE": str(file)})
    assert keys_of("table3", weights={"MAE": str(file)}) == before
    file.write_bytes(b"another")
    assert keys_of("table3", weights={"MAE": str(file)}) != before


def test_a_teacher_that_changes_makes_other_runs(tmp_path: Path) -> None:
    file = tmp_path / "teacher.json"
    file.write_text("{}")
    before = keys_of("table4", teacher=f"fitted:{tmp_path}")
    file.write_text('{"format": 1}')
    assert keys_of("table4", teacher=f"fitted:{tmp_path}") != before


def test_images_that_change_make_other_runs(tmp_path: Path) -> None:
    source = f"folder:{class_folders(tmp_path / 'photos', ('awe', 'fear'), 10)}"
    for name in ("table4", "fig6"):
        before = keys_of(name, data=(source,))
        assert keys_of(name, data=(source,)) == before
        image = tmp_path / "photos" / "awe" / "0.jpg"
        image.write_bytes(image.read_bytes() + b"\0")
        assert keys_of(name, data=(source,)) != before


def test_parts_of_small_sets_have_smaller_batches(tmp_path: Path) -> None:
    """A batch of the preset's would not be filled: of 80 % of 60 images, and of parts of these."""
    source = f"folder:{class_folders(tmp_path / 'photos', ('awe', 'fear'), 30)}"
    found: dict[str, set[str]] = {}
    for run in plan("fig7", data=(source,)).runs:
        if run.words[0] == "finetune" and "histogram" not in run.words:
            words = [str(word) for word in run.words]
            part = words[words.index("--fraction") + 1] if "--fraction" in words else "1"
            found.setdefault(part, set()).add(words[words.index("--batch-size") + 1])
    assert found == {"1": {"32"}, "0.5": {"16"}, "0.25": {"8"}, "0.1": {"2"}}
    whole = [run for run in planned("fig7").runs if run.words[0] == "finetune"]
    assert whole
    assert not any("--batch-size" in run.words for run in whole)
    assert {name: FINETUNINGS[name]().batch_size for name in ("demo", "paper")} == BATCH


def test_what_is_excluded_is_left_out_of_every_run(tmp_path: Path) -> None:
    source = f"mine=folder:{class_folders(tmp_path / 'photos', ('awe', 'fear'), 10)}"
    check = tmp_path / "check.json"
    check.write_text(json.dumps({"exclude": [{"key": "awe/0.jpg"}]}))
    split = next(run for run in plan("fig6", data=(source,), exclude={"MINE": check}).runs if run.words[1] == "split")
    assert split.words[split.words.index("--exclude") + 1] == str(check)
    with pytest.raises(ConfigError, match="--exclude names yours, which is none of the data; there are mine"):
        plan("fig6", data=(source,), exclude={"yours": check})
    with pytest.raises(ConfigError, match="give that data set with --data"):
        plan("fig6", exclude={"fi": check})


def test_where_a_key_is_does_not_change_the_answers() -> None:
    def asked(variable: str) -> Plan:
        asking = ModelsToAsk(endpoint="http://127.0.0.1:1/v1", models=("m",), key_from=variable)
        return plan("table8", asking=asking)

    first, second = asked("A").more[0], asked("B").more[0]
    assert first.key == second.key
    assert first.words[-2:] == ("--key-from", "A")


def test_what_is_felt_is_never_scored_against_what_is_evoked() -> None:
    assert _obstacle(CAER, POLARITY) is not None
    assert _obstacle(MIKELS, POLARITY) is None
    assert _obstacle(MIKELS, MIKELS) is None


def test_tables_share_the_runs_that_are_the_same() -> None:
    full = planned("table4", "demo").rows[0].cells["Scenes"].runs
    assert planned("table7", "demo").rows[1].cells["Scenes"].runs == full
    assert planned("table6", "demo").rows[2].cells["Scenes"].runs == full  # the demo's Γ
    assert planned("fig7", "demo").rows[-2].cells["100%"].runs == full
    assert [len(planned(name, "demo").rows) for name in ("table4", "table5", "table6", "table7")] == [6, 5, 5, 3]
    assert len(full) == 3


def test_switches_of_the_ablations() -> None:
    pretrained = [run for run in planned("table4", "demo").runs if run.words[0] == "pretrain"]
    assert len(pretrained) == 5
    extra = {tuple(run.words[run.words.index("--schedule.epochs") + 2 :]) for run in pretrained}
    every = next(words[-1] for words in extra if "--save.keep-every" in words)
    assert extra == {
        ("--save.keep-every", every),
        ("--model.losses.scene-reconstruction", "0", "--model.losses.person-reconstruction", "0"),
        ("--model.losses.contrastive-feature-alignment", "0"),
        ("--model.losses.semantic-visual-alignment", "0"),
        ("--model.fusion", "none"),
    }


def test_the_paper_scale_is_the_published_recipe() -> None:
    found = plan("table5", scale="paper", weights={"dBOT": "dbot.pth"}, gpus=8)
    [first, *_] = [run for run in found.runs if run.words[0] == "pretrain"]
    assert first.command.startswith("torchrun --standalone --nproc-per-node 8 -m uniemox pretrain --preset paper ")
    assert " --encoder.start none --schedule.epochs 150 --model.fusion static --model.mask.ratio 0.25" in first.command
    assert first.images == 150 * 94400
    assert first.missing == "the data: --data EmoSet=emoset:PATH"
    [table4, *_] = [
        run for run in plan("table4", scale="paper", weights={"dBOT": "dbot.pth"}).runs if run.words[0] == "pretrain"
    ]
    assert "--encoder.start dbot.pth" in table4.command
    assert table4.images == 200 * 94400


def test_sources_get_the_papers_names() -> None:
    assert parse_given(["fi:a", "MINE=folder:b", "caer-s:c", "csv:d/votes.csv?labels=ekman"]) == {
        "FI": "fi:a",
        "MINE": "folder:b",
        "CAER-S": "caer-s:c",
        "votes.csv": "csv:d/votes.csv?labels=ekman",
    }
    assert parse_given(["emoset=shards:packed"]) == {"EmoSet": "shards:packed"}
    with pytest.raises(ConfigError, match="names FI twice"):
        parse_given(["fi:a", "FI=folder:b"])
    with pytest.raises(ConfigError, match="is no data set"):
        parse_given(["photos"])


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_pages_of_their_own_runs(name: str) -> None:
    found = planned(name, "demo")
    assert found.more
    assert found.parts
    assert not re.search(r"\{out\}", " ".join(run.command for run in found.runs))
