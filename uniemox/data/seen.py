"""Hashes of the images used to train a model or its parts, so that nobody evaluates on them.

An image has two: that of its file, and a perceptual one, by which copies in another file are recognised.

A run and a fitted teacher store a file of hashes in their folder; a person detector, and a sidecar of its boxes, next
to their own file. Each includes its sources' hashes: teacher -> pre-training -> fine-tuning -> evaluation.
"""

import json
import zipfile
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from uniemox.classifier_info import PersonPolicy
from uniemox.data.hashes import Fingerprint, decoded_hashes, fingerprints, small_images, stored_or_image_hashes
from uniemox.data.perceptual import PerceptualIndex, Thumbs
from uniemox.data.sample import DataSet, Sample
from uniemox.data.synthetic_scenes import SyntheticImage
from uniemox.data.unreadable import UNREADABLE_FILE, reasons_of, write_unreadable
from uniemox.errors import DataError
from uniemox.io.arrays import load_arrays
from uniemox.io.files import open_regular, read_limited, write_file
from uniemox.io.progress import Progress, silent
from uniemox.io.run_files import ENCODER, FITTED_TEACHER, ONNX, WEIGHTS
from uniemox.io.weight_names import EMBEDDED, ONNX_ENDING, Init, weight_paths

SEEN = "training_pictures.txt"
# How to leave copies out, for messages.
EXCLUDE_COPIES = "uniemox data check KIND:PATH --json > check.json, then --exclude check.json"
OTHERS = "others"
"""Line of a file of hashes, or item of a set of hashes: the model was also trained on images that are not known."""
# Names of the models of a run, its export for a hub, or a teacher: the hashes of their folder are theirs.
_OWN_FILES = (WEIGHTS, ONNX, ENCODER, FITTED_TEACHER)
# Key of the metadata of a safetensors file, see checkpoints/saving.py; headers of large networks have 1 MB.
METADATA_KEY = "uniemox"
MAX_HEADER_BYTES = 2**26
# Name of the array of hashes in a file of stored features.
STORED = "seen"


def write_seen(
    folder: Path,
    data: DataSet,
    sources: Iterable[str],
    on_progress: Progress = silent,
    *,
    person: PersonPolicy | None = None,
) -> dict[str, str]:
    """Write the hashes of all readable images of a data set and of the training images of its sources.

    The reasons for unreadable images are written next to the hashes. If the file exists, only the images are added that
    it does not have: they could not be read then, or the data were replaced since.

    Args:
        folder: Folder of the run or teacher.
        sources: Names of initial weights and teachers, see `seen_by`.
        person: Policy of the person view, see `decoded_hashes`.

    Returns:
        The reasons for unreadable images, by key.
    """
    if (folder / SEEN).exists():
        return _add_new(folder, data.samples, sources, on_progress, person)
    hashes, broken = check_images(data.samples, on_progress, person)
    write_unreadable(folder / UNREADABLE_FILE, broken)
    write_hashes(folder / SEEN, hashes.union(*map(seen_by, sources)))
    return broken


def _add_new(
    folder: Path,
    samples: Collection[Sample],
    sources: Iterable[str],
    on_progress: Progress,
    person: PersonPolicy | None,
) -> dict[str, str]:
    """Add the hashes of images whose content is not yet among the hashes of a run, and check if they can be read.

    The hashes of the sources are added again: a source may have been trained anew since.

    Returns:
        The reasons for unreadable images, by key.
    """
    known = _read(folder / SEEN)
    # Drawn scenes are the same in every run.
    files = [sample for sample in samples if not isinstance(sample.image, SyntheticImage)]
    digests = stored_or_image_hashes(files, on_progress)
    new = [sample for sample, digest in zip(files, digests, strict=True) if digest not in known]
    hashes, broken = check_images(new, person=person) if new else (set[str](), {})
    all_hashes = known.union(hashes, *map(seen_by, sources))
    if all_hashes != known:
        write_hashes(folder / SEEN, all_hashes)
    if hashes:
        write_unreadable(folder / UNREADABLE_FILE, broken)
    return broken


def hashes_of(samples: Collection[Sample], on_progress: Progress = silent) -> set[str]:
    """Return both hashes of every readable image, and the sha256 of the original file of a packed image."""
    return check_images(samples, on_progress)[0]


def check_images(
    samples: Collection[Sample], on_progress: Progress = silent, person: PersonPolicy | None = None
) -> tuple[set[str], dict[str, str]]:
    """Return the hashes of all readable images, see `hashes_of`, and the reasons for unreadable ones, by key.

    Args:
        person: Policy of the person view, see `decoded_hashes`.
    """
    images, broken = fingerprints(list(samples), on_progress, person)
    return hashes_in(samples, images), reasons_of(broken)


def hashes_in(samples: Iterable[Sample], images: Iterable[Fingerprint]) -> set[str]:
    """Return both hashes of every readable image, and the sha256 of the original file of a packed image.

    Args:
        samples: N samples.
        images: Fingerprint of each sample's image.
    """
    hashes = set[str]()
    for sample, image in zip(samples, images, strict=True):
        # An unreadable image has no hash, and nothing is trained on it.
        if image.sha256:
            hashes |= image.hashes
            if sample.source_sha256:
                hashes.add(sample.source_sha256)
    return hashes


