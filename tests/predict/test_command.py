"""`uniemox predict` as users meet it, in a process of its own where that matters."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.drawn import draw_image
from tests.predict.answers import prediction
from tests.predict.networks import tiny_network
from tests.runs import uniemox_here
from uniemox.cli import console
from uniemox.cli.predict_output import Output
from uniemox.errors import StoppedError
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.writing import AnswerHeader, ResultFile

COMMAND = [sys.executable, "-c", "from uniemox.cli import main; main()", "predict"]


def predict_apart(*arguments: object, input_text: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--no-persons", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, input=input_text)


def predict(*arguments: object) -> subprocess.CompletedProcess[str]:
    return uniemox_here("predict", "--no-persons", *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx, and photos of which one is broken and one has a line break in its name."""
    root = tmp_path_factory.mktemp("work")
    tiny_network(root / "model.onnx", conformal_scores=[i / 100 for i in range(100)])
    (root / "photos").mkdir()
    for i, name in enumerate(("a.png", "b\nc.png", "ü.png")):
        draw_image(i, (60, 40)).save(root / "photos" / name)
    (root / "photos" / "z.jpg").write_bytes(b"broken")
    return root


@pytest.mark.portable
def test_json_prints_a_line_an_image_and_sets_the_exit_code(folder: Path) -> None:
    done = predict_apart(folder / "photos", "--model", folder / "model.onnx", "--json", "--coverage", 0.9)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["a.png", "b\nc.png", "z.jpg", "ü.png"]
    assert sum(lines[0]["scene"].values()) == pytest.approx(1, abs=1e-5)
    assert (lines[0]["kind"], lines[0]["persons"]) == ("evoked", None)
    assert lines[0]["likely"]
    assert set(lines[2]) == {"path", "error"}
    assert "1 of 4 images could not be read" in done.stderr
    assert done.returncode == 3


def test_a_name_that_is_too_long_is_one_failure(folder: Path) -> None:
    long = "n" * 300 + ".jpg"
    good = str(folder / "photos" / "a.png")
    done = predict(good, long, f"{long}/*.jpg", "--model", folder / "model.onnx", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["path"], "error" in line) for line in lines] == [(good, False), (long, True), (f"{long}/*.jpg", True)]
    assert "File name too long" in lines[1]["error"]
    assert "Traceback" not in done.stderr
    assert done.returncode == 3


def test_the_table_and_the_list_from_standard_input(folder: Path) -> None:
    paths = "".join(f"{folder / 'photos' / name}\n" for name in ("a.png", "ü.png"))
    done = predict_apart("-", "--model", folder / "model.onnx", "--labels", "polarity", input_text=paths)
    assert done.returncode == 0
    assert "evoked (polarity)" in done.stdout
    assert done.stdout.count("negative") == 2
    assert done.stderr == "the model can't compare images with its training images, so it flags none as unfamiliar\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no image is given"),
        (("x.jpg", "--modle", "m"), "no option --modle"),
        (("x.jpg", "--map", "fun=awe"), "--map belongs to evaluate, compare and calibrate"),
        (("x.jpg", "--resume"), "--resume continues a file"),
        (("x.jpg", "--bom", "--out", "x.jsonl"), "--bom needs a .csv file"),
        (("x.jpg", "--model", "missing.onnx"), "missing.onnx can't be read"),
        (("x.jpg", "--model", "m" * 300), "can't be read: File name too long"),
        (("x.jpg", "--finder", "f.onnx"), "--no-persons and --finder contradict each other"),
        (("x.jpg", "--engine", "ray", "--save-images", "f"), "--save-images and --embeddings do not work"),
    ],
)
def test_usage_errors_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = predict(*arguments)
    assert message in done.stderr.replace("\n", " ")
    assert done.returncode == (1 if "read" in message else 2)
    assert done.stdout == ""


@pytest.mark.skipif(sys.platform == "darwin", reason="onnxruntime has CoreML there")
@pytest.mark.parametrize(
    ("model", "message"),
    [("small", "onnxruntime has no provider coreml"), ("clip:ViT-B-32@w.pt", "leave out --provider coreml")],
)
def test_the_option_chooses_the_provider(folder: Path, model: str, message: str) -> None:
    done = predict(folder / "photos" / "a.png", "--model", model, "--provider", "coreml")
    assert message in done.stderr.replace("\n", " ")
    assert (done.returncode, done.stdout) == (1, "")


