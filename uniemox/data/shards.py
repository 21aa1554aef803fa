"""Shards: tar files in WebDataset's format with an index, on disk or at any address that fsspec knows.

    shards.json          what the labels mean, and every shard with its size
    train-00000.tar      000000000.jpg, 000000000.json, 000000001.jpg, ...
    train-00000.jsonl    the same JSON, a line a sample, with the place of its picture in the tar

Any process reads any sample by one call, so a run can go on in the middle of an epoch.
"""

import hashlib
import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from uniemox.data.sample import DataSet, Sample
from uniemox.errors import ConfigError, DataError, ImageError
from uniemox.images import decode, open_picture
from uniemox.labels import LabelSet
from uniemox.persons.box import Box, Detection

FORMAT, INDEX = "uniemox-shards-1", "shards.json"
BLOCK = 512  # bytes of a tar header
JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """How shards are cut."""

    samples: int = 1000
    """Pictures in a shard."""
    short_side_px: int | None = None
    """Pictures are scaled down to this short side and stored as JPEG; None stores the files as they are."""
    seed: int = 0
    """Of the order, which is random, so that reading in order meets all classes."""
    workers: int = os.cpu_count() or 1
    """Processes that write."""

    def __post_init__(self) -> None:
        if self.samples < 1 or self.workers < 1:
            raise ConfigError(f"samples and workers must be at least 1, got {self.samples} and {self.workers}")
        if self.short_side_px is not None and self.short_side_px < 16:
            raise ConfigError(f"short_side_px must be at least 16, got {self.short_side_px}")


@dataclass(frozen=True, slots=True)
class ShardedPicture:
    """A picture inside a tar file."""

    address: str
    offset: int
    size: int

    def read(self) -> bytes:
        """The bytes of the picture. Raises OSError if the shard is shorter than it was."""
        if "://" in self.address:
            import fsspec  # noqa: PLC0415 - only for shards elsewhere

            system, path = fsspec.core.url_to_fs(self.address)
            data = system.cat_file(path, start=self.offset, end=self.offset + self.size)
        else:
            data = os.pread(_opened(self.address).fileno(), self.size, self.offset)
        if len(data) != self.size:
            raise OSError(f"{self.address} is cut off: {len(data)} of {self.size} bytes at {self.offset}")
        return data

    def __str__(self) -> str:
        return f"{self.address}@{self.offset}"


@lru_cache(maxsize=256)
def _opened(address: str) -> io.FileIO:
    """A shard on disk, open for os.pread, which processes may share."""
    return open(address, "rb", buffering=0)