def seen_by(name: str) -> set[str]:
    """Return the hashes of the images used to train weights or a teacher, as far as known.

    The set contains OTHERS for a model of uniemox that has no hashes beside it.

    Args:
        name: As for --init, --encoder.start and --teacher.source: a run, a file in one, fitted:FOLDER, stored:FILE,
            timm:NAME@FILE, several with commas. Random weights (scratch:) have none.
    """
    if Init.parse(name).from_scratch:
        return set()
    hashes = set[str]()
    for path in weight_paths(name):
        of_path = read_seen(path)
        if not of_path and _is_own_model(path):
            of_path = {OTHERS}
        hashes |= of_path
    return hashes


def _is_own_model(path: Path) -> bool:
    """Return True for a run, its export, a fitted teacher, or a file of one, also under another name."""
    if path.is_dir():
        return any((path / name).is_file() for name in _OWN_FILES)
    return path.is_file() and (path.name in _OWN_FILES or path.suffix == ONNX_ENDING or _is_own_encoder(path))


def _is_own_encoder(path: Path) -> bool:
    """Return True for a safetensors file with an encoder that uniemox has trained; converted ones name their method."""
    try:
        with open_regular(path) as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, MAX_HEADER_BYTES)))
            return bool(json.loads(header["__metadata__"][METADATA_KEY])["method"] == METADATA_KEY)
    # Another file, or one without this entry.
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_seen(path: Path, *, in_folder: bool = True) -> set[str]:
    """Read the hashes of a folder or file: next to the file, in it (stored features), or in its folder.

    The set contains OTHERS if the model was also trained on images that are not known. A file that was copied into a
    run's folder is such a model.

    Args:
        in_folder: False: do not read the hashes of the file's folder, which is a folder of images and not a run.
    """
    if path.is_dir():
        models = [path / name for name in _OWN_FILES]
        if not any(model.is_file() for model in models):
            # The folder of another program.
            models = sorted(path.iterdir())
        return set().union(_read(path / SEEN), *(_read(seen_file(model)) for model in models))
    file = seen_file(path)
    has_file = file.is_file()
    if in_folder and not has_file:
        file = path.parent / SEEN
    hashes = _read(file)
    is_known = has_file or path.parent == EMBEDDED or path.name in _OWN_FILES
    if hashes and not is_known:
        hashes.add(OTHERS)
    if path.suffix == ".npz":
        return hashes | _stored(path)
    return hashes


def seen_file(path: Path) -> Path:
    """Return the path of the hashes of a model file, next to it."""
    return path.with_name(f"{path.name}.{SEEN}")


def write_hashes(path: Path, hashes: Iterable[str]) -> None:
    """Write hashes, one per line."""
    write_file(path, "".join(f"{digest}\n" for digest in sorted(hashes)))


class SeenSamples(NamedTuple):
    """Samples that a model was trained on."""

    same_files: list[Sample]
    """Those whose files, or their originals, are training images."""
    copies: list[Sample]
    """Those that show a training image, but are other files: saved again, resized, cropped a little."""
    samples: list[Sample]
    """Both, in the order of the search."""


class SeenSearch:
    """Looks training images up among samples; reads the samples' images once, for any number of models.

    Args:
        samples: The samples.
        hashes: The sha256 of every sample's file; empty for an unreadable one.
        thumbs: Small grey copy of every sample's image; None: read when they are needed.
        on_progress: Called after each image.
    """

    def __init__(
        self,
        samples: Collection[Sample],
        hashes: Collection[str],
        *,
        thumbs: Sequence[Thumbs | None] | None = None,
        on_progress: Progress = silent,
    ) -> None:
        self.samples = list(samples)
        self.hashes = list(hashes)
        self.on_progress = on_progress
        self._thumbs = thumbs

    @property
    def thumbs(self) -> Sequence[Thumbs | None]:
        """Small grey copy of every sample's image; None for an unreadable one."""
        if self._thumbs is None:
            self._thumbs = small_images(self.samples, self.on_progress)
        return self._thumbs

    def same_files(self, training_hashes: Collection[str]) -> list[Sample]:
        """Return the readable samples whose files, or their originals, are training images."""
        training_hashes = frozenset(training_hashes)
        pairs = zip(self.samples, self.hashes, strict=True)
        overlap = [sample for sample, digest in pairs if {digest, sample.source_sha256} & training_hashes]
        # Empty or damaged files are equal to each other, and no model was trained on them.
        _, broken = decoded_hashes(overlap)
        reasons = reasons_of(broken)
        return [sample for sample in overlap if sample.key not in reasons]

    def look_up(self, training_hashes: Collection[str]) -> SeenSamples:
        """Return the samples that are training images, in the same or another file."""
        same = self.same_files(training_hashes)
        index = PerceptualIndex.of(training_hashes)
        if not len(index):
            return SeenSamples(same, [], same)
        same_keys = {sample.key for sample in same}
        others = [
            (sample, thumb)
            for sample, thumb in zip(self.samples, self.thumbs, strict=True)
            if thumb is not None and sample.key not in same_keys
        ]
        if not others:
            return SeenSamples(same, [], same)
        rows = index.found(np.stack([thumb for _, thumb in others]))
        copies = [others[row][0] for row in sorted(rows)]
        keys = same_keys | {sample.key for sample in copies}
        return SeenSamples(same, copies, [sample for sample in self.samples if sample.key in keys])