def test_an_error_before_the_first_answer_leaves_no_file(folder: Path, tmp_path: Path) -> None:
    command = (folder / "photos" / "a.png", "--model", folder / "model.onnx", "--out", tmp_path / "answers.jsonl")
    assert predict(*command, "--coverage", "2").returncode == 1
    assert "leave out coverage or labels" in predict(*command, "--coverage", "0.9", "--labels", "ekman").stderr
    assert predict(*command[:-1], tmp_path / ("o" * 300 + ".jsonl")).returncode == 1
    assert not list(tmp_path.iterdir())
    assert predict(*command).returncode == 0


def test_images_are_drawn_and_a_folder_without_any_is_an_error(folder: Path, tmp_path: Path) -> None:
    done = predict(folder / "photos" / "a.png", "--model", folder / "model.onnx", "--save-images", tmp_path / "drawn")
    assert done.returncode == 0
    [path] = (tmp_path / "drawn").rglob("*.png")
    assert path.name == "a.png.png"
    with Image.open(path) as drawn:
        assert drawn.width == 240
    (tmp_path / "none").mkdir()
    done = predict(tmp_path / "none", "--model", folder / "model.onnx")
    assert (done.returncode, "there is no image in" in done.stderr) == (1, True)
    done = predict_apart("-", "--model", folder / "model.onnx", input_text="")
    assert (done.returncode, "there is no image in the list on standard input" in done.stderr) == (1, True)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_job_resumes_without_loss(folder: Path, tmp_path: Path) -> None:
    """The list comes through a pipe that stays open, so the job is surely in its middle."""
    out = tmp_path / "o.csv"
    command = [*COMMAND, "-", "--no-persons", "--model", str(folder / "model.onnx"), "--out", str(out)]
    command += ["--batch-size", "2"]
    name = str(folder / "photos" / "a.png")
    for i in range(40):
        os.symlink(name, tmp_path / f"{i:02}.png")
    job = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdin is not None
    job.stdin.write("".join(f"{tmp_path}/{i:02}.png\n" for i in range(20)))
    job.stdin.flush()
    lines = out.with_name("o.csv.jsonl")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (lines.exists() and lines.read_bytes().count(b"\n") >= 10):
        time.sleep(0.05)
    job.send_signal(signal.SIGINT)
    _, message = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "to continue, repeat it (predict, survey: add --resume)" in message
    before = lines.read_text().splitlines()
    assert 10 <= len(before) < 40
    resume_arguments = (tmp_path, "--model", folder / "model.onnx", "--out", out, "--resume")
    assert "holds other predictions (label_set" in predict(*resume_arguments, "--labels", "polarity").stderr
    model = folder / "model.onnx"
    model_bytes = model.read_bytes()
    # An unknown, empty field makes another file with the same predictions.
    model.write_bytes(model_bytes + b"\n\0")
    assert "holds other predictions (a model or detector that has changed" in predict(*resume_arguments).stderr
    model.write_bytes(model_bytes)
    done = predict(*resume_arguments)
    assert done.returncode == 0
    assert f"40 images ({len(before)} of them already existed)" in done.stderr
    after = [json.loads(line)["path"] for line in lines.read_text().splitlines()]
    assert len(after) == len(set(after)) == 40
    assert len(out.read_text().splitlines()) == 41


def test_resume_tries_failures_again(folder: Path, tmp_path: Path) -> None:
    good = folder / "photos" / "a.png"
    bad = tmp_path / "bad.png"
    out = tmp_path / "o.csv"
    bad.write_bytes(b"not yet")
    command = (good, bad, "--model", folder / "model.onnx", "--out", out)
    assert predict(*command).returncode == 3
    done = predict(*command, "--resume")
    assert (done.returncode, "bad.png" in done.stderr) == (3, True)
    assert "1 of 2 images could not be read" in done.stderr
    assert "2 images (1 of them already existed)" in done.stderr
    bad.write_bytes(good.read_bytes())
    assert predict(*command, "--resume").returncode == 0
    assert [line.split(",")[0] for line in out.read_text().splitlines()] == ["path", str(good), str(bad)]
    assert "error" not in out.with_name("o.csv.jsonl").read_text()


def test_resume_names_the_number_of_images_that_are_no_longer_given(folder: Path, tmp_path: Path) -> None:
    images = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for image in images:
        shutil.copy(folder / "photos" / "a.png", image)
    out = tmp_path / "o.csv"
    command = (tmp_path, "--model", folder / "model.onnx", "--out", out)
    assert predict(*command).returncode == 0
    images[0].unlink()
    done = predict(*command, "--resume")
    assert "2 images (2 of them already existed)" in done.stderr
    assert f"{out} also has 1 prediction of earlier calls" in " ".join(done.stderr.split())
    # Nothing is lost: the table keeps it.
    assert len(out.read_text().splitlines()) == 4


