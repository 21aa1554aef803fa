"""Features from a file: a teacher that was run once, anywhere."""

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniemox.data.seen import STORED
from uniemox.errors import TeacherError
from uniemox.io.files import open_regular

# What numpy raises for archives that are missing, mangled or something else.
UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
FIELDS = ("image_keys", "image_features", "texts", "text_features")


class StoredTeacher:
    """Looks features up in a .npz file that `save_features` wrote: by an image's key, by a text.

    Raises TeacherError if the file is none, and when a key or text is asked for that it does not hold.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with open_regular(self.path) as content, np.load(content, allow_pickle=False) as file:
                image_keys, images, texts, text_features = (file[field] for field in FIELDS)
        except UNREADABLE as error:
            raise TeacherError(
                f"{path} is no file of stored features ({error}); write one with uniemox.teacher.save_features"
            ) from error
        check_features(image_keys, images, texts, text_features, where=str(path))
        self.images, self.texts = (torch.from_numpy(part.astype(np.float32)) for part in (images, text_features))
        self.image_rows = {str(key): row for row, key in enumerate(image_keys)}
        self.text_rows = {str(text): row for row, text in enumerate(texts)}
        self.width: int = images.shape[1]
        self.fingerprint = hashlib.sha256(text_features.tobytes() + "\0".join(self.text_rows).encode()).hexdigest()

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """keys: N.  Returns (N, C) float32 on the device of the pixels, which are not needed otherwise."""
        return self._look_up(self.images, self.image_rows, keys, "image").to(pixels.device)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """texts: N.  Returns (N, C) float32."""
        return self._look_up(self.texts, self.text_rows, texts, "text")

    def _look_up(self, features: Tensor, rows: dict[str, int], keys: Sequence[str], what: str) -> Tensor:
        missing = [key for key in keys if key not in rows]
        if missing:
            raise TeacherError(
                f"{self.path} holds no features of the {what} {missing[0]!r}, and {len(missing) - 1} more"
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
    seen: sha256 of the files of all images that the teacher was trained on, as `uniemox.data.seen.seen_by` gives them
    for a fitted one; nothing that is trained on these features is scored on them then.
    Raises TeacherError if lengths or widths contradict each other.
    """
    arrays = [np.asarray(image_keys, dtype=str), image_features.float().cpu().numpy()]
    arrays += [np.asarray(texts, dtype=str), text_features.float().cpu().numpy()]
    check_features(*arrays, where=str(path))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with Path(path).open("wb") as file:
        named: dict[str, Any] = dict(zip(FIELDS, arrays, strict=True)) | {STORED: np.array(sorted(seen), dtype=str)}
        np.savez(file, **named)


def check_features(
    image_keys: np.ndarray, images: np.ndarray, texts: np.ndarray, text_features: np.ndarray, *, where: str
) -> None:
    """Raise TeacherError unless each key has a row and both sides one width of finite numbers."""
    for what, names, features in (("image", image_keys, images), ("text", texts, text_features)):
        if names.ndim != 1 or features.ndim != 2 or len(names) != len(features):
            raise TeacherError(f"{where}: {what} names {names.shape} don't fit {what} features {features.shape}")
        if len(set(names.tolist())) != len(names):
            raise TeacherError(f"{where}: a {what} stands there twice")
        if features.dtype not in (np.float16, np.float32, np.float64) or not np.isfinite(features).all():
            raise TeacherError(f"{where}: the {what} features must be finite numbers of 16, 32 or 64 bits")
    if images.shape[1] != text_features.shape[1]:
        raise TeacherError(
            f"{where}: image features are {images.shape[1]} wide, text features {text_features.shape[1]}"
        )
