"""The paper's question, the selection of images, and the form in which they are sent."""

import base64
import io
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.drawn import Stored, class_folders, draw_image, jpeg_of
from uniemox.data.readers.folders import read_folder
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import ConfigError, DataError, ImageError
from uniemox.labels import CAER, HECO, MIKELS, LabelSet
from uniemox_ask.forms import questions_of
from uniemox_ask.question import MAX_SIDE_PX, image_url, select

LABELS = LabelSet("own", ("a", "b", "c"), "evoked")


def test_the_question_is_the_papers_to_the_letter() -> None:
    assert questions_of(MIKELS).text == (
        "Which emotion does this image most strongly evoke? Please select the most intense emotional response from the "
        "following list and explain your choice: ['sadness', 'fear', 'excitement', 'disgust', 'contentment', 'awe', "
        "'anger', 'amusement']."
    )


@pytest.mark.parametrize("labels", [CAER, HECO])
def test_felt_emotions_are_refused(labels: LabelSet) -> None:
    with pytest.raises(ConfigError, match="describes what people in it feel"):
        questions_of(labels)


def drawn_set(*counts: int) -> DataSet:
    """Return a data set with these numbers of images per class, all different and tiny."""
    samples = []
    for label, count in enumerate(counts):
        for i in range(count):
            buffer = io.BytesIO()
            Image.new("RGB", (2, 2), (label, i % 256, i // 256)).save(buffer, "PNG")
            samples.append(Sample(key=f"{label}/{i}", image=Stored(buffer.getvalue()), label=label))
    return DataSet("own:set", LABELS, samples)


@settings(max_examples=30)
@given(st.tuples(*[st.integers(0, 12)] * 3).filter(any), st.integers(1, 40), st.integers(0, 3))
def test_selection_is_proportional_to_class_sizes(counts: tuple[int, ...], count: int, seed: int) -> None:
    """Webster's rounding stays within one image of the exact share for three classes."""
    selected = select(drawn_set(*counts), count, seed).images
    total = sum(counts)
    assert len(selected) == min(count, total)
    class_counts = Counter(image.label for image in selected)
    for label, size in zip(LABELS.labels, counts, strict=True):
        assert abs(class_counts[label] - len(selected) * size / total) <= 1


@settings(max_examples=20)
@given(st.integers(1, 20), st.integers(1, 20))
def test_larger_selection_begins_with_the_smaller(first: int, second: int) -> None:
    data = drawn_set(9, 3, 7)
    fewer, more = (select(data, count, 5).images for count in sorted((first, second)))
    assert more[: len(fewer)] == fewer


def test_selection_depends_on_seed_but_not_on_file_order() -> None:
    data = drawn_set(20, 20, 20)
    names = [[image.sample.key for image in select(data, 9, seed).images] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    reversed_data = DataSet("own:set", LABELS, data.samples[::-1])
    assert [image.sample.key for image in select(reversed_data, 9, 0).images] == names[0]


def test_copies_broken_and_unlabelled_images_are_skipped(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "set", each=3)
    (root / "awe" / "copy.jpg").write_bytes((root / "awe" / "0.jpg").read_bytes())
    (root / "fear" / "broken.jpg").write_bytes((root / "fear" / "0.jpg").read_bytes()[:500])
    data = read_folder(root)
    data = DataSet(data.name, data.labels, [*data.samples, Sample(key="x", image=Stored(b""), label=None)])
    selection = select(data, 10, 0)
    assert Counter(image.label for image in selection.images) == {"awe": 3, "fear": 3}
    assert "6 of 10 images" in selection.notes[0]
    assert selection.notes[1] == "1 copy of another image was skipped"
    assert "1 image can't be read, skipped" in selection.notes[2]
    assert "broken.jpg" in selection.notes[2]
    with pytest.raises(DataError, match="nothing to ask about"):
        select(DataSet("own:set", LABELS, [Sample(key="x", image=Stored(b"no"), label=0)]), 3, 0)


def sent_image(data: bytes) -> Image.Image:
    """Return the image that is sent for a file."""
    kind, _, text = image_url(Sample(key="x", image=Stored(data))).partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((2100, 1050), (1024, 512)), ((500, 2048), (250, 1024)), ((1024, 12), (1024, 12)), ((1, 1), (1, 1))],
)
def test_the_long_side_is_1024_px_at_most(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = sent_image(jpeg_of(draw_image(0).resize(size)))
    assert (image.size, image.format, MAX_SIDE_PX) == (expected, "JPEG", 1024)


def test_metadata_is_not_sent() -> None:
    with pytest.raises(ImageError, match="not an image"):
        sent_image(b"nonsense")
    exif = Image.Exif()
    exif[0x8298] = "somebody"  # copyright
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    exif.get_ifd(0x8825)[1] = "N"  # GPS: northern latitude
    buffer = io.BytesIO()
    draw_image(1, (60, 40)).save(buffer, "JPEG", exif=exif, comment=b"secret place", icc_profile=b"p" * 200)
    image = sent_image(buffer.getvalue())
    assert image.size == (40, 60)  # upright
    assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
