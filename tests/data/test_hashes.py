"""Hashes of images: of their bytes, in order, in any number of processes."""

import hashlib
from pathlib import Path

from tests.drawn import sample_of
from uniemox.data.near import image_hashes
from uniemox.data.processes import CHUNK


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    assert image_hashes([]) == []
    assert image_hashes([sample_of(tmp_path)]) == [""]  # a folder
    (tmp_path / "a.jpg").write_bytes(b"one")
    (tmp_path / "b.jpg").write_bytes(b"")
    samples = [sample_of(tmp_path / name) for name in ("a.jpg", "none.jpg", "b.jpg", "a.jpg")]
    one, empty = (hashlib.sha256(data).hexdigest() for data in (b"one", b""))
    told: list[tuple[str, int, int | None]] = []
    assert image_hashes(samples, lambda *now: told.append(now)) == [one, "", empty, one]
    assert told[-1] == ("hashing images", 4, 4)


def test_many_images_are_hashed_by_several_processes_in_order(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.jpg").write_bytes(bytes([number]))
    samples = [sample_of(tmp_path / f"{i % 7}.jpg") for i in range(3 * CHUNK + 5)]
    told: list[tuple[str, int, int | None]] = []
    expected = [hashlib.sha256(bytes([i % 7])).hexdigest() for i in range(len(samples))]
    assert image_hashes(samples, lambda *now: told.append(now)) == expected
    assert told == sorted(told)
    assert told[-1] == ("hashing images", len(samples), len(samples))
