"""People found once: in the right places at any decoding size, resumable, unreadable images reported."""

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.data.detectors import Deadly, WhiteDetector
from tests.drawn import class_folders, draw_image, jpeg_of
from uniemox.data.people import BATCH, detect_persons
from uniemox.data.sidecar import changed_images
from uniemox.data.source import open_data
from uniemox.errors import DataError
from uniemox.io.parallel import PoolConfig


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
    report = detect_persons(data, WhiteDetector, root / "persons.jsonl")
    assert (report.pictures, report.new, report.with_people, report.people) == (3, 4, 2, 2)
    assert len(report.broken) == 1
    assert "broken.jpg: cut off" in report.broken[0]
    assert detect_persons(data, WhiteDetector, root / "persons.jsonl").new == 1  # it is tried again
    people = {sample.key: sample.persons for sample in open_data(f"folder:{root}").samples}
    assert people["awe/nobody.jpg"] == ()
    assert people["fear/broken.jpg"] is None
    assert people["awe/large.jpg"][0].box == pytest.approx((800, 400, 1600, 3000), abs=8)  # decoded at a half
    assert people["fear/turned.jpg"][0].box == pytest.approx((0, 0, 100, 40), abs=1)
    assert people["fear/turned.jpg"][0].confidence == 0.5


def test_a_stopped_run_resumes(tmp_path: Path) -> None:
    data = open_data(f"folder:{class_folders(tmp_path / 'data', ('awe', 'fear'), each=BATCH)}")
    out = tmp_path / "persons.jsonl"
    alone = PoolConfig(workers=1)
    stops = WhiteDetector(stop_after=BATCH + 3)
    with pytest.raises(KeyboardInterrupt):
        detect_persons(data, lambda: stops, out, pool=alone)
    assert len(out.read_text().splitlines()) == 1 + BATCH  # the header, and a batch
    with out.open("a") as file:
        file.write('{"key": "fear/0.jpg", "box')  # killed while it wrote
    detector = WhiteDetector()
    done = []
    report = detect_persons(data, lambda: detector, out, lambda *now: done.append(now[1:]), pool=alone)
    assert detector.image_count == report.new == BATCH
    assert (done[0], done[-1], report.pictures) == ((BATCH, 2 * BATCH), (2 * BATCH, 2 * BATCH), 2 * BATCH)
    assert detect_persons(data, WhiteDetector, out).new == 0
    at_once = tmp_path / "at_once.jsonl"
    detect_persons(data, WhiteDetector, at_once)
    assert out.read_text() == at_once.read_text()


@pytest.mark.thorough
@pytest.mark.parametrize("in_batches", [False, True])
def test_image_that_kills_its_worker_is_the_only_one_lost(tmp_path: Path, in_batches: bool) -> None:
    """The file is that of one process without that image, and the next run tries it again."""
    root = class_folders(tmp_path / "data", ("awe", "fear"), each=3 * BATCH)
    data = open_data(f"folder:{root}")
    detect_persons(data, WhiteDetector, tmp_path / "one.jsonl", pool=PoolConfig(workers=1))
    lines = (tmp_path / "one.jsonl").read_text().splitlines()
    killer = BATCH + 5
    file = root / data.samples[killer].key
    good = file.read_bytes()
    file.write_bytes(jpeg_of(Image.new("RGB", (40, 40), "red")))
    report = detect_persons(data, Deadly, tmp_path / "two.jsonl", pool=PoolConfig(workers=2), on_gpu=in_batches)
    assert len(report.broken) == 1
    assert f"{file}: the worker process died" in report.broken[0]
    assert (tmp_path / "two.jsonl").read_text().splitlines() == lines[: 1 + killer] + lines[2 + killer :]
    # The image alone is left, and has a process of its own all the same.
    again = detect_persons(data, Deadly, tmp_path / "two.jsonl")
    assert (again.new, again.broken) == (1, report.broken)
    file.write_bytes(good)
    assert detect_persons(data, Deadly, tmp_path / "two.jsonl", pool=PoolConfig(workers=2)).new == 1
    assert sorted((tmp_path / "two.jsonl").read_text().splitlines()) == sorted(lines)


def test_sidecar_of_another_detector_is_refused(tmp_path: Path) -> None:
    data = open_data(f"folder:{class_folders(tmp_path / 'data')}")
    out = tmp_path / "persons.jsonl"
    detect_persons(data, WhiteDetector, out)
    other = WhiteDetector()
    other.fingerprint = "2"
    with pytest.raises(
        DataError, match=r"persons\.jsonl was made with other settings .*fingerprint 1.*fingerprint 2.*--out"
    ):
        detect_persons(data, lambda: other, out)
    with pytest.raises(DataError, match=r"persons\.jsonl/p\.jsonl can't be written \(.*--out"):
        detect_persons(data, lambda: other, out / "p.jsonl")


def test_detector_runs_once_per_image(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ("Anger",), each=1)
    (root / "boxes.csv").write_text("path,x1,y1,x2,y2\nAnger/0.jpg,0,0,9,9\nAnger/0.jpg,9,9,20,20\n")
    detector = WhiteDetector()
    alone = PoolConfig(workers=1)
    report = detect_persons(open_data(f"heco:{root}"), lambda: detector, root / "persons.jsonl", pool=alone)
    assert detector.image_count == report.pictures == 1
    samples = open_data(f"heco:{root}").samples
    assert [sample.persons for sample in samples] == [samples[0].persons] * 2 != [None] * 2


def test_detection_stops_if_every_worker_dies(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ("awe",), each=0)
    for number in range(40):
        (root / "awe" / f"{number}.jpg").write_bytes(jpeg_of(Image.new("RGB", (40, 40), "red")))
    with pytest.raises(DataError, match=r"died, .* with the first 3 of 40 images; --workers 1"):
        detect_persons(open_data(f"folder:{root}"), Deadly, tmp_path / "p.jsonl", pool=PoolConfig(workers=2))


def test_images_that_have_changed_since_are_found(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "photos", each=2)
    data = open_data(f"folder:{root}")
    file = root / "persons.jsonl"
    assert changed_images(file, data.samples) == []
    detect_persons(data, WhiteDetector, file, pool=PoolConfig(workers=1))
    assert changed_images(file, data.samples) == []
    path = Path(str(data.samples[1].image))
    path.write_bytes(jpeg_of(draw_image(90)))
    later_ns = file.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later_ns, later_ns))
    assert changed_images(file, data.samples) == [data.samples[1].key]
