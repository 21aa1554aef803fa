"""Long images: the squares along them, and answers that do not jump from one px to the next."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.drawn import draw_image
from tests.predict.networks import as_prediction, make_network, tiny_network
from uniemox.classifier_info import OLD_RULES
from uniemox.data.sample import ImageFile, Sample
from uniemox.evaluate.outputs import outputs_of_network
from uniemox.io.sized_image import SizedImage
from uniemox.predict.network import DISTANCE, Network, mean_outputs
from uniemox.predict.predictor import Predictor
from uniemox.predict.views import scene_parts

SIDE = 100


def parts_of(aspect: float) -> dict[float, float]:
    """Return the left sides of the squares along an image of 100 px a side, and their weights."""
    return {round(part.x1): weight for part, weight in scene_parts((round(aspect * SIDE), SIDE))}


@pytest.mark.parametrize(
    ("aspect", "expected"),
    [
        (1.0, {0: 1.0}),
        (1.8, {0: 1.0}),
        (2.1, {55: 0.5, 0: 0.25, 110: 0.25}),
        (2.4, {70: 1 / 3, 0: 1 / 3, 140: 1 / 3}),
        (3.0, {100: 0.2, 0: 0.2, 200: 0.2, 50: 0.2, 150: 0.2}),
        (5.0, {round(50 * index): 1 / 9 for index in range(9)}),
    ],
)
def test_the_number_of_squares_grows_with_the_shape(aspect: float, expected: dict[float, float]) -> None:
    assert parts_of(aspect) == pytest.approx(expected)


@given(st.integers(20, 300), st.integers(20, 3_000))
def test_squares_lie_inside_and_cover_the_image(short: int, long: int) -> None:
    width = max(short, long)
    height = min(short, long)
    parts = scene_parts((width, height))
    assert sum(weight for _, weight in parts) == pytest.approx(1)
    assert scene_parts((height, width)) == [
        (part._replace(x1=part.y1, y1=part.x1, x2=part.y2, y2=part.x2), weight) for part, weight in parts
    ]
    ends = sorted((part.x1, part.x2) for part, _ in parts)
    assert ends[0][0] >= 0
    assert ends[-1][1] <= width
    if width <= 9 * height:
        gaps = [start - stop for (_, stop), (start, _) in pairwise(ends)]
        assert max(gaps, default=0) <= 1


@pytest.mark.parametrize("aspect", [1.8, 2.0, 2.4, 3.0, 4.4, 5.0])
def test_a_px_more_hardly_changes_the_answer(tmp_path: Path, aspect: float) -> None:
    """It changes no more than elsewhere. By the older rule it jumped at 2:1."""
    image = draw_image(5, (round(SIDE * aspect) + 4, SIDE))

    def largest_step(predictor: Predictor, at_aspect: float) -> float:
        rows = []
        for extra_px in range(-3, 4):
            answer = as_prediction(predictor.predict(image.crop((0, 0, round(SIDE * at_aspect) + extra_px, SIDE))))
            rows.append(list(answer.scene.values()))
        return float(np.abs(np.diff(rows, axis=0)).max())

    new = Predictor(make_network(tmp_path, temperature=5.0))
    elsewhere = max(largest_step(new, at_aspect) for at_aspect in (1.2, 1.4, 1.6))
    assert largest_step(new, aspect) < 1.5 * elsewhere
    if aspect == 2.0:
        assert (
            largest_step(Predictor(make_network(tmp_path, temperature=5.0, rules=OLD_RULES_JSON)), aspect)
            > 2 * elsewhere
        )


OLD_RULES_JSON = {name: getattr(OLD_RULES, name) for name in ("trusted_familiarity", "min_weight", "sets_from")} | {
    "long_images": "squares"
}


def test_an_evaluation_sees_what_a_prediction_sees(tmp_path: Path) -> None:
    network = Network.open(tiny_network(tmp_path / "m.onnx", distances=(1.0, 2.0, 200.0)))
    for size in ((90, 60), (230, 100), (100, 340), (560, 80)):
        image = draw_image(3, size)
        image.save(tmp_path / "a.png")
        sample = Sample(key="a", image=ImageFile(tmp_path / "a.png"))
        outputs = outputs_of_network(network, [sample])
        logits = outputs.values[0].astype(float) / network.info.temperature
        predicted = as_prediction(Predictor(network).predict(image))
        assert outputs.distances is not None
        assert predicted.top(1)[0][0] == network.info.labels[int(logits.argmax())]
        image_views = network.image_views(SizedImage.of(image), None)
        assert list(predicted.scene.values()) == pytest.approx(network.answer_image(image_views).values[0].tolist())


def test_blank_squares_do_not_change_the_mean_distance() -> None:
    outputs = {"logits": np.array([[1.0, 0.0], [3.0, 2.0]], np.float32), DISTANCE: np.array([np.inf, 4.0], np.float32)}
    mean = mean_outputs(outputs, [0.25, 0.75])
    np.testing.assert_allclose(mean["logits"], [[2.5, 1.5]])
    np.testing.assert_allclose(mean[DISTANCE], [4.0])
    outputs[DISTANCE][1] = np.inf
    assert mean_outputs(outputs, [0.25, 0.75])[DISTANCE] == [np.inf]


def test_the_ends_of_a_long_image_change_the_answer(tmp_path: Path) -> None:
    predictor = Predictor(make_network(tmp_path))
    plain = Image.new("RGB", (300, 100), (90, 90, 90))
    changed = plain.copy()
    changed.paste(draw_image(1, (60, 100)), (0, 0))
    first, second = (as_prediction(predictor.predict(image)).scene for image in (plain, changed))
    assert max(abs(first[label] - second[label]) for label in first) > 0.01
