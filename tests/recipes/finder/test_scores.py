"""Scores of finders, and reading labelled photographs."""

from pathlib import Path

import pytest
from PIL import Image

from recipes.finder.scores import LabelledImage, best_threshold, read_labelled, score
from uniemox.errors import DataError
from uniemox.persons.box import Box, Detection


def person(x: float, confidence: float = 0.9, side: float = 10) -> Detection:
    return Detection(Box(x, 0, x + side, side), confidence)


def test_scores_count_each_person_once() -> None:
    """One of two people is found twice: one box counts, the other is wrong. 10 x 10 px of 100 x 50 are 2 %."""
    labelled = [LabelledImage(100, 49, (person(0), person(50)))]
    scores = score(labelled, [[person(0), person(1), person(80)]])
    assert (scores.people, scores.found, scores.boxes, scores.large) == (2, 1, 3, 2)
    assert (scores.recall, scores.precision) == (0.5, 1 / 3)
    assert scores.f_half == pytest.approx(1.25 / 3.5)
    assert score([LabelledImage(100, 50, (person(0),))], [[person(0)]]).large == 0


def test_uncertain_people_count_as_neither_found_nor_wrong() -> None:
    scores = score([LabelledImage(100, 50, (), (person(0, 0.2),))], [[person(0), person(50)]])
    assert (scores.people, scores.found, scores.boxes) == (0, 0, 1)
    assert scores.recall == scores.precision == 0
    assert score([], []).f_half == 0


def test_best_threshold_is_above_the_wrong_box() -> None:
    """Boxes at 0.9 and 0.6 are right, the one at 0.3 is wrong; above 0.6 a person would be missed."""
    labelled = [LabelledImage(100, 50, (person(0), person(30)))]
    threshold, scores = best_threshold(labelled, [[person(0, 0.9), person(30, 0.6), person(60, 0.3)]])
    assert threshold == pytest.approx(0.31)
    assert scores.f_half == 1


def test_matching_is_greedy_and_one_to_one() -> None:
    """The more confident box is matched to the person, the second to nobody."""
    two_people = LabelledImage(100, 50, (person(0), person(20)))
    two_boxes = [Detection(Box(0, 0, 10, 9), 0.9), person(0, 0.8)]
    assert score([two_people], [two_boxes]).found == 1
    assert score([two_people], [[*two_boxes, Detection(Box(20, 0, 30, 6), 0.1)]]).found == 2
    assert score([two_people], [[Detection(Box(20, 0, 30, 4), 0.1)]]).found == 0


def write_labelled(folder: Path, *labels: str) -> Path:
    """Write images of 80 x 40 px with these labels."""
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for i, text in enumerate(labels):
        Image.new("RGB", (80, 40)).save(folder / "images" / f"{i}.png")
        (folder / "labels" / f"{i}.txt").write_text(text)
    return folder


def test_labels_of_photographs_are_read_as_boxes_of_people_in_px(tmp_path: Path) -> None:
    """Shares of the sides become px; other classes than persons are left out."""
    folder = write_labelled(tmp_path, "0 0.5 0.5 0.25 1\n2 0.1 0.1 0.1 0.1\n", "")
    (image, first), (_, second) = read_labelled(folder)
    assert image.size == (80, 40)
    assert first == LabelledImage(80, 40, (Detection(Box(30, 0, 50, 40), 1.0),))
    assert second == LabelledImage(80, 40, ())
    assert len(read_labelled(folder, 1)) == 1


@pytest.mark.parametrize("text", ["0 0.5 0.5 0.25", "0 0.5 0.5 0.25 1 1", "person 0.5 0.5 0.25 1", None])
def test_labels_of_another_form_are_named(tmp_path: Path, text: str | None) -> None:
    folder = write_labelled(tmp_path, text or "")
    if text is None:
        (folder / "labels" / "0.txt").unlink()
    with pytest.raises(DataError, match=r"0\.txt: expected lines `class cx cy w h`"):
        read_labelled(folder)
