"""Shards: what goes in comes out, from any store, by any process; cut-off ones are named; a stopped run goes on."""

import hashlib
import json
import os
import re
import tarfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import fsspec
import pytest
import torch
import webdataset

from tests.drawn import class_folders, draw_image, jpeg_of
from uniemox.data.order import RunOrder
from uniemox.data.readers.shards import read_shards
from uniemox.data.sample import DataSet, Sample
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.source import open_data
from uniemox.errors import ConfigError, DataError
from uniemox.io.images import decode
from uniemox.io.parallel import PoolConfig
from uniemox.persons.box import Box, Detection
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewDataset, build_loader
from uniemox.views.transforms import TrainViews


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    """Ten images, two splits, one of them with everything that can be known."""
    root = tmp_path / "data"
    class_folders(root / "train", each=3)
    class_folders(root / "val", each=2)
    opened = open_data(f"folder:{root}")
    complete = replace(
        opened.samples[0],
        text="A photo of a café.",
        annotation={"scene": "cafe", "object": ["Cup"]},
        persons=(Detection(Box(10, 20, 110.5, 220), 0.75),),
        target_box=Box(10, 20, 110.5, 220),
        distribution={"awe": 0.25, "fear": 0.75},
        valence=2.5,
        arousal=7.0,
        domain="tea",
        group="g",
    )
    return replace(opened, samples=[complete, *opened.samples[1:]])


def by_key(data: DataSet) -> dict[str, Sample]:
    return {sample.key: sample for sample in data.samples}


ALONE = PoolConfig(workers=1)


def packed(data: DataSet, folder: Path, **settings: int) -> DataSet:
    """Shards that this process has written, read again."""
    write_shards(data, folder, ShardConfig(pool=ALONE, **settings))
    return read_shards(str(folder))


def test_shards_preserve_every_field_and_file(data: DataSet, tmp_path: Path) -> None:
    done: list[tuple[str, int, int | None]] = []
    assert (
        write_shards(
            data, tmp_path / "out", ShardConfig(samples=4, pool=PoolConfig(workers=2)), lambda *now: done.append(now)
        )
        == []
    )
    assert done[-1] == ("packing", 10, 10)
    read = open_data(f"shards:{tmp_path}/out")
    assert (read.labels.name, read.labels.labels, read.labels.kind) == (data.labels.name, data.labels.labels, "evoked")
    before = by_key(data)
    after = by_key(read)
    assert before.keys() == after.keys()
    for key, sample in before.items():
        assert after[key].image.read() == sample.image.read()  # the very file
        assert replace(after[key], image=sample.image) == sample
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    tars = ["train-00000", "train-00001", "val-00000"]
    assert names == sorted(["shards.json", *(f"{tar}.{ending}" for tar in tars for ending in ("tar", "jsonl"))])


def test_scaled_images_keep_their_boxes(data: DataSet, tmp_path: Path) -> None:
    small = by_key(packed(data, tmp_path / "out", short_side_px=60))
    sample = small[data.samples[0].key]
    image, size = decode(sample.image.read())
    assert size == image.size == (80, 60)  # of 320 x 240
    assert sample.target_box == Box(2.5, 5, 27.625, 55)
    assert sample.persons == (Detection(Box(2.5, 5, 27.625, 55), 0.75),)
    for key, sample in by_key(packed(data, tmp_path / "large", short_side_px=1000)).items():
        assert sample.image.read() == by_key(data)[key].image.read()  # never enlarged
        assert len(small[key].image.read()) < len(sample.image.read())


def test_reduced_images_keep_the_hash_of_their_original(data: DataSet, tmp_path: Path) -> None:
    small = packed(data, tmp_path / "small", short_side_px=60)
    smaller = packed(small, tmp_path / "smaller", short_side_px=30)
    again = packed(small, tmp_path / "again")
    originals = {sample.key: hashlib.sha256(sample.image.read()).hexdigest() for sample in data.samples}
    for shards in (small, smaller, again):
        assert {sample.key: sample.source_sha256 for sample in shards.samples} == originals
    assert {sample.source_sha256 for sample in packed(data, tmp_path / "whole").samples} == {None}


