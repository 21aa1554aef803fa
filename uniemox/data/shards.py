"""Shards: tar files in WebDataset's format with an index, on disk or at any address that fsspec knows.

    shards.json          what the labels mean, and every shard with its size
    train-00000.tar      000000000.jpg, 000000000.json, 000000001.jpg, ...
    train-00000.jsonl    the same JSON, a line a sample, with the place of its image in the tar

Any process reads any sample by one call, so a run can go on in the middle of an epoch.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from uniemox.data.sample import DataSet, Sample
from uniemox.errors import DataError, MissingPackageError
from uniemox.io.files import MAX_TEXT_BYTES, open_regular, read_limited
from uniemox.io.images import MAX_BYTES
from uniemox.labels import LabelSet
from uniemox.persons.box import Box, Detection

FORMAT, INDEX = "uniemox-shards-1", "shards.json"
PLAIN_FIELDS = ("valence", "arousal", "split", "text", "domain", "group", "source_sha256")


@dataclass(frozen=True, slots=True)
class ShardedImage:
    """An image inside a tar file."""

    address: str
    offset: int
    size: int
    sha256: str

    def read(self) -> bytes:
        """The bytes of the image. Raises OSError if they are not those that were written."""
        if "://" in self.address:
            system, path = open_address(self.address)
            data = system.cat_file(path, start=self.offset, end=self.offset + self.size)
        else:
            with open_regular(self.address) as file:
                file.seek(self.offset)
                data = file.read(self.size)
        if len(data) != self.size:
            raise OSError(f"{self.address} is cut off: {len(data)} of {self.size} bytes at {self.offset}")
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise OSError(f"{self.address} was changed: the hash of the image at {self.offset} is another")
        return data

    def __str__(self) -> str:
        return f"{self.address}@{self.offset}"


def read_shards(address: str) -> DataSet:
    """The samples of a folder of shards.

    address: a folder, or a URL that fsspec opens (s3://, gs://, http://, memory://).
    Raises DataError, with the shard's name, if one is missing, cut off, or not as long as the index says.
    """
    system, root = open_address(address.rstrip("/"))
    content = parse_json(_read(system, f"{root}/{INDEX}", address), f"{address}/{INDEX}")
    if content.get("format") != FORMAT:
        raise DataError(f"{address}/{INDEX}: expected format {FORMAT}, got {content.get('format')!r}")
    try:
        labels = LabelSet(content["labels"]["name"], tuple(content["labels"]["labels"]), content["labels"]["kind"])
        shards = [(str(shard["name"]), int(shard["bytes"]), int(shard["samples"])) for shard in content["shards"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{address}/{INDEX}: {error} is missing or of another type") from error
    samples: list[Sample] = []
    for name, size, count in shards:
        tar = f"{address.rstrip('/')}/{name}.tar"
        found = _size(system, f"{root}/{name}.tar")
        if found != size:
            raise DataError(
                f"{tar} is {'missing' if found is None else 'cut off or changed'}: {size} bytes expected, {found or 0} "
                "found; copy it again, or write it again with uniemox data shard"
            )
        lines = _read(system, f"{root}/{name}.jsonl", address).removesuffix(b"\n").split(b"\n")
        if len(lines) != max(count, 1):  # an empty file is one empty line
            raise DataError(f"{address}/{name}.jsonl is cut off: {count} lines expected, {len(lines)} found")
        for number, line in enumerate(lines[:count], start=1):
            where = f"{address}/{name}.jsonl:{number}"
            try:
                samples.append(_sample_of(parse_json(line, where), tar, labels))
            except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
                raise DataError(f"{where}: {error} is missing or wrong; write the shards again") from error
    seen = frozenset(map(str, content.get("detector_seen", ())))
    return DataSet(address, labels, samples, short_side_px=content.get("short_side_px"), detector_seen=seen)


def open_address(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in there.

    Raises MissingPackageError if a package for it is missing, DataError if there is no such kind of address.
    """
    try:
        import fsspec  # noqa: PLC0415 - an extra

        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingPackageError(f"{address}: {error}; run: pip install 'uniemox[data]' and what is named") from error
    except ValueError as error:
        raise DataError(f"{address}: {error}") from error


def _sample_of(values: dict[str, Any], tar: str, labels: LabelSet) -> Sample:
    boxes, target = values.get("boxes"), values.get("target_box")
    names = ("key", "sha256", "source_sha256", "text", "domain", "group", "split")
    texts = [values[name] for name in names if values.get(name) is not None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text")
    offset, size = int(values["offset"]), int(values["size"])
    if not 0 <= offset < 2**62 or not 0 <= size <= MAX_BYTES:
        raise ValueError("the place of the image")
    if not re.fullmatch("[0-9a-f]{64}", values.get("source_sha256", "0" * 64)):
        raise ValueError("source_sha256")
    return Sample(
        key=values["key"],
        image=ShardedImage(tar, offset, size, values["sha256"]),
        label=None if values.get("label") is None else labels.labels.index(values["label"]),
        distribution=values.get("distribution"),
        annotation=values.get("annotation"),
        persons=None if boxes is None else tuple(Detection(Box(*map(float, row[:4])), float(row[4])) for row in boxes),
        target_box=None if target is None else Box(*map(float, target)),
        **{name: values.get(name) for name in PLAIN_FIELDS},
    )


def _size(system: Any, path: str) -> int | None:
    try:
        return system.size(path)
    except OSError:
        return None


def _read(system: Any, path: str, address: str) -> bytes:
    try:
        if getattr(system, "local_file", False):
            return read_limited(path)
        size = system.size(path)
        if size is not None and size > MAX_TEXT_BYTES:
            raise OSError(f"{size >> 20:,} MiB, more than the {MAX_TEXT_BYTES >> 20:,} MiB that are read")
        return system.cat_file(path)
    except OSError as error:
        raise DataError(f"{address}: {path.rsplit('/', 1)[-1]} can't be read ({error}); are these shards?") from error


def parse_json(text: bytes | str, where: str) -> dict[str, Any]:
    """An object of a shard's index. Raises DataError, with where it stands, for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({error}); write the shards again") from error
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {type(value).__name__}")
    return value
