"""Stored features of a teacher."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uniemox.data.sample import Sample
from uniemox.data.seen import STORED, seen_by
from uniemox.data.unreadable import UNREADABLE_FILE, reasons_of, write_unreadable
from uniemox.errors import TeacherError
from uniemox.io.arrays import load_arrays
from uniemox.io.files import replacing
from uniemox.io.progress import Progress, silent
from uniemox.io.weight_archives import ARCHIVE_ERRORS
from uniemox.teacher.protocol import Teacher
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import count_workers, setup_device
from uniemox.views.loader import load_batches
from uniemox.views.transfer import to_device
from uniemox.views.transforms import WholeViews

# Maximum bytes of all texts in numpy, which pads each to the longest.
MAX_TEXT_BYTES = 2**30
FIELDS = ("image_keys", "image_features", "texts", "text_features")


class StoredTeacher:
    """Teacher that looks features up in a .npz file of `save_features`: by an image's key, or by a text.

    Args:
        path: File of `save_features`.
        of_images: Teacher that computes image features instead; the file then only has those of texts.

    Raises:
        TeacherError: If the file is not such a file. The methods raise it for a key or text that the file lacks.
    """

    def __init__(self, path: str | Path, of_images: Teacher | None = None) -> None:
        self.path = Path(path)
        self.of_images = of_images
        try:
            arrays = load_arrays(self.path, FIELDS)
            image_keys, images, texts, text_features = (arrays[field] for field in FIELDS)
        except ARCHIVE_ERRORS as error:
            raise TeacherError(
                f"{path} is not a file of stored features ({error}); write one with uniemox teacher store"
            ) from error
        check_features(image_keys, images, texts, text_features, where=str(path))
        self.images, self.texts = (torch.from_numpy(part.astype(np.float32)) for part in (images, text_features))
        self.image_rows = {str(key): row for row, key in enumerate(image_keys)}
        self.text_rows = {str(text): row for row, text in enumerate(texts)}
        self.width: int = images.shape[1]

    def image_features(self, pixels: Tensor, keys: Sequence[str]) -> Tensor:
        """Return features (N, C) float32 on the device of the pixels (N, 3, H, W) in [0, 1].  keys: N."""
        if self.of_images is not None:
            return self.of_images.image_features(pixels, keys)
        return to_device(self._look_up(self.images, self.image_rows, keys, "image"), pixels.device)

    def text_features(self, texts: Sequence[str]) -> Tensor:
        """Return features (N, C) float32.  texts: N."""
        return self._look_up(self.texts, self.text_rows, texts, "text")

    def _look_up(self, features: Tensor, rows: dict[str, int], keys: Sequence[str], kind: str) -> Tensor:
        """Return the rows of features (N, C) of N keys.

        Raises:
            TeacherError: For a key without features.
        """
        missing = [key for key in keys if key not in rows]
        if missing:
            raise TeacherError(
                f"{self.path} has no features for the {kind} {missing[0]!r}, and {len(missing) - 1} more; run "
                "uniemox teacher store on these data, with or without the emotion in the texts as in this training"
            )
        return features[[rows[key] for key in keys]]


def save_features(
    path: str | Path,
    *,
    image_keys: Sequence[str],
    image_features: Tensor,
    texts: Sequence[str],
    text_features: Tensor,
    trained_on: Collection[str] = (),
) -> None:
    """Write a teacher's features to a .npz file, for `StoredTeacher`.

    Args:
        path: File to write.
        image_keys: M keys of images.
        image_features: (M, C).
        texts: T texts.
        text_features: (T, C).
        trained_on: sha256 of the teacher's training images, from `uniemox.data.seen.seen_by` for a fitted teacher.
            Models trained on these features are then not scored on those images.

    Raises:
        TeacherError: If lengths or widths contradict each other, or if a text is too long.
    """
    check_lengths(image_keys, texts, where=str(path))
    arrays = [np.asarray(image_keys, dtype=str), image_features.float().cpu().numpy()]
    arrays += [np.asarray(texts, dtype=str), text_features.float().cpu().numpy()]
    check_features(*arrays, where=str(path))
    with replacing(Path(path), TeacherError) as partial, partial.open("wb") as file:
        fields: dict[str, Any] = dict(zip(FIELDS, arrays, strict=True))
        fields[STORED] = np.array(sorted(trained_on), dtype=str)
        np.savez(file, **fields)


def check_lengths(*names: Sequence[str], where: str) -> None:
    """Check the memory that texts take in numpy, which pads all of them to the longest.

    Raises:
        TeacherError: If it is more than 1 GiB.
    """
    for texts in names:
        longest = max(map(len, texts), default=0)
        # numpy stores 4 bytes per character.
        if 4 * longest * len(texts) > MAX_TEXT_BYTES:
            raise TeacherError(
                f"{where}: a text has {longest:,} characters, too many for {len(texts):,} texts; shorten it"
            )


def check_features(
    image_keys: np.ndarray, images: np.ndarray, texts: np.ndarray, text_features: np.ndarray, *, where: str
) -> None:
    """Check arrays of keys and features.

    Raises:
        TeacherError: Unless each key has a row, and image and text features have the same width and finite numbers.
    """
    for kind, names, features in (("image", image_keys, images), ("text", texts, text_features)):
        if names.ndim != 1 or features.ndim != 2 or len(names) != len(features):
            raise TeacherError(f"{where}: {kind} names {names.shape} don't match {kind} features {features.shape}")
        # Arrays of elements without bytes need none in a file, but memory for any number of names.
        if not names.dtype.itemsize or not features.shape[1]:
            raise TeacherError(f"{where}: the {kind} names or features are empty")
        if len(set(names.tolist())) != len(names):
            raise TeacherError(f"{where}: a {kind} occurs twice")
        if features.dtype not in (np.float16, np.float32, np.float64) or not np.isfinite(features).all():
            raise TeacherError(f"{where}: the {kind} features must be finite numbers of 16, 32 or 64 bits")
    if images.shape[1] != text_features.shape[1]:
        raise TeacherError(
            f"{where}: image features are {images.shape[1]} wide, text features {text_features.shape[1]}"
        )


# Side of the views that the teacher gets, in px; it resizes them itself.
WHOLE_PX = 224
# Images or texts per batch.
BATCH = 64


def store_features(
    teacher: Teacher,
    source: str,
    samples: Sequence[Sample],
    path: Path,
    *,
    texts: Sequence[str],
    with_person: bool = False,
    hardware: HardwareConfig | None = None,
    on_progress: Progress = silent,
) -> int:
    """Write a teacher's features of whole images, and of texts, to one .npz file.

    Unreadable images are left out and listed next to the file, see `unreadable_file`.

    Args:
        teacher: The teacher.
        source: The teacher's name, from which its training images are known.
        samples: Images; empty to store texts alone.
        path: File to write.
        texts: Distinct texts, see `distinct_texts`; empty for a teacher without a text encoder.
        with_person: Store the mean of the features of whole image and person.
        hardware: Device on which the teacher is, and number of loading processes; None: the run's default.
        on_progress: Called with the stage, the number done and the total.

    Returns:
        The number of readable images.

    Raises:
        TeacherError: If no sample is readable.
    """
    check_lengths([sample.key for sample in samples], texts, where=str(path))
    hardware = hardware or HardwareConfig()
    device = setup_device(hardware)
    workers = count_workers(hardware, device)
    # Texts come first, so that a teacher without a text encoder is refused at once.
    text_features = []
    for i in range(0, len(texts), BATCH):
        text_features.append(teacher.text_features(texts[i : i + BATCH]).cpu())
        on_progress("computing the teacher's text features", min(i + BATCH, len(texts)), len(texts))
    keys: list[str] = []
    rows: list[torch.Tensor] = []
    broken: dict[str, str] = {}
    for batch in load_batches(samples, WholeViews(WHOLE_PX), BATCH, workers=workers):
        if batch.samples:
            names = [sample.key for sample in batch.samples]
            views = [batch.scene, batch.person] if with_person else [batch.scene]
            by_view = [teacher.image_features(to_device(view, device).float() / 255, names).cpu() for view in views]
            rows.append(torch.stack(by_view).mean(dim=0))  # (n, C)
            keys += names
        broken |= reasons_of(batch.broken)
        on_progress("computing the teacher's image features", len(keys), len(samples))
    if samples and not rows:
        raise TeacherError(f"none of {len(samples):,} images can be read, so there are no features to store")
    with replacing(path) as partial:
        save_features(
            partial,
            image_keys=keys,
            image_features=torch.cat(rows) if rows else torch.empty(0, teacher.width),
            texts=texts,
            text_features=torch.cat(text_features) if text_features else torch.empty(0, teacher.width),
            trained_on=seen_by(source),
        )
    write_unreadable(unreadable_file(path), broken)
    return len(keys)


def unreadable_file(path: Path) -> Path:
    """Return the file that lists unreadable images, next to a file of features."""
    return path.with_name(f"{path.name}.{UNREADABLE_FILE}")
