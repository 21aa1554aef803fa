"""Images without colour are recognised: grey, sepia and tinted ones, also as JPEG."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SHARED
from tests.drawn import draw_image
from tests.predict.networks import as_prediction, make_network
from uniemox.predict.colour import is_colourless
from uniemox.predict.predictor import Predictor
from uniemox.views import alterations


def as_jpeg(image: Image.Image) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=70)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize("size", [(300, 200), (120, 160), (10, 7), (1, 1)])
def test_copies_without_colour_are_recognised(size: tuple[int, int]) -> None:
    image = draw_image(3, (300, 200)).resize(size)
    for copy in (alterations.grey(image), alterations.sepia(image), Image.new("RGB", size, (200, 30, 30))):
        assert is_colourless(copy)
    if min(size) > 20:
        brown = alterations.tinted(alterations.grey(image), (1.0, 0.6, 0.8))
        assert is_colourless(as_jpeg(brown))
        assert not is_colourless(image)


def test_a_small_part_in_colour_is_colour() -> None:
    image = alterations.grey(draw_image(3, (320, 320)))
    image.paste((220, 30, 30), (40, 40, 140, 140))
    assert not is_colourless(image)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared, with real photographs")
def test_photographs_keep_their_colour() -> None:
    paths = sorted((SHARED / "data/flickr8k/images").glob("*.jpg"))[:60]
    images = [Image.open(path).convert("RGB") for path in paths]
    assert np.mean([is_colourless(image) for image in images]) <= 0.05
    assert np.mean([is_colourless(as_jpeg(alterations.sepia(image))) for image in images]) >= 0.95


def test_a_prediction_reports_that_the_image_has_no_colour(tmp_path: Path) -> None:
    predictor = Predictor(make_network(tmp_path))
    image = draw_image(3, (64, 64))
    assert not as_prediction(predictor.predict(image)).is_colourless
    grey_prediction = as_prediction(predictor.predict(alterations.grey(image)))
    assert grey_prediction.is_colourless
    assert grey_prediction.to_dict()["is_colourless"] is True
