"""Writing of shards: tar files with an index, by many processes, and resumed where it was stopped."""

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from uniemox.bounds import check_numbers
from uniemox.data.processes import map_batches
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.shard_format import FORMAT, INDEX, PLAIN_FIELDS, REMEDY
from uniemox.data.sidecar import json_line
from uniemox.errors import DataError, ImageError
from uniemox.io.borders import crosses_border
from uniemox.io.files import PARTIAL, is_plain_name, read_limited, replacing, write_file
from uniemox.io.images import MinSides, decode, encode_image, open_image
from uniemox.io.parallel import DIED, ONE_A_CORE, PoolConfig
from uniemox.io.progress import Progress, silent
from uniemox.io.raw_preview import is_raw, preview_of
from uniemox.io.typed import parse_json
from uniemox.labels import LabelSet

# Keys of a shard's report; a report with others was written by another version.
REPORT = {"name", "samples", "bytes", "sha256", "broken"}
BLOCK = 512  # bytes of a tar header
JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardConfig:
    """Settings of shards."""

    samples: int = 1000
    """Number of images per shard."""
    short_side_px: int | None = None
    """Short side to which images are scaled down and stored as JPEG; None: store the files unchanged."""
    seed: int = 0
    """Random seed for the order; a random order mixes the classes."""
    pool: PoolConfig = ONE_A_CORE
    """Worker processes; on a cluster all machines must see the folder at the same path."""

    def __post_init__(self) -> None:
        check_numbers(self, at_least={"samples": 1, "short_side_px": 16})


def write_shards(data: DataSet, out: Path, config: ShardConfig, on_progress: Progress = silent) -> list[str]:
    """Write a data set as shards; return a line for every image that was left out as unreadable.

    If stopped and called again with the same data and settings, it resumes with the next shard. A folder with all
    shards of these data stays unchanged.

    Raises:
        DataError: If the folder holds other shards, or of images that have changed since, or can't be written.
    """
    plans = list(_plan(data, config))
    labels = {"name": data.labels.name, "labels": list(data.labels.labels), "kind": data.labels.kind}
    header: dict[str, Any] = {
        "format": FORMAT,
        "short_side_px": config.short_side_px,
        "labels": labels,
        "plan": _digest(plans, data.labels),
        "files": _digest_of_files(plans),
    }
    if data.detector_seen:
        header["detector_seen"] = sorted(data.detector_seen)
    try:
        out.mkdir(parents=True, exist_ok=True)
        started = out / "shards.part.json"
        for file in (out / INDEX, started):
            existing = _parse_object(read_limited(file), str(file)) if file.exists() else header
            different = {name for name, value in header.items() if existing.get(name) != value}
            # Older versions have not recorded the files.
            if "files" not in existing:
                different.discard("files")
            if different == {"files"}:
                raise DataError(
                    f"{out} holds shards of these data from when their files had other sizes; choose another folder"
                )
            if different:
                raise DataError(f"{out} holds shards of other data or settings; choose another folder")
        if (out / INDEX).exists():
            return list(_parse_object(read_limited(out / INDEX), str(out / INDEX)).get("broken", []))
        write_file(started, json.dumps(header))

        shards = []
        broken = []
        done = 0
        on_progress("packing", 0, len(data))
        open_work = partial(_open_work, out.absolute(), data.labels, config)
        for (name, samples), shard in zip(plans, map_batches(open_work, plans, config.pool), strict=True):
            if shard is None:
                raise DataError(f"{out}/{name}.tar, {len(samples)} images from {samples[0].image} on: {DIED}")
            shards.append({key: shard[key] for key in ("name", "samples", "bytes", "sha256")})
            broken += shard["broken"]
            done += len(samples)
            on_progress("packing", done, len(data))

        # The index is written last: without it, the next call resumes.
        shards.sort(key=lambda shard: shard["name"])
        content = {**header, "data": data.name_with_split("all"), "broken": sorted(broken), "shards": shards}
        write_file(out / INDEX, json.dumps(content, indent=1))
        for file in (started, *(out / f"{name}.report.json" for name, _ in plans)):
            file.unlink()
    except OSError as error:
        raise DataError(f"{out}: can't be written ({error.strerror or error})") from error
    return sorted(broken)


def _plan(data: DataSet, config: ShardConfig) -> Iterator[tuple[str, list[Sample]]]:
    """Yield name and samples of every shard: one split per shard, in random order."""
    splits: dict[str, list[Sample]] = {}
    for sample in data.samples:
        splits.setdefault(sample.split or "all", []).append(sample)
    for split, samples in sorted(splits.items()):
        # A stranger's list of splits may name a path.
        if not is_plain_name(split):
            raise DataError(f"{data.name}: a split can't be named {split!r}, because its shards are; rename it")
        random.Random(f"{config.seed} {split}").shuffle(samples)
        for i in range(0, len(samples), config.samples):
            yield f"{split}-{i // config.samples:05d}", samples[i : i + config.samples]


def _open_work(
    out: Path, labels: LabelSet, config: ShardConfig
) -> Callable[[tuple[str, Sequence[Sample]]], dict[str, Any]]:
    return lambda plan: _write_shard(out, *plan, labels, config)


