"""Agreement against independent computations, verdicts by each rule, licences."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from sqlalchemy import insert, update

from tests.curate.places import project_of, say
from uniemox.errors import DataError
from uniemox_curate import tables as t
from uniemox_curate.annotate.agree import (
    _alpha_from,
    _alpha_terms,
    agreement,
    agreement_now,
    label_counts,
    rating_alpha,
)
from uniemox_curate.annotate.verdicts import LatestAnswers, decide, disputed
from uniemox_curate.release.documents import licence_counts, render, terms_of
from uniemox_curate.status import status

# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, twelve units, one value
# without a second; nominal alpha 0.743.
FOUR = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]


def plain_alpha(rows: list[list[int]]) -> float:
    """By pairs, as the definition has it."""
    units = [[value for value in unit if value >= 0] for unit in zip(*rows, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    n = len(values)
    within = sum(sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units)
    observed = within / max(n, 1)
    expected = sum(a != b for a, b in itertools.permutations(values, 2)) / max(n * (n - 1), 1)
    return math.nan if expected == 0 else 1 - observed / expected


def test_alpha_of_the_published_example() -> None:
    stats = agreement(np.array(FOUR).T - 1, "12345", "abcd")
    assert stats.alpha.value == pytest.approx(0.743, abs=5e-4)
    values = np.where(np.array(FOUR).T == 0, np.nan, np.array(FOUR).T)
    assert rating_alpha(values).value == pytest.approx(0.849, abs=5e-4)


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=2, max_size=8))
def test_alpha_of_a_scale_equals_its_definition_by_pairs(units: list[list[int]]) -> None:
    """0: no answer."""
    values = np.array(units, dtype=float)
    values[values == 0] = np.nan
    paired = [[value for value in unit if value] for unit in units]
    paired = [unit for unit in paired if len(unit) > 1]
    every = [value for unit in paired for value in unit]
    within = sum(sum((a - b) ** 2 for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in paired)
    among = sum((a - b) ** 2 for a, b in itertools.permutations(every, 2)) / max(len(every) - 1, 1)
    plain = math.nan if among == 0 else 1 - within / among
    assert rating_alpha(values).value == pytest.approx(plain, nan_ok=True)


def test_agreement_has_the_scales_with_answers_alone() -> None:
    codes = np.array([[0, 0], [1, 1]])
    nothing = np.full((2, 2), np.nan)
    ratings = {"valence": np.array([[1.0, 2.0], [9.0, 9.0]]), "arousal": nothing}
    stats = agreement(codes, ["a", "b"], ["Ada", "Ben"], ratings=ratings)
    assert set(stats.ratings) == {"valence"}
    assert 0.9 < stats.ratings["valence"].value < 1


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(-1, 2), min_size=3, max_size=3), max_size=12))
def test_alpha_equals_its_definition_by_pairs(units: list[list[int]]) -> None:
    codes = np.array(units, dtype=int).reshape(len(units), 3)
    alpha = agreement(codes, "abc", "xyz").alpha.value
    assert alpha == pytest.approx(plain_alpha(codes.T.tolist()), nan_ok=True)


def test_kappa_percent_and_confusion_of_two() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 4, 300)
    second = np.where(rng.random(300) < 0.7, first, rng.integers(0, 4, 300))
    stats = agreement(np.column_stack([first, second]), ("a", "b", "c", "none"), ("Ada", "Ben"))
    (pair,) = stats.pairs
    assert pair.kappa.value == pytest.approx(cohen_kappa_score(first, second))
    assert stats.percent.value == pair.percent.value == pytest.approx((first == second).mean())
    assert stats.per_annotator["Ada"] == stats.percent
    assert np.array(pair.confusion).sum() == 300
    assert pair.confusion[1][2] == ((first == 1) & (second == 2)).sum()
    assert stats.alpha.low < stats.alpha.value < stats.alpha.high
    assert pair.kappa.low < pair.kappa.value < pair.kappa.high
    binary = plain_alpha([(first == 0).astype(int).tolist(), (second == 0).astype(int).tolist()])
    assert stats.per_class["a"].value == pytest.approx(binary)


def test_the_interval_of_alpha_equals_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, (60, 3))
    codes[:, 1:] = np.where(rng.random((60, 2)) < 0.6, codes[:, :1], codes[:, 1:])
    stats = agreement(codes, ("a", "b", "c"), ("x", "y", "z"))
    terms = _alpha_terms(label_counts(codes, 3))
    plain = _alpha_from(np.stack([terms[rng.integers(60, size=60)].sum(axis=0) for _ in range(1000)]))
    assert [stats.alpha.low, stats.alpha.high] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.03)


def test_an_answer_that_the_plan_lacks_is_named(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", ["awe"])
    say(project, {"d": "delight"}, ann="d", bob="d")
    with pytest.raises(DataError, match="answers have the label 'delight', which the plan does not have"):
        agreement_now(project)


def test_edges_of_agreement() -> None:
    nobody = agreement(np.empty((0, 2), dtype=int), ("a", "b"), ("x", "y"))
    assert (nobody.pictures, nobody.answers, nobody.pairs) == (0, 0, ())
    assert math.isnan(nobody.alpha.value)
    assert nobody.as_dict()["alpha"] == {"value": None, "low": None, "high": None}
    one_each = agreement(np.array([[0, -1], [-1, 1]]), ("a", "b"), ("x", "y"))
    assert one_each.pictures == 0
    same = agreement(np.zeros((5, 2), dtype=int), ("a", "b"), ("x", "y"))
    assert same.percent.value == 1.0
    assert math.isnan(same.alpha.value)
    assert math.isnan(same.pairs[0].kappa.value)


def answers(*texts: str) -> LatestAnswers:
    """Each text is an image's answers, a letter an annotator."""
    names = {"a": "awe", "f": "fear", "n": "none"}
    by_image = {i: {f"p{j}": names[letter] for j, letter in enumerate(text)} for i, text in enumerate(texts)}
    return LatestAnswers(("p0", "p1", "p2", "p3"), by_image)


