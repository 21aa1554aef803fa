"""`uniemox search`: likeness, emotion and mood through an index beside the folder."""

import io
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from tests.drawn import draw_image
from tests.runs import uniemox_here
from uniemox.errors import ConfigError
from uniemox.insight.search import CACHE, Index, parse_mood, search, update_index
from uniemox.insight.survey.run import Answers
from uniemox.predict.opening import load


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for i in range(6):
        draw_image(i).save(folder / ("inner" if i % 2 else ".") / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_the_command_finds_an_image_by_its_copy_and_follows_the_folder(photos: Path, tmp_path: Path) -> None:
    draw_image(3).save(tmp_path / "copy.png")
    words = ("search", photos, "--model", "small", "--like", tmp_path / "copy.png", "--json")
    done = uniemox_here(*words, "--out", tmp_path / "found.html")
    assert done.returncode == 0, done.stderr
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(hits) == 6
    assert hits[0]["path"] == str(photos / "inner" / "3.png")
    assert hits[0]["score"] > 0.999 > hits[1]["score"]
    assert "1.00" in (tmp_path / "found.html").read_text()  # a cosine, not a share in percent
    links = re.findall(r'<a href="([^"]*)"', (tmp_path / "found.html").read_text())
    assert [(tmp_path / unquote(link)).resolve() for link in links] == [Path(hit["path"]) for hit in hits]
    (photos / "inner" / "3.png").unlink()
    draw_image(9).save(photos / "9.png")
    again = uniemox_here(*words)
    paths = {Path(json.loads(line)["path"]).name for line in again.stdout.splitlines()}
    assert paths == {"0.png", "1.png", "2.png", "4.png", "5.png", "9.png"}


def test_a_link_that_is_not_followed_is_reported(photos: Path) -> None:
    (photos / "again").symlink_to(photos)
    notes: list[str] = []
    assert len(update_index(load("small", finder=None), photos, report=notes.append).paths) == 6
    assert notes == [f"1 links to a folder around them were not followed: {photos / 'again'}"]


def test_a_pattern_that_names_several_images_is_refused(photos: Path) -> None:
    done = uniemox_here("search", photos, "--like", photos / "0.png", photos / "2.png")
    assert done.returncode == 2
    assert f"give one folder and one image; {photos / '2.png'} is extra" in done.stderr.replace("\n", "")


def test_an_index_is_used_again_and_a_damaged_copy_is_replaced(photos: Path) -> None:
    predictor = load("small", finder=None)
    answered = list[int]()
    first = update_index(predictor, photos, lambda answers: answered.append(len(list(answers))))
    cache = photos.with_name(photos.name + CACHE)
    packed = io.BytesIO()
    array = io.BytesIO()
    np.savez_compressed(packed, asked=np.zeros(10**6))
    np.save(array, np.zeros(3))
    with np.load(cache) as kept:
        own = dict(kept)
    wrong = {  # an array of empty texts takes no bytes in the file, and gigabytes as a list
        "failed": np.zeros(10**6, "U0"),
        "paths": np.array("a"),
        "columns": np.zeros((2, 2), "U3"),
        "features": own["features"] * np.nan,
        "values": own["values"].astype(str),
    }
    others = [io.BytesIO() for _ in wrong]
    for file, (name, value) in zip(others, wrong.items(), strict=True):
        np.savez(file, **own | {name: value})
    damaged = [b"PK", cache.read_bytes()[:-200], *(file.getvalue() for file in (packed, array, *others))]
    for damage in (None, *damaged):
        if damage is not None:
            cache.write_bytes(damage)
        index = update_index(predictor, photos, lambda answers: answered.append(len(list(answers))))
        assert index.paths.tolist() == first.paths.tolist()
        np.testing.assert_array_equal(index.values, first.values)
    assert answered[0] == 7
    assert sum(answered[1:]) <= 9  # the image that can't be read, where the copy was damaged


def test_an_image_that_could_not_be_read_is_tried_again_when_it_has_changed(photos: Path) -> None:
    """As one that was still being copied."""
    predictor = load("small", finder=None)
    answered = list[int]()
    for expected in (6, 7, 7):
        index = update_index(predictor, photos, lambda answers: answered.append(len(list(answers))))
        assert len(index.paths) == expected
        if len(answered) == 1:
            draw_image(7).save(photos / "whole.png")
            os.utime(photos / "whole.png", (0, 0))  # as a copy that keeps times
            (photos / "whole.png").replace(photos / "broken.jpg")
    assert answered == [7, 1]


def test_an_image_that_was_written_while_the_folder_was_read_is_tried_again(photos: Path) -> None:
    predictor = load("small", finder=None)

    def watch(answers: Answers) -> None:
        list(answers)
        draw_image(7).save(photos / "broken.jpg")

    assert len(update_index(predictor, photos, watch).paths) == 6
    for ending in (".uniemox.jsonl", CACHE):
        os.utime(photos.with_name(photos.name + ending))  # as if the index was finished later
    assert len(update_index(predictor, photos).paths) == 7


def test_a_copy_much_larger_than_its_index_is_not_read(photos: Path) -> None:
    """A few bytes on the disk, most of them a hole, would take gigabytes of memory."""
    predictor = load("small", finder=None)
    cache = photos.with_name(photos.name + CACHE)
    first = update_index(predictor, photos)
    size = cache.stat().st_size
    with np.load(cache) as kept:
        np.savez(cache, **dict(kept) | {"paths": kept["paths"].astype("U10000")})
    assert cache.stat().st_size > 10 * size
    assert update_index(predictor, photos).paths.tolist() == first.paths.tolist()
    assert cache.stat().st_size == size


def test_an_index_of_another_model_is_refused(photos: Path) -> None:
    update_index(load("small", finder=None), photos)
    with pytest.raises(ConfigError, match=r"If the index is of another model, delete .*photos\.uniemox\.jsonl"):
        update_index(load(finder=None), photos)


INDEX = Index(
    np.array(["a", "b", "c"]),
    ("awe", "valence", "arousal"),
    np.array([[0.1, 8, 3], [0.7, 7.5, 6], [0.2, 3, 2]], np.float32),
    np.eye(3, 128, dtype=np.float32),
)


def test_conditions_narrow_and_the_first_one_orders() -> None:
    assert [hit.path for hit in search(INDEX, emotion="awe")] == ["b", "c", "a"]
    assert [hit.path for hit in search(INDEX, emotion="awe", mood="valence>7", count=1)] == ["b"]
    assert [hit.path for hit in search(INDEX, mood="arousal<=3 valence >= 3")] == ["c", "a"]
    assert search(INDEX, mood="valence>7 arousal<4")[0].values == {
        "awe": pytest.approx(0.1),
        "valence": 8.0,
        "arousal": 3.0,
    }
    assert search(INDEX, mood="valence>9") == []


@pytest.mark.parametrize("text", ["valence", "valence=7", "valence>high", "valence>7, arousal<4", "> 3"])
def test_a_mood_that_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as 'valence>7 arousal<4'"):
        parse_mood(text)


def test_an_unknown_name_lists_the_columns() -> None:
    with pytest.raises(ConfigError, match="no 'joy'; choose one of awe, valence, arousal"):
        search(INDEX, emotion="joy")
    with pytest.raises(ConfigError, match="give a criterion"):
        search(INDEX)
