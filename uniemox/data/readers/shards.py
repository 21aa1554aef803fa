"""Reader of shards: tar files with an index, readable at any position."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from uniemox.data.sample import DataSet, Sample
from uniemox.data.shard_format import INDEX, PLAIN_FIELDS, REMEDY, ShardEntry, ShardIndex, ShardLine
from uniemox.errors import DataError, LabelError, MissingPackageError
from uniemox.io.files import MAX_TEXT_BYTES, is_plain_name, open_regular, read_limited
from uniemox.io.typed import parse_json
from uniemox.labels import LabelSet
from uniemox.persons.box import Box, Detection
from uniemox.plurals import counted


@dataclass(frozen=True, slots=True)
class ShardedImage:
    """An image inside a tar file."""

    address: str
    offset: int
    size: int
    sha256: str

    def read(self) -> bytes:
        """Read the bytes of the image.

        Raises:
            OSError: If the file can't be read, is cut off, or has other bytes than when the index was written.
        """
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
            raise OSError(f"{self.address} was changed: the hash of the image at {self.offset} differs")
        return data

    def __str__(self) -> str:
        return f"{self.address}@{self.offset}"


def read_shards(address: str) -> DataSet:
    """Read the samples of a folder of shards.

    Args:
        address: A folder, or a URL that fsspec opens (s3://, gs://, http://, memory://).

    Raises:
        DataError: With the shard's name, if one is missing, cut off, or has another length than in the index.
    """
    system, root = open_address(address.rstrip("/"))
    content = parse_json(
        _read_index(system, f"{root}/{INDEX}", address), ShardIndex, f"{address}/{INDEX}", remedy=REMEDY
    )
    try:
        labels = LabelSet(content.labels.name, content.labels.labels, content.labels.kind)
    except LabelError as error:
        raise DataError(f"{address}/{INDEX}: {error}") from error
    if len({shard.name for shard in content.shards}) < len(content.shards):
        raise DataError(f"{address}/{INDEX}: a shard occurs twice; {REMEDY}")

    samples: list[Sample] = []
    for shard in content.shards:
        if not is_plain_name(shard.name):
            raise DataError(f"{address}/{INDEX}: {shard.name!r} is not the name of a shard; {REMEDY}")
        tar = f"{address.rstrip('/')}/{shard.name}.tar"
        _check_size(system, f"{root}/{shard.name}.tar", tar, shard)
        lines = _read_index(system, f"{root}/{shard.name}.jsonl", address)
        samples += _samples_of(lines, shard, f"{address}/{shard.name}.jsonl", tar, labels)

    notes: tuple[str, ...] = ()
    if content.broken:
        images = counted(len(content.broken), "image")
        notes = (f"{images} could not be read when these shards were written: {INDEX} lists them",)
    return DataSet(
        address,
        labels,
        samples,
        notes=notes,
        short_side_px=content.short_side_px,
        detector_seen=frozenset(content.detector_seen),
    )


def _check_size(system: Any, path: str, tar: str, shard: ShardEntry) -> None:
    """Compare the size of a shard's file with its index.

    Args:
        system: File system of fsspec.
        path: Path of the file in it.
        tar: Address of the file, for messages.
        shard: Its entry in the index.

    Raises:
        DataError: If it is missing, or has another size.
    """
    size: int | None = None
    with suppress(OSError):
        size = system.size(path)
    if size != shard.bytes:
        fault = "missing" if size is None else "cut off or changed"
        raise DataError(
            f"{tar} is {fault}: {shard.bytes} bytes expected, {size or 0} found; copy it again, or write it "
            "again with uniemox data shard"
        )


def _samples_of(content: bytes, shard: ShardEntry, source: str, tar: str, labels: LabelSet) -> Iterator[Sample]:
    """Yield the samples of a shard.

    Args:
        content: Lines of the shard's index.
        shard: The shard's entry in the index of all.
        source: Address of the lines, for messages.
        tar: Address of the images.
        labels: Labels that the lines may have.

    Raises:
        DataError: With the line's number, for a line of another form, and if lines are missing.
    """
    lines = content.removesuffix(b"\n").split(b"\n")
    # An empty file is one empty line.
    if len(lines) != max(shard.samples, 1):
        raise DataError(f"{source} is cut off: {shard.samples} lines expected, {len(lines)} found")
    for number, line in enumerate(lines[: shard.samples], start=1):
        where = f"{source}:{number}"
        described = parse_json(line, ShardLine, where, remedy=REMEDY)
        for field, words in (("label", (described.label,)), ("categories", described.categories or ())):
            unknown = [word for word in words if word is not None and word not in labels.labels]
            if unknown:
                raise DataError(f"{where}: field {field}: expected a label of {INDEX}, got {unknown[0]!a}; {REMEDY}")
        yield _sample_of(described, tar, labels)


def open_address(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address, and the path in it.

    Raises:
        MissingPackageError: If a package for it is missing.
        DataError: If there is no such kind of address.
    """
    try:
        import fsspec  # noqa: PLC0415 - an extra

        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise MissingPackageError(f"{address}: {error}; run: pip install 'uniemox[data]', then this package") from error
    except (ValueError, TypeError) as error:
        # TypeError: a protocol that needs settings, such as reference://.
        raise DataError(f"{address}: {error}") from error


def _sample_of(line: ShardLine, tar: str, labels: LabelSet) -> Sample:
    """Return the sample of one line of a shard's index."""
    persons = None
    if line.boxes is not None:
        persons = tuple(Detection(Box(*row[:4]), row[4]) for row in line.boxes)
    return Sample(
        key=line.key,
        image=ShardedImage(tar, line.offset, line.size, line.sha256),
        label=None if line.label is None else labels.labels.index(line.label),
        categories=None if line.categories is None else tuple(map(labels.labels.index, line.categories)),
        distribution=line.distribution,
        annotation=line.annotation,
        persons=persons,
        target_box=line.target_box,
        **{name: getattr(line, name) for name in PLAIN_FIELDS},
    )


def _read_index(system: Any, path: str, address: str) -> bytes:
    """Read a text file of the shards, of limited size.  system: fsspec's.

    Raises:
        DataError: If it can't be read or is too large.
    """
    try:
        if getattr(system, "local_file", False):
            return read_limited(path)
        size = system.size(path)
        if size is not None and size > MAX_TEXT_BYTES:
            raise OSError(f"{size >> 20:,} MiB, more than the {MAX_TEXT_BYTES >> 20:,} MiB that are read")
        return system.cat_file(path)
    except OSError as error:
        raise DataError(f"{address}: {path.rsplit('/', 1)[-1]} can't be read ({error}); are these shards?") from error
