"""`uniemox reproduce --check`: every run of every target resolved, on tiny data and files of the paper's formats."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from warnings import catch_warnings

import pytest
import timm.layers.weight_init
import torch
from cyclopts import App

from tests.model.detector_files import write_detector
from tests.reproduce.test_plan import photos
from tests.reproduce.trees import seven
from tests.reproduce.weights import published
from tests.runs import pretrained, scenes, tiny_finetuning
from uniemox.cli import finetune, pretrain
from uniemox.cli.data import SchemeOptions
from uniemox.cli.data import split as data_split
from uniemox.cli.settings import config_of, options_of, takes
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.source import open_data
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.network import network_of
from uniemox.finetune.run import finetune as finetune_run
from uniemox.model.detectors import YoloxNano, YuNet
from uniemox.pretrain.config import PretrainConfig
from uniemox_paper.check import Checked, check_runs
from uniemox_paper.cli import PlanOptions, table_or_figure
from uniemox_paper.config import NAMES, Name, ReproduceConfig, Scale
from uniemox_paper.plan import OUT, Plan, PlannedRun, with_needs
from uniemox_paper.plan_console import check_plan
from uniemox_paper.table3 import AUTHORS, EXTRAS, SCRATCH
from uniemox_paper.targets import plan_of

# Rows whose files are not given.
ABSENT = ("SimMIM", "MixMAE")
READ: dict[str, tuple[str, ...]] = {
    "fig8": (SCRATCH, "DINO", "MAE", "MoCoV3", "SiameseIM", "TinyMIM", "dBOT"),
    "fig9": ("dBOT", "MAE"),
    **dict.fromkeys(("table4", "table7", "table8", "table9", "fig7", "cross"), ("dBOT",)),
    **dict.fromkeys(("table1", "table2", "table5", "table6", "fig4", "fig6"), ()),
}
"""Rows whose weights a target reads; table III reads all."""


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    """Plans of every target, at the paper's scale, with one seed."""
    folder = tmp_path_factory.mktemp("check")
    small = dict.fromkeys(EXTRAS, "timm:test_vit.r160_in1k") | {SCRATCH: "scratch:timm:test_vit"}
    data = seven(folder / "data")
    weights = published(folder / "weights") | small
    weights["UniEmoX"] = str(folder / "theirs.pth")  # the authors' files are MAE's, by the names in them
    shutil.copy(weights["MAE"], weights["UniEmoX"])
    for name, network in (("YOLOX-nano", YoloxNano()), ("YuNet", YuNet())):
        weights[name] = str(folder / f"{name}.onnx")
        write_detector(network, folder / f"{name}.onnx")
    config = ReproduceConfig(scale="paper", out=folder / "out", data=data, seeds=1)
    plans_by_name: dict[str, Plan] = {}
    for name in NAMES:
        rows = READ.get(name, tuple(weights))
        target_config = replace(config, weights=tuple(f"{row}={weights[row]}" for row in rows))
        if name not in ("table1", "table2", "fig6"):  # they read no people
            target_config = replace(target_config, detector="embedded")
        if name in ("table8", "table9"):
            target_config = replace(target_config, endpoint="http://127.0.0.1:1/v1", model=("m",))
        plans_by_name[name] = plan_of(name, target_config)
    return plans_by_name


@pytest.fixture(scope="module")
def checked(plans: dict[str, Plan]) -> dict[str, Checked]:
    """Checks of all runs of all targets by key; shared runs are checked once."""
    runs: dict[str, PlannedRun] = {}
    for plan in plans.values():
        runs |= {run.key: run for run in plan.runs if run.key not in runs}
    with pytest.MonkeyPatch.context() as patch:
        # Networks are on the meta device, where drawing numbers for them takes a fifth of the time and leaves none.
        patch.setattr(timm.layers.weight_init, "_trunc_normal_", lambda tensor, *_: tensor)
        return {entry.run.key: entry for entry in check_runs(list(runs.values()))}


@pytest.mark.thorough
@pytest.mark.long
def test_all_runs_with_given_files_can_start(plans: dict[str, Plan], checked: dict[str, Checked]) -> None:
    """All runs can start but those of the two rows without checkpoints, which report them.

    One test covers all targets and their descriptions, because the processes of a test run share no fixture.
    """
    for plan in plans.values():
        for run in plan.runs:
            entry = checked[run.key]
            without = next((row for row in ABSENT if row in run.name), None)
            if without is None:
                assert (entry.missing, bool(entry.parts)) == (None, True), run.command
            else:
                assert f"--weights {without}=" in str(entry.missing) or "the run before it" in str(entry.missing)
    assert_table3_is_resolved({checked[run.key].run.name: checked[run.key].parts for run in plans["table3"].runs})


