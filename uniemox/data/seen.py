"""Hashes of the images that a model or its parts have seen, so that nobody evaluates on them.

A run and a fitted teacher keep a file of them in their folder; a person finder, and the people that it found, keep one
beside their own file. Each hands on what it started from: teacher -> pre-training -> fine-tuning -> evaluation.
"""

import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from uniemox.data.near import image_hashes
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import DataError
from uniemox.io.files import open_regular, read_limited, write_file
from uniemox.io.progress import Progress, silent
from uniemox.io.weight_names import Init, weight_paths

SEEN = "training_pictures.txt"
STORED = "seen"  # name of the array in a file of stored features


def write_seen(folder: Path, data: DataSet, sources: Iterable[str], on_progress: Progress = silent) -> None:
    """Keep the hashes of all images of a data set, and of those that its sources have seen. An existing file stays.

    sources: names of weights and teachers that are started from, see `seen_by`.
    """
    if not (folder / SEEN).exists():
        write_hashes(folder / SEEN, hashes_of(data.samples, on_progress).union(*map(seen_by, sources)))


def hashes_of(samples: Collection[Sample], on_progress: Progress = silent) -> set[str]:
    """The sha256 of every sample's file, and of the one that a packed image was made of."""
    found = {digest for digest in image_hashes(list(samples), on_progress) if digest}
    return found | {sample.source_sha256 for sample in samples if sample.source_sha256}


def seen_by(name: str) -> set[str]:
    """Hashes of what weights or a teacher have seen, as far as known.

    name: as --init, --encoder.start and --teacher.source take it: a run, a file in one, fitted:FOLDER, stored:FILE,
    timm:NAME@FILE, several with commas. What starts from random weights (scratch:) has seen nothing.
    """
    found: set[str] = set()
    for path in [] if Init.parse(name).from_scratch else weight_paths(name):
        found |= read_seen(path)
    return found


def read_seen(path: Path, *, in_folder: bool = True) -> set[str]:
    """Hashes that a folder keeps, or that belong to a file: kept beside it, in it (stored features), or in its folder.

    in_folder: False for a file in a folder of images, which is no run.
    """
    if path.is_dir():
        return _read(path / SEEN)
    beside = seen_file(path)
    found = _read(path.parent / SEEN) if in_folder and not beside.is_file() else _read(beside)
    return found | _stored(path) if path.suffix == ".npz" else found


def seen_file(path: Path) -> Path:
    """Return the file of the hashes that belong to a model file."""
    return path.with_name(f"{path.name}.{SEEN}")


def write_hashes(path: Path, hashes: Iterable[str]) -> None:
    """Write hashes, one a line."""
    write_file(path, "".join(f"{digest}\n" for digest in sorted(hashes)))


def refuse_seen(
    samples: Collection[Sample], hashes: Collection[str], seen: set[str], what: str, *, override: str = ""
) -> None:
    """Raise DataError if samples are among the seen images.

    hashes: the sha256 of every sample's file.  what: the data's name.
    override: the option that scores them all the same, where there is one.
    """
    pairs = zip(samples, hashes, strict=True)
    known = [sample for sample, digest in pairs if {digest, sample.source_sha256} & seen]
    if known:
        raise DataError(
            f"the model was trained on {len(known)} of these {len(samples)} images of {what}, {known[0].key} among "
            "them, itself or through what it was made of (pre-training, teacher, joined runs, person finder): score "
            "others (--split test; --splits FILE, the same for every command, or RUN/splits.json where the run made "
            "the splits)" + (f", or give {override}" if override else "")
        )


def _read(path: Path) -> set[str]:
    try:
        return set(read_limited(path).decode("ascii").split()) if path.is_file() else set()
    except ValueError as error:
        raise DataError(f"{path} is no list of hashes ({error}); restore it from the run's own copy") from error


def _stored(path: Path) -> set[str]:
    try:
        with open_regular(path) as content, np.load(content, allow_pickle=False) as file:
            return set(map(str, file[STORED])) if STORED in file else set()
    except (OSError, ValueError, zipfile.BadZipFile):  # whoever opens the features says what is wrong with them
        return set()