def write_shards(
    data: DataSet, out: Path, config: ShardConfig, on_progress: Callable[[int], None] = lambda _: None
) -> list[str]:
    """Write a data set as shards and return a line for every picture that was left out because it is broken.

    Stopped and called again with the same data and settings it goes on with the next shard.
    on_progress: called with the number of samples done.
    Raises DataError if the folder holds other shards or can't be written.
    """
    plans = list(_plan(data, config))
    header = {"format": FORMAT, "data": data.name, "short_side_px": config.short_side_px, "plan": _digest(plans)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        started = out / "shards.part.json"
        for file in (out / INDEX, started):
            if file.exists() and _json(file.read_bytes(), str(file)).get("plan") != header["plan"]:
                raise DataError(f"{out} holds shards of other data or settings; choose another folder")
        if (out / INDEX).exists():
            return []
        started.write_text(json.dumps(header))
        shards, broken, done = [], [], 0
        with ProcessPoolExecutor(min(config.workers, len(plans))) as pool:
            jobs = [pool.submit(_write_shard, out, name, samples, data.labels, config) for name, samples in plans]
            try:
                for job in as_completed(jobs):
                    shard = job.result()
                    shards.append({key: shard[key] for key in ("name", "samples", "bytes", "sha256")})
                    broken += shard["broken"]
                    done += shard["samples"] + len(shard["broken"])
                    on_progress(done)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        labels = {"name": data.labels.name, "labels": data.labels.labels, "kind": data.labels.kind}
        content = {**header, "labels": labels, "shards": sorted(shards, key=lambda shard: shard["name"])}
        _write_whole(out / INDEX, json.dumps(content, indent=1).encode())
        for file in (started, *out.glob("*.report.json")):
            file.unlink()
    except OSError as error:
        raise DataError(f"{out}: can't be written ({error.strerror or error})") from error
    return sorted(broken)


def read_shards(address: str) -> DataSet:
    """The samples of a folder of shards.

    address: a folder, or a URL that fsspec opens (s3://, gs://, http://, memory://).
    Raises DataError, with the shard's name, if one is missing, cut off, or not as long as the index says.
    """
    import fsspec  # noqa: PLC0415 - needs the extra data

    system, root = fsspec.core.url_to_fs(address.rstrip("/"))
    content = _json(_read(system, f"{root}/{INDEX}", address), f"{address}/{INDEX}")
    if content.get("format") != FORMAT:
        raise DataError(f"{address}/{INDEX}: expected format {FORMAT}, got {content.get('format')!r}")
    try:
        labels = LabelSet(content["labels"]["name"], tuple(content["labels"]["labels"]), content["labels"]["kind"])
        shards = [(str(shard["name"]), int(shard["bytes"]), int(shard["samples"])) for shard in content["shards"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{address}/{INDEX}: {error} is missing or of another type") from error
    sizes = {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in system.ls(root, detail=True)}
    samples: list[Sample] = []
    for name, size, count in shards:
        tar = f"{address.rstrip('/')}/{name}.tar"
        if sizes.get(f"{name}.tar") != size:
            raise DataError(
                f"{tar} is {'missing' if f'{name}.tar' not in sizes else 'cut off or changed'}: {size} bytes expected, "
                f"{sizes.get(f'{name}.tar', 0)} found; copy it again, or write it again with uniemox data shard"
            )
        lines = _read(system, f"{root}/{name}.jsonl", address).removesuffix(b"\n").split(b"\n")
        if len(lines) != max(count, 1):  # an empty file is one empty line
            raise DataError(f"{address}/{name}.jsonl is cut off: {count} lines expected, {len(lines)} found")
        for number, line in enumerate(lines[:count], start=1):
            where = f"{address}/{name}.jsonl:{number}"
            try:
                samples.append(_sample_of(_json(line, where), tar, labels))
            except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
                raise DataError(f"{where}: {error} is missing or wrong; write the shards again") from error
    return DataSet(address, labels, samples)


def _plan(data: DataSet, config: ShardConfig) -> Iterator[tuple[str, list[Sample]]]:
    """Name and samples of every shard: splits apart, in random order."""
    splits: dict[str, list[Sample]] = {}
    for sample in data.samples:
        splits.setdefault(sample.split or "all", []).append(sample)
    for split, samples in sorted(splits.items()):
        random.Random(f"{config.seed} {split}").shuffle(samples)
        for i in range(0, len(samples), config.samples):
            yield f"{split}-{i // config.samples:05d}", samples[i : i + config.samples]


def _write_shard(
    out: Path, name: str, samples: Sequence[Sample], labels: LabelSet, config: ShardConfig
) -> dict[str, Any]:
    """One tar, its index and a report; nothing if all three are there."""
    report_file = out / f"{name}.report.json"
    tar_file = out / f"{name}.tar"
    if report_file.exists() and tar_file.exists():
        report = json.loads(report_file.read_text("utf-8"))
        if tar_file.stat().st_size == report["bytes"]:
            return report
    lines, broken = [], []
    temporary = out / f"{name}.tar.tmp"
    with temporary.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, sample in enumerate(samples):
            try:
                picture, ending, scale = _picture_bytes(sample, config.short_side_px)
            except (ImageError, OSError) as error:
                broken.append(f"{sample.key}: {error}")
                continue
            values = _values_of(sample, labels, scale) | {"sha256": hashlib.sha256(picture).hexdigest()}
            offset = file.tell() + BLOCK
            _add(tar, f"{number:09d}.{ending}", picture)
            _add(tar, f"{number:09d}.json", _line(values))
            lines.append(_line({**values, "offset": offset, "size": len(picture)}))
    with temporary.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    size = temporary.stat().st_size
    report = {"name": name, "samples": len(lines), "bytes": size, "sha256": digest, "broken": broken}
    temporary.replace(tar_file)
    _write_whole(out / f"{name}.jsonl", b"".join(line + b"\n" for line in lines))
    _write_whole(report_file, json.dumps(report).encode())
    return report


def _picture_bytes(sample: Sample, short_side_px: int | None) -> tuple[bytes, str, float]:
    """A picture's bytes, its ending, and by how much it was scaled. Raises ImageError if it can't be decoded."""
    data = sample.picture.read()
    header = open_picture(data, sample.key)
    image, full = decode(data, sample.key, shrink=_half_of(short_side_px))
    if short_side_px is None or min(full) <= short_side_px:
        return data, (header.format or "jpg").lower().replace("jpeg", "jpg"), 1.0
    scale = short_side_px / min(full)
    size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue(), "jpg", scale


def _half_of(short_side_px: int | None) -> Callable[[int, int], float] | None:
    """Decode at no less than twice the size wanted, so that the resampling is what decides on the sharpness."""
    return None if short_side_px is None else lambda width, height: min(width, height) / (2 * short_side_px)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, owner or mode of this machine: the same data give the same bytes
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _values_of(sample: Sample, labels: LabelSet, scale: float) -> dict[str, Any]:
    """What is known of a sample, as JSON; boxes in px of the stored picture."""
    boxes = None
    if sample.persons is not None:
        boxes = [[*(value * scale for value in person.box), person.confidence] for person in sample.persons]
    values = {
        "key": sample.key,
        "label": None if sample.label is None else labels.labels[sample.label],
        "distribution": None if sample.distribution is None else dict(sample.distribution),
        "boxes": boxes,
        "target_box": None if sample.target_box is None else [value * scale for value in sample.target_box],
        "annotation": None if sample.annotation is None else dict(sample.annotation),
    }
    values |= {name: getattr(sample, name) for name in _PLAIN_FIELDS}
    return {name: value for name, value in values.items() if value is not None}


_PLAIN_FIELDS = ("valence", "arousal", "split", "text", "domain", "group")


def _sample_of(values: dict[str, Any], tar: str, labels: LabelSet) -> Sample:
    boxes, target = values.get("boxes"), values.get("target_box")
    texts = [values[name] for name in ("key", "text", "domain", "group", "split") if values.get(name) is not None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text")
    offset, size = int(values["offset"]), int(values["size"])
    if not 0 <= offset < 2**62 or not 0 <= size < 2**31:
        raise ValueError("the place of the picture")
    return Sample(
        key=values["key"],
        picture=ShardedPicture(tar, offset, size),
        label=None if values.get("label") is None else labels.labels.index(values["label"]),
        distribution=values.get("distribution"),
        annotation=values.get("annotation"),
        persons=None if boxes is None else tuple(Detection(Box(*map(float, row[:4])), float(row[4])) for row in boxes),
        target_box=None if target is None else Box(*map(float, target)),
        **{name: values.get(name) for name in _PLAIN_FIELDS},
    )


def _digest(plans: Sequence[tuple[str, list[Sample]]]) -> str:
    names = "\n".join(f"{name}\t{sample}" for name, samples in plans for sample in samples)
    return hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest()


def _line(values: dict[str, Any]) -> bytes:
    """JSON in one line; names of files that are no UTF-8 are escaped."""
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _read(system: Any, path: str, address: str) -> bytes:
    try:
        return system.cat_file(path)
    except OSError as error:
        raise DataError(f"{address}: {path.rsplit('/', 1)[-1]} can't be read ({error}); are these shards?") from error


def _json(text: bytes | str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); write the shards again") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {type(value).__name__}")
    return value
