"""Valence and arousal fitted to ratings: ridge regression, held-out groups, intervals with their coverage."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import QuantileRegressor, Ridge

from tests.data.tree import says
from tests.drawn import draw_image
from tests.predict.networks import as_prediction, tiny_network
from tests.runs import uniemox_here
from uniemox.data.sample import ImageFile, Sample
from uniemox.data.source import open_data
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.evaluate.evaluation import UNKNOWN_TRAINING
from uniemox.evaluate.rating_fit import (
    PENALTY,
    HeldOutRatings,
    RatedImages,
    RatingFit,
    _quantile_line,
    fit_ratings,
    mean_ratings,
    ridge,
)
from uniemox.predict.network import Network
from uniemox.predict.predictor import Predictor
from uniemox.predict.ratings import RatingHead, head_inputs

COUNT = 160
DRAW = np.random.default_rng(0)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose brightness is their valence and whose redness is their arousal, with noise of 0.3."""
    folder = tmp_path_factory.mktemp("rated")
    rows = ["path,group,valence,arousal"]
    for i in range(COUNT):
        bright, red = DRAW.uniform(0, 1, 2)
        pixels = [130 * bright + 120 * red, 130 * bright, 130 * bright]
        Image.new("RGB", (48, 48), tuple(int(value) for value in pixels)).save(folder / f"{i}.png")
        valence, arousal = np.clip(DRAW.normal([1 + 8 * bright, 1 + 8 * red], 0.3), 1, 9)
        rows.append(f"{i}.png,{i // 2},{valence:.3f},{arousal:.3f}")
    (folder / "ratings.csv").write_text("\n".join(rows))
    return folder / "ratings.csv"


