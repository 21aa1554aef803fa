"""Folders and patterns: what is found, what is left out, and that nothing is left out in silence."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.drawn import draw_image
from tests.runs import uniemox_here
from uniemox.data.source import open_data
from uniemox.errors import ImageError
from uniemox.io.system_folders import is_system_folder
from uniemox.io.walking import LeftOut
from uniemox.predict.images import is_listed_name, list_images, walk
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor

SYSTEM = ["@eaDir", ".thumbnails", "#recycle", "$RECYCLE.BIN", ".@__thumb", ".Trash-1000", "System Volume Information"]


def put(root: Path, *names: str) -> Path:
    """Make empty files; only their names matter."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def listed(pattern: str, skipped: LeftOut | None = None) -> list[str]:
    return list(list_images([pattern], skipped=skipped))


@pytest.mark.parametrize("name", SYSTEM)
def test_folders_of_thumbnails_and_deleted_files_are_left_out_and_counted(tmp_path: Path, name: str) -> None:
    put(
        tmp_path,
        "a.jpg",
        "summer/b.jpg",
        f"summer/{name}/b.jpg/SYNOPHOTO_THUMB_XL.jpg",
        f"{name}/c.jpg",
        f"{name}/d.txt",
    )
    skipped = LeftOut()
    expected = [str(tmp_path / "a.jpg"), str(tmp_path / "summer/b.jpg")]
    assert list(map(str, walk(tmp_path, skipped))) == expected
    (note,) = skipped.notes(is_listed_name)
    assert note.startswith(f"left out: 2 images in 2 folders of thumbnails, deleted files or photo libraries ({name})")
    for pattern in (str(tmp_path), f"{tmp_path}/**/*.jpg"):
        skipped = LeftOut()
        assert listed(pattern, skipped) == expected
        assert skipped.notes(is_listed_name) == [note]
    # A folder that is named itself is read.
    assert listed(str(tmp_path / name)) == [str(tmp_path / name / "c.jpg")]
    assert not any(map(is_system_folder, ("recycle", "thumbnails", "eadir")))


def test_predict_embed_and_data_sets_report_skipped_folders(tmp_path: Path) -> None:
    predictor = load("small", finder=None)
    for name in ("awe/a.jpg", "fear/b.jpg", "awe/@eaDir/a.jpg", "#recycle/c.jpg"):
        path = put(tmp_path, name) / name
        draw_image(1).save(path)
    message = r"left out: 2 images in 2 folders of thumbnails, deleted files or photo libraries \(#recycle, @eaDir\)"
    with pytest.warns(UserWarning, match=message):
        assert len(predictor.predict_folder(tmp_path)) == 2
    with pytest.warns(UserWarning, match=message):
        assert len(predictor.embed(tmp_path)) == 2
    data = open_data(f"folder:{tmp_path}")
    assert [sample.key for sample in data.samples] == ["awe/a.jpg", "fear/b.jpg"]
    assert any("left out: 2 images in 2 folders" in note for note in data.notes)


def test_the_command_reports_the_number_of_skipped_images(tmp_path: Path) -> None:
    put(tmp_path, "@eaDir/a.jpg")
    draw_image(1).save(tmp_path / "a.jpg")
    done = uniemox_here("predict", tmp_path, "--model", "small", "--no-persons", "--json")
    assert done.returncode == 0, done.stderr
    assert "left out: 1 image in 1 folder of thumbnails, deleted files or photo libraries (@eaDir)" in done.stderr
    assert done.stdout.count("\n") == 1