def test_resume_predicts_an_overwritten_image_again(folder: Path, tmp_path: Path) -> None:
    """As search and tag do. An image that was moved in its place has the time of its own, and counts as the old one."""
    for name in ("a.png", "b.png"):
        shutil.copy(folder / "photos" / "a.png", tmp_path / name)
    out = tmp_path / "o.csv"
    command = (tmp_path / "a.png", tmp_path / "b.png", "--model", folder / "model.onnx", "--out", out)
    assert predict(*command).returncode == 0
    lines = out.with_name("o.csv.jsonl")
    before = {line["path"]: line["scene"] for line in map(json.loads, lines.read_text().splitlines())}
    draw_image(77, (60, 40)).save(tmp_path / "b.png")
    written_ns = lines.stat().st_mtime_ns
    os.utime(tmp_path / "b.png", ns=(written_ns, written_ns + 1))
    done = predict(*command, "--resume")
    assert "1 image has changed since the answers were written; the old answers were removed" in done.stderr
    assert "2 images (1 of them already existed)" in done.stderr
    after = {line["path"]: line["scene"] for line in map(json.loads, lines.read_text().splitlines())}
    assert [path for path in before if before[path] != after[path]] == [str(tmp_path / "b.png")]
    assert len(out.read_text().splitlines()) == 3
    done = predict(*command, "--resume")
    assert "2 images (2 of them already existed)" in done.stderr
    assert "of earlier calls" not in done.stderr


def test_an_image_that_is_overwritten_while_others_are_predicted_is_predicted_again(tmp_path: Path) -> None:
    """Its line was older, but the file had the time of its last line. A killed process leaves the file so, too."""
    predictor = load(tiny_network(tmp_path / "m.onnx"), finder=None)
    answered = AnswerHeader.for_predictor(predictor, None, None)
    images = [tmp_path / "a.png", tmp_path / "b.png"]
    for image in images:
        draw_image(1).save(image)
        os.utime(image, (0, 0))
    results = list(predictor.predict_many(images))
    out = ResultFile(tmp_path / "o.jsonl", resume=False, answered=answered)
    out.write(results[0])
    draw_image(2).save(images[0])
    later_ns = out._opened_ns + 1_000_000
    os.utime(images[0], ns=(later_ns, later_ns))
    # The next line is written later than the image.
    while time.time_ns() < later_ns + 50_000_000:
        time.sleep(0.01)
    out.write(results[1])
    # Without `__exit__`, as after a kill.
    out._lock.release()
    with ResultFile(tmp_path / "o.jsonl", resume=True, answered=answered) as again:
        assert (again.has(str(images[0])), again.has(str(images[1])), again.overwritten) == (False, True, 1)


def test_a_changed_model_says_what_to_do_with_the_old_file(folder: Path, tmp_path: Path) -> None:
    image = folder / "photos" / "a.png"
    assert predict(image, "--model", folder / "model.onnx", "--out", tmp_path / "o.csv").returncode == 0
    done = predict(image, "--model", "small", "--out", tmp_path / "o.csv", "--resume")
    assert done.returncode == 1
    message = done.stderr.replace("\n", " ")
    assert f"{tmp_path / 'o.csv.jsonl'} holds other predictions (model " in message
    assert "use the same settings, delete it to predict all images again, or choose another name" in message


def test_a_listed_name_that_is_no_utf8_fails_alone(folder: Path, tmp_path: Path) -> None:
    """Where Python reads standard input as UTF-8 to the letter."""
    good = os.fsencode(folder / "photos" / "a.png")
    done = subprocess.run(
        [*COMMAND, "-", "--no-persons", "--json", "--model", str(folder / "model.onnx")],
        input=good + b"\ncaf\xe9.jpg\n",
        capture_output=True,
        check=False,
        timeout=60,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )
    assert done.returncode == 3
    first, second = [json.loads(line) for line in done.stdout.splitlines()]
    assert "scene" in first
    assert second["path"] == "caf\udce9.jpg"


