"""The command line: its output, exit codes and terminals."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from inspect import isfunction
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from tests.drawn import draw_image
from tests.runs import uniemox_here
from uniemox.cli import console, program
from uniemox.cli.callbacks import ConsoleCallback
from uniemox.cli.console import progress_bar
from uniemox.cli.program import COMMANDS as LINES
from uniemox.cli.program import MODULES

COMMANDS = (
    *("", "convert", "bench", "bench step", "data", "data check", "predict", "explain", "serve", "export", "ask"),
    *("reproduce", "curate", "compare", "evaluate", "report", "teacher", "pretrain", "pretrain --preset demo"),
    *("finetune", "few-labels"),
)


@pytest.mark.parametrize("name", LINES)
def test_the_list_of_commands_has_the_first_line_of_their_help(name: str) -> None:
    function = name.replace("-", "_")
    command = getattr(import_module(f"uniemox.cli.{MODULES.get(name, function)}"), function)
    if isfunction(command):
        assert LINES[name] == (command.__doc__ or "").partition("\n")[0]


@pytest.mark.portable
def test_a_terminal_that_does_not_know_its_width_gets_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    assert "predict" in uniemox_here("--help").stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full: /dev/full")
def test_messages_that_can_not_be_written_do_not_end_the_work(tmp_path: Path) -> None:
    draw_image(1).save(tmp_path / "a.png")
    code = "from uniemox.cli.program import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "predict",
        str(tmp_path),
        "--model",
        "small",
        "--out",
        str(tmp_path / "o.jsonl"),
    ]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 1


def test_help_imports_no_heavy_packages() -> None:
    """The help of all commands is printed in one process."""
    code = (
        "import sys; from uniemox.cli import main\n"
        "heavy = {'torch', 'timm', 'numpy', 'onnxruntime'}\n"
        f"for command in {COMMANDS}:\n"
        "    sys.argv = ['uniemox', *command.split(), '--help']\n"
        "    try: main()\n"
        "    except SystemExit as end: print('END', command, end.code, heavy & set(sys.modules) or 'light')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    *pages, remainder = re.split(r"END (.*) 0 light\n", done.stdout)
    assert (pages[1::2], remainder) == (list(COMMANDS), "")
    # Examples are a list, also of the commands of other packages.
    examples = [page.split("For example:")[1] for page in pages[::2] if "For example:" in page]
    assert len(examples) > 10
    assert all(text.lstrip().startswith("•") for text in examples)
    groups = {"", "bench", "data", "teacher", "curate"}
    for page, command in zip(pages[::2], COMMANDS, strict=True):
        assert "Usage: uniemox" in page
        assert command in groups or re.search(r"[Ee]xamples?:", page), command


def test_convert_writes_the_file_and_prints_how_to_load_it(golden: Path, tmp_path: Path) -> None:
    target = tmp_path / "beit.safetensors"
    done = uniemox_here("convert", golden / "beit" / "checkpoint.pth", target)
    assert done.returncode == 0
    assert "timm.create_model('beit_base_patch16_224'" in done.stdout
    assert "dropped 6: mask_token" in done.stdout
    assert "blocks.0.attn.relative_position_bias_table" in load_file(target)


def test_convert_as_json_prints_only_json(golden: Path, tmp_path: Path) -> None:
    target = tmp_path / "mae.safetensors"
    done = uniemox_here(
        "convert", golden / "mae" / "checkpoint.pth", target, "--heads", 3, "--image-size", 96, "--json"
    )
    report = json.loads(done.stdout)
    assert report["method"] == "mae"
    assert report["resized"] == ["pos_embed"]
    assert report["image_size"] == 96
    assert report["written"] == str(target)


def test_progress_on_a_terminal_leaves_standard_output_alone() -> None:
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "uniemox", "data", "check", "synthetic:8", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=end, text=True, check=True, timeout=300)
    assert json.loads(done.stdout)["n"] == 8
    os.close(end)
    os.close(terminal)


PRETRAIN = "pretrain --data synthetic:8 --out run"
SPLIT = "pretrain --data synthetic:160 --out run --preset demo"
FINETUNE = "finetune --init x --data synthetic:8 --out run"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("convert none.pth out.safetensors", 1, "there is no file none.pth"),
        ("convert none.pth", 2, "is missing. See: uniemox convert --help"),
        ("explain a.jpg", 2, "--out is missing. See: uniemox explain --help"),
        ("explain a.jpg --out", 2, "requires an argument"),
        ("convert a b --metod mae", 2, "Did you mean --method?"),
        ("bench step --batch-size 0", 1, "batch size and steps must be at least 1, got 0"),
        ("bench step --model resnet18", 1, "'resnet18' cannot be the encoder"),
        ("bench step --device tpu", 2, "cpu"),
        ("benhc", 2, "bench"),
        ("evaluate --model small --data none:none --name ../x", 1, "an evaluation's name has letters"),
        ("search none --like a.jpg --emotion awe", 2, "--like or --emotion (not both)"),
        ("search none", 2, "give a criterion"),
        (f"{PRETRAIN} --model.fuson gated", 2, "Did you mean"),
        (f"{PRETRAIN} --model.fusion sum", 1, "there is no fusion 'sum'; choose one of static"),
        (f"{PRETRAIN} --preset dmeo", 1, "there is no preset 'dmeo'; choose one of paper, best, demo"),
        (f"{PRETRAIN} --preset=dmeo", 1, "there is no preset 'dmeo'"),
        (f"{PRETRAIN} --model.mask.ratio 1", 1, "mask.ratio must lie strictly between 0 and 1"),
        (f"{PRETRAIN} --schedule.epochs 5", 1, "must lie between 0 and schedule.epochs, got 40.0 and 5"),
        (f"{PRETRAIN} --batch-size many", 2, "many"),
        ("pretrain --data synthetic:8 --preset demo", 2, "--out"),
        (f"{PRETRAIN} --preset demo", 1, "8 samples do not fill a batch of 32"),
        # Of 160 samples, 128 are of split train.
        (f"{SPLIT} --batch-size 150", 1, "128 samples do not fill a batch of 150"),
        (f"{SPLIT} --split val", 1, "16 samples do not fill a batch of 32"),
        ("pretrain --data nothing --out run", 1, "'nothing' is not a data set; write KIND:PATH"),
        (f"{FINETUNE} --metod probe", 2, "Did you mean --method?"),
        (f"{FINETUNE} --ema-decay 2", 1, "ema_decay must be below 1, got 2"),
        ("finetune --preset paper --data synthetic:8 --out run", 1, "--init is missing"),
        ("evaluate --model none --data synthetic:8", 1, "none can't be read"),
        ("evaluate --data synthetic:8", 2, "--model"),
        ("serve runs/mine", 2, "did you mean --model runs/mine?"),
        ("calibrate --out x --model small folder:a --data folder:b", 2, "did you mean --data folder:a?"),
        ("data check folder:a b", 2, "b belongs to no option. See: uniemox data check"),
    ],
)
def test_mistakes_get_one_clear_message(
    words: str, code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = uniemox_here(*words.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(f"{PRETRAIN.replace('synthetic:8', 'data:LONG')} --preset demo", id="a data set"),
        pytest.param(f"{PRETRAIN} --preset=LONG", id="an option with ="),
        pytest.param("convert LONG out.safetensors", id="a file"),
    ],
)
def test_long_argument_is_shortened_in_the_error(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = uniemox_here(*words.replace("LONG", "w" * 5_000).split())
    assert done.returncode == 1
    assert "w" * 50 in done.stderr.replace("\n", "")
    assert len(done.stderr) < 600


@pytest.mark.thorough
def test_bench_step_measures_a_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniemox.training.counting.PEAK_SIZES", (256,))
    done = uniemox_here("bench", "step", "--model", "vit_tiny_patch16_224", "--batch-size", 2, "--steps", 2, "--json")
    result = json.loads(done.stdout)
    assert result["images_per_s"] >= result["median_images_per_s"] > 0
    assert result["batch_size"] / result["step_s"] == pytest.approx(result["images_per_s"])
    flops = result["gflop_per_image"] * 1e9 * result["images_per_s"]
    assert result["mfu"] == pytest.approx(flops / (result["peak_tflops"] * 1e12))
    assert result["gflop_per_image"] == pytest.approx(67.71, abs=0.01)
    if not torch.cuda.is_available():
        assert result["teacher"] == "given"


NEEDED = r"error: .* torch; run: pip install 'uniemox\[train\]'\s"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("pretrain --data synthetic:8 --out x", 1, NEEDED),
        ("finetune --init x --data synthetic:8 --out x", 1, NEEDED),
        ("evaluate --model x --data synthetic:8", 1, NEEDED),
        ("bench step", 1, NEEDED),
        ("finetune --help", 0, ""),
        # The misspelt command is reported, not the missing torch.
        ("predct", 2, r".*predict.*"),
    ],
)
def test_missing_extra_is_reported_with_its_install_command(words: str, code: int, message: str) -> None:
    script = (
        "import sys, importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *a: None if name == 'torch' else find(name, *a)\n"
        "sys.modules['torch'] = None\n"
        f"from uniemox.cli import main; sys.argv = ['uniemox', *{words.split()}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == code
    assert re.fullmatch(message, done.stderr, re.DOTALL)


def test_progress_without_a_terminal_is_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is no line in the first half minute, then one each, with the count and the remaining time."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(console, "err", Console(file=sys.stderr, width=80))
    with progress_bar() as progress:
        progress.get_time = lambda: now
        for done in range(1, 1001):
            now += 0.1
            progress.show("looking", done, 4000 if done > 1 else None)
    assert capsys.readouterr().err.splitlines() == [
        "looking: 301/4,000, 10.0/s, about 6 min to go",
        "looking: 602/4,000, 10.0/s, about 6 min to go",
        "looking: 903/4,000, 10.0/s, about 5 min to go",
    ]


def test_progress_of_a_run_shows_the_remaining_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the same work runs twice, as in two epochs of fitting a head, the second begins at 0 again."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(console, "err", Console(file=sys.stderr, width=80))
    with ConsoleCallback() as callback:
        callback.bar.get_time = lambda: now
        for _ in range(2):
            for done in range(1, 401):
                now += 0.1
                callback.progress("fitting", done, 400)
    assert capsys.readouterr().err.splitlines() == [
        "fitting: 301/400, 10.0/s, about 10 s to go",
        "fitting: 202/400, 10.0/s, about 20 s to go",
    ]


@pytest.mark.parametrize("out", ["file/sheet.png", "file"])
def test_unusable_path_is_a_one_line_error(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "a.png").touch()
    done = uniemox_here("explain", tmp_path / "a.png", "--out", tmp_path / out)
    assert done.returncode == 1
    assert f"error: {tmp_path}/file" in done.stderr
    assert "choose another path" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "3000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_waiting_threads_share_busy_cores_unless_the_user_decides(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        # Set first, so that what the command sets is undone too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    in_commands = list[str | None]()
    monkeypatch.setattr(program, "_run_app", lambda: in_commands.append(os.environ.get("GOMP_SPINCOUNT")))
    program.main()
    assert in_commands == [expected]


def test_refusals_do_not_import_torch(tmp_path: Path) -> None:
    refused = (
        "pretrain --data nothing --out run",
        "pretrain --data synthetic:8 --out run --batch-size 0",
        "pretrain --data synthetic:8 --out run --batch-size 16",
        "finetune --preset paper --data synthetic:8 --out run",
        "finetune --data nothing --out run",
        "evaluate --model none --data synthetic:8",
    )
    script = (
        "import sys; from uniemox.cli import main\n"
        f"for words in {refused}:\n"
        "    sys.argv = ['uniemox', *words.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"([12] False\n){6}", done.stdout), done.stderr
    assert not list(tmp_path.iterdir())
