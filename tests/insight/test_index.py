"""An index of predictions and features: used again, brought up to date, and replaced where it is damaged."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.drawn import draw_image
from tests.insight.photos import stored
from uniemox.insight.features import pack, unpack
from uniemox.insight.index import Index, update_index
from uniemox.insight.index_file import CACHE, INDEX, LINES
from uniemox.insight.survey.lines import NewAnswers
from uniemox.predict.opening import load


def test_a_link_that_is_not_followed_is_reported(photos: Path) -> None:
    (photos / "again").symlink_to(photos)
    notes: list[str] = []
    assert len(update_index(load("small", finder=None), photos, report=notes.append).paths) == 6
    assert notes == [f"1 link to a folder around it was not followed: {photos / 'again'}"]


def test_an_index_is_used_again_and_a_damaged_copy_is_replaced(photos: Path) -> None:
    predictor = load("small", finder=None)
    answered = list[int]()
    first = update_index(predictor, photos, lambda answers: answered.append(len(list(answers))))
    cache = stored(photos, CACHE)
    packed = io.BytesIO()
    array = io.BytesIO()
    np.savez_compressed(packed, asked=np.zeros(10**6))
    np.save(array, np.zeros(3))
    with np.load(cache) as whole:
        arrays = dict(whole)
    # An array of empty texts takes no bytes in the file, but gigabytes as a list.
    wrong = {
        "failed": np.zeros(10**6, "U0"),
        "paths": np.array("a"),
        "columns": np.zeros((2, 2), "U3"),
        "features": arrays["features"].astype(np.float32),
        "is_unfamiliar": arrays["is_unfamiliar"][:2],
        "values": arrays["values"].astype(str),
    }
    damaged_files = [io.BytesIO() for _ in wrong]
    for file, (name, value) in zip(damaged_files, wrong.items(), strict=True):
        np.savez(file, **arrays | {name: value})
    damages = [b"PK", cache.read_bytes()[:-200], *(file.getvalue() for file in (packed, array, *damaged_files))]
    for damage in (None, *damages):
        if damage is not None:
            cache.write_bytes(damage)
        index = update_index(predictor, photos, lambda answers: answered.append(len(list(answers))))
        assert index.paths.tolist() == first.paths.tolist()
        np.testing.assert_array_equal(index.values, first.values)
    assert answered[0] == 7
    # After a damaged copy, only the unreadable image is tried again.
    assert sum(answered[1:]) <= 10


def test_an_unreadable_image_is_tried_again_when_it_has_changed(photos: Path) -> None:
    """The file may still have been copied when it was first read."""
    predictor = load("small", finder=None)
    answered = list[int]()
    for expected in (6, 7, 7):
        index = update_index(predictor, photos, lambda answers: answered.append(len(list(answers))))
        assert len(index.paths) == expected
        if len(answered) == 1:
            draw_image(7).save(photos / "whole.png")
            # Copying may keep the time of modification.
            os.utime(photos / "whole.png", (0, 0))
            (photos / "whole.png").replace(photos / "broken.jpg")
    assert answered == [7, 1]


@pytest.mark.parametrize("name", ["broken.jpg", "0.png"])
def test_an_image_that_was_written_while_the_folder_was_read_is_tried_again(photos: Path, name: str) -> None:
    predictor = load("small", finder=None)
    answered = list[int]()

    def watch(answers: NewAnswers) -> None:
        answered.append(0)
        for answer in answers:
            answered[-1] += 1
            # Lines of further images follow.
            if len(answered) == 1 and answer.path == str(photos / name):
                draw_image(7).save(photos / name, "PNG")

    first = update_index(predictor, photos, watch)
    second = update_index(predictor, photos, watch)
    third = update_index(predictor, photos, watch)
    new = load("small", finder=None).predict(photos / name).scene["awe"]
    assert second.column("awe")[second.paths == str(photos / name)] == pytest.approx([new], abs=1e-4)
    assert third.paths.tolist() == second.paths.tolist()
    assert len(first.paths) == 6
    # The broken image is tried again with the changed one.
    assert answered == [7, 1 if name == "broken.jpg" else 2]


def test_a_copy_much_larger_than_its_index_is_not_read(photos: Path) -> None:
    """A few bytes on the disk, most of them a hole, would take gigabytes of memory."""
    predictor = load("small", finder=None)
    first = update_index(predictor, photos)
    cache = stored(photos, CACHE)
    size = cache.stat().st_size
    with np.load(cache) as whole:
        np.savez(cache, **dict(whole) | {"paths": whole["paths"].astype("U30000")})
    assert cache.stat().st_size > 10 * size
    assert update_index(predictor, photos).paths.tolist() == first.paths.tolist()
    assert cache.stat().st_size == size


def test_another_model_has_another_index(photos: Path) -> None:
    small = update_index(load("small", finder=None), photos)
    embedded = update_index(load(finder=None), photos)
    assert embedded.paths.tolist() == small.paths.tolist()
    assert not np.allclose(embedded.column("awe"), small.column("awe"))
    assert len(list((photos / INDEX).glob(f"*{LINES}"))) == 2
    answered = list[int]()
    again = update_index(load("small", finder=None), photos, lambda answers: answered.append(len(list(answers))))
    assert answered == []
    np.testing.assert_array_equal(again.values, small.values)


def test_packed_features_keep_their_cosines() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 900)).astype(np.float32) ** 3
    small = np.stack([unpack(pack(row)) for row in rows]).astype(np.float32)

    def cosines(values: np.ndarray) -> np.ndarray:
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
        return values @ values.T

    assert np.abs(cosines(rows) - cosines(small)).max() < 5e-3


def test_the_nearest_image_by_packed_features_is_the_nearest_by_features() -> None:
    """At least 95 of 100 first hits among neighbours that differ by little."""
    draw = np.random.default_rng(1)
    centres = draw.gamma(0.5, size=(50, 600)).astype(np.float32)
    rows = np.repeat(centres, 10, axis=0) * draw.uniform(0.7, 1.3, (500, 600)).astype(np.float32)
    values = np.zeros((500, 1), np.float32)
    packed = np.stack([unpack(pack(row)) for row in rows])
    index = Index(np.array([str(i) for i in range(500)]), ("awe",), values, np.zeros(500, bool), packed)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    agree = 0
    for i in range(100):
        exact = unit @ unit[i]
        exact[i] = -1
        scores = index.cosines(rows[i])
        scores[i] = -1
        agree += int(exact.argmax() == scores.argmax())
    assert agree >= 95


def test_a_folder_that_was_moved_is_searched_under_its_new_name(photos: Path, tmp_path: Path) -> None:
    predictor = load("small", finder=None)
    update_index(predictor, photos)
    shutil.copytree(photos, tmp_path / "elsewhere")
    assert len(update_index(predictor, tmp_path / "elsewhere").paths) == 6


def test_a_folder_has_one_index_however_it_is_spelled(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = load("small", finder=None)
    update_index(predictor, photos)
    monkeypatch.chdir(photos / "inner")
    answered = list[int]()
    index = update_index(predictor, Path(".."), lambda answers: answered.append(len(list(answers))))
    assert answered == []
    assert min(index.paths.tolist()) == "../0.png"
    assert len(list((photos / INDEX).iterdir())) == 2