def assert_table3_is_resolved(descriptions: dict[str, str]) -> None:
    assert descriptions["pretrain as it is"].startswith("32 images, 2 steps an epoch; start dbot of ")
    assert descriptions["pretrain as it is"].endswith("teacher clip:ViT-B-16-quickgelu@openai, 512 channels")
    for row, start in (("MAE", "mae"), ("DINO", "dino"), ("BEiT", "beit"), ("ViT", "torchvision"), ("CAE", "cae")):
        assert f"start {start} of " in descriptions[f"finetune {row} on FI, seed 0"]
    assert "timm:vgg16.tv_in1k" in descriptions["finetune VGG-16 on FI, seed 0"]
    for data in ("HECO", "HECO, scene and person", "CAER-S, scene and person"):
        assert "start the run pretrain as it is; " in descriptions[f"finetune UniEmoX on {data}, seed 0"]
    assert "start random weights; 11 labels" in next(
        found for name, found in descriptions.items() if name.startswith(f"finetune {SCRATCH} on UBE + FI")
    )


def changed_run(plans: dict[str, Plan], name: str, **options: object) -> list[PlannedRun]:
    """Return a fine-tuning run on FI with other options, and the split of FI that it needs."""
    run = next(run for run in plans["table3"].runs if run.name == f"finetune {name} on FI, seed 0")
    splits = [needed for needed in run.needs if needed.kind == "data split"]
    return [*splits, replace(run, name="spoilt", options={**run.options, **options})]


def test_settings_that_a_network_refuses_are_reported(plans: dict[str, Plan]) -> None:
    """VGG-16 has no drop path; a run that needs this run names it."""
    runs = changed_run(plans, "VGG-16", **{"network.drop_path": 0.2})
    *_, first, second = check_runs([*runs, replace(runs[-1], name="after", options={}, needs=(runs[-1],))])
    assert "VGG has no blocks with a drop path, got drop_path=0.2" in str(first.missing)
    assert second.missing == "the run before it: spoilt"


def test_file_that_is_no_checkpoint_is_reported(plans: dict[str, Plan], tmp_path: Path) -> None:
    file = tmp_path / "mae.pth"
    runs = changed_run(plans, "MAE", init=str(file))
    assert "there is no file" in str(check_runs(runs)[-1].missing)
    file.write_bytes(b"PK\3\4 cut off")
    assert "is cut off or not a checkpoint" in str(check_runs(runs)[-1].missing)
    torch.save({"weights": torch.zeros(2)}, file)
    assert "is of no method that uniemox knows" in str(check_runs(runs)[-1].missing)


def test_check_and_command_report_the_same_error(plans: dict[str, Plan], tmp_path: Path) -> None:
    """The dry run calls the functions of the command, here until a data set is too small and a file is no network."""
    [split, run] = changed_run(plans, "MAE", init=str(tmp_path / "gone.pth"))
    scheme = tmp_path / "splits.json"
    data_split(str(split.arguments[0]), scheme, scheme=SchemeOptions(paper=True))
    for batch_size in (32, 512):
        changed = replace(run, options={**run.options, "splits": scheme, "batch_size": batch_size}, needs=())
        [checked] = check_runs([changed])
        assert isinstance(changed.config, FinetuneConfig)
        data = open_data(changed.options["data"], splits=scheme)
        with pytest.raises((CheckpointError, ConfigError)) as raised:
            finetune_run(changed.config, data, tmp_path / "run")
        assert checked.missing == f"{type(raised.value).__name__}: {raised.value}"


def test_output_folder_that_cannot_be_written_is_an_error(plans: dict[str, Plan], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="can't be written"):
        check_runs([replace(run, root=tmp_path / "file" / "r") for run in changed_run(plans, "MAE")])


