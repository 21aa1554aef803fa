"""The audit: planted faults are found, all of them and nothing else, and its list makes a data set clean."""

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drawn import Stored, class_folders, draw_image, jpeg_of, plant
from uniemox.data.audit import Audit, audit, write_page
from uniemox.data.inspection import inspect_image, scan
from uniemox.data.near import difference, near_groups
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.source import open_data
from uniemox.io.images import decode
from uniemox.io.parallel import PoolConfig
from uniemox.labels import MIKELS
from uniemox.persons.box import Box, Detection


def pairs_of(thumbs: np.ndarray) -> set[tuple[int, int]]:
    """All pairs of images that are in one group."""
    groups = near_groups(thumbs)
    return {(i, j) for i in range(len(groups)) for j in np.flatnonzero(groups == groups[i]).tolist() if i < j}


def thumbs_of(files: list[bytes]) -> np.ndarray:
    properties = [inspect_image(Sample(key=str(i), image=Stored(data))) for i, data in enumerate(files)]
    return np.stack([image.thumb for image in properties])


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["encoded", "scaled", "mirrored", "cropped", "all"])
def test_planted_near_duplicates_of_photographs_are_found(shared: Path, how: str) -> None:
    """At least 95 of 100, and no pair of different images among 600: false ones none at all."""
    rng = random.Random(how)
    photographs = sorted((shared / "data" / "flickr8k" / "images").glob("*.jpg"))[:300]
    originals = [path.read_bytes() for path in photographs]
    copies = [plant(decode(data)[0], how, rng) for data in originals]
    pairs = pairs_of(thumbs_of(originals + copies))
    expected = {(i, i + len(originals)) for i in range(len(originals))}
    assert len(pairs & expected) >= 0.95 * len(expected)
    assert not pairs - expected


@pytest.mark.thorough
def test_no_false_pair_among_three_thousand_photographs(shared: Path) -> None:
    """Of five data sets; looked at by eye, they hold no near duplicate."""
    folders = ("fi/val", "flickr8k/images", "coco_persons/images", "emotion6/images", "abstract/images")
    paths = [path for folder in folders for path in sorted((shared / "data" / folder).rglob("*.jpg"))]
    paths += sorted((shared / "data" / "fi" / "train").rglob("*.jpg"))[:1500]
    scanned = scan([Sample(key=path.name, image=ImageFile(path)) for path in paths])
    distinct = {properties.sha256: properties for properties in scanned}
    assert len(distinct) > 3000
    assert not pairs_of(np.stack([properties.thumb for properties in distinct.values()]))


def test_pairs_do_not_depend_on_the_order_of_images() -> None:
    """Crops of up to 4 % are found from one side more easily than from the other."""
    rng = random.Random(0)
    originals = [draw_image(i, (200, 160)) for i in range(40)]
    files = [jpeg_of(image) for image in originals]
    for image in originals:
        x1 = int(rng.uniform(0, 0.05) * 200)
        y1 = int(rng.uniform(0, 0.05) * 160)
        files.append(jpeg_of(image.crop((x1, y1, 198, 158))))
    thumbs = thumbs_of(files)
    first = thumbs[:40]
    second = thumbs[40:]
    assert difference(first, second) == pytest.approx(difference(second, first))
    count = len(files)
    backwards = {(count - 1 - j, count - 1 - i) for i, j in pairs_of(thumbs[::-1])}
    assert backwards == pairs_of(thumbs)


