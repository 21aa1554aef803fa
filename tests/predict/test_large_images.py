"""Large JPEGs are decoded small: the answer hardly moves."""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.drawn import draw_image, jpeg_of
from tests.predict.networks import made, one, values
from uniemox.io.images import decode, read_image
from uniemox.predict.opening import load
from uniemox.predict.predictor import Predictor


def test_large_jpegs_are_decoded_small_and_the_answer_hardly_moves(tmp_path: Path) -> None:
    predictor = Predictor(made(tmp_path, temperature=10.0))  # as sharp as trained networks are
    for seed in range(6):
        path, full = tmp_path / "large.jpg", tmp_path / "large.png"
        path.write_bytes(jpeg_of(draw_image(seed, (900 + 10 * seed, 700)), quality=95))
        read_image(path).save(full)
        small, whole = one(predictor.predict(path)), one(predictor.predict(full))
        assert np.abs(np.subtract(values(small), values(whole))).max() < 0.02
        assert values(small) != values(whole)
        assert (small.width_px, small.height_px) == (900 + 10 * seed, 700)


def test_the_embedded_model_hardly_minds_photographs_decoded_small(shared: Path) -> None:
    predictor, moved = load(finder=None, threads=1), []
    for path in sorted((shared / "data" / "coco_persons" / "images").glob("*.jpg"))[:12]:
        photo = read_image(path)
        scale = 2000 / min(photo.size)
        large = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
        data = jpeg_of(large, quality=92)
        small, whole = one(predictor.predict(data)), one(predictor.predict(decode(data)[0]))
        moved.append(np.abs(np.subtract(values(small), values(whole))).max())
    assert max(moved) < 0.02
    assert min(moved) > 0  # they were decoded small