def test_demo_on_own_data_can_start_and_leaves_nothing(tmp_path: Path) -> None:
    """People, texts, a split, shards and a teacher are made by earlier runs, and have stand-ins."""
    source = photos(tmp_path, 60)
    config = ReproduceConfig(out=tmp_path / "r", data=(source,), seeds=1)
    runs = plan_of("table7", config).runs
    before = sorted(tmp_path.rglob("*"))
    checks = check_runs(runs)
    assert [entry.missing for entry in checks] == [None] * len(runs)
    assert {entry.run.kind for entry in checks} >= {
        *("data split", "data persons", "data describe", "data shard", "teacher fit"),
        *("pretrain", "finetune", "evaluate"),
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_finished_runs_are_not_checked_again(tmp_path: Path) -> None:
    runs = plan_of("fig4", ReproduceConfig(out=tmp_path / "r")).runs
    for run in runs:
        run.folder.mkdir(parents=True)
        (run.folder / str(run.makes)).touch()
    assert {entry.parts for entry in check_runs(runs)} == {"done, or no longer needed"}


def test_figure_of_finished_runs_can_start(tmp_path: Path) -> None:
    runs = plan_of("fig9", ReproduceConfig(out=tmp_path / "r")).runs
    *before, figure = runs
    for run in before:
        run.folder.mkdir(parents=True)
        (run.folder / str(run.makes)).touch()
    *_, last = check_runs(runs)
    assert (last.run, last.parts, last.missing) == (figure, "2 models", None)


def test_network_of_a_finished_run_is_read_without_its_weights() -> None:
    """The weights of a run give the network its fusion, of which the settings have none."""
    data = scenes()
    network = replace(tiny_finetuning(pretrained()).network, streams="both", fusion=None)
    config = replace(tiny_finetuning(pretrained()), network=network)
    with torch.device("meta"), catch_warnings(action="ignore"):
        built = network_of(config, data, data.samples)
    assert built.spec.fusion is not None
    assert all(parameter.is_meta for parameter in built.classifier.parameters())


def test_people_in_packed_data_can_be_found_first(tmp_path: Path) -> None:
    """Boxes are in px of the packed images, as the header of their file says."""
    packed = tmp_path / "packed"
    write_shards(open_data(photos(tmp_path, 20)), packed, ShardConfig(short_side_px=32))
    find = PlannedRun(
        name="find",
        kind="data persons",
        arguments=(f"shards:{packed}",),
        options={"detector": "embedded", "out": f"{OUT}/persons.jsonl"},
        root=tmp_path / "r",
        makes="persons.jsonl",
    )
    persons = find.folder / "persons.jsonl"
    show = replace(find, name="show", kind="reproduce images", makes="x", needs=(find,))
    show = replace(show, options={"data": f"shards:{packed}", "persons": persons})
    assert [entry.missing for entry in check_runs([find, show])] == [None, None]


class CaughtError(Exception):
    """Carries the config of a command out of it."""


def caught(kind: type, settings: object, **more: object) -> None:
    """Build the config as `config_of` does, and end the command."""
    raise CaughtError(config_of(kind, settings, **more))


@pytest.mark.thorough
def test_config_of_a_run_equals_the_parsed_command_line(
    plans: dict[str, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config of a run equals the one that the command line builds from the run's words."""
    run = next(run for run in plans["table5"].runs if run.kind == "pretrain")
    assert isinstance(run.config, PretrainConfig)
    assert (run.config.encoder.start, run.config.model.mask.ratio, run.config.schedule.epochs) == (None, 0.25, 150)
    trained = [run for plan in plans.values() for run in plan.runs if run.kind in ("pretrain", "finetune")]
    app = App()
    for module in (pretrain, finetune):
        name = module.__name__.rpartition(".")[2]
        command = getattr(module, name)
        for settings in ("__annotations__", "__kwdefaults__"):
            monkeypatch.setattr(command, settings, dict(getattr(command, settings)))  # restored after the test
        options = options_of(module.PRESETS["paper"](), without=module.NO_OPTIONS)
        app.command(takes(settings=options)(command), name=name)
        monkeypatch.setattr(module, "config_of", caught)
    for run in {(run.kind, *sorted(run.options)): run for run in trained}.values():  # one of each shape
        with pytest.raises(CaughtError) as config:
            app(list(run.words), exit_on_error=False, print_error=False)
        assert config.value.args == (run.config,)


def test_evaluations_of_table_three_cover_all_labels(plans: dict[str, Plan]) -> None:
    """The union that trains the ViT from scratch once had only the labels of its first member."""
    scratch = next(row for row in plans["table3"].rows if row.name == SCRATCH)
    evaluations = [run for cell in scratch.cells.values() for run in cell.runs]
    runs = {run.key: run for run in plans["table3"].runs}
    needed: dict[str, PlannedRun] = {}

    def add(run: PlannedRun) -> None:
        for dependency in run.needs:
            add(dependency)
        needed[run.key] = runs[run.key]

    for run in evaluations:
        add(run)
    checks = {entry.run.key: entry for entry in check_runs(list(needed.values()))}
    assert [checks[run.key].missing for run in evaluations] == [None] * 9
    assert not [entry.parts for entry in checks.values() if "never reached" in entry.parts]
    assert "labels joined -> mikels: dropped: joy, love, surprise" in checks[scratch.cells["FI"].runs[0].key].parts
    assert checks[scratch.cells["FI"].runs[0].needs[0].key].parts.endswith("; 11 labels")


def test_check_prints_what_every_cell_computes(
    plans: dict[str, Plan], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uniemox_paper.check.check_runs", lambda *_: [])
    plan = plans["table3"]
    check_plan(plan, as_json=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cell ")]
    assert len(lines) == sum(bool(cell.runs) for row in plan.rows for cell in row.cells.values())
    [line] = [line for line in lines if line.startswith("cell     UniEmoX on FI (the paper's table IV has 69.33 %): ")]
    assert line.partition(": ")[2] == (
        "trained on FI, 8 labels (mikels); reads the scene; pooling: mean of the patch tokens; head: linear; "
        "augmentation: crops, flips, RandAugment, mixup, CutMix, erasing, label smoothing 0.1; epoch: highest accuracy "
        "on all held-out images; scored on FI, split test, 8 labels (mikels): amusement, anger, awe, contentment, "
        "disgust, excitement, fear, sadness"
    )
    check_plan(plan, as_json=True)
    cells = json.loads(capsys.readouterr().out)["cells"]
    assert len(cells) == len(lines)
    assert cells[0].keys() == {"method", "data", "paper_percent", "paper_from", "computes"}
    assert {cell["method"] for cell in cells if cell["paper_from"] == "table IV"} == {"UniEmoX", AUTHORS}


def test_check_prints_what_distinguishes_pretrainings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uniemox_paper.check.check_runs", lambda *_: [])

    def rows_of(name: Name) -> dict[str, str]:
        check_plan(plan_of(name, ReproduceConfig(scale="paper")), as_json=True)
        return {row["method"]: row["pretraining"] for row in json.loads(capsys.readouterr().out)["rows"]}

    of_table4 = rows_of("table4")
    assert of_table4["all of it"] == (
        "L1 of the scene × 1, L1 of the person × 1, L2 × 1, L3 × 1; Γ2 (attention), κ = 3; 75% of the patches hidden; "
        "texts with the emotion; start: dBOT.pth; 200 epochs; fine-tuned on 100% of the labels"
    )
    assert "L1 of the scene × 0, L1 of the person × 0" in of_table4["without L1 (reconstruction)"]
    assert "L2 × 0" in of_table4["without L2 (CFA)"]
    assert "no texts" in of_table4["without L2 (CFA)"]
    assert "no fusion" in of_table4["without fusion"]
    of_table5 = rows_of("table5")
    assert [re.search(r"\d+% of the patches", row)[0] for row in of_table5.values()] == [  # type: ignore[index]
        f"{share}% of the patches" for share in (25, 50, 75, 85)
    ]
    assert of_table5["0.75 hidden"] == rows_of("table6")["static (Γ4)"]
    assert "texts without the emotion" in rows_of("table7")["no emotion in the text"]
    assert "10%, 20%, 40%, 60%, 80%, 100% of the labels" in rows_of("fig7")["UniEmoX, FI"]


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_table_v_at_the_usual_ratio_and_table_vi_with_fixed_weights_are_one_run(scale: Scale) -> None:
    pretrainings = []
    for name, row_name in (("table5", "0.75 hidden"), ("table6", "static (Γ4)")):
        plan = plan_of(name, ReproduceConfig(scale=scale))  # type: ignore[arg-type]
        [row] = [row for row in plan.rows if row.name == row_name]
        runs = [run for cell in row.cells.values() for last in cell.runs for run in with_needs(last)]
        pretrainings.append({run.key for run in runs if run.kind == "pretrain"})
    assert len(pretrainings[0]) == 1
    assert pretrainings[0] == pretrainings[1]


def test_check_as_json_prints_only_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan that can't start is an error too, which the command line turns into exit code 1."""
    config = ReproduceConfig(scale="paper", out=tmp_path / "r")
    options = PlanOptions(check=True, as_json=True)
    with pytest.raises(ConfigError, match="some runs can't start"):
        table_or_figure("fig6", config=config, options=options)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["target"], summary["scale"], summary["can_start"]) == ("fig6", "paper", False)
    assert [run["missing"] for run in summary["runs"]] == ["the data: --data Emo8=emo8:PATH"]
    assert not (tmp_path / "r").exists()
    tables: tuple[Name, ...] = ("table1", "table2")
    for name in tables:
        table_or_figure(name, config=config, options=options)
        assert json.loads(capsys.readouterr().out)["can_start"]
