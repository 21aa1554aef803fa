"""Plans: keys of runs, the runs that they need, and commands that the command line accepts."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn import class_folders
from tests.reproduce.plans import make_run, plan, planned, runs_of
from uniemox.cli.program import add_foreign_commands, app
from uniemox.errors import ConfigError, LabelError
from uniemox.finetune.presets import PRESETS as FINETUNINGS
from uniemox.labels import CAER, MIKELS, POLARITY, scored_labels
from uniemox.paper import paper_tables
from uniemox_paper.ablations import NO_ALIGNMENT, NO_FUSION, NO_RECONSTRUCTION, NO_VISUAL
from uniemox_paper.config import NAMES, Name, Scale
from uniemox_paper.plan import PlannedRun
from uniemox_paper.sources import PAPER_SETS, parse_sources
from uniemox_paper.study import BATCH, HISTOGRAM
from uniemox_paper.table3 import EXTRAS, START, ZERO_SHOT

FIGURES: tuple[Name, ...] = ("fig4", "fig6", "fig8", "fig9")


def photos(folder: Path, each: int) -> str:
    """Write a small data set of two classes, and return its source."""
    return f"folder:{class_folders(folder / 'photos', ('awe', 'fear'), each)}"


def networks_of(examined: Any) -> list[PlannedRun]:
    """Return the fine-tuning runs except those of the colour histogram, which reads the scene alone."""
    return [run for run in runs_of(examined, "finetune") if run.options.get("method") != "histogram"]


@given(st.lists(st.text(max_size=8), min_size=1, max_size=5), st.lists(st.text(max_size=8), max_size=3))
def test_key_depends_on_words_and_data_only(words: list[str], data: list[str]) -> None:
    first = make_run(Path("a"), "one", "data split", *words, digests=tuple(data))
    moved = make_run(Path("elsewhere/b"), "another", "data split", *words, makes="x", digests=tuple(data[::-1]))
    assert first.key == moved.key
    assert first.folder.name == moved.folder.name
    assert replace(first, arguments=(*words, "more")).key != first.key
    assert replace(first, options={"seed": 1}).key != first.key
    assert replace(first, digests=(*data, "more")).key != first.key


def test_key_depends_on_needed_runs(tmp_path: Path) -> None:
    trainings = []
    for count in (8, 16):
        packed = make_run(tmp_path, "pack", "data shard", f"synthetic:{count}", "{out}")
        options = {"data": f"shards:{packed.folder}"}
        trainings.append(make_run(tmp_path, "train", "pretrain", options=options, needs=(packed,)))
    assert trainings[0].key != trainings[1].key
    assert trainings[0].needs[0].folder.name in trainings[0].command


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_runs_are_listed_once_after_those_they_need(name: Name, scale: Scale) -> None:
    runs = planned(name, scale).runs
    keys = [run.key for run in runs]
    assert len(set(keys)) == len(keys)
    for i, run in enumerate(runs):
        assert {needed.key for needed in run.needs} <= set(keys[:i])
        assert run.folder.parent == Path("r/runs")
        assert "{" not in run.command
    if scale == "paper":
        assert all(run.missing for run in runs if run.kind in ("pretrain", "finetune", "evaluate"))
    elif name not in ("table8", "table9"):
        assert all(run.missing is None for run in runs if "--weights" not in (run.missing or ""))
    if name in FIGURES:
        assert planned(name, scale).more
        assert planned(name, scale).parts


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["table3", "table4", "fig7", "cross"])
@pytest.mark.parametrize("with_emotion", [False, True])
def test_with_emotion_changes_the_texts_and_the_note(name: Name, with_emotion: bool) -> None:
    table = planned(name, with_emotion=with_emotion)
    assert ["without_emotion" in run.options for run in runs_of(table, "teacher fit")] == [not with_emotion]
    assert {run.config.teacher.with_emotion for run in runs_of(table, "pretrain")} == {with_emotion}  # type: ignore[union-attr]
    notes = [words for words in table.about if "The texts that teacher and pre-training read" in words]
    assert [("do not name the emotion" in words) for words in notes] == [not with_emotion]


@pytest.mark.parametrize("name", ["table3", "table4"])
@pytest.mark.parametrize("with_emotion", [None, False])
def test_paper_scale_texts_end_with_the_emotion_by_default(name: Name, with_emotion: bool | None) -> None:
    pretrainings = runs_of(planned(name, "paper", with_emotion=with_emotion), "pretrain")
    assert {run.options["teacher.with_emotion"] for run in pretrainings} == {with_emotion is None}
    assert all(f"--teacher.{'no-' if with_emotion is False else ''}with-emotion" in run.words for run in pretrainings)


def test_pretrain_seeds_are_shared_by_the_seeds_of_fine_tuning_in_turn() -> None:
    table = plan("table4", seeds=4, pretrain_seeds=2)
    starts = {run.options["seed"]: run.options["init"] for run in networks_of(table) if "as it is" in run.name}
    assert starts[0] == starts[2] != starts[1] == starts[3]
    assert sorted(run.options.get("seed", 0) for run in runs_of(table, "pretrain")) == [0] * 5 + [1] * 5
    assert "done with 2 seeds" in table.about[-1]
    with pytest.raises(ConfigError, match="--pretrain-seeds must be at least 1 and at most --seeds, which is 1, got 2"):
        plan("table4", seeds=1, pretrain_seeds=2)


def test_shared_pretraining_saves_each_quarter_for_figure_9() -> None:
    full_run = next(run for run in planned("fig9", "paper").runs if run.name == "pretrain as it is")
    assert "--save.no-keep-finished" in full_run.words  # but for these:
    interval = full_run.options["save.keep_every"]
    steps = 200 * round(118_000 * 0.8) // 1024
    assert [step // interval for step in (interval, steps)] == [1, 4]
    assert full_run.key in {run.key for run in planned("table3", "paper").runs}


def test_table7_has_teachers_and_pretrainings_with_and_without_emotion() -> None:
    table = planned("table7")
    assert sum("without_emotion" in run.options for run in runs_of(table, "teacher fit")) == 1
    pretrainings = runs_of(table, "pretrain")
    assert sorted(run.options["teacher.with_emotion"] for run in pretrainings) == [False, True]
    assert len({run.options["teacher.source"] for run in pretrainings}) == 2


@pytest.mark.thorough
def test_command_line_accepts_every_planned_command() -> None:
    """One command is tested of those that differ only in values."""
    scales: tuple[Scale, ...] = ("demo", "paper")
    add_foreign_commands("")
    runs = [run for name in NAMES for scale in scales for run in planned(name, scale).runs]
    shapes = {(run.kind, *sorted(run.options)): run for run in runs}
    assert {kind for kind, *_ in shapes} >= {"data shard", "teacher fit", "pretrain", "finetune", "evaluate"}
    for run in shapes.values():
        try:
            app.parse_args(list(run.words), exit_on_error=False, print_error=False)
        except CycloptsError as error:
            pytest.fail(f"{run.command}: {error}")


def test_table_three_has_every_row_of_the_paper_and_extras() -> None:
    rows = {row.name: row for row in planned("table3", "demo").rows}
    trainable = [entry["method"] for entry in paper_tables()["table3"]]
    assert len(trainable) == 22
    assert set(trainable) <= set(rows)
    for name in trainable:
        if rows[name].is_cited:
            representative = rows[name].network.removeprefix("the same run as ")
        else:
            representative = name
        assert rows[representative].cells["Scenes"].runs, name
        assert not rows[representative].cells["Scenes"].why
    assert rows["EmotiCon + CCIM"].cells["CAER-S"].paper == 91.17
    for extra in EXTRAS:
        assert "--weights" in rows[extra].cells["Scenes"].why
    assert set(planned("table3", "demo").columns) == {"Scenes", *PAPER_SETS}


def test_finished_runs_do_not_change_the_plan(tmp_path: Path) -> None:
    """Random weights have the network of a run of ours, whose folder exists the second time."""
    before = plan("table3", out=tmp_path).runs
    for run in before:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / (run.makes or "made")).write_text("made")
    assert [run.key for run in plan("table3", out=tmp_path).runs] == [run.key for run in before]


def test_rows_with_the_same_runs_are_joined() -> None:
    table = planned("table3", "demo")
    runs = [[run.key for run in cell.runs] for row in table.rows if (cell := row.cells["Scenes"]).runs]
    assert all(runs.count(joined) == 1 for joined in runs)
    rows = {row.name: row for row in table.rows}
    joined = rows["the demo's ViT, random weights"]
    assert table.reference == joined.name
    assert joined.network.startswith("stands for ViT from scratch, ViT, ")
    assert joined.network.endswith(f", {START}")
    assert START not in rows
    assert rows["MAE"].network == f"the same run as {joined.name}"
    paper = next(entry["FI"] for entry in paper_tables()["table3"] if entry["method"] == "MAE")
    assert rows["MAE"].cells["FI"].paper == paper
    assert rows["VGG-16"].network == "RepVGG-A0, random weights"
    assert not rows["VGG-16"].is_cited


@pytest.mark.parametrize("name", ["table3", "table4", "table5", "table6", "table7", "fig7", "cross"])
@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_every_row_is_compared_with_a_histogram_of_the_same_labels(name: Name, scale: Scale) -> None:
    examined = planned(name, scale)
    rows = {row.name: row for row in examined.rows}
    for row in examined.rows:
        cells = {column: cell for column, cell in row.cells.items() if cell.runs}
        if cells and not row.name.startswith(HISTOGRAM):
            assert row.baseline is not None, row.name
        for column, cell in cells.items() if row.baseline is not None else ():
            [scored] = rows[row.baseline].cells[column].runs
            assert scored.scores == cell.runs[0].scores
            if row.name != ZERO_SHOT:
                fractions = {
                    evaluation.model.options.get("fraction")
                    for evaluation in (scored, cell.runs[0])
                    if evaluation.model
                }
                assert len(fractions) == 1  # of the labels
    fitted = [run for run in examined.runs if run.options.get("method") == "histogram"]
    for run in fitted:
        assert (run.config.network.streams, run.config.init, run.processes) == ("scene", "", 1)  # type: ignore[union-attr]
    sets = 1 if scale == "demo" else 7
    assert len(fitted) == sets * {"fig7": 4 if scale == "demo" else 6, "cross": 2}.get(name, 1)


def is_random(run: PlannedRun) -> bool:
    return run.options["init"].startswith("scratch:")


def test_random_weights_get_the_images_of_our_pretraining_and_fine_tuning() -> None:
    [pretrained] = runs_of(planned("fig7"), "pretrain")
    tuned = networks_of(planned("fig7"))
    images = {(is_random(run), run.options.get("fraction", 1)): run.images for run in tuned}
    for fraction in (0.1, 0.25, 0.5, 1):
        extra_images = images[True, fraction] - images[False, fraction]
        assert extra_images == pytest.approx(pretrained.images, abs=fraction * 2464)  # whole epochs
    assert [sum(is_random(run) is random for run in tuned) for random in (True, False)] == [4, 4 * 3]
    paper = [run for run in networks_of(planned("table3", "paper")) if is_random(run)]
    assert paper
    assert all("schedule.epochs" not in run.options for run in paper)  # the preset's


def test_demo_on_synthetic_scenes_is_titled_as_a_check(tmp_path: Path) -> None:
    assert planned("table4").title == "A check on drawn scenes: Table IV: parts of the method"
    assert "not evidence for the paper" in planned("table4").about[0]
    own_plan = plan("table4", data=(photos(tmp_path, 30),))
    assert own_plan.title == "Table IV: parts of the method"
    assert "drawn" not in own_plan.about[0]


def test_given_checkpoint_gives_a_row_its_own_run() -> None:
    rows = {row.name: row for row in plan("table3", weights=("mae=mae.pth",)).rows}
    [run] = rows["MAE"].cells["Scenes"].runs
    assert run.needs[0].options["init"] == "mae.pth"
    assert rows["dBOT"].network == "the same run as the demo's ViT, random weights"
    for weights, message in (("mea=mae.pth", "no row with weights is called 'mea'"), ("mae", "takes NAME=VALUE")):
        with pytest.raises(ConfigError, match=message):
            plan("table3", weights=(weights,))


def test_authors_weights_have_their_own_row() -> None:
    """The row is next to our own pre-training; the weights were once accepted and ignored."""
    weights = ("UniEmoX=theirs.pth",)
    rows = {row.name: row for row in plan("table3", "paper", weights=weights).rows}
    [run] = rows["UniEmoX (authors' weights)"].cells["FI"].runs
    assert run.model is not None
    assert run.model.options["init"] == "theirs.pth"
    [ours] = rows["UniEmoX"].cells["FI"].runs
    assert ours.model is not None
    assert ours.model.needs[-1].kind == "pretrain"
    assert {
        row.cells["FI"].paper for name, row in rows.items() if name.startswith("UniEmoX") and row.paper_costs[0]
    } == {69.33}
    curves = plan("fig7", "paper", weights=("UniEmoX=theirs.pth", "dBOT=dbot.pth"))
    assert any(row.name.startswith("UniEmoX (authors' weights)") for row in curves.rows)
    assert "UniEmoX (authors' weights)" not in {row.name for row in planned("table3").rows}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "scale", "options", "message"),
    [
        ("table4", "paper", {"weights": ("MAE=mae.pth",)}, "--weights MAE=mae.pth: no run of table4 at scale paper"),
        ("table5", "paper", {"weights": ("dBOT=dbot.pth",)}, "no run of table5 at scale paper reads it"),
        ("table4", "demo", {"weights": ("UniEmoX=u.pth",)}, "--weights UniEmoX=u.pth: no run of table4 at scale demo"),
        ("fig7", "demo", {"weights": ("YOLOX-nano=y.onnx",)}, "no run of fig7 at scale demo reads it"),
        ("table1", "demo", {"weights": ("MAE=mae.pth",)}, "no run of table1 at scale demo reads it"),
        ("table4", "demo", {"endpoint": "http://127.0.0.1:1/v1"}, "--endpoint: no run of table4 at scale demo"),
        ("table4", "demo", {"detector": "yolov3.cfg"}, "--detector: no run of table4 at scale demo reads it"),
        ("fig6", "demo", {"teacher": "fitted:t"}, "--teacher: no run of fig6 at scale demo reads it"),
        ("table4", "demo", {"gpus": 8}, "--gpus: no run of table4 at scale demo reads it"),
        ("table4", "paper", {"objects": "resnet18"}, "--objects: no run of table4 at scale paper reads it"),
    ],
)
def test_option_that_no_run_reads_is_refused(name: Name, scale: Scale, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(name, scale, **options)


def keys_of(name: Name, **options: object) -> set[str]:
    return {run.key for run in plan(name, **options).runs}


@pytest.mark.thorough
def test_changed_weights_and_teachers_change_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "mae.pth"
    teacher = tmp_path / "teacher.json"
    cases: tuple[tuple[Name, Path, dict[str, Any]], ...] = (
        ("table3", file, {"weights": (f"MAE={file}",)}),
        ("table4", teacher, {"teacher": f"fitted:{tmp_path}"}),
    )
    for name, changed_file, options in cases:
        changed_file.write_text("{}")
        before = keys_of(name, **options)
        assert keys_of(name, **options) == before
        changed_file.write_text('{"format": 1}')
        assert keys_of(name, **options) != before


def test_changed_images_change_the_keys(tmp_path: Path) -> None:
    source = photos(tmp_path, 10)
    names: tuple[Name, ...] = ("table4", "fig6")
    for name in names:
        before = keys_of(name, data=(source,))
        assert keys_of(name, data=(source,)) == before
        image = tmp_path / "photos" / "awe" / "0.jpg"
        image.write_bytes(image.read_bytes() + b"\0")
        assert keys_of(name, data=(source,)) != before


def test_parts_of_small_sets_have_smaller_batches(tmp_path: Path) -> None:
    """80 % of 60 images, and parts of them, would not fill the preset's batch."""
    batch_sizes: dict[float, set[int]] = {}
    for run in networks_of(plan("fig7", data=(photos(tmp_path, 30),))):
        batch_sizes.setdefault(run.options.get("fraction", 1), set()).add(run.config.batch_size)
    assert batch_sizes == {1: {32}, 0.5: {16}, 0.25: {8}, 0.1: {2}}
    assert {run.config.batch_size for run in networks_of(planned("fig7"))} == {BATCH["demo"]}
    assert {name: FINETUNINGS[name]().batch_size for name in ("demo", "paper")} == BATCH