def test_icons_and_drawings_are_left_out_with_a_note(tmp_path: Path) -> None:
    for name in ("a.jpg", "favicon.ico", "b/logo.SVG", "b/other.svg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    skipped = LeftOut()
    assert list(list_images([str(tmp_path)], skipped=skipped)) == [str(tmp_path / "a.jpg")]
    [note] = skipped.notes(is_listed_name)
    assert "2 .svg, 1 .ico" in note
    assert str(tmp_path / "b" / "logo.SVG") in note


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("A [2019]/*.jpg", ["A [2019]/a.jpg", "A [2019]/b.jpg"]),
        ("A [2019]/[ab].jpg", ["A [2019]/a.jpg", "A [2019]/b.jpg"]),
        ("A [2019]", ["A [2019]/a.jpg", "A [2019]/b.jpg", "A [2019]/sub/[x]/c.jpg"]),
        ("A [2019]/**/*.jpg", ["A [2019]/a.jpg", "A [2019]/b.jpg", "A [2019]/sub/[x]/c.jpg"]),
        ("A [2019]/sub/[x]/*", ["A [2019]/sub/[x]/c.jpg"]),
        ("*/sub/[x]/*.jpg", ["A [2019]/sub/[x]/c.jpg"]),
        ("**/[x]/*.jpg", ["A [2019]/sub/[x]/c.jpg"]),
        ("A [[]2019]/a.jpg", ["A [2019]/a.jpg"]),
        ("A [1-3]/*.jpg", ["A 2/d.jpg"]),
        ("what?/*.jpg", ["what?/e.jpg"]),
        ("w?at?/*.jpg", ["what?/e.jpg", "whats/f.jpg"]),
        ("./A */*.jpg", ["./A 2/d.jpg", "./A [2019]/a.jpg", "./A [2019]/b.jpg"]),
        ("w*", ["what?/e.jpg", "whats/f.jpg"]),
        ("none*/*.jpg", ["none*/*.jpg"]),
        ("*.nef", ["raw.nef"]),
    ],
)  # fmt: skip
def test_a_part_of_a_pattern_that_exists_is_taken_literally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, names: list[str]
) -> None:
    put(tmp_path, "A [2019]/a.jpg", "A [2019]/b.jpg", "A [2019]/sub/[x]/c.jpg", "A [2019]/notes.txt", "A 2/d.jpg")
    put(tmp_path, "what?/e.jpg", "whats/f.jpg", "A 2/.hidden.jpg", ".hidden/g.jpg")
    if pattern == "*.nef":
        put(tmp_path, "raw.nef")
    monkeypatch.chdir(tmp_path)
    assert listed(pattern) == names
    if not pattern.startswith("."):
        absolute = [os.path.join(tmp_path, name) for name in names]
        assert listed(os.path.join(tmp_path, pattern)) == absolute


def test_a_folder_without_images_is_still_an_error(predictor: Predictor, tmp_path: Path) -> None:
    put(tmp_path, "@eaDir/a.jpg")
    with (
        pytest.warns(UserWarning, match="left out: 1 image"),
        pytest.raises(ImageError, match="no image in this folder"),
    ):
        predictor.predict_folder(tmp_path)


def test_previews_of_nextcloud_are_skipped(tmp_path: Path) -> None:
    put(tmp_path, "appdata_ocmw1x2/preview/a/1/64-64.jpg", "files/b.jpg", "appdata/c.jpg")
    skipped = LeftOut()
    found = sorted(path.name for path in walk(tmp_path, skipped))
    assert found == ["b.jpg", "c.jpg"]
    assert "appdata_ocmw1x2" in " ".join(skipped.notes(is_listed_name))


@pytest.mark.parametrize("name", ["Photos Library.photoslibrary", "iPhoto Library", "Trip.fcpbundle"])
def test_libraries_of_photo_programs_are_skipped_and_never_written_to(name: str, tmp_path: Path) -> None:
    library = tmp_path / name
    put(tmp_path, f"{library.name}/resources/derivatives/a.jpg")
    draw_image(1).save(library / "resources/derivatives/a.jpg")
    draw_image(2).save(tmp_path / "b.jpg")
    skipped = LeftOut()
    assert list(map(str, walk(tmp_path, skipped))) == [str(tmp_path / "b.jpg")]
    before = sorted(library.rglob("*"))
    # A library that is named itself is read, but nothing is written into it.
    assert listed(str(library)) == [str(library / "resources/derivatives/a.jpg")]
    for words in (("tag", library), ("search", library, "--emotion", "awe"), ("tag", library / "resources")):
        done = uniemox_here(*words, "--model", "small")
        assert done.returncode == 1
        assert library.name in done.stderr
    done = uniemox_here("predict", library, "--model", "small", "--no-persons", "--out", library / "a.csv")
    assert done.returncode == 1
    assert sorted(library.rglob("*")) == before


@pytest.mark.parametrize("depth", [1100, 3000])
def test_folders_may_be_nested_deeper_than_pythons_calls(
    depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,100 folders ended with RecursionError and no answer. The paths of the deepest of 3,000 are too long to open."""
    root = tmp_path / "photos"
    root.mkdir()
    for name in ("a.jpg", "z.jpg"):
        draw_image(1).save(root / name)
    monkeypatch.chdir(root)
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    monkeypatch.chdir(tmp_path)
    try:
        paths = list(list_images(["photos"]))
        assert [path for path in paths if path.endswith(".jpg")] == ["photos/a.jpg", "photos/z.jpg"]
        # A branch that can't be read is one failure.
        assert len(paths) == (2 if depth == 1100 else 3)
        if depth == 1100:
            assert [sample.key for sample in open_data("folder:photos?labels=none").samples] == ["a.jpg", "z.jpg"]
    finally:
        # pytest would remove the folders one in another.
        subprocess.run(["rm", "-rf", root], check=True)
