"""Images as people give them: paths, bytes, open files, PIL images of every mode, arrays; and what is none."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.colours import PQ, hdr_values
from tests.drawn import draw_image, jpeg_of
from tests.images import animate, draw, save
from tests.io.test_colour import png_with
from tests.predict.networks import SIZE, as_prediction, make_network, plain_probabilities, values
from tests.tiffs import REDUCED, page_of, tiff_of
from uniemox.errors import ImageError
from uniemox.io.images import decode
from uniemox.predict.images import read_any
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor
from uniemox.predict.views import scene_view


def test_all_kinds_of_images_give_the_same_answer(predictor: Predictor, tmp_path: Path) -> None:
    image = draw_image(2, (64, 48))
    path = tmp_path / "ü\n.png"
    image.save(path)
    array = np.asarray(image)
    inputs: list[Any] = [path, str(path), path.read_bytes(), bytearray(path.read_bytes()), image, array, array / 255]
    inputs += [
        (array / 255).astype(np.float32),
        np.dstack([array, np.full((48, 64), 255, np.uint8)]),
        image.convert("RGBA"),
    ]
    inputs += [np.asfortranarray(array), array[::-1][::-1]]
    predictions = predictor.predict_many(inputs)
    assert all(values(as_prediction(result)) == values(as_prediction(predictions[0])) for result in predictions)  # type: ignore[arg-type]
    assert [as_prediction(result).path for result in predictions[:3]] == [str(path), str(path), None]  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I", "F", "I;16", "LA", "YCbCr", "HSV"])
def test_pil_images_of_every_mode(predictor: Predictor, mode: str) -> None:
    grey = draw_image(3, (50, 40)).convert("L")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    else:
        image = grey.convert("RGB")
    if image.mode != mode:
        image = (grey if mode in ("I", "F") else image).convert(mode)
    prediction = as_prediction(predictor.predict(image))
    expected = (grey if mode in ("I", "F", "I;16") else image).convert("RGB")
    assert values(prediction) == pytest.approx(plain_probabilities([scene_view(expected, SIZE, 0.9)]), abs=1e-5)
    assert sum(values(prediction)) == pytest.approx(1)


def test_transparent_pixels_are_white_and_grey_is_grey(predictor: Predictor) -> None:
    rgba = np.zeros((40, 40, 4), np.uint8)
    white = as_prediction(predictor.predict(np.full((40, 40, 3), 255, np.uint8)))
    assert values(as_prediction(predictor.predict(rgba))) == values(white)
    grey = np.asarray(draw_image(3).convert("L"))
    assert values(as_prediction(predictor.predict(grey))) == values(
        as_prediction(predictor.predict(np.dstack([grey] * 3)))
    )


def test_exif_orientation_is_applied(predictor: Predictor, tmp_path: Path) -> None:
    image = draw_image(4, (80, 60))
    exif = Image.Exif()
    # Viewers turn this image to the right.
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    upright = as_prediction(predictor.predict(image))
    for source in (path, Image.open(path)):
        prediction = as_prediction(predictor.predict(source))
        assert values(prediction) == values(upright)
        assert (prediction.width_px, prediction.height_px) == (80, 60)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (1, 100)])
def test_the_smallest_images_match_a_plain_computation(predictor: Predictor, size: tuple[int, int]) -> None:
    prediction = as_prediction(predictor.predict(Image.new("RGB", size, "red")))
    expected = plain_probabilities([scene_view(Image.new("RGB", size, "red"), SIZE, 0.9)])
    assert values(prediction) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 4, 3), 1.5), "from 1.5 to 1.5; expected 0 to 1"),
        (np.full((4, 4, 3), -0.1), "expected 0 to 1"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.full((4, 4), np.inf), "not finite"),
        (np.array([[object()]]), "got object"),
        (np.zeros((4, 4), np.int64), "got int64"),
        (np.zeros((4, 4), bool), "got bool"),
        (
            np.ma.masked_array(np.zeros((4, 4, 3), np.uint8), mask=np.eye(4, dtype=bool)[..., None].repeat(3, 2)),
            "masked",
        ),
        (np.zeros((4, 4, 2), np.uint8), r"got \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"got \(1, 4, 4, 3\)"),
        (np.zeros((1, 101, 3), np.uint8), "strip"),
        (np.zeros((1, 60_000), np.uint8), "megapixels"),
        (b"", "empty"),
        (b"no image", "not an image of a known format"),
        (jpeg_of(draw_image(1))[:2000], "cut off or corrupt"),
        ("", "a folder, not an image|no image in this folder"),
        ("no\0name.jpg", "can't be read"),
        ("missing.jpg", r"missing\.jpg: can't be read \(No such file"),
        ("n" * 300, r"n: can't be read \(File name too long"),
        (7, "got int"),
        (None, "got NoneType"),
        (Image.new("RGB", (0, 5)), "0 x 5 px is no image"),
    ],
)
def test_unreadable_images_raise_alone_and_fail_in_a_list(
    predictor: Predictor, image: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match=message):
        predictor.predict(image)
    before, failed, after = predictor.predict_many([draw_image(1), image, draw_image(2)])
    assert isinstance(before, Prediction)
    assert isinstance(after, Prediction)
    assert isinstance(failed, Failure)
    assert failed.to_dict() == {"path": image if isinstance(image, str) else None, "error": failed.error}
    assert failed.error


def test_a_cut_off_pil_image_is_an_error(predictor: Predictor) -> None:
    with pytest.raises(ImageError, match="image: cut off or corrupt"):
        predictor.predict(Image.open(io.BytesIO(jpeg_of(draw_image(1))[:2000])))


def test_open_files_are_read_once(tmp_path: Path, predictor: Predictor) -> None:
    path = tmp_path / "a.jpg"
    draw_image(1).save(path)
    expected = predictor.predict(path)
    with path.open("rb") as file:
        prediction = predictor.predict(file)
    assert prediction.scene == expected.scene
    assert prediction.path is None
    assert prediction.plot().size == expected.plot().size
    assert predictor.predict_many([io.BytesIO(path.read_bytes())])[0].scene == expected.scene
    with path.open(encoding="latin-1") as file, pytest.raises(ImageError, match="open it as bytes"):
        predictor.predict(file)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="can't be read"):
        predictor.predict(_closed(path))  # type: ignore[arg-type]


def _closed(path: Path) -> object:
    file = path.open("rb")
    file.close()
    return file


def test_a_missing_file_raises_file_not_found(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.jpg: can't be read"):
        predictor.predict(tmp_path / "a.jpg")


def test_unsupported_formats_are_named(predictor: Predictor, tmp_path: Path) -> None:
    draw_image(1).save(tmp_path / "a.png")
    (tmp_path / "b.JXL").write_bytes(b"x")
    (tmp_path / "c.tga").write_bytes(b"x")
    (tmp_path / "d.txt").write_bytes(b"x")
    first, second, third = predictor.predict_folder(tmp_path)
    assert isinstance(first, Prediction)
    assert isinstance(second, Failure)
    assert second.error == f"{tmp_path / 'b.JXL'}: JXL is not read; save it as JPEG or PNG"
    assert isinstance(third, Failure)
    assert "TGA is not read" in third.error


def test_decoding_large_jpegs_small_hardly_changes_the_answer(tmp_path: Path) -> None:
    # This temperature makes the predictions as sharp as those of trained networks.
    predictor = Predictor(make_network(tmp_path, temperature=10.0))
    for seed in range(6):
        path = tmp_path / "large.jpg"
        full_path = tmp_path / "large.png"
        path.write_bytes(jpeg_of(draw_image(seed, (900 + 10 * seed, 700)), quality=95))
        decode(path.read_bytes())[0].save(full_path)
        reduced_prediction = as_prediction(predictor.predict(path))
        full_prediction = as_prediction(predictor.predict(full_path))
        assert np.abs(np.subtract(values(reduced_prediction), values(full_prediction))).max() < 0.02
        assert values(reduced_prediction) != values(full_prediction)
        assert (reduced_prediction.width_px, reduced_prediction.height_px) == (900 + 10 * seed, 700)


@pytest.mark.thorough
def test_decoding_small_hardly_changes_the_embedded_model(shared: Path) -> None:
    predictor = load(finder=None, threads=1)
    changes = []
    for path in sorted((shared / "data" / "coco_persons" / "images").glob("*.jpg"))[:12]:
        photo = decode(path.read_bytes())[0]
        scale = 2000 / min(photo.size)
        large = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
        data = jpeg_of(large, quality=92)
        reduced_prediction = as_prediction(predictor.predict(data))
        full_prediction = as_prediction(predictor.predict(decode(data)[0]))
        changes.append(np.abs(np.subtract(values(reduced_prediction), values(full_prediction))).max())
    assert max(changes) < 0.03
    # The answers differ, so the images were decoded small.
    assert min(changes) > 0


def test_an_undecoded_pil_image_is_read_from_its_file() -> None:
    """Pillow itself ignores the code points of HDR and reads thumbnails of TIFFs."""
    photo = draw(120, 88)
    hdr = png_with(hdr_values(photo, PQ), (b"cICP", bytes([9, PQ, 0, 1])))
    thumbnail = page_of(np.asarray(photo.resize((30, 22))))
    pyramid = tiff_of([({**thumbnail[0], **REDUCED}, thumbnail[1]), page_of(np.asarray(photo))])
    for data in (hdr, pyramid, save(photo, "JPEG"), save(photo, "AVIF"), save(photo, "BMP")):
        opened = Image.open(io.BytesIO(data))
        image, size = read_any(opened)
        assert size == (120, 88)
        assert np.array_equal(np.asarray(image), np.asarray(decode(data)[0]))
        # The image can still be decoded.
        assert opened.convert("RGB").width in (30, 120)


def test_an_image_that_was_changed_keeps_its_changes() -> None:
    frames = [draw(120, 88), draw(120, 88, seed=5)]
    second = Image.open(io.BytesIO(animate("GIF", frames)))
    second.seek(1)
    assert np.array_equal(np.asarray(read_any(second)[0]), np.asarray(second.convert("RGB")))
    drafted = Image.open(io.BytesIO(save(draw(400, 240), "JPEG")))
    drafted.draft(None, (100, 60))
    assert read_any(drafted)[0].size == (100, 60)
    changed = Image.open(io.BytesIO(save(draw(), "PNG")))
    changed.paste((1, 2, 3), (0, 0, 60, 44))
    assert read_any(changed)[0].getpixel((9, 9)) == (1, 2, 3)
