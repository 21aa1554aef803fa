"""Stored features of a teacher, and the cache of its text features."""

import hashlib
import struct
import threading
import uuid
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniemox.data.sample import DataSet
from uniemox.data.seen import STORED, seen_by
from uniemox.errors import TeacherError
from uniemox.io.files import open_regular, replacing
from uniemox.io.progress import Progress, silent
from uniemox.teacher.protocol import Teacher
from uniemox.views.loader import ViewDataset, build_loader
from uniemox.views.transforms import WholeViews

# Errors of numpy for archives that are missing, damaged or of another kind.
UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
MAX_TEXT_BYTES = 2**30
FIELDS = ("image_keys", "image_features", "texts", "text_features")


class StoredTeacher:
    """Teacher that looks features up in a .npz file of `save_features`: by an image's key, or by a text.

    Raises TeacherError if the file is not such a file, and for a key or text that it lacks.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open_regular(self.path) as content, np.load(content, allow_pickle=False) as file:
                image_keys, images, texts, text_features = (file[field] for field in FIELDS)
        except UNREADABLE as error:
            raise TeacherError(
                f"{path} is not a file of stored features ({error}); write one with uniemox.teacher.save_features"
            ) from error
        check_features(image_keys, images, texts, text_features, where=str(path))
        self.images, self.texts = (torch.from_numpy(part.astype(np.float32)) for part in (images, text_features))
        self.image_rows = {str(key): row for row, key in enumerate(image_keys)}
        self.text_rows = {str(text): row for row, text in enumerate(texts)}
        self.width: int = images.shape[1]
        self.fingerprint = hashlib.sha256(text_features.tobytes() + "\0".join(self.text_rows).encode()).hexdigest()

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Return features (N, C) float32 on the device of the pixels, which are otherwise ignored.  keys: N."""
        return self._look_up(self.images, self.image_rows, keys, "image").to(pixels.device)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return features (N, C) float32.  texts: N."""
        return self._look_up(self.texts, self.text_rows, texts, "text")

    def _look_up(self, features: Tensor, rows: dict[str, int], keys: Sequence[str], what: str) -> Tensor:
        missing = [key for key in keys if key not in rows]
        if missing:
            raise TeacherError(
                f"{self.path} has no features for the {what} {missing[0]!r}, and {len(missing) - 1} more"
            )
        return features[[rows[key] for key in keys]]


def save_features(
    path: str | Path,
    *,
    image_keys: Sequence[str],
    image_features: Tensor,
    texts: Sequence[str],
    text_features: Tensor,
    seen: Collection[str] = (),
) -> None:
    """Write a teacher's features to a .npz file, for `StoredTeacher`.

    image_features: (M, C), of the M image_keys; text_features: (T, C), of the T texts.
    seen: sha256 of the teacher's training images, from `uniemox.data.seen.seen_by` for a fitted teacher. Models trained
    on these features are then not scored on those images.
    Raises TeacherError if lengths or widths contradict each other.
    """
    check_lengths(image_keys, texts, where=str(path))
    arrays = [np.asarray(image_keys, dtype=str), image_features.float().cpu().numpy()]
    arrays += [np.asarray(texts, dtype=str), text_features.float().cpu().numpy()]
    check_features(*arrays, where=str(path))
    with replacing(Path(path), TeacherError) as partial, partial.open("wb") as file:
        named: dict[str, Any] = dict(zip(FIELDS, arrays, strict=True)) | {STORED: np.array(sorted(seen), dtype=str)}
        np.savez(file, **named)


def check_lengths(*names: Sequence[str], where: str) -> None:
    """Raise TeacherError for texts that take more than 1 GiB in numpy, which pads all of them to the longest."""
    for texts in names:
        longest = max(map(len, texts), default=0)
        if 4 * longest * len(texts) > MAX_TEXT_BYTES:
            raise TeacherError(
                f"{where}: a text has {longest:,} characters, too many for {len(texts):,} texts; shorten it"
            )


def check_features(
    image_keys: np.ndarray, images: np.ndarray, texts: np.ndarray, text_features: np.ndarray, *, where: str
) -> None:
    """Raise TeacherError unless each key has a row, and both sides have the same width and finite numbers."""
    for what, names, features in (("image", image_keys, images), ("text", texts, text_features)):
        if names.ndim != 1 or features.ndim != 2 or len(names) != len(features):
            raise TeacherError(f"{where}: {what} names {names.shape} don't match {what} features {features.shape}")
        if not names.dtype.itemsize or not features.shape[1]:  # they need no bytes in a file, but memory
            raise TeacherError(f"{where}: the {what} names or features are empty")
        if len(set(names.tolist())) != len(names):
            raise TeacherError(f"{where}: a {what} occurs twice")
        if features.dtype not in (np.float16, np.float32, np.float64) or not np.isfinite(features).all():
            raise TeacherError(f"{where}: the {what} features must be finite numbers of 16, 32 or 64 bits")
    if images.shape[1] != text_features.shape[1]:
        raise TeacherError(
            f"{where}: image features are {images.shape[1]} wide, text features {text_features.shape[1]}"
        )


WHOLE_PX, BATCH = 224, 64


def store_features(
    teacher: Teacher,
    source: str,
    data: DataSet,
    path: Path,
    *,
    texts: Sequence[str],
    with_person: bool = False,
    device: torch.device | str = "cpu",
    on_progress: Progress = silent,
) -> int:
    """Write a teacher's features of every whole image of a data set, and of texts, to one .npz file.

    source: the teacher's name, from which its training images are known.  texts: distinct ones, see `distinct_texts`;
    none for a teacher without a text encoder.  with_person: store the mean of the features of whole image and person.
    device: where the teacher is.
    Unreadable images are left out. Returns the number of readable ones. Raises TeacherError if there are none.
    """
    check_lengths([sample.key for sample in data.samples], texts, where=data.name)
    places = [[(0, i) for i in range(start, min(start + BATCH, len(data)))] for start in range(0, len(data), BATCH)]
    keys, rows = list[str](), list[torch.Tensor]()
    for batch in build_loader(ViewDataset(data.samples, WholeViews(WHOLE_PX)), places, workers=1):
        if batch.samples:
            names = [sample.key for sample in batch.samples]
            views = [batch.scene, batch.person] if with_person else [batch.scene]
            asked = [teacher.image_features(view.to(device).float() / 255, names).cpu() for view in views]
            rows.append(torch.stack(asked).mean(dim=0))  # (n, C)
            keys += names
        on_progress("computing the teacher's image features", len(keys), len(data))
    if not rows:
        raise TeacherError(f"none of the images of {data.name} can be read, so there are no features to store")
    features = [teacher.text_features(texts[i : i + BATCH]).cpu() for i in range(0, len(texts), BATCH)]
    with replacing(path) as partial:
        save_features(
            partial,
            image_keys=keys,
            image_features=torch.cat(rows),
            texts=texts,
            text_features=torch.cat(features) if features else torch.empty(0, teacher.width),
            seen=seen_by(source),
        )
    return len(keys)


KEY_BYTES = 32  # of SHA-256
SUFFIX = ".safetensors"


class TextCachedTeacher:
    """Teacher with a persistent cache: another teacher encodes each distinct text only once, across processes.

    folder: created if missing; several processes, on several machines, may share it. Each process writes the features
    that it computed to its own file, atomically, and never changes it. So no locks are needed, and network file systems
    work; two processes may both encode the same text. A feature's key is a hash of the teacher's fingerprint and the
    text, so teachers never share features.
    Raises TeacherError if the folder can't be read or written.
    """

    def __init__(self, teacher: Teacher, folder: str | Path) -> None:
        self.teacher, self.folder = teacher, Path(folder)
        self.width, self.fingerprint = teacher.width, teacher.fingerprint
        self.lock = threading.Lock()
        self.known: dict[bytes, NDArray[np.float32]] = {}
        self.read: set[str] = set()  # names of files already read
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TeacherError(f"{folder} can't keep text features ({error}); choose another path") from error
        self._read_new()

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Return Ω, directly from the teacher."""
        return self.teacher.image_features(pixels, keys)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return features (N, C) float32, on the CPU.  texts: N."""
        if not texts:
            return torch.empty(0, self.width)
        key_of = {text: hashlib.sha256(f"{self.fingerprint}\0{text}".encode()).digest() for text in texts}
        with self.lock:
            if key_of.values() - self.known.keys():
                self._read_new()
            if missing := {text: key for text, key in key_of.items() if key not in self.known}:
                self._ask(missing)
            return torch.from_numpy(np.stack([self.known[key_of[text]] for text in texts]))

    def _ask(self, key_of: dict[str, bytes]) -> None:
        """Encode texts with the teacher, and store the features."""
        values = self.teacher.text_features(list(key_of)).float().cpu().numpy()
        self.known.update(zip(key_of.values(), values, strict=True))
        name = f"{uuid.uuid4().hex}{SUFFIX}"
        rows = np.frombuffer(b"".join(key_of.values()), np.uint8).reshape(-1, KEY_BYTES)
        with replacing(self.folder / name, TeacherError) as partial:
            safetensors.numpy.save_file({"keys": rows, "values": values}, partial)
        self.read.add(name)

    def _read_new(self) -> None:
        """Read features that other or earlier processes have written since the last call."""
        try:
            names = {path.name for path in self.folder.iterdir() if path.suffix == SUFFIX} - self.read
        except OSError as error:
            raise TeacherError(f"{self.folder} can't be read ({error}); choose another path") from error
        for name in sorted(names):
            try:
                arrays = safetensors.numpy.load_file(self.folder / name)
                keys, values = arrays["keys"], arrays["values"]
            except (OSError, KeyError, safetensors.SafetensorError) as error:
                raise TeacherError(f"{self.folder / name} can't be read ({error}); delete it, it is a cache") from error
            if keys.shape[1:] == (KEY_BYTES,) and values.shape == (len(keys), self.width):  # else another teacher's
                self.known.update(zip((row.tobytes() for row in keys), values.astype(np.float32), strict=True))
            self.read.add(name)