def test_names_with_a_dash_and_addresses(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(folder / "photos" / "a.png", tmp_path / "-a.png")
    monkeypatch.chdir(tmp_path)
    done = predict("--model", folder / "model.onnx", "--json", "https://example.org/a.png", "--", "-a.png")
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["error"] == "https://example.org/a.png: addresses are not fetched; save the image and give its path"
    assert (second["path"], done.returncode) == ("-a.png", 3)


def drawn_answers(count: int, folder: str = "photos") -> list[Prediction | Failure]:
    """Return answers about images, of which the last could not be read and each fifth is a guess."""
    answers: list[Prediction | Failure] = [
        prediction(f"{folder}/{i:03}.jpg", familiarity=0.01 if i % 5 == 0 else 0.5) for i in range(count - 1)
    ]
    return [*answers, Failure(path=f"{folder}/bad.jpg", error=f"{folder}/bad.jpg: can't be read")]


def test_many_images_are_summarised(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).consume(drawn_answers(21), ["photos"])
    printed = capsys.readouterr()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in printed.out.splitlines()]
    assert ["fear", "20", "100%"] in cells
    assert "guesses, because unlike the training images: 4 images" in printed.out
    assert "For one line per image, add --out answers.csv or --json." in printed.out
    assert "000.jpg" not in printed.out
    assert "1 of 21 images could not be read" in printed.err
    Output(as_json=False).consume(drawn_answers(20), ["photos"])
    printed = capsys.readouterr()
    assert [line.split()[1] for line in printed.out.splitlines() if ".jpg" in line] == [
        f"photos/{i:03}.jpg" for i in range(19)
    ]
    Output(as_json=True).consume(drawn_answers(30), ["photos"])
    assert len(capsys.readouterr().out.splitlines()) == 30


def test_guesses_in_a_file_are_counted_on_the_screen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class File:
        """Stands for a file of results."""

        def write(self, _: Prediction | Failure) -> None:
            pass

    output = Output(as_json=False)
    output.file = File()  # type: ignore[assignment]
    output.consume(drawn_answers(21), ["photos"])
    printed = capsys.readouterr()
    assert "4 of 21 images: unlike the training images, so their answers are guesses (is_unfamiliar)" in printed.err
    assert printed.out == ""


def test_the_summary_says_where_likely_sets_are(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).consume(drawn_answers(21), ["photos"])
    assert (
        "likely sets (labels that hold the true one in the requested share of images like the held-out ones): "
        "2.0 labels on average; --out and --json list them (likely)\n"
    ) in capsys.readouterr().out
    without = [prediction(f"{i}.jpg", likely=None) for i in range(21)]
    Output(as_json=False).consume(without, ["photos"])
    assert "likely" not in capsys.readouterr().out


def test_paths_are_never_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "a folder of which the name/" * 5 + "is long"
    monkeypatch.setattr(console, "out", console.SafeConsole(width=80, **console.PLAIN))
    Output(as_json=False).consume(drawn_answers(3, folder), ["photos"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(f"{folder}/001.jpg" in line and "fear" in line for line in lines) == 1
    # A terminal breaks the other cells.
    terminal = console.SafeConsole(width=200, force_terminal=True, color_system=None, **console.PLAIN)
    monkeypatch.setattr(console, "out", terminal)
    Output(as_json=False).consume(drawn_answers(3, folder), ["photos"])
    lines = capsys.readouterr().out.splitlines()
    assert sum(f"{folder}/001.jpg" in line for line in lines) == 1
    assert max(map(len, lines)) <= 200
    # In a narrower one, each path has a line of its own.
    terminal = console.SafeConsole(width=80, force_terminal=True, color_system=None, **console.PLAIN)
    monkeypatch.setattr(console, "out", terminal)
    Output(as_json=False).consume(drawn_answers(3, folder), ["photos"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folder}/000.jpg"
    assert lines[1].startswith("    evoked (custom): fear")


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_job_prints_the_summary_so_far(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> Iterator[Prediction | Failure]:
        yield from drawn_answers(30)
        raise KeyboardInterrupt

    with pytest.raises(StoppedError, match="stopped after 30 images"):
        Output(as_json=False).consume(interrupted(), ["photos"])
    assert "guesses, because unlike the training images: 6 images" in capsys.readouterr().out


def test_answers_without_a_counterpart_are_none_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=False)
    answers = [prediction(f"{unmapped}.jpg", unmapped=unmapped) for unmapped in (0.9, 0.44, 0.05)]
    output.consume(answers, ["a.jpg", "b.jpg", "c.jpg"])
    printed = capsys.readouterr()
    table = " ".join(printed.out.replace("│", " ").split())
    assert "none (90% has no" in table
    assert "fear 75%" in table
    assert "(44% has no" in table
    assert "(5% has no" not in table
    assert "1 of 3 images: more than half of the probability is of labels without a" in printed.err.replace("\n", " ")
