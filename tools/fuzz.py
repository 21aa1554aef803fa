"""Mutate images and annotation files and read them: only a UniemoxError may be raised, within ten seconds.

An UnexpectedImageError counts as another exception: it reports an unforeseen error of one image. Random bytes after the
first bytes of all formats go through every reader of images.

Images whose headers have other sizes than their contents are decoded in a pool's process, whose memory must stay below
750 MiB.

    python -m tools.fuzz --seconds 60 --seed 0

The same seed makes the same changes. Any other exception is printed, and its input is saved in the folder --out. The
exit code is 1 if there was one, or if an input took longer than ten seconds.
"""

import argparse
import contextlib
import faulthandler
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.data.tree import abstract, emoset, emotion6, put, write
from tests.images import FILE_STARTS, draw, every_file, save
from tests.processes import peak_mib
from tests.raw_files import dng, jpeg
from tools.file_mutations import mutate_bytes, mutate_json, mutate_sizes, mutate_text, random_content
from uniemox.data.inspection import inspect_image
from uniemox.data.readers.csv_table import read_csv
from uniemox.data.readers.emoset import read_emoset
from uniemox.data.readers.emotion6 import read_emotion6
from uniemox.data.readers.folders import read_class_folders, read_folder
from uniemox.data.readers.heco import read_heco
from uniemox.data.readers.machajdik import read_abstract
from uniemox.data.readers.shards import read_shards
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.shard_writing import ShardConfig, pack_image, write_shards
from uniemox.data.sidecar import Sidecar, read_sidecar
from uniemox.data.source import open_data
from uniemox.data.split_files import read_splits, write_splits
from uniemox.errors import UnexpectedImageError, UniemoxError
from uniemox.insight.survey.lines import date_taken
from uniemox.io.decoding.pool import DecoderPool
from uniemox.io.images import decode
from uniemox.io.metadata import without_metadata
from uniemox.labels import MIKELS
from uniemox.predict.images import read_any

