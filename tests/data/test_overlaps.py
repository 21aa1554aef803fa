"""Copies of an image stay in one part of a run, and images without copies keep their groups and splits."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.runs import colours
from uniemox.data.hashes import image_hashes
from uniemox.data.overlaps import OVERLAPS, Overlaps, contradictory_among, copies_among, read_overlaps, write_overlaps
from uniemox.data.sample import Sample
from uniemox.data.splits import split_samples
from uniemox.errors import DataError
from uniemox.persons.box import Box

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def with_copies() -> list[Sample]:
    """Forty images, of which every second one is the same file under another key and label."""
    samples = colours(10).samples
    return [replace(sample, image=samples[0].image) if i % 2 == 0 else sample for i, sample in enumerate(samples)]


def test_copies_stay_in_one_split() -> None:
    samples = with_copies()
    hashes = image_hashes(samples)
    copies = copies_among(samples, hashes)
    assert sorted(copies) == sorted(sample.key for sample in samples[::2])
    before = split_samples(samples, SHARES, seed=0)
    assert len({before[key] for key in copies}) > 1
    after = split_samples(Overlaps(copies=copies).join(samples), SHARES, seed=0)
    assert len({after[key] for key in copies}) == 1


def test_data_without_copies_keep_their_splits() -> None:
    """Several people of one image are samples of the same file and of one group, and no copies of each other."""
    samples = colours(10).samples
    people = [replace(sample, image=samples[i - i % 2].image, group=f"{i // 2}") for i, sample in enumerate(samples)]
    for part in (samples, people):
        assert copies_among(part, image_hashes(part)) == {}


def test_copies_with_another_label_are_contradictory() -> None:
    """Copies with one label, images without copies and people of an image are not."""
    samples = colours(2).samples
    image = samples[0].image
    copies = [replace(sample, image=image) for sample in samples[:3]]
    same = [replace(samples[4], key="same.jpg", image=samples[5].image), samples[5]]
    people = [
        replace(sample, key=f"{i}", image=image, target_box=Box(i, 0, i + 9, 9)) for i, sample in enumerate(samples[4:])
    ]
    checked = [*copies, *same, *people]
    first, second, third = (sample.key for sample in copies)
    assert [samples[i].label == samples[0].label for i in (1, 2)] == [True, False]
    expected = {first: third, second: third, third: second}
    assert contradictory_among(checked, image_hashes(checked)) == expected
    # One person with two labels is contradictory.
    same_person = [replace(sample, target_box=people[0].target_box) for sample in people]
    assert len({sample.label for sample in people}) == 2
    assert len(contradictory_among(same_person, image_hashes(same_person))) == len(people)


def test_overlaps_are_read_as_they_were_written(tmp_path: Path) -> None:
    overlaps = Overlaps(
        copies={"a\udcff.jpg": "key a.jpg"},
        seen_held_out=("b.jpg",),
        scored_split="test",
        scored_images=3,
        seen_scored={"embedded": ("c.jpg",)},
    )
    write_overlaps(tmp_path, overlaps)
    assert read_overlaps(tmp_path) == overlaps
    assert read_overlaps(tmp_path / "older") == Overlaps()
    (tmp_path / OVERLAPS).write_text('{"copies": 1}')
    with pytest.raises(DataError, match=r"overlaps\.json: field copies"):
        read_overlaps(tmp_path)