def seen_among(samples: Collection[Sample], hashes: Collection[str], training_hashes: Collection[str]) -> list[Sample]:
    """Return the readable samples that are training images.

    Args:
        samples: The samples.
        hashes: The sha256 of every sample's file.
        training_hashes: Hashes of the training images, see `seen_by`.
    """
    return SeenSearch(samples, hashes).look_up(training_hashes).samples


def refuse_seen(
    samples: Collection[Sample],
    hashes: Collection[str],
    training_hashes: set[str],
    data_name: str,
    *,
    thumbs: Sequence[Thumbs | None] | None = None,
    override: str = "",
    splits: Path | None = None,
    start: str = "",
) -> None:
    """Refuse samples that are among the training images.

    Args:
        hashes: The sha256 of every sample's file.
        training_hashes: Hashes of the training images, see `read_seen`.
        data_name: Name of the data, for the message.
        thumbs: See `SeenSearch`.
        override: Option that scores the samples anyway, for the message; empty if there is none.
        splits: File of the splits that the training made, for the message; None: it made none, or they are not known.
        start: Initial weights of the training, for the message, see `seen_by`; empty if they are not known.

    Raises:
        DataError: If a readable sample is a training image, in the same file or another one.
    """
    search = SeenSearch(samples, hashes, thumbs=thumbs)
    _, copies, overlap = search.look_up(training_hashes)
    if not overlap:
        return
    way_out = f", or give {override}" if override else ""
    other_files = ""
    if copies:
        other_files = (
            f" ({len(copies)} of them in another file: saved again, resized or slightly cropped, such as "
            f"{copies[0].key})"
        )
    left_out = ""
    if len(overlap) < len(samples):
        left_out = (
            f"; if these are copies of training images in another file, train again without them ({EXCLUDE_COPIES})"
        )
    remedy = _remedy(samples, overlap, splits)
    seen_by_start = len(search.look_up(_seen_by_start(start) & training_hashes).samples)
    if seen_by_start:
        other_images = "take other test images, or train again from other initial weights (--init)"
        # A split that the run held out does not help if its initial weights have seen the images.
        if seen_by_start == len(overlap):
            remedy = f"its initial weights, {start}, were trained on all {seen_by_start}: {other_images}"
        else:
            remedy += f"; its initial weights, {start}, were trained on {seen_by_start} of them: {other_images}"
    raise DataError(
        f"the model was trained on {len(overlap)} of these {len(samples)} images of {data_name}, {overlap[0].key} "
        f"among them{other_files}, itself or through its parts (pre-training, teacher, joined runs, person detector), "
        f"or calibrated on them: {remedy}{left_out}{way_out}"
    )


def _seen_by_start(start: str) -> set[str]:
    """Return the hashes of the initial weights that a run's record names; none if there can be no such file."""
    try:
        return seen_by(start)
    # ValueError: the name has a null character; OSError: it is too long.
    except (OSError, ValueError):
        return set()


def _remedy(samples: Iterable[Sample], overlap: Iterable[Sample], splits_file: Path | None) -> str:
    """Return which images to use instead of training images: those of a split that has none, if there is one.

    Args:
        samples: All samples.
        overlap: Those that are training images.
        splits_file: File of the splits that the training made, if it is known.
    """
    splits = dict.fromkeys(sample.split for sample in samples if sample.split)
    unseen = [split for split in splits if split not in {sample.split for sample in overlap}]
    if unseen:
        return f"use a split without them (--split {unseen[0]}, data.only('{unseen[0]}') in Python)"
    files = "--splits FILE, the same for every command, or RUN/splits.json if the run made the splits"
    if splits_file is not None:
        files = f"--splits {splits_file}"
    if splits:
        names = " and ".join(splits)
        return f"{names} was not held out of its training; use another split (--split), or the right splits ({files})"
    return f"use images of a split that was held out ({files})"


def _read(path: Path) -> set[str]:
    """Return the hashes of a file, one per line; an empty set if there is no file."""
    try:
        if path.is_file():
            return set(read_limited(path).decode("ascii").split())
        return set()
    except ValueError as error:
        raise DataError(f"{path} is not a list of hashes ({error}); restore it from the run's own copy") from error


def _stored(path: Path) -> set[str]:
    """Return the hashes in a file of stored features."""
    try:
        return set(map(str, load_arrays(path, [STORED]).get(STORED, ())))
    except (OSError, ValueError, zipfile.BadZipFile):
        # The reader of the features reports the fault.
        return set()
