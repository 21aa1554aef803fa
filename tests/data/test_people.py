"""People found once: in the right places at any decoding size, resumable, unreadable images reported."""

import json
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import pytest
from PIL import Image

from tests.drawn import class_folders, draw_image, jpeg_of
from uniemox.data.people import find_people
from uniemox.data.source import open_data
from uniemox.errors import DataError
from uniemox.persons.box import Box, Detection


class WhiteDetector:
    """Finds what is white, and counts the images that it is given."""

    name, fingerprint = "white", "1"

    def __init__(self, stop_after: int = 10**9) -> None:
        self.seen, self.stop_after = 0, stop_after
        self._lock = Lock()  # threads share it

    def detect(self, images: Sequence[Image.Image]) -> list[tuple[Detection, ...]]:
        found = []
        for image in images:
            with self._lock:
                self.seen += 1
                if self.seen > self.stop_after:
                    raise KeyboardInterrupt
            box = image.convert("L").point(lambda value: 255 * (value > 200)).getbbox()
            found.append(() if box is None else (Detection(Box(*map(float, box)), 0.5),))
        return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "awe").mkdir(parents=True)
    (root / "fear").mkdir()
    large = Image.new("RGB", (4000, 3200), "black")
    large.paste("white", (800, 400, 1600, 3000))
    (root / "awe" / "large.jpg").write_bytes(jpeg_of(large, 95))
    (root / "awe" / "nobody.jpg").write_bytes(jpeg_of(Image.new("RGB", (100, 80), "black")))
    (root / "fear" / "broken.jpg").write_bytes(jpeg_of(draw_image(0))[:3000])
    turned = Image.new("RGB", (200, 100), "black")
    turned.paste("white", (0, 0, 40, 100))
    exif = Image.Exif()
    exif[0x0112] = 6  # upright it is 100 x 200, the white part on top
    turned.save(root / "fear" / "turned.jpg", quality=95, exif=exif)
    return root


def test_boxes_are_in_px_of_the_upright_image(root: Path) -> None:
    data = open_data(f"folder:{root}")
    report = find_people(data, WhiteDetector(), root / "persons.jsonl")
    assert (report.pictures, report.new, report.with_people, report.people) == (3, 4, 2, 2)
    assert len(report.broken) == 1
    assert "broken.jpg: cut off" in report.broken[0]
    assert find_people(data, WhiteDetector(), root / "persons.jsonl").new == 1  # it is tried again
    found = {sample.key: sample.persons for sample in open_data(f"folder:{root}").samples}
    assert found["awe/nobody.jpg"] == ()
    assert found["fear/broken.jpg"] is None
    assert found["awe/large.jpg"][0].box == pytest.approx((800, 400, 1600, 3000), abs=8)  # decoded at a half
    assert found["fear/turned.jpg"][0].box == pytest.approx((0, 0, 100, 40), abs=1)
    assert found["fear/turned.jpg"][0].confidence == 0.5


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    data, out = open_data(f"folder:{class_folders(tmp_path / 'data')}"), tmp_path / "persons.jsonl"
    with pytest.raises(KeyboardInterrupt):
        find_people(data, WhiteDetector(stop_after=5), out)
    kept = len(out.read_text().splitlines()) - 1  # beside the header
    assert kept <= 5  # the one that stopped it may be any of those under way
    with out.open("a") as file:
        file.write('{"key": "fear/0.jpg", "box')  # killed while it wrote
    detector, done = WhiteDetector(), []
    report = find_people(data, detector, out, done.append)
    assert detector.seen == report.new == 8 - kept
    assert (done[0], done[-1], report.pictures) == (kept, 8, 8)
    assert find_people(data, WhiteDetector(), out).new == 0
    at_once = tmp_path / "at_once.jsonl"
    find_people(data, WhiteDetector(), at_once)
    assert out.read_text() == at_once.read_text()


def test_another_detector_does_not_mix_in(tmp_path: Path) -> None:
    data, out = open_data(f"folder:{class_folders(tmp_path / 'data')}"), tmp_path / "persons.jsonl"
    find_people(data, WhiteDetector(), out)
    other = WhiteDetector()
    other.fingerprint = "2"
    with pytest.raises(
        DataError, match=r"persons\.jsonl was made in another way .*fingerprint 1.*fingerprint 2.*--out"
    ):
        find_people(data, other, out)
    with pytest.raises(DataError, match=r"persons\.jsonl/p\.jsonl can't be written \(.*--out"):
        find_people(data, other, out / "p.jsonl")


def test_people_of_one_image_are_looked_for_once(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ("Anger",), each=1)
    (root / "boxes.csv").write_text("path,x1,y1,x2,y2\nAnger/0.jpg,0,0,9,9\nAnger/0.jpg,9,9,20,20\n")
    detector = WhiteDetector()
    report = find_people(open_data(f"heco:{root}"), detector, root / "persons.jsonl")
    assert detector.seen == report.pictures == 1
    samples = open_data(f"heco:{root}").samples
    assert [sample.persons for sample in samples] == [samples[0].persons] * 2 != [None] * 2


def test_a_sidecar_with_a_wrong_box_is_named(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data")
    for boxes in ([[1, 2, 3]], [[5, 5, 1, 9, 0.5]], [[1, 1, 9, 9, 1.5]], [["a", 1, 9, 9, 0.5]], "x", 3):
        line = json.dumps({"key": "awe/0.jpg", "boxes": boxes})
        (root / "persons.jsonl").write_text(f'{{"detector": "x"}}\n{line}\n')
        with pytest.raises(DataError, match=r"persons\.jsonl, boxes of awe/0\.jpg: expected rows of x1, y1"):
            open_data(f"folder:{root}")
