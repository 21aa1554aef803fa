"""uniemox explain, from files to sheets."""

import errno
import json
from pathlib import Path

import pytest
from cyclopts import App
from PIL import Image, ImageChops

from tests.drawn import draw_image
from tests.runs import finetuned, pretrained
from uniemox.cli.explain import explain
from uniemox.errors import CheckpointError, ConfigError, DataError, ImageError, MissingPackageError
from uniemox.insight.explain.explanation import Explanation
from uniemox.insight.explain.sheets import CELL_PX, GAP_PX
from uniemox.persons.box import Box, Detection
from uniemox.predict.opening import open_finder
from uniemox.predict.plot import write_drawing


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(2):
        draw_image(i).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def call(*words: object) -> int:
    """Run the command, and return its exit code."""
    app = App(name="uniemox")
    app.command(explain)
    try:
        app(["explain", *map(str, words)], exit_on_error=False, print_error=False)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_explain_writes_a_sheet_of_two_models_with_scores(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad images are named and left out; scores are one JSON object."""
    out = tmp_path / "new" / "sheet.png"
    models = ("--model", finetuned("knn"), finetuned("probe"))
    assert call(images, *models, "--out", out, "--scores", "--json") == 3
    printed = capsys.readouterr()
    scores_by_model = json.loads(printed.out)
    assert set(scores_by_model) == {"knn", "probe"}
    for scores in scores_by_model.values():
        assert scores["pictures"] == 2
        assert 0 <= scores["deletion"]["mean"] <= 1
        assert scores["deletion"]["interval"] is None
    assert "broken.jpg" in printed.err
    assert "2 images, 2 maps each" in printed.err
    assert call(images, *models, "--out", out, "--scores") == 3
    printed = capsys.readouterr()
    assert "knn: 2 images, too few for an interval (20 are needed)" in printed.err
    assert " to " not in printed.out
    assert Image.open(out).format == "PNG"


@pytest.mark.parametrize("method", ["occlusion", "grad-cam"])
def test_known_people_are_used_else_detected(
    method: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of persons.jsonl in the folder of an image, or named, else those of the finder."""
    persons: list[tuple[Detection, ...] | None] = []

    def record_persons(rows: list[list[Explanation]], *_: object) -> str:
        persons.extend(row[0].persons for row in rows)
        return ""

    monkeypatch.setattr("uniemox.insight.explain.sheets.sheet_html", record_persons)
    monkeypatch.setattr(Explanation, "shrunk", lambda self, _: self)
    arguments = (images, "--model", finetuned("both"), "--method", method, "--out", tmp_path / "sheet.html")
    assert call(*arguments) == 3
    box = [10.0, 20.0, 200.0, 220.0]
    lines = [{"detector": "somebody"}, {"key": "0.png", "boxes": [[*box, 0.5]]}, {"key": "1.png", "boxes": []}]
    (images / "persons.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    names = (images,) if method == "occlusion" else (images / "0.png", images / "1.png")
    assert call(*names, *arguments[1:]) == (3 if method == "occlusion" else 0)
    finder = open_finder("embedded")
    assert finder is not None
    assert persons[:2] == finder.detect([Image.open(images / f"{i}.png").convert("RGB") for i in range(2)])
    assert persons[2:] == [(Detection(Box(*box), 0.5),), ()]
    (images / "persons.jsonl").write_text('{"detector": "somebody", "short_side_px": 64}\n')
    with pytest.raises(DataError, match=r"persons\.jsonl: its boxes are in px of packed images"):
        call(*arguments)


def test_explain_writes_a_page_or_a_folder_of_maps(images: Path, tmp_path: Path) -> None:
    model = ("--model", finetuned("knn") / "model.onnx", "--label", "awe")
    assert call(images / "0.png", *model, "--out", tmp_path / "page.html") == 0
    assert "0.png" in (tmp_path / "page.html").read_text("utf-8")
    call(images, *model, "--out", tmp_path / "maps")
    maps = {path.name: path for path in (tmp_path / "maps").rglob("*.png")}
    assert sorted(maps) == ["0.png.knn.png", "1.png.knn.png"]
    assert Image.open(maps["0.png.knn.png"]).size == (320, 240)
    draw_image(1).resize((1500, 700)).save(images / "7.png")
    assert call(images / "[1-9].png", *model, "--out", tmp_path / "matched") == 0
    maps = {path.name: Image.open(path).size for path in (tmp_path / "matched").rglob("*.png")}
    assert maps == {"1.png.knn.png": (320, 240), "7.png.knn.png": (1500, 700)}
    repeated = tmp_path / "sheet.png"
    assert call(images / "0.png", images / "0.png", *model, "--out", repeated) == 0
    assert Image.open(repeated).width > 4 * CELL_PX


def test_every_image_has_a_map_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Images of one name in several folders, and of several endings; a name that is too long is left out."""
    monkeypatch.chdir(tmp_path)
    names = [f"photos/{name}" for name in ("awe/1.jpg", "fear/1.jpg", "a.jpg", "a.png", "a b.png", "a-b.png")]
    for i, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        draw_image(i, (48, 40)).save(name)
    assert call("photos", "n" * 300 + ".jpg", "--model", finetuned("knn"), "--out", "maps") == 3
    maps = sorted(str(path) for path in Path("maps").rglob("*") if path.is_file())
    assert maps == sorted(f"maps/{name}.knn.png" for name in names)
    messages = capsys.readouterr().err
    assert "wrote maps: 6 images" in messages
    assert "File name too long" in messages


def test_failed_writing_keeps_the_old_file(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is there counts as done, so it must never be half of one."""
    out = tmp_path / "out" / "sheet.png"
    maps = tmp_path / "maps"
    model = finetuned("knn")
    run = pretrained()
    write_drawing(out, draw_image(0))
    content = out.read_bytes()

    def cut_off(target: Path, _: bytes) -> None:
        target.open("wb").write(b"half")
        assert out.read_bytes() == content
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", cut_off)
    with pytest.raises(DataError, match="No space left"):
        call(images, "--model", model, "--out", out)
    with pytest.raises(DataError, match="No space left"):
        call(images, "--model", model, "--out", maps)
    with pytest.raises(DataError, match="No space left"):
        call("reconstruct", images, "--model", run, "--out", out)
    with pytest.raises(DataError, match="No space left"):
        call(images, "--model", model, "--out", out.with_name("page.html"))
    monkeypatch.undo()
    assert [path for folder in (out.parent, maps) for path in folder.rglob("*") if path.is_file()] == [out]
    assert out.read_bytes() == content


def test_reconstruct_writes_a_sheet_and_prints_errors(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("reconstruct", images, "--model", pretrained(), "--out", tmp_path / "sheet.png", "--json") == 3
    result = json.loads(capsys.readouterr().out)
    assert result["pictures"] == 2
    assert list(result["masked_mse"]) == ["pretrained step-00000002", "pretrained step-00000004"]
    assert Image.open(tmp_path / "sheet.png").width > 4 * 160


def test_unsuitable_options_and_files_are_refused(images: Path, tmp_path: Path) -> None:
    model = ("--model", finetuned("knn"))
    out = ("--out", tmp_path / "sheet.png")
    run = ("--model", pretrained())
    many = [images / "0.png"] * 201
    for words, message in (
        ((images, *model, *out, "--json"), "add --scores"),
        ((images, *model, "--out", tmp_path / "sheet.gif"), r"give sheet\.png"),
        ((images, "--model", tmp_path / "nowhere.onnx", "--out", tmp_path / "sheet.pdf"), r"give sheet\.png"),
        (("reconstruct", images, *run, "--out", tmp_path / "sheet.jpg"), r"give sheet\.png"),
        ((*model, *out), "no image to explain"),
        ((images / "0.png", *model, "--out", images / "0.png"), r"0\.png is one of the images"),
        ((*many, *model, *out), "a sheet shows at most 200 images, got 201"),
        (("reconstruct", *many, *run, *out), "a sheet shows at most 200 images, got 201"),
    ):
        with pytest.raises(ConfigError, match=message):
            call(*words)
    with pytest.raises(ImageError, match=r"no image can be read \(1 tried\)"):
        call(images / "broken.jpg", *model, *out)
    with pytest.raises((CheckpointError, MissingPackageError)):
        call(images, "--model", tmp_path, *out, "--method", "grad-cam")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.thorough
def test_faces_are_drawn_in_the_first_column(
    shared: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images are a photograph of a group, and an image without a face."""
    group = shared / "data" / "coco_persons" / "images" / "000000001000.jpg"
    assert call(group, images / "0.png", "--faces", "find", "--out", tmp_path / "sheet.html") == 0
    page = (tmp_path / "sheet.html").read_text()
    assert page.count(": what faces show</figcaption>") == 2
    assert call(group, images / "0.png", "--faces", "find", "--out", tmp_path / "sheet.png") == 0
    assert call(group, images / "0.png", "--out", tmp_path / "plain.png") == 0
    step = CELL_PX + GAP_PX
    with Image.open(tmp_path / "sheet.png") as sheet, Image.open(tmp_path / "plain.png") as plain:
        # The first image's map above the key does not change.
        maps = (step, 0, 2 * step, plain.height - 60)
        assert ImageChops.difference(sheet.crop(maps), plain.crop(maps)).getbbox() is None
        assert ImageChops.difference(sheet, plain).getbbox() is not None
    assert call(group, "--faces", "find", "--out", tmp_path / "maps") == 0
    [drawn] = (tmp_path / "maps").rglob("*.faces.png")
    with Image.open(drawn) as faces, Image.open(group) as image:
        assert (faces.width, faces.height > round(image.height * 512 / image.width)) == (512, True)
    capsys.readouterr()


@pytest.mark.thorough
def test_two_methods_are_compared(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ("--model", "small", "--method", "both")
    assert call(images, *model, "--out", tmp_path / "sheet.html") == 3
    page = (tmp_path / "sheet.html").read_text()
    assert page.count("small (cam): ") == page.count("small (occlusion): ") == 2
    messages = capsys.readouterr().err
    unlike = page.count("methods disagree") // 2
    assert f"cam and occlusion disagree on {unlike} of 2 images" in messages
    assert call(images / "0.png", *model, "--out", tmp_path / "maps") == 0
    names = sorted(path.name for path in (tmp_path / "maps").rglob("*.png"))
    assert names == ["0.png.small (cam).png", "0.png.small (occlusion).png"]