@pytest.mark.parametrize(
    ("letters", "both", "majority", "soft"),
    [
        ("aa", "awe", "awe", "awe"),
        ("ff", None, "fear", "fear"),  # awe was searched
        ("af", None, None, None),
        ("aaf", None, "awe", "awe"),
        ("nn", None, None, None),
        ("an", None, None, "awe"),
        ("aan", None, "awe", "awe"),
        ("ann", None, None, None),
        ("a", None, None, None),
        ("aaff", None, None, None),
        ("aafn", None, None, "awe"),
    ],
)
def test_rules_decide_under_which_label_an_image_is_kept(
    letters: str, both: str | None, majority: str | None, soft: str | None
) -> None:
    given_answers = answers(letters)
    for rule, expected in (("both", both), ("majority", majority), ("soft", soft)):
        assert decide(given_answers, {0: {"awe"}}, {}, rule=rule)[0].label == expected, rule  # type: ignore[arg-type]


def test_the_owners_verdict_overrides_rules() -> None:
    decided = decide(answers("af", "aa", "ff"), {0: {"awe"}, 1: {"awe"}}, {0: "fear", 1: "none"})
    assert [decided[i].label for i in range(3)] == ["fear", None, "fear"]
    assert decided[0].shares == {"awe": 0.5, "fear": 0.5}
    assert decide(answers("aa"), {0: {"awe"}}, {0: "fear"})[0].shares == {"awe": 1.0}  # what annotators said
    assert decide(answers("a"), {}, {}, min_answers=1)[0].label == "awe"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", (None, None, None)),
        ("by 2.0", (True, True, True)),
        ("CC BY-NC-ND 4.0", (True, False, False)),
        ("by-nc 2.0", (True, False, True)),
        ("cc0 1.0", (False, True, True)),
        ("CC-Zero", (False, True, True)),
        ("Public domain", (False, True, True)),
        ("pdm 1.0", (False, True, True)),
        ("PD-USGov-NASA", (False, True, True)),
        ("CC BY-SA 3.0 DE", (True, True, True)),
        ("pd scans, all rights reserved", (None, None, None)),
        ("pd all rights reserved", (None, None, None)),
        ("not public domain", (None, None, None)),
        ("proprietary (no-CC0)", (None, None, None)),
        ("CC-BY-4.0-all rights reserved", (None, None, None)),
        ("CC-BY-4.0 or MIT", (None, None, None)),
        ("CC-BY-99.0", (None, None, None)),
        ("CC-BY-ND-SA-4.0", (None, None, None)),
        ("Bing's filter commercial", (None, None, None)),
        ("GFDL", (None, None, None)),
        ("all rights reserved by Jane", (None, None, None)),
    ],
)
def test_terms_of_licences(name: str, expected: tuple[bool | None, ...]) -> None:
    assert terms_of(name) == expected


def test_the_report_of_licences_counts() -> None:
    text = render("licences.md", licences=licence_counts(["by 2.0", "by 2.0", "", "by-nc-nd 4.0", "a|b"]))
    assert "\n| by 2.0 | 2 | yes | yes | yes |\n" in text
    assert "| a\\|b | 1 | not known | not known | not known |" in text
    assert "5 images: 2 without a known licence, 1 whose licence excludes commercial use, 1 whose licence" in text
    assert "0 images" in render("licences.md", licences=licence_counts([]))


def test_status_counts_answers_and_their_median_time(tmp_path: Path) -> None:
    """Ada's times are 1 to 5 s, and the second answer to an image replaces the first."""
    project = project_of(tmp_path / "p", ["awe"] * 5)
    say(project, ada="aafna", bob="afxxx", eve="xxxxx")
    with project.store.write() as connection:
        for number in range(1, 6):
            connection.execute(update(t.answers).where(t.answers.c.id == number).values(seconds=number + 0.04))
        again = {"person_id": 1, "task_id": 1, "client_id": "again", "label": "fear", "seconds": 9.0, "at": 0.0}
        connection.execute(insert(t.answers).values(**again))
    state = status(project)
    ada, bob, eve = state.annotators
    assert (ada.answered, ada.median_s) == (5, 4.0)  # of 2, 3, 4, 5 and 9
    assert (bob.answered, bob.median_s) == (2, 1.5)
    assert (eve.answered, eve.median_s) == (0, None)
    assert state.progress.annotate.answered_twice == 2
    assert state.progress.agree.disputed == 2 == len(disputed(project, "both"))
