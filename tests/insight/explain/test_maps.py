"""Heat maps lie where the network looks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import uniemox
from tests.insight.explain.spots import CELLS, LABELS, PLACES, SIZE, OnePerson, predictor, spotted
from uniemox.classifier_info import OLD_RULES
from uniemox.errors import ConfigError, ImageError, LabelError, ShapeError
from uniemox.insight.explain import maps
from uniemox.insight.explain.explanation import Explanation
from uniemox.insight.explain.maps import CELLS as COVER_CELLS
from uniemox.insight.explain.maps import COARSE, COARSE_STEP, FINE, FINE_COVERS, Explainer, heat_map, occlusion_map
from uniemox.io.sized_image import SizedImage
from uniemox.persons.box import Box

ROOT = Path(__file__).parents[3]


def hottest(explanation: Explanation) -> tuple[int, int]:
    """Return row and column of the hottest cell, in cells of 8 x 8."""
    row, column = np.unravel_index(explanation.heat.argmax(), explanation.heat.shape)
    return int(row * CELLS // explanation.heat.shape[0]), int(column * CELLS // explanation.heat.shape[1])


@pytest.mark.parametrize("method", ["cam", "occlusion"])
@pytest.mark.parametrize("label", LABELS)
def test_heat_is_where_the_label_is(label: str, method: str) -> None:
    explanation = heat_map(predictor(), spotted(*LABELS), label, method=method)  # type: ignore[arg-type]
    assert (explanation.label, explanation.method) == (label, method)
    assert explanation.heat.dtype == np.float32
    assert explanation.heat.min() == 0
    assert explanation.heat.max() == 1
    assert hottest(explanation) == PLACES[label]
    assert explanation.box == Box(0, 0, SIZE, SIZE)


@pytest.mark.parametrize("has_maps", [False, True])
def test_without_a_label_the_most_probable_one_is_explained(has_maps: bool) -> None:
    model = predictor(has_maps=has_maps)
    for label in LABELS:
        explanation = heat_map(model, spotted(label))
        assert explanation.label == label
        assert explanation.method == ("cam" if has_maps else "occlusion")
        assert explanation.probability == pytest.approx(model.predict(spotted(label)).scene[label], abs=1e-12)
        assert hottest(explanation) == PLACES[label]


def test_a_map_of_a_guess_is_marked() -> None:
    model = uniemox.load("small", finder=None)
    black = Image.new("RGB", (300, 200))
    for image, is_guess in ((black, True), (Image.open(ROOT / "docs/images/cat.jpg"), False)):
        assert heat_map(model, image).is_unfamiliar == model.predict(image).is_unfamiliar == is_guess


def test_occlusion_costs_a_hundred_passes_in_small_batches() -> None:
    model = predictor(has_maps=False)
    heat_map(model, spotted("awe"))
    assert model.network.engine.passes <= 100
    assert model.network.engine.largest <= 16


@pytest.mark.parametrize("method", ["cam", "occlusion"])
def test_an_image_without_evidence_has_no_heat(method: str) -> None:
    black = Image.new("RGB", (SIZE, SIZE))
    explanation = heat_map(predictor(), black, "fear", method=method)  # type: ignore[arg-type]
    assert not explanation.heat.any()
    assert explanation.overlay().size == (SIZE, SIZE)


@pytest.mark.parametrize("size", [(170, 100), (100, 170), (64, 64), (101, 67)])
def test_the_box_is_the_middle_that_the_model_sees(size: tuple[int, int]) -> None:
    explanation = heat_map(predictor(crop_fraction=0.875), Image.new("RGB", size, (200, 0, 0)))
    width = explanation.box.x2 - explanation.box.x1
    height = explanation.box.y2 - explanation.box.y1
    assert width == pytest.approx(height)
    assert width == pytest.approx(min(size) * 64 / 73)
    assert explanation.box.x1 + explanation.box.x2 == pytest.approx(size[0])
    assert explanation.box.y1 + explanation.box.y2 == pytest.approx(size[1])
    assert explanation.image.size == explanation.overlay().size == size


@pytest.mark.parametrize("size", [(5 * SIZE, SIZE), (SIZE, 5 * SIZE)])
def test_a_long_image_is_explained_from_end_to_end(size: tuple[int, int]) -> None:
    """The map covers all squares, is hottest where the label's mark is, and has the probability of the prediction."""
    explained = predictor(crop_fraction=1.0)
    image = Image.new("RGB", size, (20, 20, 20))
    image.paste(spotted("fear"), (size[0] - SIZE, size[1] - SIZE))
    explanation = heat_map(explained, image, "fear", method="occlusion")
    assert explanation.box == (0, 0, *size)
    assert explanation.probability == pytest.approx(explained.predict(image).scene["fear"])
    assert explanation.overlay().size == size
    row, column = np.unravel_index(explanation.heat.argmax(), explanation.heat.shape)
    assert max(row / explanation.heat.shape[0], column / explanation.heat.shape[1]) > 0.8
    scores = Explainer(explained).score(explanation)
    assert 0 <= scores.deletion <= 1