@pytest.fixture(scope="module")
def fitted(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("fitted")
    source = tiny_network(folder / "m.onnx", distances=(5.0, 200.0), conformal_scores=(0.5,))
    done = uniemox_here(
        "calibrate", "--ratings", "--model", source, "--data", f"csv:{table}", "--out", folder / "rated.onnx", "--json"
    )
    return folder / "rated.onnx", json.loads(done.stdout)


def test_several_ratings_of_an_image_are_averaged(tmp_path: Path) -> None:
    """40 photographs with three raters each counted as 120 images, enough for a fit."""
    paths = [tmp_path / f"{i}.png" for i in range(40)]
    samples = [
        Sample(key=f"{i}.png" if j == 2 else f"{i}.png#{j}", image=ImageFile(path), valence=float(j), arousal=5.0)
        for i, path in enumerate(paths)
        for j in (2, 3, 7)
    ]
    means = mean_ratings(samples)
    assert [str(sample.image) for sample in means] == [str(path) for path in paths]
    assert {(sample.valence, sample.arousal) for sample in means} == {(4.0, 5.0)}
    named = [replace(samples[0], key=f"pic#{i}", valence=float(i)) for i in (1, 9)]
    assert mean_ratings(named) == named


def test_a_rating_no_better_than_the_mean_has_a_verdict(fitted: tuple[Path, dict]) -> None:
    """The command wrote a head with an error of 1.25, where the mean had 1.15, without a word."""
    _, result = fitted
    assert "verdict" not in result
    values = {name: value for name, value in result.items() if name != "written"}
    fit = RatingFit(**values)
    assert fit.verdict == ""
    useless = replace(fit, mean_error=(0.5, 1.25), mean_error_of_mean=(1.0, 1.15))
    assert useless.verdict == "arousal predicted no better than by the mean rating for all images"


def test_ratings_are_predicted_on_held_out_groups(fitted: tuple[Path, dict]) -> None:
    _, result = fitted
    assert (result["images"], result["groups"]) == (COUNT, COUNT // 2)
    assert min(result["spearman"]) > 0.9
    assert max(result["mean_error"]) < min(result["mean_error_of_mean"]) / 2
    assert all(0.83 <= share <= 0.96 for share in result["coverage"])


@pytest.mark.thorough
def test_ratings_on_a_forgotten_scale_are_noticed(table: Path, tmp_path: Path) -> None:
    """Ratings of 1 to 7, given as if they were of 1 to 9."""
    lines = [line.split(",") for line in table.read_text().splitlines()]
    narrow = [[path, group, *(f"{1 + 0.75 * (float(x) - 1):.2f}" for x in both)] for path, group, *both in lines[1:]]
    (table.parent / "narrow.csv").write_text("\n".join(",".join(line) for line in [lines[0], *narrow]))
    source = tiny_network(tmp_path / "m.onnx", distances=(5.0, 200.0))
    notes = {}
    for name in ("ratings.csv", "narrow.csv", "narrow.csv?scale=1-7"):
        words = ("--data", f"csv:{table.parent / name}", "--out", tmp_path / f"rated{len(notes)}.onnx")
        notes[name] = " ".join(uniemox_here("calibrate", "--ratings", "--model", source, *words).stderr.split())
    assert "rated 1.0 to 7.0 of 1 to 9 (if people rated on another scale, name it" in notes["narrow.csv"]
    for name in ("ratings.csv", "narrow.csv?scale=1-7"):
        assert "rated 1.0 to 9.0 of 1 to 9; ten-fold" in notes[name]


def test_prediction_has_ratings_with_intervals_and_source(fitted: tuple[Path, dict]) -> None:
    path, _ = fitted
    image = Image.new("RGB", (48, 48), (120, 100, 100))
    plain = as_prediction(Predictor(Network.open(path)).predict(image))
    assert plain.affect_from == "ratings"
    assert plain.valence is not None
    assert plain.arousal is not None
    assert plain.valence_interval is not None
    assert plain.valence_interval[0] < plain.valence < plain.valence_interval[1]
    values = plain.to_dict()
    assert values["arousal_interval"][0] < values["arousal"] < values["arousal_interval"][1]
    [embedded] = Predictor(Network.open(path)).predict_each([image], with_embedding=True)
    assert (embedded.valence, embedded.embedding.shape) == (plain.valence, (48,))
    assert plain.embedding is None
    without = as_prediction(Predictor(Network.open(path.parent / "m.onnx")).predict(image))
    assert (without.affect_from, without.arousal, without.valence_interval) == ("norms", None, None)


def test_an_unfamiliar_image_has_the_interval_of_all_ratings(fitted: tuple[Path, dict]) -> None:
    head = Network.open(fitted[0]).rating_head
    familiar, unfamiliar = head.intervals(np.array([[5.0, 5.0]] * 2), np.array([0.5, 0.01]))
    # of both ends of valence
    a = head.ends[0, 0, :, 0]
    b = head.ends[0, 0, :, 1]
    np.testing.assert_allclose(familiar[0], 5 + a + 5 * b)
    assert (unfamiliar[:, 0] <= head.spread[:, 0]).all()
    assert (unfamiliar[:, 1] >= head.spread[:, 1]).all()
    assert head.intervals(np.array([[9.0, 1.0]]), None).max() <= 9
    # Images below 0.05 are unfamiliar.
    at_the_limit = head.intervals(np.array([[5.0, 5.0]]), np.array([0.05]))
    np.testing.assert_array_equal(at_the_limit[0], familiar)


def test_ridge_equals_scikit_learns_on_scaled_blocks() -> None:
    inputs = DRAW.normal(size=(50, 12)) * np.arange(1, 13)
    ratings = DRAW.uniform(1, 9, (50, 2))
    weights, bias = ridge(inputs, ratings, (8, 4))
    scale = np.concatenate([np.full(8, 8**-0.5), np.full(4, 4**-0.5)]) / (inputs.std(axis=0) + 1e-6)
    x = (inputs - inputs.mean(axis=0)) * scale
    expected = Ridge(alpha=PENALTY).fit(x, ratings).predict(x)
    np.testing.assert_allclose(inputs @ weights + bias, expected, rtol=1e-6)


def test_no_group_is_in_two_folds() -> None:
    inputs = DRAW.normal(size=(60, 6))
    ratings = DRAW.uniform(1, 9, (60, 2))
    groups = [str(i % 17) for i in range(60)]
    images = RatedImages(samples=(), inputs=inputs, blocks=(4, 2), ratings=ratings, groups=groups, sources=[None] * 60)
    held_out = HeldOutRatings.of(images)
    fold = held_out.fold
    assert all(len({int(fold[i]) for i in range(60) if groups[i] == group}) == 1 for group in set(groups))
    changed = ratings.copy()
    changed[fold == 3] = 1.0
    others = HeldOutRatings.of(replace(images, ratings=changed))
    np.testing.assert_array_equal(others.predictions[fold == 3], held_out.predictions[fold == 3])


def test_the_lines_are_scikit_learns_quantile_regression() -> None:
    draw = np.random.default_rng(5)
    x = draw.normal(size=80)
    y = x + draw.normal(size=80) * (1 + np.abs(x))
    for level in (0.05, 0.5, 0.95):
        expected = QuantileRegressor(quantile=level, alpha=0, solver="highs").fit(x[:, None], y)
        line = _quantile_line(x, y, level)
        np.testing.assert_allclose(line, [expected.intercept_, expected.coef_[0]], atol=1e-8)


def interval_ends(predictions: np.ndarray, ratings: np.ndarray, sources: Sequence[str | None]) -> np.ndarray:
    fold = np.zeros(len(ratings), np.int64)
    return HeldOutRatings(predictions=predictions, ratings=ratings, sources=sources, fold=fold).interval_ends()


def test_intervals_widen_where_errors_are_larger_and_hold_every_data_set() -> None:
    draw = np.random.default_rng(3)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
        predictions = draw.uniform(2, 8, (count, 2))
        # The errors of the second data set are twice as large.
        is_second = draw.random(count) < 0.4
        scale = 0.2 * predictions * np.where(is_second, 2, 1)[:, None]
        ratings = (predictions + scale * draw.normal(size=(count, 2))).clip(1, 9)
        return predictions, ratings, ["ab"[int(i)] for i in is_second]

    predictions, ratings, sources = drawn(2_000)
    ends = interval_ends(predictions, ratings, sources)
    assert ends.shape == (2, 2, 2, 2)
    weights = np.zeros((2, 3), np.float32)
    zeros = np.zeros(2)
    head = RatingHead(weights, zeros, ends, ends, spread=np.zeros((2, 2)), images=2_000, trained_on="drawn")
    predictions, ratings, sources = drawn(4_000)
    intervals = head.intervals(predictions, None)
    inside = (intervals[..., 0] <= ratings) & (ratings <= intervals[..., 1])
    assert inside[np.array(sources) == "b"].mean() == pytest.approx(0.9, abs=0.03)
    assert inside[np.array(sources) == "a"].mean() > 0.97
    widths = intervals[..., 1] - intervals[..., 0]
    low = predictions[:, 0] < 3
    high = (predictions[:, 0] > 5) & (predictions[:, 0] < 6)
    assert widths[high, 0].mean() > 1.5 * widths[low, 0].mean()
    few = interval_ends(predictions[:150], ratings[:150], ["a"] * 120 + ["b"] * 30)
    # Ends of data set a, and of all images.
    assert len(few) == 2
    assert len(interval_ends(predictions[:150], ratings[:150], [None] * 150)) == 1


def test_images_without_colour_have_intervals_of_their_own(fitted: tuple[Path, dict]) -> None:
    """They hold those of other images; of the drawn images, red says the arousal, which grey copies lack."""
    head = Network.open(fitted[0]).rating_head
    # Intervals at the ends of the scale are wider for another reason.
    ratings = np.linspace(1.01, 8.99, 9)[:, None].repeat(2, axis=1)
    coloured, grey = (head.intervals(ratings, None, np.full(9, flag)) for flag in (False, True))
    assert (grey[..., 0] <= coloured[..., 0]).all()
    assert (grey[..., 1] >= coloured[..., 1]).all()
    widths = [(ends[..., 1] - ends[..., 0]).mean(axis=0) for ends in (coloured, grey)]
    assert widths[1][1] > 1.3 * widths[0][1]
    np.testing.assert_array_equal(head.intervals(ratings, None), coloured)


def test_the_interval_of_a_rating_cut_off_at_the_scale_holds_the_spread_of_all_ratings() -> None:
    ends = np.zeros((1, 2, 2, 2))
    ends[..., 0] = [-0.5, 0.5]
    weights = np.zeros((2, 3), np.float32)
    weights[0, 0] = 1
    spread = np.array([[2.6, 7.8], [2.5, 6.1]])
    head = RatingHead(weights, np.array([5.0, 5.0]), ends, ends, spread=spread, images=1, trained_on="drawn")
    # Raw valences of 9.02, 8.9 and -3.
    ratings = head.rate(np.array([[4.02], [3.9], [-8.0]]), np.zeros((3, 2)))
    np.testing.assert_allclose(ratings[:, 0], [9, 8.9, 1])
    intervals = head.intervals(ratings, np.array([0.6, 0.6, 0.6]))
    np.testing.assert_allclose(intervals[:, 0], [[2.6, 9], [8.4, 9], [1, 7.8]])
    np.testing.assert_allclose(intervals[:, 1], [[4.5, 5.5]] * 3)


def test_a_head_of_version_0_2_has_one_width() -> None:
    head = RatingHead(
        np.zeros((2, 3), np.float32),
        np.zeros(2),
        np.zeros((1, 2, 2, 2)),
        np.zeros((1, 2, 2, 2)),
        np.ones((2, 2)),
        images=1,
        trained_on="old",
    )
    values = head.to_dict() | {"half_widths": [1.5, 0.5]}
    del values["ends"]
    intervals = RatingHead.from_dict(values).intervals(np.array([[5.0, 3.0]]), None)
    np.testing.assert_array_equal(intervals, [[[3.5, 6.5], [2.5, 3.5]]])
    for wrong in ([-1.5, -1], [1.0], [1.0, 1.0, 1.0, 1.0], [float("nan"), 1.0]):
        with pytest.raises(CheckpointError, match="head for valence and arousal"):
            RatingHead.from_dict(values | {"half_widths": wrong})
    with pytest.raises(CheckpointError, match="takes 3 numbers, its network gives 5; fit it again"):
        head.rate(np.zeros((1, 3)), np.zeros((1, 2)))
    with pytest.raises(CheckpointError, match="head for valence and arousal"):
        RatingHead.from_dict(head.to_dict() | {"images": float("inf")})


def test_ratings_of_other_images_are_scored_and_those_it_was_fitted_on_refused(
    fitted: tuple[Path, dict], table: Path, tmp_path: Path
) -> None:
    rows = ["path,valence,arousal"]
    for i in range(40):
        bright, red = DRAW.uniform(0, 1, 2)
        pixels = [130 * bright + 120 * red, 130 * bright, 130 * bright + 1]
        Image.new("RGB", (48, 48), tuple(int(value) for value in pixels)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{1 + 8 * bright:.3f},{1 + 8 * red:.3f}")
    (tmp_path / "new.csv").write_text("\n".join(rows))
    done = uniemox_here(
        "evaluate", "--model", fitted[0], "--data", f"csv:{tmp_path / 'new.csv'}", "--task", "affect", "--json"
    )
    valence = json.loads(done.stdout)["valence"]
    assert valence["spearman"] > 0.95
    assert valence["coverage"] > 0.8
    assert valence["mae"] < 0.5
    # The classifier itself has no list of training images.
    assert UNKNOWN_TRAINING in " ".join(done.stderr.split())
    for words in ((fitted[0], f"csv:{table}"), (fitted[0].parent / "m.onnx", f"csv:{tmp_path / 'new.csv'}")):
        refused = uniemox_here("evaluate", "--model", words[0], "--data", words[1], "--task", "affect")
        assert refused.returncode == 1
        if words[0] == fitted[0]:
            message = "was trained on"
        else:
            message = "has no head for valence and arousal; uniemox calibrate --ratings"
        assert message in " ".join(refused.stderr.split())


def test_head_round_trip_and_damage_is_reported(fitted: tuple[Path, dict], table: Path) -> None:
    head = Network.open(fitted[0]).rating_head
    again = RatingHead.from_dict(json.loads(json.dumps(head.to_dict())))
    features = DRAW.normal(size=(3, 48))
    logits = DRAW.normal(size=(3, 8))
    np.testing.assert_array_equal(again.rate(features, logits), head.rate(features, logits))
    assert again.seen == head.seen
    # The order is fixed, so the same fit writes the same file.
    assert head.to_dict()["seen"] == "".join(sorted(head.seen))
    extreme = head.rate(1e6 * features, logits)
    assert set(extreme.ravel()) == {1.0, 9.0}
    assert head.seen == {hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in table.parent.glob("*.png")}
    shares = np.exp(head_inputs(features, logits)[:, 48:])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    for change in ({"weights": "?"}, {"bias": [1]}, {"ends": [float("nan")] * 8}, {"ends": []}, {"images": None}):
        with pytest.raises(CheckpointError, match="head for valence and arousal"):
            RatingHead.from_dict(head.to_dict() | change)


def test_rows_without_both_ratings_are_left_out(table: Path, tmp_path: Path) -> None:
    """One of 101 rows has only a valence."""
    header, *rows = table.read_text().splitlines()[:102]
    rows[0] = rows[0].rpartition(",")[0] + ","
    (table.parent / "partly.csv").write_text("\n".join([header, *rows]))
    source = tiny_network(tmp_path / "m.onnx", distances=(5.0,))
    assert fit_ratings(str(source), open_data(f"csv:{table.parent / 'partly.csv'}"), tmp_path / "a.onnx").images == 100


def test_models_and_data_that_cannot_be_fitted_are_refused(table: Path, tmp_path: Path) -> None:
    plain = tiny_network(tmp_path / "plain.onnx")
    few = tmp_path / "few"
    few.mkdir()
    with pytest.raises(ConfigError, match=says("is not a classifier with features")):
        fit_ratings(str(plain), open_data(f"csv:{table}"), tmp_path / "out.onnx")
    draw_image(0).save(few / "a.png")
    (few / "t.csv").write_text("path,valence,arousal\na.png,5,5\n")
    source = tiny_network(tmp_path / "m.onnx", distances=(5.0,))
    with pytest.raises(DataError, match=says("1 image with valence and arousal; at least 100 are needed")):
        fit_ratings(str(source), open_data(f"csv:{few / 't.csv'}"), tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