def _write_shard(
    out: Path, name: str, samples: Sequence[Sample], labels: LabelSet, config: ShardConfig
) -> dict[str, Any]:
    """Write one tar, its index and a report; return the report. If the tar has a valid report, only return this."""
    report_file = out / f"{name}.report.json"
    tar_file = out / f"{name}.tar"
    if report_file.exists() and tar_file.exists():
        report = _parse_object(read_limited(report_file), str(report_file))
        if (
            tar_file.stat().st_size == report.get("bytes")
            and report.keys() == REPORT
            and isinstance(report["broken"], list)
        ):
            return report
    lines = []
    broken = []
    # A killed run leaves its partial file.
    for abandoned in out.glob(f"{name}.tar.*{PARTIAL}"):
        abandoned.unlink()
    with replacing(tar_file) as partial_file:
        with partial_file.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for number, sample in enumerate(samples):
                try:
                    original = sample.image.read()
                    image, ending, scale = pack_image(original, sample.key, config.short_side_px)
                except (ImageError, OSError) as error:
                    # The text of an OSError contains the path on this machine, which shards must not tell.
                    reason = error.strerror if isinstance(error, OSError) else None
                    broken.append(f"{sample.key}: {reason or error}")
                    continue
                values = _values_of(sample, labels, scale) | {"sha256": hashlib.sha256(image).hexdigest()}
                if image != original:
                    values.setdefault("source_sha256", hashlib.sha256(original).hexdigest())
                offset = file.tell() + BLOCK
                _add(tar, f"{number:09d}.{ending}", image)
                _add(tar, f"{number:09d}.json", json_line(values))
                lines.append(json_line({**values, "offset": offset, "size": len(image)}))
        with partial_file.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        size = partial_file.stat().st_size
    report = {"name": name, "samples": len(lines), "bytes": size, "sha256": digest, "broken": broken}
    with replacing(out / f"{name}.jsonl") as partial:
        partial.write_bytes(b"".join(lines))
    write_file(report_file, json.dumps(report))
    return report


@crosses_border
def pack_image(data: bytes, name: str, short_side_px: int | None) -> tuple[bytes, str, float]:
    """Return the bytes to store for an image, their ending, and the image's scale.

    Args:
        data: Bytes of the file.
        name: Name of the image, for messages.
        short_side_px: Short side to which a larger image is reduced, as JPEG; None: keep the bytes.

    Raises:
        ImageError: If it can't be decoded.
    """
    # Other readers of shards expect the format of the ending, and can't decode raw files.
    if is_raw(data):
        data = preview_of(data, name)
    header = open_image(data, name)
    # At least twice the target size, so that only the resampling determines the sharpness.
    image, full = decode(data, name, shrink=None if short_side_px is None else MinSides(short_px=2 * short_side_px))
    if short_side_px is None or min(full) <= short_side_px:
        return data, (header.format or "jpg").lower().replace("jpeg", "jpg"), 1.0
    scale = short_side_px / min(full)
    size = (max(1, round(full[0] * scale)), max(1, round(full[1] * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    return encode_image(image, "JPEG", quality=JPEG_QUALITY, optimize=True), "jpg", scale


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    # Without time, owner or mode, the same data give the same bytes.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _values_of(sample: Sample, labels: LabelSet, scale: float) -> dict[str, Any]:
    """Return a sample in JSON-serialisable form; boxes in px of the stored image."""
    boxes = None
    if sample.persons is not None:
        boxes = [[*(value * scale for value in person.box), person.confidence] for person in sample.persons]
    values = {
        "key": sample.key,
        "label": None if sample.label is None else labels.labels[sample.label],
        "categories": None if sample.categories is None else [labels.labels[index] for index in sample.categories],
        "distribution": None if sample.distribution is None else dict(sample.distribution),
        "boxes": boxes,
        "target_box": None if sample.target_box is None else [value * scale for value in sample.target_box],
        "annotation": None if sample.annotation is None else dict(sample.annotation),
    }
    values |= {name: getattr(sample, name) for name in PLAIN_FIELDS}
    return {name: value for name, value in values.items() if value is not None}


def _digest(plans: Sequence[tuple[str, list[Sample]]], labels: LabelSet) -> str:
    """Return a hash that changes with the order and all fields of the samples, but not with their folder."""
    digest = hashlib.sha256()
    for name, samples in plans:
        for sample in samples:
            digest.update(name.encode() + json_line(_values_of(sample, labels, 1.0)))
    return digest.hexdigest()


def _digest_of_files(plans: Sequence[tuple[str, list[Sample]]]) -> str:
    """Return a hash over the sizes of the images' files. Dates are left out, because a copy may have others."""
    digest = hashlib.sha256()
    for _, samples in plans:
        for sample in samples:
            if not isinstance(sample.image, ImageFile):
                continue
            try:
                size = sample.image.path.stat().st_size
            # The shard that should hold it will name the fault.
            except OSError:
                continue
            digest.update(f"{size}\n".encode())
    return digest.hexdigest()


def _parse_object(text: bytes | str, where: str) -> dict[str, Any]:
    """Parse an object of a shard's index.

    Raises:
        DataError: With file and line, for anything but a JSON object.
    """
    return parse_json(text, dict[str, Any], where, remedy=REMEDY)