def test_a_map_of_an_old_file_is_measured_on_the_middle_square(monkeypatch: pytest.MonkeyPatch) -> None:
    explained = predictor(crop_fraction=1.0, rules=OLD_RULES)
    image = Image.new("RGB", (3 * SIZE, SIZE), (20, 20, 20))
    image.paste(spotted("fear"), (SIZE, 0))
    explanation = heat_map(explained, image, "fear", method="occlusion")
    measured = []
    monkeypatch.setattr(maps, "map_scores", lambda _classify, pixels, heat: measured.append((pixels, heat)))
    Explainer(explained).score(explanation)
    [(pixels, heat)] = measured
    middle = image.crop((SIZE, 0, 2 * SIZE, SIZE))
    expected = explained.network.pixels(explained.network.views_of(SizedImage.of(middle), None)["scene"][None])[0]
    np.testing.assert_array_equal(pixels, expected)
    assert heat.shape[0] == heat.shape[1]


def test_the_person_view_is_explained_if_it_is_the_only_one() -> None:
    """In px of the image; with both views it is the scene, and the person stays as it is."""
    image = Image.new("RGB", (200, 200), (20, 20, 20))
    image.paste(spotted("fear", side=80), (30, 100))
    box = Box(30, 100, 110, 180)
    explanation = heat_map(predictor(streams="person", finder=OnePerson(box)), image)
    assert (explanation.label, explanation.method, explanation.box) == ("fear", "occlusion", box)
    assert hottest(explanation) == PLACES["fear"]
    both = heat_map(predictor(streams="both", finder=OnePerson(box)), spotted("awe", side=200), "awe")
    assert both.box == Box(0, 0, 200, 200)
    assert hottest(both) == PLACES["awe"]


def test_values_are_explained_as_probabilities_are() -> None:
    model = predictor(has_maps=False, task="affect", labels=LABELS, label_set="affect")
    explanation = heat_map(model, spotted("fear"), "fear")
    assert hottest(explanation) == PLACES["fear"]
    assert explanation.probability == pytest.approx(4 * 6 + 5)


def test_what_can_not_be_explained_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="'joy' is none of the 3 labels"):
        heat_map(predictor(), spotted("awe"), "joy")
    with pytest.raises(ConfigError, match="spots has no class-activation maps"):
        heat_map(predictor(has_maps=False), spotted("awe"), method="cam")
    with pytest.raises(ConfigError, match="no method 'lime'"):
        heat_map(predictor(), spotted("awe"), method="lime")  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"nothing\.jpg"):
        heat_map(predictor(), tmp_path / "nothing.jpg")


def plain(score: object, pixels: np.ndarray) -> np.ndarray:
    """Return the occlusion map, by a plain computation with one cover at a time."""
    length = pixels.shape[1] // COVER_CELLS
    mean = pixels.reshape(3, -1).mean(axis=1)
    before = score(pixels[None])[0]

    def level(corners: list[tuple[int, int]], side: int) -> np.ndarray:
        falls = np.full((len(corners), COVER_CELLS, COVER_CELLS), np.nan)
        for i, (row, column) in enumerate(corners):
            covered = pixels.copy()
            rows, columns = (slice(index * length, (index + side) * length) for index in (row, column))
            covered[:, rows, columns] = mean[:, None, None]
            falls[i, row : row + side, column : column + side] = before - score(covered[None])[0]
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(np.nansum(falls, axis=0) / (~np.isnan(falls)).sum(axis=0))

    starts = range(0, COVER_CELLS - COARSE + 1, COARSE_STEP)
    coarse = level([(row, column) for row in starts for column in starts], COARSE)
    corners: list[tuple[int, int]] = []
    for cell in np.argsort(-coarse.astype(np.float32), axis=None, kind="stable"):
        corner = tuple(min(int(index), COVER_CELLS - FINE) for index in np.unravel_index(cell, coarse.shape))
        if len(corners) < FINE_COVERS and corner not in corners:
            corners.append(corner)  # type: ignore[arg-type]
    return coarse + level(corners, FINE)


def random_score(seed: int, size: int) -> tuple[object, np.ndarray]:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((3, size, size))
    pixels = rng.standard_normal((3, size, size)).astype(np.float32)
    return lambda batch: np.tanh((batch * weight).sum(axis=(1, 2, 3)) / size), pixels


@pytest.mark.parametrize("seed", range(3))
def test_occlusion_matches_a_plain_computation(seed: int) -> None:
    score, pixels = random_score(seed, 32)
    np.testing.assert_allclose(occlusion_map(score, pixels), plain(score, pixels), atol=1e-5)


def test_an_image_of_one_colour_has_no_heat() -> None:
    score, _ = random_score(0, 32)
    assert not occlusion_map(score, np.full((3, 32, 32), 0.25, np.float32)).any()


def test_places_that_lower_the_score_are_negative() -> None:
    pixels = np.zeros((3, 32, 32), np.float32)
    pixels[:, 8:10, 8:10] = 1
    heat = occlusion_map(lambda batch: -batch[:, 0, 8:10, 8:10].sum(axis=(1, 2)), pixels)
    assert heat[4, 4] < 0
    assert heat.min() == heat[4, 4]


@pytest.mark.parametrize("size", [16, 17, 50, 224])
def test_any_size_of_at_least_a_px_a_cell(size: int) -> None:
    pixels = np.random.default_rng(0).random((3, size, size), np.float32)
    pixels[:, -1, -1] = 50
    heat = occlusion_map(lambda batch: batch[:, 0, -1, -1].astype(np.float64), pixels)
    assert heat.shape == (COVER_CELLS, COVER_CELLS)
    assert heat.argmax() == COVER_CELLS**2 - 1


def test_pixels_smaller_than_the_cells_are_refused() -> None:
    with pytest.raises(ShapeError, match="expected pixels"):
        occlusion_map(lambda batch: batch.mean(axis=(1, 2, 3)), np.zeros((3, 15, 15), np.float32))