def test_exclude_reaches_the_split_and_refuses_unknown_names(tmp_path: Path) -> None:
    source = f"mine={photos(tmp_path, 10)}"
    check = tmp_path / "check.json"
    check.write_text(json.dumps({"exclude": [{"key": "awe/0.jpg"}]}))
    [split] = runs_of(plan("fig6", data=(source,), exclude=(f"MINE={check}",)), "data split")
    assert split.options["exclude"] == check
    with pytest.raises(ConfigError, match="--exclude names yours, which is none of the data; there are mine"):
        plan("fig6", data=(source,), exclude=(f"yours={check}",))
    with pytest.raises(ConfigError, match="give that data set with --data"):
        plan("fig6", exclude=(f"fi={check}",))


@pytest.mark.parametrize("option", ["weights", "exclude"])
def test_repeated_name_is_refused(option: str, tmp_path: Path) -> None:
    """The first value used to be ignored."""
    name = {"weights": "dBOT", "exclude": "mine"}[option]
    values = (f"{name}=a.pth", f"{name.upper()}=b.pth")
    with pytest.raises(ConfigError, match=f"--{option} names {name} twice, with a.pth and b.pth; give one of them"):
        plan("table3", data=(f"mine={photos(tmp_path, 10)}",), **{option: values})


def test_name_of_the_key_variable_does_not_change_the_key() -> None:
    asking = {"endpoint": "http://127.0.0.1:1/v1", "model": ("m",)}
    first, second = (plan("table8", key_from=variable, **asking).more[0] for variable in "AB")
    assert first.key == second.key
    assert first.words[-2:] == ("--key-from", "A")