def test_the_same_data_give_the_same_bytes(data: DataSet, tmp_path: Path) -> None:
    for folder, workers in (("a", 1), ("b", 2)):
        config = ShardConfig(samples=4, short_side_px=64, pool=PoolConfig(workers=workers))
        write_shards(data, tmp_path / folder, config)
    paths = list((tmp_path / "a").glob("*.tar"))
    assert len(paths) > 1
    for path in paths:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_webdataset_reads_them(data: DataSet, tmp_path: Path) -> None:
    packed(data, tmp_path / "out", samples=4)
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    read = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("jpg", "json")
    images = {meta["key"]: (image.shape, meta.get("label")) for image, meta in read}
    assert images == {sample.key: ((240, 320, 3), data.label_of(sample)) for sample in data.samples}


def test_shards_are_read_from_any_fsspec_store(data: DataSet, tmp_path: Path) -> None:
    packed(data, tmp_path / "out", samples=4)
    memory = fsspec.filesystem("memory")
    for path in (tmp_path / "out").iterdir():
        memory.pipe(f"/somewhere/{path.name}", path.read_bytes())
    read = open_data("shards:memory://somewhere")
    for key, sample in by_key(read).items():
        assert sample.image.read() == by_key(data)[key].image.read()
    memory.rm("/somewhere", recursive=True)


def test_loading_starts_at_any_step(data: DataSet, tmp_path: Path) -> None:
    samples = packed(data, tmp_path / "out", samples=4).samples

    by_address = open_data(f"shards:file://{tmp_path}/out").samples  # not by path: through fsspec in every process

    def batches(start: int, workers: int) -> list[torch.Tensor]:
        dataset = ViewDataset(by_address if workers else samples, TrainViews(ViewConfig(size=32), seed=0))
        order = RunOrder(len(samples), batch_size=2, seed=0, start=15 + start, steps=20)  # the fourth epoch
        return [batch.scene for batch in build_loader(dataset, order, workers)]

    uninterrupted = batches(0, 0)
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted[3:], batches(3, 2), strict=True))


