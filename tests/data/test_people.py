"""People found once: in the right places at any decoding size, resumable, unreadable images reported."""

from pathlib import Path

import pytest
from PIL import Image

from tests.data.detectors import Deadly, WhiteDetector
from tests.drawn import class_folders, draw_image, jpeg_of
from uniemox.data.people import BATCH, find_people
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
    report = find_people(data, WhiteDetector, root / "persons.jsonl")
    assert (report.pictures, report.new, report.with_people, report.people) == (3, 4, 2, 2)
    assert len(report.broken) == 1
    assert "broken.jpg: cut off" in report.broken[0]
    assert find_people(data, WhiteDetector, root / "persons.jsonl").new == 1  # it is tried again
    found = {sample.key: sample.persons for sample in open_data(f"folder:{root}").samples}
    assert found["awe/nobody.jpg"] == ()
    assert found["fear/broken.jpg"] is None
    assert found["awe/large.jpg"][0].box == pytest.approx((800, 400, 1600, 3000), abs=8)  # decoded at a half
    assert found["fear/turned.jpg"][0].box == pytest.approx((0, 0, 100, 40), abs=1)
    assert found["fear/turned.jpg"][0].confidence == 0.5


def test_a_stopped_run_resumes(tmp_path: Path) -> None:
    data = open_data(f"folder:{class_folders(tmp_path / 'data', ('awe', 'fear'), each=BATCH)}")
    out = tmp_path / "persons.jsonl"
    one = PoolConfig(workers=1)
    stops = WhiteDetector(stop_after=BATCH + 3)
    with pytest.raises(KeyboardInterrupt):
        find_people(data, lambda: stops, out, pool=one)
    assert len(out.read_text().splitlines()) == 1 + BATCH  # the header, and a batch
    with out.open("a") as file:
        file.write('{"key": "fear/0.jpg", "box')  # killed while it wrote
    detector = WhiteDetector()
    done = []
    report = find_people(data, lambda: detector, out, lambda *now: done.append(now[1:]), pool=one)
    assert detector.seen == report.new == BATCH
    assert (done[0], done[-1], report.pictures) == ((BATCH, 2 * BATCH), (2 * BATCH, 2 * BATCH), 2 * BATCH)
    assert find_people(data, WhiteDetector, out).new == 0
    at_once = tmp_path / "at_once.jsonl"
    find_people(data, WhiteDetector, at_once)
    assert out.read_text() == at_once.read_text()


@pytest.mark.parametrize("in_batches", [False, True])
def test_an_image_that_kills_its_worker_costs_itself(tmp_path: Path, in_batches: bool) -> None:
    """The file is that of one process without that image, and the next run tries it again."""
    root = class_folders(tmp_path / "data", ("awe", "fear"), each=3 * BATCH)
    data = open_data(f"folder:{root}")
    find_people(data, WhiteDetector, tmp_path / "one.jsonl", pool=PoolConfig(workers=1))
    whole = (tmp_path / "one.jsonl").read_text().splitlines()
    killer = BATCH + 5
    file = root / data.samples[killer].key
    good = file.read_bytes()
    file.write_bytes(jpeg_of(Image.new("RGB", (40, 40), "red")))
    report = find_people(data, Deadly, tmp_path / "two.jsonl", pool=PoolConfig(workers=2), on_gpu=in_batches)
    assert len(report.broken) == 1
    assert f"{file}: the worker process died" in report.broken[0]
    assert (tmp_path / "two.jsonl").read_text().splitlines() == whole[: 1 + killer] + whole[2 + killer :]
    again = find_people(data, Deadly, tmp_path / "two.jsonl")  # it is all that is left, and has a process all the same
    assert (again.new, again.broken) == (1, report.broken)
    file.write_bytes(good)
    assert find_people(data, Deadly, tmp_path / "two.jsonl", pool=PoolConfig(workers=2)).new == 1
    assert sorted((tmp_path / "two.jsonl").read_text().splitlines()) == sorted(whole)


def test_another_detector_does_not_mix_in(tmp_path: Path) -> None:
    data = open_data(f"folder:{class_folders(tmp_path / 'data')}")
    out = tmp_path / "persons.jsonl"
    find_people(data, WhiteDetector, out)
    other = WhiteDetector()
    other.fingerprint = "2"
    with pytest.raises(
        DataError, match=r"persons\.jsonl was made with other settings .*fingerprint 1.*fingerprint 2.*--out"
    ):
        find_people(data, lambda: other, out)
    with pytest.raises(DataError, match=r"persons\.jsonl/p\.jsonl can't be written \(.*--out"):
        find_people(data, lambda: other, out / "p.jsonl")


def test_people_of_one_image_are_looked_for_once(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ("Anger",), each=1)
    (root / "boxes.csv").write_text("path,x1,y1,x2,y2\nAnger/0.jpg,0,0,9,9\nAnger/0.jpg,9,9,20,20\n")
    detector = WhiteDetector()
    alone = PoolConfig(workers=1)
    report = find_people(open_data(f"heco:{root}"), lambda: detector, root / "persons.jsonl", pool=alone)
    assert detector.seen == report.pictures == 1
    samples = open_data(f"heco:{root}").samples
    assert [sample.persons for sample in samples] == [samples[0].persons] * 2 != [None] * 2


def test_where_every_process_dies_it_is_not_the_images(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "data", ("awe",), each=0)
    for number in range(40):
        (root / "awe" / f"{number}.jpg").write_bytes(jpeg_of(Image.new("RGB", (40, 40), "red")))
    with pytest.raises(DataError, match=r"died, .* with the first 3 of 40 images; --workers 1"):
        find_people(open_data(f"folder:{root}"), Deadly, tmp_path / "p.jsonl", pool=PoolConfig(workers=2))
