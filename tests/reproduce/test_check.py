"""`uniemox reproduce --check`: every run of every target resolved, on tiny data and files of the paper's formats."""

import json
from pathlib import Path

import pytest
import torch

from tests.model.detector_files import write_detector
from tests.reproduce.trees import seven
from tests.reproduce.weights import published
from tests.runs import one_thread
from uniemox.cli.plan_check import read_settings
from uniemox.cli.reproduce import table_or_figure
from uniemox.cli.reproduce_plan import Options
from uniemox.errors import ConfigError
from uniemox.model.detectors import YoloxNano, YuNet
from uniemox.pretrain.config import PretrainConfig
from uniemox.reproduce.check import Checked, check_runs
from uniemox.reproduce.names import NAMES
from uniemox.reproduce.plan import Plan, Run
from uniemox.reproduce.sources import Finders
from uniemox.reproduce.table3 import EXTRAS, SCRATCH
from uniemox.reproduce.table8 import ModelsToAsk
from uniemox.reproduce.targets import ReproduceOptions, plan_of

ABSENT = ("SimMIM", "MixMAE")  # rows whose files are not given
MANY = ("fig7", "cross")
ASKING = ModelsToAsk(endpoint="http://127.0.0.1:1/v1", models=("m",))


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    """Of every target, at the scale of the paper, one seed."""
    folder = tmp_path_factory.mktemp("check")
    small = {extra.name: "timm:test_vit.r160_in1k" for extra in EXTRAS} | {SCRATCH: "scratch:timm:test_vit"}
    data, weights = seven(folder / "data"), published(folder / "weights") | small
    for name, network in (("YOLOX-nano", YoloxNano()), ("YuNet", YuNet())):
        weights[name] = str(folder / f"{name}.onnx")
        write_detector(network, folder / f"{name}.onnx")
    asked = {
        "scale": "paper",
        "root": folder / "out",
        "data": data,
        "weights": weights,
        "seeds": 1,
        "finders": Finders(detector="embedded"),
        "asking": ASKING,
    }
    few = asked | {"weights": {"dBOT": weights["dBOT"]}}  # the same networks on many parts and pairs of data
    return {name: plan_of(ReproduceOptions(name=name, **(few if name in MANY else asked))) for name in NAMES}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def checked(plans: dict[str, Plan]) -> dict[str, Checked]:
    """By key, all runs of all targets, those that they share once."""
    runs: dict[str, Run] = {}
    for plan in plans.values():
        runs |= {run.key: run for run in plan.runs if run.key not in runs}
    with one_thread():
        return {entry.run.key: entry for entry in check_runs(list(runs.values()), read_settings)}


@pytest.mark.long
def test_every_run_of_every_target_could_start(plans: dict[str, Plan], checked: dict[str, Checked]) -> None:
    """All but those of the two rows whose checkpoints are not there, which say so.

    One test for all targets, and for what is said of them: the processes of a suite share no fixture.
    """
    for plan in plans.values():
        for run in plan.runs:
            entry = checked[run.key]
            without = next((row for row in ABSENT if row in run.name), None)
            if without is None:
                assert (entry.missing, bool(entry.found)) == (None, True), run.command
            else:
                assert f"--weights {without}=" in str(entry.missing) or "the run before it" in str(entry.missing)
    say_what_was_resolved({checked[run.key].run.name: checked[run.key].found for run in plans["table3"].runs})


