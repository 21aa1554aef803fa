"""The index in FOLDER/.uniemox/: `search`, `tag` and `survey` share it, and look at each image once."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

import uniemox
from tests.drawn import draw_image
from tests.insight.photos import draw_photos
from tests.runs import uniemox_here
from uniemox.errors import ConfigError, DataError, InUseError
from uniemox.insight.index import update_index
from uniemox.insight.index_file import CACHE, INDEX, LINES, OLD_CACHE, OLD_LINES, find_index, index_header, open_index
from uniemox.io.sized_image import SizedImage
from uniemox.predict.images import ImageLike, read_any
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor

COUNT = 5


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load("small", finder=None)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    draw_photos(folder, COUNT)
    return folder


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the images that are decoded for predictions; a survey's page decodes those that it shows."""
    names: list[str] = []

    def read(source: ImageLike, *settings: Any, **named_settings: Any) -> SizedImage:
        names.append(Path(str(source)).name)
        return read_any(source, *settings, **named_settings)

    monkeypatch.setattr("uniemox.predict.predictor.read_any", read)
    return names


def contents_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and time of all files in a folder but those of its index."""
    files = (path for path in folder.rglob("*") if path.is_file() and INDEX not in path.parts)
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_survey_search_and_tag_look_at_each_image_once(photos: Path, predictor: Predictor, decoded: list[str]) -> None:
    before = contents_of(photos)
    page = photos.parent / "s.html"
    uniemox.survey(photos, out=page, predictor=predictor)
    assert sorted(decoded) == [f"{i}.png" for i in range(COUNT)]
    assert contents_of(photos) == before
    decoded.clear()
    hits = uniemox.search(photos, mood="valence>=1", unfamiliar=True, predictor=predictor)
    tagged = uniemox.tag(photos, dry_run=True, unfamiliar=True, predictor=predictor)
    uniemox.survey(photos, out=photos.parent / "again.html", predictor=predictor)
    assert decoded == []
    assert contents_of(photos) == before
    answers = {}
    for name in ("s.html.jsonl", "again.html.jsonl"):
        lines = map(json.loads, (photos.parent / name).read_text().splitlines())
        answers[name] = {line["path"]: line for line in lines}
    assert answers["again.html.jsonl"] == answers["s.html.jsonl"]
    assert {hit.path for hit in hits} == answers["s.html.jsonl"].keys()
    for hit in hits:
        assert hit.values["valence"] == pytest.approx(answers["s.html.jsonl"][hit.path]["valence"])
    assert [image.state for image in tagged] == ["created"] * COUNT


def test_a_survey_after_a_search_looks_only_at_new_and_changed_images(
    photos: Path, predictor: Predictor, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    uniemox.search(photos, mood="valence>=1", predictor=predictor)
    decoded.clear()
    draw_image(40).save(photos / "new.png")
    draw_image(41).save(photos / "inner" / "1.png")
    (photos / "2.png").unlink()
    # Another working directory: the survey's paths begin with the folder as it is given.
    monkeypatch.chdir(photos.parent)
    summary = uniemox.survey("photos", out="s.html", predictor=predictor)
    assert sorted(decoded) == ["1.png", "new.png"]
    assert summary.whole.images == COUNT
    paths = [json.loads(line)["path"] for line in Path("s.html.jsonl").read_text().splitlines()]
    assert sorted(paths) == [
        "photos/0.png",
        "photos/4.png",
        "photos/inner/1.png",
        "photos/inner/3.png",
        "photos/new.png",
    ]
    decoded.clear()
    update_index(predictor, photos)
    assert decoded == []


def test_a_survey_that_was_stopped_has_shared_its_answers(
    photos: Path, predictor: Predictor, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = find_index(predictor, photos, None, pytest.fail)
    stop_at = 3

    def stop(*_: object) -> None:
        if lines.exists() and len(lines.read_text().splitlines()) >= stop_at:
            raise KeyboardInterrupt

    monkeypatch.setattr("uniemox.insight.survey.lines.date_taken", stop)
    with pytest.raises(KeyboardInterrupt):
        uniemox.survey(photos, out=photos.parent / "s.html", predictor=predictor)
    assert len(lines.read_text().splitlines()) == stop_at
    assert sorted(path.name for path in (photos / INDEX).iterdir()) == [lines.name]
    monkeypatch.undo()
    assert len(update_index(predictor, photos).paths) == COUNT
    assert len(lines.read_text().splitlines()) == COUNT


def test_a_folder_that_can_t_be_written_needs_another_place_for_its_index(
    photos: Path, predictor: Predictor, tmp_path: Path
) -> None:
    # As root, permissions do not count.
    (photos / INDEX).write_text("a file")
    place = tmp_path / "indices"
    with pytest.raises(DataError, match=r"\.uniemox: the index can't be written there .*--index FOLDER"):
        uniemox.search(photos, emotion="awe", predictor=predictor)
    with pytest.warns(UserWarning, match=r"--index FOLDER.*does not use the folder's index"):
        uniemox.survey(photos, out=tmp_path / "s.html", predictor=predictor)
    assert uniemox.search(photos, mood="valence>=1", unfamiliar=True, predictor=predictor, index=place)
    uniemox.tag(photos, dry_run=True, predictor=predictor, index=place)
    uniemox.survey([photos / "0.png", photos / "4.png"], out=tmp_path / "t.html", predictor=predictor, index=place)
    assert sorted(path.suffix for path in place.iterdir()) == [LINES, CACHE]
    with pytest.raises(ConfigError, match="leave out one of them"):
        uniemox.survey(photos, out=tmp_path / "u.html", labels="polarity", predictor=predictor, index=place)


def test_an_index_that_is_a_link_is_refused(photos: Path, predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (photos / INDEX).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link, which may lead elsewhere"):
        uniemox.search(photos, emotion="awe", predictor=predictor)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.thorough
def test_an_index_in_use_is_no_obstacle_for_a_survey(photos: Path, predictor: Predictor, tmp_path: Path) -> None:
    lines = find_index(predictor, photos, None, pytest.fail)
    with open_index(lines, index_header(predictor), pytest.fail):
        with pytest.raises(InUseError, match="wait until it ends, or name another folder for it: --index FOLDER"):
            update_index(predictor, photos)
        with pytest.warns(UserWarning, match="another process is writing .* does not use the folder's index"):
            summary = uniemox.survey(photos, out=tmp_path / "s.html", predictor=predictor)
    assert summary.whole.images == COUNT


def damage(lines: Path, kind: str) -> None:
    """Damage an index of five images, later than its copy that loads fast was written."""
    texts = lines.read_text().splitlines(keepends=True)
    if kind == "folder":
        lines.unlink()
        lines.mkdir()
        (lines / "a file of the user").touch()
    elif kind == "line":
        lines.write_text("".join([*texts[:2], "?\n", *texts[2:]]))
    elif kind == "binary":
        lines.write_bytes(b"\0\xff\n" * 9)
    elif kind == "features":
        lines.write_text("".join([*texts[:2], json.dumps(json.loads(texts[2]) | {"features": "?"}) + "\n"]))
    else:
        lines.write_text("".join(texts).replace('"model": "small"', '"model": "other"'))
    os.utime(lines)
    lines.with_suffix(CACHE).unlink()


@pytest.mark.parametrize("kind", ["folder", "line", "binary", "features", "other model"])
def test_a_damaged_index_is_built_again_and_moved_aside(
    photos: Path, predictor: Predictor, decoded: list[str], kind: str
) -> None:
    first = update_index(predictor, photos)
    [lines] = (photos / INDEX).glob(f"*{LINES}")
    damage(lines, kind)
    damaged = None if lines.is_dir() else lines.read_bytes()
    before = contents_of(photos)
    decoded.clear()
    notes: list[str] = []
    index = update_index(predictor, photos, report=notes.append)
    assert sorted(index.paths.tolist()) == sorted(first.paths.tolist())
    assert set(decoded) == {f"{i}.png" for i in range(COUNT)}
    spare = lines.with_name(f"{lines.name}.damaged1")
    [note] = notes
    assert note == (
        f"the index {lines} is damaged, so it is built again; the damaged one is now {spare.name}, and may be deleted"
    )
    if damaged is None:
        assert [file.name for file in spare.iterdir()] == ["a file of the user"]
    elif kind != "features":
        assert spare.read_bytes() == damaged
    assert contents_of(photos) == before
    decoded.clear()
    assert update_index(predictor, photos, report=pytest.fail).paths.tolist() == index.paths.tolist()
    assert decoded == []


def test_a_survey_builds_a_damaged_index_again(photos: Path, predictor: Predictor, tmp_path: Path) -> None:
    update_index(predictor, photos)
    [lines] = (photos / INDEX).glob(f"*{LINES}")
    damage(lines, "line")
    with pytest.warns(UserWarning, match="is damaged, so it is built again"):
        uniemox.survey(photos, out=tmp_path / "s.html", predictor=predictor)
    assert len(lines.read_text().splitlines()) == COUNT


def test_a_cut_index_and_a_folder_in_place_of_its_copy_are_no_obstacle(
    photos: Path, predictor: Predictor, decoded: list[str]
) -> None:
    update_index(predictor, photos)
    [lines] = (photos / INDEX).glob(f"*{LINES}")
    lines.write_bytes(lines.read_bytes()[:-100])
    lines.with_suffix(CACHE).unlink()
    lines.with_suffix(CACHE).mkdir()
    decoded.clear()
    notes: list[str] = []
    assert len(update_index(predictor, photos, report=notes.append).paths) == COUNT
    # Only the image of the last line.
    assert len(decoded) == 1
    [note] = notes
    assert f"{CACHE} is damaged" in note


def test_a_full_disk_is_no_damage(photos: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    update_index(predictor, photos)
    [lines] = (photos / INDEX).glob(f"*{LINES}")
    draw_image(40).save(photos / "new.png")
    before = lines.read_bytes()

    def fail(*_: object, **_named: object) -> None:
        raise DataError("no space left")

    monkeypatch.setattr("uniemox.predict.writing._repair", fail)
    with pytest.raises(DataError, match="no space left"):
        update_index(predictor, photos, report=pytest.fail)
    assert lines.read_bytes() == before


def test_a_folder_of_unreadable_images_is_blamed_and_not_its_index(predictor: Predictor, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(DataError, match=r"broken: no image could be read \(1 tried\); .* has the reasons"):
            update_index(predictor, folder)
    assert "not an image" in next((folder / INDEX).glob(f"*{LINES}")).read_text()


def test_the_index_of_an_earlier_version_is_moved_with_its_answers(
    photos: Path, predictor: Predictor, decoded: list[str]
) -> None:
    first = update_index(predictor, photos)
    decoded.clear()
    old = photos.with_name(photos.name + OLD_LINES)
    for file in (photos / INDEX).iterdir():
        file.rename(old if file.suffix == LINES else photos.with_name(photos.name + OLD_CACHE))
    draw_image(41).save(photos / "0.png")
    # Later than the index, which was just written.
    os.utime(photos / "0.png", ns=(0, old.stat().st_mtime_ns + 1))
    notes: list[str] = []
    index = update_index(predictor, photos, report=notes.append)
    assert decoded == ["0.png"]
    assert sorted(index.paths.tolist()) == sorted(first.paths.tolist())
    [note] = notes
    assert note.startswith(f"the index {old} is now ")
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_a_damaged_old_index_is_named_and_kept(photos: Path, predictor: Predictor) -> None:
    old = photos.with_name(photos.name + OLD_LINES)
    old.write_text("?\n")
    notes: list[str] = []
    update_index(predictor, photos, report=notes.append)
    assert notes == [f"{old} is not used: it is damaged; delete it if you don't need it"]
    assert old.exists()


def test_an_old_index_with_other_answers_is_named_and_kept(photos: Path, predictor: Predictor) -> None:
    update_index(load(finder=None), photos)
    [lines] = (photos / INDEX).glob(f"*{LINES}")
    old = photos.with_name(photos.name + OLD_LINES)
    lines.rename(old)
    notes: list[str] = []
    update_index(predictor, photos, report=notes.append)
    assert notes == [f"{old} is not used: an index of another model or version; delete it if you don't need it"]
    assert old.exists()


def test_an_empty_name_is_no_place_for_an_index(
    photos: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ConfigError, match="a path is empty"):
        uniemox.search(photos, emotion="awe", predictor=predictor, index="")
    done = uniemox_here("tag", photos, "--index", "")
    assert (done.returncode, "--index: the name is empty" in done.stderr) == (2, True)
    assert not list(Path().iterdir())


def test_a_survey_counts_a_file_once_however_often_it_is_named(
    photos: Path, predictor: Predictor, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="^6 images were named more than once and counted once$"):
        summary = uniemox.survey(["photos", "./photos", "photos/0.png"], out="s.html", predictor=predictor)
    assert summary.whole.images == COUNT
    assert sorted(decoded) == [f"{i}.png" for i in range(COUNT)]
    with pytest.warns(UserWarning, match="^1 image was named"):
        uniemox.survey(["photos/0.png", photos / "0.png"], out="t.html", predictor=predictor)


@pytest.mark.parametrize("command", ["search", "tag", "survey"])
def test_a_missing_folder_is_an_error_before_anything_is_written(
    command: str, predictor: Predictor, tmp_path: Path
) -> None:
    settings: dict[str, object] = {
        "search": {"emotion": "awe", "index": tmp_path / "indices"},
        "tag": {},
        "survey": {"out": tmp_path / "s.html"},
    }[command]
    with pytest.raises(DataError, match="nope: there is no such"):
        getattr(uniemox, command)(tmp_path / "nope", predictor=predictor, **settings)
    assert not list(tmp_path.iterdir())