def test_the_index_names_no_folder_of_this_machine(data: DataSet, tmp_path: Path) -> None:
    packed(data, tmp_path / "out", samples=4)
    assert str(tmp_path) in data.name
    assert all(str(tmp_path).encode() not in file.read_bytes() for file in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("bytes_left", [0, 511, 20_000])
def test_truncated_shard_is_reported_by_name(data: DataSet, tmp_path: Path, bytes_left: int) -> None:
    shards = packed(data, tmp_path / "out", samples=4)
    os.truncate(tmp_path / "out" / "train-00001.tar", bytes_left)
    with pytest.raises(DataError, match=r"train-00001\.tar is cut off or changed: \d+ bytes expected, \d+ found; copy"):
        read_shards(str(tmp_path / "out"))
    last = [sample for sample in shards.samples if "train-00001" in str(sample.image)][-1]
    with pytest.raises(OSError, match=r"train-00001\.tar is cut off"):
        last.image.read()
    (tmp_path / "out" / "train-00001.tar").unlink()
    with pytest.raises(DataError, match=r"train-00001\.tar is missing"):
        read_shards(str(tmp_path / "out"))


def test_wrong_index_is_reported_by_name(data: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_shards(data, out, ShardConfig(samples=10, pool=ALONE))
    lines = (out / "val-00000.jsonl").read_text().splitlines()
    for text, message in (
        ("\n".join(lines[:1]), r"val-00000.jsonl is cut off: 4 lines expected, 1 found"),
        ("\n".join(["{", *lines[1:]]), r"val-00000.jsonl:1: not JSON"),
        ("\n".join(["{}", *lines[1:]]), r"val-00000.jsonl:1: field key is missing"),
        ("\n".join([re.sub("awe|fear", "aw", lines[0]), *lines[1:]]), "field label: expected a label"),
        (
            "\n".join([lines[0].replace("{", '{"source_sha256": "a b", ', 1), *lines[1:]]),
            "field source_sha256: expected",
        ),
        ("\n".join([lines[0].replace('"key": "', '"key": "' + "a" * 4096), *lines[1:]]), "field key: expected a"),
    ):
        (out / "val-00000.jsonl").write_text(text)
        with pytest.raises(DataError, match=message):
            read_shards(str(out))
    (out / "val-00000.jsonl").write_text("\n".join(lines) + "\n")
    index = json.loads((out / "shards.json").read_text())
    intact = json.loads((out / "shards.json").read_text())
    (tmp_path / "val-00000.tar").write_bytes((out / "val-00000.tar").read_bytes())
    for name in ("../val-00000", "a/b", "..\\x", ""):
        index["shards"][-1]["name"] = name
        (out / "shards.json").write_text(json.dumps(index))
        with pytest.raises(DataError, match="is not the name of a shard"):
            read_shards(str(out))
    for text, message in (
        (json.dumps(index | {"shards": index["shards"][:1] * 2}), "a shard occurs twice"),
        (json.dumps(intact | {"broken": 3}), "field broken: expected a list, got 3"),
        (json.dumps(index | {"shards": [{"name": "a", "bytes": 1e999, "samples": 1}]}), r"bytes: expected a whole"),
        ("[]", "an object"),
        ("{", "not JSON"),
        ("{}", "field format is missing"),
        ('{"format": 1}', "field format: expected a text, got 1"),
    ):
        (out / "shards.json").write_text(text)
        with pytest.raises(DataError, match=message):
            read_shards(str(out))
    with pytest.raises(DataError, match=r"shards.json can't be read .*are these shards"):
        read_shards(str(tmp_path))


def test_stopped_packing_resumes_with_the_next_shard(data: DataSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = ShardConfig(samples=4, pool=ALONE)

    def stop(task: str, done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(data, out, config, stop)
    assert not (out / "shards.json").exists()
    for other in (replace(config, samples=5), replace(config, short_side_px=64)):
        with pytest.raises(DataError, match="holds shards of other data or settings"):
            write_shards(data, out, other)
    (first,) = list(out.glob("*.report.json"))[:1]
    before = (out / f"{json.loads(first.read_text())['name']}.tar").stat().st_mtime_ns
    write_shards(data, out, config)
    assert (out / f"{first.name.split('.')[0]}.tar").stat().st_mtime_ns == before  # not written again
    write_shards(data, tmp_path / "at_once", config)
    for path in (tmp_path / "at_once").iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()
    assert write_shards(data, out, config) == []  # all there
    with pytest.raises(DataError, match="holds shards of other data or settings"):
        write_shards(data, out, replace(config, short_side_px=64))


def test_other_files_of_the_folder_stay(data: DataSet, tmp_path: Path) -> None:
    mine = tmp_path / "out" / "mine.report.json"
    mine.parent.mkdir()
    mine.write_text("{}")
    write_shards(data, tmp_path / "out", ShardConfig(pool=ALONE))
    assert list((tmp_path / "out").glob("*.report.json")) == [mine]


def test_broken_images_are_left_out_and_named(data: DataSet, tmp_path: Path) -> None:
    Path(str(data.samples[2].image)).write_bytes(jpeg_of(draw_image(1))[:4000])
    Path(str(data.samples[7].image)).unlink()
    broken = write_shards(data, tmp_path / "out", ShardConfig(samples=4, pool=ALONE))
    assert [line.split(":")[0] for line in broken] == sorted([data.samples[2].key, data.samples[7].key])
    read = read_shards(str(tmp_path / "out"))
    assert len(read) == 8
    assert read.notes == ("2 images could not be read when these shards were written: shards.json lists them",)


def test_other_formats_keep_their_ending(tmp_path: Path) -> None:
    (tmp_path / "data" / "awe").mkdir(parents=True)
    draw_image(1).save(tmp_path / "data" / "awe" / "a.png")
    draw_image(2).save(tmp_path / "data" / "awe" / "b.jpg", "WEBP")  # a wrong ending
    write_shards(open_data(f"folder:{tmp_path}/data"), tmp_path / "out", ShardConfig(pool=ALONE))
    with tarfile.open(tmp_path / "out" / "all-00000.tar") as tar:
        endings = sorted(name.split(".")[1] for name in tar.getnames())
    assert endings == ["json", "json", "png", "webp"]


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"samples": 0}, {"short_side_px": 4}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ShardConfig(**wrong)
    with pytest.raises(ConfigError, match="--workers must be at least 1, got 0"):
        PoolConfig(workers=0)


def test_changed_images_are_found(data: DataSet, tmp_path: Path) -> None:
    sample = packed(data, tmp_path / "out", samples=10).samples[0]
    tar = Path(sample.image.address)  # type: ignore[attr-defined]
    content = bytearray(tar.read_bytes())
    content[700] ^= 1
    tar.write_bytes(content)
    with pytest.raises(OSError, match="was changed: the hash of the image at 512 differs"):
        sample.image.read()


def test_boxes_of_other_sizes_are_refused(data: DataSet, tmp_path: Path) -> None:
    write_shards(data, tmp_path / "out", ShardConfig(short_side_px=64, pool=ALONE))
    boxes = tmp_path / "persons.jsonl"
    boxes.write_text('{"detector": "x"}\n')
    with pytest.raises(DataError, match=r"jsonl: its boxes are in px of other images \(short side None, here 64"):
        open_data(f"shards:{tmp_path}/out", persons=boxes)
    boxes.write_text('{"detector": "x", "short_side_px": 64}\n')
    open_data(f"shards:{tmp_path}/out", persons=boxes)


def test_addresses_that_cannot_be_opened() -> None:
    with pytest.raises(DataError, match="foo://x: Protocol not known: foo"):
        open_data("shards:foo://x")
    with pytest.raises(DataError, match=r"reference://x: .*missing"):
        open_data("shards:reference://x")


class Ranges(SimpleHTTPRequestHandler):
    """A web server that gives parts of files, as stores do."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        requested = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if requested is None or not path.is_file():
            super().do_GET()
            return
        first, last = map(int, requested.groups())
        part = path.read_bytes()[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{last}/{path.stat().st_size}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


def test_several_processes_read_shards_over_http(data: DataSet, tmp_path: Path) -> None:
    packed(data, tmp_path / "out", samples=4)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        samples = open_data(f"shards:http://127.0.0.1:{server.server_address[1]}/out").samples
        dataset = ViewDataset(samples, TrainViews(ViewConfig(size=32), seed=0))
        order = RunOrder(10, batch_size=5, seed=0, steps=2)
        there = [batch.scene for batch in build_loader(dataset, order, 2)]
        server.shutdown()
    here = ViewDataset(read_shards(str(tmp_path / "out")).samples, TrainViews(ViewConfig(size=32), seed=0))
    assert all(torch.equal(a, b.scene) for a, b in zip(there, build_loader(here, order, 0), strict=True))
    assert len(there) == 2


@pytest.mark.parametrize("split", ["../mine/all", "/tmp/x", ".hidden", "a\0"])
def test_split_that_is_a_path_is_refused(data: DataSet, tmp_path: Path, split: str) -> None:
    """A stranger's index or file of splits names them, and shards are named after them."""
    strange = replace(data, samples=[replace(sample, split=split) for sample in data.samples])
    with pytest.raises(DataError, match="a split can't be named"):
        write_shards(strange, tmp_path / "out", ShardConfig(pool=ALONE))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change",
    [{"annotation": 5}, {"distribution": [1, 2]}, {"valence": "x"}, {"detector_seen": 5}, {"short_side_px": "x"}],
)
def test_fields_of_another_type_are_refused(data: DataSet, tmp_path: Path, change: dict[str, object]) -> None:
    write_shards(data, tmp_path / "s", ShardConfig(pool=ALONE))
    file = next((tmp_path / "s").glob("val*.jsonl"))
    if change.keys() & {"detector_seen", "short_side_px"}:
        file = tmp_path / "s" / "shards.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
    else:
        lines = [json.dumps(json.loads(line) | change) for line in file.read_text().splitlines()]
        file.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="write the shards again"):
        read_shards(str(tmp_path / "s"))


@pytest.mark.parametrize("report", ["pipe", "{}", "[1]"])
def test_invalid_report_is_not_used(data: DataSet, tmp_path: Path, report: str) -> None:
    write_shards(data, tmp_path / "s", ShardConfig(pool=ALONE))
    (tmp_path / "s" / "shards.json").unlink()
    strange = tmp_path / "s" / "val-00000.report.json"
    os.mkfifo(strange) if report == "pipe" else strange.write_text(report)
    if report == "{}":
        write_shards(data, tmp_path / "s", ShardConfig(pool=ALONE))
        assert len(read_shards(str(tmp_path / "s"))) == len(data)
    else:
        with pytest.raises(DataError):
            write_shards(data, tmp_path / "s", ShardConfig(pool=ALONE))


def test_shards_of_images_that_have_changed_are_refused(tmp_path: Path) -> None:
    """The same names with other pixels would be trained on as they were before."""
    root = class_folders(tmp_path / "photos")
    data = open_data(f"folder:{root}")
    write_shards(data, tmp_path / "out", ShardConfig())
    index = (tmp_path / "out" / "shards.json").read_text()
    write_shards(data, tmp_path / "out", ShardConfig())
    next(root.rglob("*.jpg")).write_bytes(jpeg_of(draw_image(90)))
    with pytest.raises(DataError, match="holds shards of these data from when their files had other sizes"):
        write_shards(data, tmp_path / "out", ShardConfig())
    assert (tmp_path / "out" / "shards.json").read_text() == index
    # As older versions wrote it.
    content = {name: value for name, value in json.loads(index).items() if name != "files"}
    (tmp_path / "out" / "shards.json").write_text(json.dumps(content))
    write_shards(data, tmp_path / "out", ShardConfig())