MAX_DURATION_S = 10.0
# Memory of a process that decodes: small files may take 600 MiB, in addition to the process's own.
MAX_MIB = 750
# Width and height of the images whose sizes are mutated, px.
DRAWN_SIZE = (60, 44)
SIZES = "pictures, other sizes"
BEHIND_STARTS = "pictures, random"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(slots=True)
class Tally:
    """Results for the inputs of one target."""

    runs: int = 0
    read: int = 0
    refused: int = 0
    other: int = 0
    slowest_s: float = 0.0
    slowest: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A file that is mutated, and the call that reads it."""

    name: str
    files: list[Path]
    read: Callable[[Path], object]
    originals: dict[Path, bytes] = field(default_factory=dict)


def read_images(data: DataSet) -> None:
    """Read the bytes of the first images, which may raise OSError."""
    for sample in list(data.samples)[:3]:
        with contextlib.suppress(OSError):
            sample.image.read()


def reads(read: Callable[[Path], object], path: Path) -> Callable[[Path], object]:
    """Return a call that reads a data set at `path`, whichever of its files was changed."""
    return lambda _: read(path)


def annotation_targets(root: Path) -> list[Target]:
    """Write a small data set of each kind with the files next to it, and return the targets."""
    annotation = {"emotion": "awe", "brightness": 0.7, "scene": "beach", "object": ["Dog", "Ferris wheel"]}
    kinds: list[tuple[str, Path, list[str], Callable[[Path], object]]] = []
    emoset(root / "emoset", {"awe/1": annotation, "fear/2": {"colorfulness": 0.1}})
    kinds.append(("emoset", root / "emoset", ["info.json", "train.json", "annotation/awe/1.json"], read_emoset))
    kinds.append(("emoset?missing=skip", root / "emoset", ["train.json"], lambda p: read_emoset(p, missing="skip")))
    emotion6(root / "emotion6", {"joy/1.jpg": (0, 0, 0, 0.9, 0, 0, 0.1), "fear/1.jpg": (0.5, 0, 0.5, 0, 0, 0, 0)})
    kinds.append(("emotion6", root / "emotion6", ["ground_truth.txt"], read_emotion6))
    kinds.append(("emotion6?vote", root / "emotion6", ["ground_truth.txt"], lambda p: read_emotion6(p, label="vote")))
    abstract(root / "abstract", {"a1.jpg": (0, 0, 0, 6, 1, 0, 0, 1), "a2.jpg": (2, 2, 0, 0, 0, 0, 0, 0)})
    kinds.append(("abstract", root / "abstract", ["ABSTRACT_groundTruth.csv"], read_abstract))
    put(root / "heco", "Peace/1.jpg", "Fear/2.jpg")
    write(root / "heco/boxes.csv", "path,x1,y1,x2,y2,label\nPeace/1.jpg,1,2,11,12,\nPeace/1.jpg,0,0,5,6.5,fear\n")
    kinds.append(("heco", root / "heco", ["boxes.csv"], read_heco))
    put(root / "csv", "a.jpg", "b/c.jpg")
    write(
        root / "csv/data.csv", 'path,label,split,text,x1,y1,x2,y2\na.jpg,awe,train,"a, b",1,2,3,4\nb/c.jpg,fear,,,,,,\n'
    )
    kinds.append(("csv", root / "csv", ["data.csv"], lambda p: read_csv(p / "data.csv", missing="skip")))
    write(root / "csv/votes.csv", "path;anger;joy;fear;sadness;valence\na.jpg;1;2;0;0;3.5\nb/c.jpg;0;0;0;7;9\n")
    kinds.append(("csv of votes", root / "csv", ["votes.csv"], lambda p: read_csv(p / "votes.csv")))
    put(root / "fi", "train/awe/1.jpg", "val/fear/é.jpg")
    targets = [Target(name, [path / file for file in files], reads(read, path)) for name, path, files, read in kinds]
    return [*targets, *sidecar_targets(root), *shard_targets(root)]


def sidecar_targets(root: Path) -> list[Target]:
    """Write the files that are saved next to a data set, and return the targets."""
    data = read_class_folders(root / "fi", MIKELS)
    persons, texts, exclude, splits = (root / f"{name}.json" for name in ("persons", "texts", "exclude", "splits"))
    header = {"detector": "x", "threshold": 0.3}
    with Sidecar(persons, header) as file:
        for sample in data.samples:
            file.append(sample.key, {"boxes": [[1, 2, 11.5, 12, 0.9], [0, 0, 3, 3, 0.4]]})
    with Sidecar(texts, {"by": "x"}) as file:
        for sample in data.samples:
            file.append(sample.key, {"text": "A photo.", "annotation": {"brightness": 0.5}})
    write(exclude, {"exclude": [{"key": data.samples[0].key, "why": "duplicate"}]})
    write_splits(splits, {data.samples[0].key: "train", data.samples[1].key: "test"}, source="fi", how="80/20")

    def resume(path: Path) -> None:
        with Sidecar(path, header) as file:
            file.append("new.jpg", {"boxes": []})
        assert "new.jpg" in read_sidecar(path)[1]

    fi = f"fi:{root / 'fi'}"
    return [
        Target("sidecar", [persons, texts], read_sidecar),
        Target("sidecar, going on", [persons], resume),
        Target("persons", [persons], lambda path: open_data(fi, persons=path)),
        Target("texts", [texts], lambda path: open_data(fi, texts=path)),
        Target("exclude", [exclude], lambda path: open_data(fi, exclude=path)),
        Target("splits", [splits], lambda path: read_splits(path, data)),
    ]


def shard_targets(root: Path) -> list[Target]:
    """Write shards of a folder with people in its images, and return the target."""
    data = open_data(f"fi:{root / 'fi'}", persons=root / "persons.json", texts=root / "texts.json")
    write_shards(data, root / "shards", ShardConfig(samples=1))
    names = sorted(path for path in (root / "shards").iterdir() if path.suffix in (".json", ".jsonl", ".tar"))
    return [Target("shards", names, lambda _: read_images(read_shards(str(root / "shards"))))]


def image_targets(root: Path, seed: int) -> tuple[list[Target], list[bytes]]:
    """Write drawn images of every format, and photographs if there are any; return targets and contents."""
    drawn_images = [
        dng(jpeg(draw(900, 600, seed)), orientation=6),
        *every_file(seed).values(),
        *every_file(seed + 1, 230, 170).values(),
        save(draw(640, 480), "JPEG"),
    ]
    photograph_paths = sorted((SHARED / "data").glob("*/images/**/*.jpg")) if SHARED.is_dir() else []
    photographs = [
        path.read_bytes() for path in random.Random(seed).sample(photograph_paths, min(40, len(photograph_paths)))
    ]
    targets = []
    for name, files in (("pictures, drawn", drawn_images), ("photographs", photographs)):
        paths = [root / f"{name.split(',')[0]}-{i}" for i in range(len(files))]
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(data)
        if paths:
            targets.append(
                Target(
                    f"{name}, looked at",
                    paths,
                    lambda path: inspect_image(Sample(key=path.name, image=ImageFile(path))),
                )
            )
            targets.append(Target(name, paths, lambda path: decode(path.read_bytes(), str(path))))
            targets.append(
                Target(
                    f"{name}, smaller", paths, lambda path: decode(path.read_bytes(), str(path), shrink=lambda *_: 4)
                )
            )
            targets.append(Target(f"{name}, every way", paths, read_in_every_way))
    return targets, drawn_images + photographs


def read_in_every_way(path: Path) -> None:
    """Read an image with every function that reads images; raise the first unexpected error."""
    data = path.read_bytes()
    sample = Sample(key=path.name, image=ImageFile(path))
    readers: list[Callable[[], object]] = [
        lambda: read_any(path, decode_file=decode),
        lambda: date_taken(path),
        lambda: pack_image(data, str(path), 16),
        lambda: without_metadata(data, str(path)),
    ]
    inspection = inspect_image(sample)
    if "report this line" in inspection.problem:
        raise UnexpectedImageError(inspection.problem)
    for read in readers:
        try:
            read()
        except UnexpectedImageError:
            raise
        except UniemoxError:
            continue


def start_target(root: Path) -> Target:
    """Return the target of random bytes after the first bytes of all formats."""
    paths = [root / f"start-{number}" for number in range(len(FILE_STARTS))]
    for path, start in zip(paths, FILE_STARTS.values(), strict=True):
        path.write_bytes(start)
    return Target(BEHIND_STARTS, paths, read_in_every_way)


def size_target(root: Path, seed: int, pool: DecoderPool) -> Target:
    """Return the target of images of every format, decoded in a process with limits."""
    paths = []
    for i, data in enumerate(every_file(seed, *DRAWN_SIZE).values()):
        paths.append(root / f"sizes-{i}")
        paths[-1].write_bytes(data)
    return Target(SIZES, paths, lambda path: pool.decode(path.read_bytes(), str(path)))


def run_one(target: Target, others: list[bytes], rng: random.Random) -> tuple[bytes, str, float, str]:
    """Mutate and read one file.

    Returns:
        The input, the result (read, refused, or other), seconds, and the traceback.
    """
    path = rng.choice(target.files)
    original = target.originals.setdefault(path, path.read_bytes())
    is_image = "pict" in target.name or "photo" in target.name
    mutation = 0 if is_image else rng.choice((1, 1, 2, 2, 2, 0))
    mutations = (
        lambda: mutate_bytes(original, others, rng),
        lambda: mutate_text(original, rng),
        lambda: mutate_json(original, rng),
    )
    if target.name == SIZES:
        data = mutate_sizes(original, DRAWN_SIZE, rng)
    elif target.name == BEHIND_STARTS:
        data = original + random_content(rng)
    else:
        data = mutations[mutation]()
    path.write_bytes(data)
    start = time.perf_counter()
    trace = ""
    assert sys.__stdout__ is not None
    faulthandler.dump_traceback_later(120, exit=True, file=sys.__stdout__)
    try:
        target.read(path)
        result = "read"
    except UnexpectedImageError:
        result = "other"
        trace = traceback.format_exc()
    except UniemoxError:
        result = "refused"
    except Exception:  # noqa: BLE001 - this command searches for such errors
        result = "other"
        trace = traceback.format_exc()
    seconds = time.perf_counter() - start
    faulthandler.cancel_dump_traceback_later()
    path.write_bytes(original)
    return data, result, seconds, trace


def fuzz(seconds: float, seed: int, out: Path) -> int:
    """Run for a number of seconds, print the results, and return the exit code."""
    rng = random.Random(seed)
    root = Path(tempfile.mkdtemp(prefix="uniemox-fuzz-"))
    images, others = image_targets(root, seed)
    pool = DecoderPool(1)
    images += [size_target(root, seed, pool), start_target(root)]
    annotations = annotation_targets(root)
    read_folder(root / "fi")
    start_mib = _peak_mib()
    tallies: dict[str, Tally] = {target.name: Tally() for target in (*images, *annotations)}
    findings: dict[str, int] = {}
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1
        target = rng.choice(images if rng.random() < 0.5 else annotations)
        data, result, duration_s, trace = run_one(target, others, rng)
        tally = tallies[target.name]
        tally.runs += 1
        setattr(tally, result, getattr(tally, result) + 1)
        too_long = duration_s > MAX_DURATION_S
        if target.name == SIZES and (peak := _peak_of(pool)) > MAX_MIB:
            result = "other"
            trace = f"MemoryError: {peak:.0f} MiB"
        if duration_s > tally.slowest_s:
            tally.slowest_s = duration_s
            tally.slowest = f"{len(data)} bytes"
        if result == "other" or too_long:
            summary = trace.strip().splitlines()[-1][:300] if trace else f"took {duration_s:.1f} s"
            our_frames = [line.strip() for line in trace.splitlines() if "uniemox/" in line]
            kind = f"{target.name}: {summary.split(':')[0]} {our_frames[-1] if our_frames else ''}"
            findings[kind] = findings.get(kind, 0) + 1
            if findings[kind] == 1:
                out.mkdir(parents=True, exist_ok=True)
                file = out / f"seed{seed}-{number}.bin"
                file.write_bytes(data)
                print(f"seed {seed}, input {number}: {kind}\n  {summary}\n  input kept in {file}", flush=True)
    shutil.rmtree(root)
    print(f"decoder's process: {_peak_of(pool):.0f} MiB at its peak")
    pool.close()
    return _report(tallies, findings, seconds=seconds, seed=seed, start_mib=start_mib)


def _report(tallies: dict[str, Tally], findings: dict[str, int], *, seconds: float, seed: int, start_mib: float) -> int:
    """Print one row per target and the sum, and return the exit code."""
    print(f"{'target':24}{'inputs':>9}{'read':>9}{'refused':>9}{'other':>7}{'slowest s':>11}")
    for name, tally in tallies.items():
        print(f"{name:24}{tally.runs:>9,}{tally.read:>9,}{tally.refused:>9,}{tally.other:>7,}{tally.slowest_s:>11.3f}")
    runs, read, refused, other = (
        sum(getattr(tally, name) for tally in tallies.values()) for name in ("runs", "read", "refused", "other")
    )
    slowest = max(tallies.values(), key=lambda tally: tally.slowest_s)
    print(f"{'sum':24}{runs:>9,}{read:>9,}{refused:>9,}{other:>7,}{slowest.slowest_s:>11.3f}")
    for kind, count in findings.items():
        print(f"not ours, {count} times: {kind}")
    print(
        f"seed {seed}, {seconds:g} s: {runs:,} inputs, {read:,} read, {refused:,} refused with a UniemoxError, "
        f"{other:,} other exceptions; slowest input {slowest.slowest_s:.3f} s ({slowest.slowest}); "
        f"memory {start_mib:.0f} MiB before, {_peak_mib():.0f} MiB at its peak"
    )
    return 1 if findings else 0


def _peak_of(pool: DecoderPool) -> float:
    """Return the peak memory of the pool's process, MiB."""
    return max((peak_mib(child.process.pid) for child in list(pool._children)), default=0.0)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "uniemox-fuzz-found")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    null = os.open(os.devnull, os.O_WRONLY)
    # libjpeg and libtiff write a message for every broken file.
    os.dup2(null, 2)
    return fuzz(args.seconds, args.seed, args.out)


if __name__ == "__main__":
    sys.exit(main())
