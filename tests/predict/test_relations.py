"""Relations that must hold between the answers of the package's own models for related images.

Bounds for altered images are measured ones, with some room; `python -m recipes.robustness` has more of them.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import uniemox
from tests.conftest import SHARED
from tests.predict.networks import as_prediction
from uniemox.predict.predictor import Predictor

ROOT = Path(__file__).parents[2]
needs_photographs = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared, with real photographs")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return uniemox.load()


@pytest.fixture(scope="module")
def scene_predictor() -> Predictor:
    """Answers about the scene alone, faster."""
    return uniemox.load(finder=None)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.open(ROOT / "docs/images/cat.jpg").convert("RGB")


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    folders = ("coco_persons/images", "flickr8k/images", "oasis/images")
    paths = [path for folder in folders for path in sorted((SHARED / "data" / folder).glob("*.jpg"))[:7]]
    return [Image.open(path).convert("RGB") for path in paths]


@pytest.fixture(scope="module")
def answers(scene_predictor: Predictor, photographs: list[Image.Image]) -> list[uniemox.Prediction]:
    """Predictions for the unaltered photographs."""
    return [as_prediction(scene_predictor.predict(image)) for image in photographs]


def saved(image: Image.Image, fmt: str, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, fmt, **options)
    return file.getvalue()


def shares(answers: Sequence[uniemox.Prediction]) -> np.ndarray:
    """Probabilities (N, E)."""
    return np.array([list(answer.scene.values()) for answer in answers])


def test_the_answer_does_not_depend_on_the_file_format(predictor: Predictor, photograph: Image.Image) -> None:
    files = [saved(photograph, "PNG"), saved(photograph, "BMP"), saved(photograph, "TIFF", compression="tiff_lzw")]
    files += [saved(photograph, "WEBP", lossless=True), saved(photograph, "PPM")]
    expected = as_prediction(predictor.predict(photograph)).to_dict()
    for file in files:
        assert as_prediction(predictor.predict(file)).to_dict() == expected


def test_answers_do_not_depend_on_order_or_batch(predictor: Predictor, photograph: Image.Image) -> None:
    images = [photograph.crop((20 * i, 0, photograph.width, photograph.height - 10 * i)) for i in range(5)]
    alone = [as_prediction(predictor.predict(image)).to_dict() for image in images]
    for batch_size in (1, 3, 16):
        together = [
            as_prediction(answer).to_dict() for answer in predictor.predict_each(images[::-1], batch_size=batch_size)
        ]
        assert together[::-1] == alone


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_answer_does_not_depend_on_the_exif_orientation(
    predictor: Predictor, photograph: Image.Image, orientation: int
) -> None:
    """Stored in any of the eight ways, the upright image is the same."""
    inverse = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[274] = inverse
    file = BytesIO(saved(photograph, "PNG", exif=exif))
    stored = ImageOps.exif_transpose(Image.open(file))
    exif[274] = orientation
    answer = as_prediction(predictor.predict(saved(stored, "PNG", exif=exif))).to_dict()
    assert answer == as_prediction(predictor.predict(photograph)).to_dict()


@pytest.mark.thorough
@needs_photographs
def test_small_crops_change_little(
    scene_predictor: Predictor, photographs: list[Image.Image], answers: list[uniemox.Prediction]
) -> None:
    cropped = [as_prediction(scene_predictor.predict(image.crop((1, 1, *image.size)))) for image in photographs]
    change = np.abs(shares(cropped) - shares(answers)).max(axis=1)
    assert np.median(change) < 0.04
    assert change.max() < 0.25


@pytest.mark.thorough
@needs_photographs
def test_a_mirror_image_has_the_same_people_and_a_similar_answer(
    predictor: Predictor, photographs: list[Image.Image]
) -> None:
    answers = [as_prediction(predictor.predict(image)) for image in photographs]
    mirrored = [as_prediction(predictor.predict(ImageOps.mirror(image))) for image in photographs]
    people = [[len(answer.persons or ()) for answer in group] for group in (answers, mirrored)]
    assert sum(first != second for first, second in zip(*people, strict=True)) <= 1
    same = [first.top(1)[0][0] == second.top(1)[0][0] for first, second in zip(answers, mirrored, strict=True)]
    assert np.mean(same) >= 0.75


@pytest.mark.thorough
@needs_photographs
def test_a_photograph_without_its_colour_keeps_most_of_its_answer(
    scene_predictor: Predictor, photographs: list[Image.Image], answers: list[uniemox.Prediction]
) -> None:
    """68 % of the validation images of FI keep their label; fewer photographs of other sources do."""
    grey = [as_prediction(scene_predictor.predict(image.convert("L").convert("RGB"))) for image in photographs]
    same = [first.top(1)[0][0] == second.top(1)[0][0] for first, second in zip(answers, grey, strict=True)]
    assert np.mean(same) >= 0.4