def test_felt_emotions_are_not_mapped_to_evoked_ones() -> None:
    with pytest.raises(LabelError):
        scored_labels(CAER, POLARITY)
    for target in (POLARITY, MIKELS):
        scored_labels(MIKELS, target)


def test_tables_share_equal_runs() -> None:
    full = planned("table4").rows[0].cells["Scenes"].runs
    assert planned("table7").rows[1].cells["Scenes"].runs == full
    assert planned("table6").rows[2].cells["Scenes"].runs == full  # the demo's Γ
    assert planned("fig7").rows[-2].cells["100%"].runs == full
    tables: tuple[Name, ...] = ("table4", "table5", "table6", "table7")
    assert [len(planned(name).rows) for name in tables] == [6, 5, 5, 3]
    assert len(full) == 3


def test_ablations_switch_off_one_part_each() -> None:
    options_of_runs = [run.options for run in runs_of(planned("table4"), "pretrain")]
    extra = [dict(list(options.items())[list(options).index("schedule.epochs") + 1 :]) for options in options_of_runs]
    saved = {"save.keep_every": options_of_runs[0]["save.keep_every"]}
    assert extra == [saved, NO_RECONSTRUCTION, NO_ALIGNMENT, NO_VISUAL, NO_FUSION]


def test_paper_scale_has_the_published_recipe() -> None:
    first = runs_of(plan("table5", "paper", gpus=8), "pretrain")[0]
    launcher = "torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node 8"
    assert first.command.startswith(f"{launcher} -m uniemox pretrain --preset paper ")
    assert " --encoder.start none --schedule.epochs 150 --model.fusion static --model.mask.ratio 0.25" in first.command
    assert first.images == 150 * 94400
    assert first.missing == "the data: --data EmoSet=emoset:PATH"
    table4 = runs_of(plan("table4", "paper", weights=("dBOT=dbot.pth",)), "pretrain")[0]
    assert "--encoder.start dbot.pth" in table4.command
    assert table4.images == 200 * 94400


def test_sources_get_the_papers_names() -> None:
    assert parse_sources(["fi:a", "MINE=folder:b", "caer-s:c", "csv:d/votes.csv?labels=ekman"]) == {
        "FI": "fi:a",
        "MINE": "folder:b",
        "CAER-S": "caer-s:c",
        "votes.csv": "csv:d/votes.csv?labels=ekman",
    }
    assert parse_sources(["emoset=shards:packed"]) == {"EmoSet": "shards:packed"}
    with pytest.raises(ConfigError, match="names FI twice"):
        parse_sources(["fi:a", "FI=folder:b"])
    with pytest.raises(ConfigError, match="is not a data set"):
        parse_sources(["photos"])