def test_flat_images_are_compared_by_colour() -> None:
    """Two of one colour are the same, of two colours are not; nothing flat is like something drawn."""
    colours = ["#808080", "#828180", "#a01010", "#808080"]
    flat = [jpeg_of(Image.new("RGB", (100 + i, 80), colour)) for i, colour in enumerate(colours)]
    ramp = Image.linear_gradient("L").convert("RGB")
    pairs = pairs_of(thumbs_of([*flat, jpeg_of(ramp), jpeg_of(Image.eval(ramp, lambda v: v // 2))]))
    assert pairs == {(0, 1), (0, 3), (1, 3)}


def test_pairs_do_not_depend_on_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [jpeg_of(draw_image(i % 20), 60 + i // 20) for i in range(60)]
    thumbs = thumbs_of(files)
    at_once = pairs_of(thumbs)
    monkeypatch.setattr("uniemox.data.near_pairs.ROWS", 7)
    monkeypatch.setattr("uniemox.data.near.PAIRS", 3)
    assert pairs_of(thumbs) == at_once
    assert len(at_once) == 20 * 3


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """A folder with one of every fault; `train` and `test`, classes awe, fear, anger and disgust."""
    root = tmp_path / "dirty"
    for i, split in enumerate(("train", "test")):
        class_folders(root / split, ("anger", "awe", "disgust", "fear", "sadness"), each=0)
        for j, label in enumerate(("anger", "awe", "disgust", "fear", "sadness")):
            for k in range(3):
                (root / split / label / f"{k}.jpg").write_bytes(jpeg_of(draw_image(1000 + 100 * i + 10 * j + k)))
    train = root / "train"
    test = root / "test"
    (train / "awe" / "cut.jpg").write_bytes(jpeg_of(draw_image(1))[:3000])
    (train / "awe" / "page.jpg").write_text("<html>not found</html>")
    draw_image(2).save(train / "awe" / "wrong.jpg", "PNG")
    draw_image(3).convert("P").save(train / "fear" / "palette.png")
    frames = [draw_image(seed) for seed in (4, 5)]
    frames[0].save(train / "fear" / "moving.gif", save_all=True, append_images=frames[1:])
    (train / "awe" / "copy.jpg").write_bytes((train / "awe" / "0.jpg").read_bytes())
    (train / "fear" / "both.jpg").write_bytes((train / "awe" / "1.jpg").read_bytes())
    (test / "fear" / "leak.jpg").write_bytes(plant(draw_image(1000 + 30), "all", random.Random(0)))  # train/fear/0
    for label in ("anger", "awe", "disgust"):
        for k in range(2):
            (train / label / f"gone{k}.jpg").write_bytes(jpeg_of(draw_image(9), 70 + k))
    return root


def checked(source: str, **files: Path) -> Audit:
    """The audit of a data set by this process alone."""
    return audit(open_data(source, **files), pool=PoolConfig(workers=1))


def names(report: Audit, kind: str) -> list[set[str]]:
    return [{member.sample.key for member in group.members} for group in report.groups[kind]]


def test_every_fault_is_found_and_nothing_else(dirty: Path) -> None:
    report = checked(f"folder:{dirty}")
    placeholders = {f"train/{label}/gone{k}.jpg" for label in ("anger", "awe", "disgust") for k in range(2)}
    leak = {"train/fear/0.jpg", "test/fear/leak.jpg"}
    conflict = {"train/awe/1.jpg", "train/fear/both.jpg"}
    copies = {"train/awe/0.jpg", "train/awe/copy.jpg"}
    assert names(report, "corrupt") == [{"train/awe/cut.jpg"}, {"train/awe/page.jpg"}]
    assert "cut off" in report.groups["corrupt"][0].reason
    assert "not an image" in report.groups["corrupt"][1].reason
    assert names(report, "wrong_endings") == [{"train/awe/wrong.jpg"}]
    assert names(report, "odd_modes") == [{"train/fear/moving.gif"}, {"train/fear/palette.png"}]
    exact = [{f"train/{label}/gone{k}.jpg" for label in ("anger", "awe", "disgust")} for k in range(2)]
    assert sorted(map(sorted, names(report, "exact_duplicates"))) == sorted(map(sorted, [copies, conflict, *exact]))
    assert sorted(map(sorted, names(report, "near_duplicates"))) == sorted(map(sorted, [leak, placeholders]))
    assert names(report, "placeholders") == [placeholders]
    assert sorted(map(sorted, names(report, "label_conflicts"))) == sorted(map(sorted, [conflict, placeholders]))
    assert names(report, "leaks") == [leak]
    assert report.classes["awe"] == {"test": 3, "train": 9}
    excluded = {entry["key"]: entry["reason"] for entry in report.exclude}
    kept_out = {"train/awe/cut.jpg", "train/awe/page.jpg", "train/awe/copy.jpg", "train/fear/0.jpg"}
    assert excluded.keys() == placeholders | conflict | kept_out
    assert excluded["train/fear/0.jpg"] == "copy of test/fear/leak.jpg"  # what is scored stays
    assert excluded["train/awe/gone0.jpg"] == "placeholder"
    assert excluded["train/awe/1.jpg"] == "under several labels: awe, fear"


@pytest.mark.thorough
def test_excluding_listed_images_leaves_no_duplicates_or_leaks(dirty: Path, tmp_path: Path) -> None:
    source = f"folder:{dirty}"
    report = tmp_path / "check.json"
    report.write_text(json.dumps(checked(source).as_dict()))
    again = checked(source, exclude=report)
    assert {kind: len(groups) for kind, groups in again.groups.items() if groups} == {
        "wrong_endings": 1,
        "odd_modes": 2,
    }
    assert not again.exclude


@pytest.mark.thorough
def test_scan_gives_the_same_result_with_any_number_of_processes(dirty: Path) -> None:
    data = open_data(f"folder:{dirty}")
    data = replace(data, samples=[*data.samples] * 4)
    done: list[tuple[str, int, int | None]] = []
    several = scan(data.samples, PoolConfig(workers=2), lambda *now: done.append(now))
    alone = scan(data.samples, PoolConfig(workers=1))
    assert [image.sha256 for image in several] == [image.sha256 for image in alone]
    assert done[-1] == ("looking at images", len(data), len(data))
    for a, b in zip(several, alone, strict=True):
        assert (a.problem, a.size, a.brightness) == (b.problem, b.size, b.brightness)
        assert a.thumb is b.thumb is None or np.array_equal(a.thumb, b.thumb)


def test_copies_in_another_data_set_are_leaks(tmp_path: Path) -> None:
    ours = class_folders(tmp_path / "ours")
    theirs = class_folders(tmp_path / "theirs", ("joy", "anger"), each=1)
    for folder in theirs.iterdir():
        for path in folder.iterdir():
            path.unlink()
    (theirs / "joy" / "x.jpg").write_bytes(plant(draw_image(2), "cropped", random.Random(1)))  # ours/awe/2.jpg
    (theirs / "joy" / "y.jpg").write_bytes(jpeg_of(draw_image(5000)))
    (theirs / "anger" / "z.jpg").write_bytes(jpeg_of(draw_image(5001)))
    report = audit(open_data(f"folder:{ours}"), open_data(f"folder:{theirs}"), pool=PoolConfig(workers=1))
    assert [group.as_dict() for group in report.groups["leaks"]] == [
        {"paths": [f"{ours}/awe/2.jpg", f"{theirs}/joy/x.jpg"], "labels": ["awe", "joy"], "splits": [None, None]}
        | {"in": ["data", "other"]}
    ]
    assert [(entry["key"], entry["reason"]) for entry in report.exclude] == [
        ("awe/2.jpg", "also in the other data set")
    ]
    assert not report.groups["label_conflicts"]  # labels of different sets do not contradict each other
    assert not report.groups["near_duplicates"]


def test_people_of_one_image_are_not_duplicates(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "heco", ("Anger", "Peace"), each=2)
    (root / "boxes.csv").write_text("path,x1,y1,x2,y2\nAnger/0.jpg,0,0,50,50\nAnger/0.jpg,60,0,90,50\n")
    report = checked(f"heco:{root}")
    assert not any(report.groups.values())


def test_colour_drift_exceeds_chance_only_for_different_splits(tmp_path: Path) -> None:
    rng = random.Random(0)
    for split, low in (("train", 0), ("val", 0), ("test", 120)):
        for label in ("awe", "fear"):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(30):
                image = Image.eval(draw_image(rng.randrange(10**6), (64, 64)), lambda v, low=low: v // 2 + low)
                (tmp_path / split / label / f"{i}.jpg").write_bytes(jpeg_of(image))
    drift = {pair.splits: pair for pair in audit(open_data(f"folder:{tmp_path}")).drift}
    assert drift["train", "val"].distance < drift["train", "val"].by_chance
    assert drift["test", "train"].distance > 3 * drift["test", "train"].by_chance


@pytest.mark.thorough
def test_all_placeholders_of_fi_are_found(shared: Path) -> None:
    report = audit(open_data(f"fi:{shared}/data/fi"))
    (group,) = report.groups["placeholders"]
    assert len(group.members) == 170
    assert len({member.label for member in group.members}) == 8
    assert not report.groups["near_duplicates"]
    assert not report.groups["corrupt"]


@pytest.mark.thorough
def test_page_shows_every_listed_image(dirty: Path, tmp_path: Path) -> None:
    report = checked(f"folder:{dirty}")
    page = tmp_path / "out" / "page.html"
    write_page(report, page)
    text = page.read_text()
    count = sum(min(len(group.members), 12) for groups in report.groups.values() for group in groups)
    assert text.count("<figure>") == count
    assert text.count("<img") == count - 2  # two can't be decoded
    assert "&lt;" not in text
    assert "cut off or corrupt" in text


def test_file_names_are_escaped_in_html(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "x")
    (root / "awe" / "<script>alert(1)<").mkdir()
    (root / "awe" / "<script>alert(1)<" / "a.jpg").write_bytes(b"no image")
    page = tmp_path / "page.html"
    write_page(checked(f"folder:{root}"), page)
    assert "<script>" not in page.read_text()
    assert "&lt;script&gt;alert(1)&lt;/a.jpg" in page.read_text()


def test_thumbs_of_reduced_and_full_decoding_are_similar() -> None:
    image = draw_image(7, (1600, 1200))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    small, full = thumbs_of([jpeg_of(image, 95), buffer.getvalue()]).astype(int)
    assert np.abs(small - full).mean() < 3


def test_one_file_listed_twice_leaks_and_contradicts(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg_of(draw_image(ord(name))))
    (tmp_path / "t.csv").write_text(
        "path,label,split\na.jpg,awe,train\na.jpg,awe,test\nb.jpg,awe,test\nb.jpg,fear,test\n"
    )
    (tmp_path / "other.csv").write_text("path,label\nc.jpg,awe\nb.jpg,awe\n")
    report = checked(f"csv:{tmp_path}/t.csv")
    assert names(report, "leaks") == [{"a.jpg", "a.jpg#2"}]
    assert names(report, "label_conflicts") == [{"b.jpg", "b.jpg#2"}]
    assert not report.groups["exact_duplicates"]
    assert [(entry["key"], entry["reason"]) for entry in report.exclude] == [
        ("a.jpg", "copy of a.jpg#2"),
        ("b.jpg", "under several labels: awe, fear"),
        ("b.jpg#2", "under several labels: awe, fear"),
    ]
    both = audit(open_data(f"csv:{tmp_path}/t.csv"), open_data(f"csv:{tmp_path}/other.csv"), pool=PoolConfig(workers=1))
    assert {"b.jpg", "b.jpg#2"} in [keys - {"a.jpg", "a.jpg#2"} for keys in names(both, "leaks")]


def test_of_copies_one_with_a_label_stays(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg_of(draw_image(1)))
    (tmp_path / "c.jpg").write_bytes(jpeg_of(draw_image(2)))
    (tmp_path / "t.csv").write_text("path,label\na.jpg,\nb.jpg,awe\nc.jpg,fear\n")
    report = checked(f"csv:{tmp_path}/t.csv")
    assert [(entry["key"], entry["reason"]) for entry in report.exclude] == [("a.jpg", "copy of b.jpg")]


def test_people_of_a_larger_version_of_an_image_are_reported(tmp_path: Path) -> None:
    """The images were scaled after their people had been found: training took the whole image instead."""
    boxes = {"a": Box(10, 10, 60, 60), "b": Box(239, 114, 408, 312), "c": Box(-2, -2, 66, 40)}
    samples = []
    for i, (name, box) in enumerate(boxes.items()):
        draw_image(i, (64, 64)).save(tmp_path / f"{name}.png")
        image = ImageFile(tmp_path / f"{name}.png")
        samples.append(Sample(key=f"{name}.png", image=image, persons=(Detection(box, 0.9),)))
    report = audit(DataSet("photos", MIKELS, samples), pool=PoolConfig(workers=1))
    assert names(report, "wrong_persons") == [{"b.png"}]
    [group] = report.groups["wrong_persons"]
    assert "(239, 114, 408, 312) is outside of the image of 64 x 64 px" in group.reason
    # The image is right, and the boxes can be found again.
    assert report.exclude == []


def test_people_of_one_image_do_not_contradict_each_other(tmp_path: Path) -> None:
    for name in ("a", "copy"):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg_of(draw_image(1)))
    rows = [f"{name}.jpg,{label}" for name in ("a", "copy") for label in ("anger,0,0,50,50", "fear,60,0,90,50")]
    (tmp_path / "t.csv").write_text("path,label,x1,y1,x2,y2\n" + "\n".join([*rows, "a.jpg,fear,0,400,50,500"]))
    report = checked(f"csv:{tmp_path}/t.csv")
    assert not report.groups["label_conflicts"]
    assert names(report, "exact_duplicates") == [{"a.jpg", "a.jpg#2", "a.jpg#3", "copy.jpg", "copy.jpg#2"}]
    assert names(report, "wrong_boxes") == [{"a.jpg#3"}]
    assert {entry["key"] for entry in report.exclude} == {"a.jpg#3", "copy.jpg", "copy.jpg#2"}


def test_truncated_second_frame_is_reported(tmp_path: Path) -> None:
    """A TIFF whose second page is cut off: the first can be decoded, the file is not whole."""
    (tmp_path / "awe").mkdir()
    (tmp_path / "fear").mkdir()
    (tmp_path / "fear" / "x.jpg").write_bytes(jpeg_of(draw_image(3)))
    draw_image(1).save(tmp_path / "awe" / "x.tif", save_all=True, append_images=[draw_image(2)])
    data = bytearray((tmp_path / "awe" / "x.tif").read_bytes())
    failed = 0
    for removed in range(0, len(data), 9973):
        (tmp_path / "awe" / "x.tif").write_bytes(data[: len(data) - removed])
        report = checked(f"folder:{tmp_path}")
        failed += len(report.groups["corrupt"])
    assert failed > 10


@pytest.mark.thorough
def test_thousands_of_copies_become_one_group() -> None:
    thumbs = thumbs_of([jpeg_of(draw_image(1), 60 + i % 30) for i in range(30)] + [jpeg_of(draw_image(2))])
    many = np.concatenate([np.repeat(thumbs[:30], 60, axis=0), thumbs[30:]])
    assert len(set(near_groups(many).tolist())) == 2


def test_unreadable_files_are_not_copies_of_each_other(tmp_path: Path) -> None:
    """Empty files, and equal ones that are cut off, are corrupt, and nothing else."""
    opened = open_data(f"folder:{class_folders(tmp_path, ('awe', 'fear', 'sadness'), each=3)}")
    samples = [replace(sample, split=("train", "test")[i % 2]) for i, sample in enumerate(opened.samples)]
    cut = samples[0].image.read()[:300]
    contents = {**dict.fromkeys((0, 1, 3, 4, 6, 7), b""), 2: cut, 5: cut}
    for row, content in contents.items():
        Path(str(samples[row].image)).write_bytes(content)
    report = audit(replace(opened, samples=samples))
    assert {kind: len(groups) for kind, groups in report.groups.items() if groups} == {"corrupt": len(contents)}
    assert {entry["key"] for entry in report.exclude} == {samples[row].key for row in contents}
    assert not any("copy of" in entry["reason"] for entry in report.exclude)