def say_what_was_resolved(found: dict[str, str]) -> None:
    assert found["pretrain as it is"].startswith("32 images, 2 steps an epoch; start dbot of ")
    assert "features (16, 512), losses scene_reconstruction" in found["pretrain as it is"]
    for row, start in (("MAE", "mae"), ("DINO", "dino"), ("BEiT", "beit"), ("ViT", "torchvision"), ("CAE", "cae")):
        assert f"start {start} of " in found[f"finetune {row} on FI, seed 0"]
    assert "timm:vgg16.tv_in1k" in found["finetune VGG-16 on FI, seed 0"]
    assert "features (32, 4096), logits (32, 8)" in found["finetune VGG-16 on FI, seed 0"]
    heco = found["finetune UniEmoX on HECO, seed 0"]
    assert "of scene and person (target), features (32, 512), logits (32, 8)" in heco
    assert "person (whole_image_nobody_looked)" in found["finetune UniEmoX on CAER-S, seed 0"]  # found by then


def test_a_network_that_can_not_take_its_settings_is_told(plans: dict[str, Plan]) -> None:
    """As VGG-16 was with a drop path; and what needs the run says which one."""
    run = next(run for run in plans["table3"].runs if run.name == "finetune VGG-16 on FI, seed 0")
    place = run.words.index("--network.drop-path")
    words = (*run.words[:place], *run.words[place + 2 :])
    spoilt = Run(name="spoilt", words=words, root=run.root, key="a", folder=run.folder, makes=None)
    after = Run(
        name="after", words=("explain",), root=run.root, key="b", folder=run.folder, makes=None, needs=(spoilt,)
    )
    splits = [needed for needed in run.needs if needed.words[:2] == ("data", "split")]
    *_, first, second = check_runs([*splits, spoilt, after], read_settings)
    assert "VGG has no blocks with a drop path, got drop_path=0.2" in str(first.missing)
    assert second.missing == "the run before it: spoilt"


def test_a_file_that_is_no_checkpoint_is_told(plans: dict[str, Plan], tmp_path: Path) -> None:
    bad = tmp_path / "mae.pth"
    run = next(run for run in plans["table3"].runs if run.name == "finetune MAE on FI, seed 0")
    words = list(run.words)
    words[words.index("--init") + 1] = str(bad)
    for content, message in ((b"PK\3\4 cut off", "is cut off or no checkpoint"), (None, "there is no file")):
        if content is not None:
            bad.write_bytes(content)
        else:
            bad.unlink()
        spoilt = Run(name="x", words=tuple(words), root=run.root, key="a", folder=run.folder, makes=None)
        splits = [needed for needed in run.needs if needed.words[:2] == ("data", "split")]
        assert message in str(check_runs([*splits, spoilt], read_settings)[-1].missing)
    torch.save({"weights": torch.zeros(2)}, bad)
    assert "is of no method that uniemox knows" in str(check_runs([*splits, spoilt], read_settings)[-1].missing)


def test_settings_are_those_of_the_words() -> None:
    words = ("pretrain", "--preset", "paper", "--data", "d", "--split", "train", "val", "--out", "o", "--resume")
    config = read_settings(
        (*words, "--encoder.start", "none", "--model.mask.ratio", "0.25", "--teacher.no-with-emotion")
    )
    assert isinstance(config, PretrainConfig)
    assert (config.encoder.start, config.model.mask.ratio, config.teacher.with_emotion) == (None, 0.25, False)
    assert config.batch_size == 1024
    with pytest.raises(ConfigError, match="does not take these words"):
        read_settings((*words, "--model.mask.ratoi", "0.25"))


def test_json_alone_goes_to_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And a plan that could not start is an error, which the command line turns into exit code 1."""
    options = Options(scale="paper", out=tmp_path / "r", check=True, as_json=True)
    with pytest.raises(ConfigError, match="some runs could not start"):
        table_or_figure("fig6", options)
    found = json.loads(capsys.readouterr().out)
    assert (found["target"], found["scale"], found["can_start"]) == ("fig6", "paper", False)
    assert [run["missing"] for run in found["runs"]] == ["the data: --data Emo8=emo8:PATH"]
    assert not (tmp_path / "r").exists()
    for command in ("table1", "table2"):
        table_or_figure(command, options)  # type: ignore[arg-type]
        assert json.loads(capsys.readouterr().out)["can_start"]
