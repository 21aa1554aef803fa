"""Images for the questions, and their form in a request."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

from uniemox.data import DataSet, Sample, decode_sample
from uniemox.errors import DataError, ImageError
from uniemox.io import MinSides, Progress, data_url, encode_image, silent
from uniemox.plurals import counted

MAX_SIDE_PX = 1024  # of an image that is sent
DECODED_SIDES = MinSides(long_px=MAX_SIDE_PX)
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedImage:
    """An image that models are asked about."""

    sample: Sample
    label: str
    sha256: str
    """Hash of the file, under which answers are saved."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Images for the questions."""

    images: tuple[AskedImage, ...]
    notes: tuple[str, ...]
    """Notes about skipped images."""


def first_message(text: str, image_url: str) -> dict[str, Any]:
    """Return a question about an image in the protocol's form.

    Args:
        text: The question.
        image_url: From `image_url`.
    """
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image_url}}]
    return {"role": "user", "content": content}


def select(data: DataSet, count: int, seed: int, on_progress: Progress = silent) -> Selection:
    """Draw images with a label by seed, each class in proportion to its size; fewer if there are not enough.

    With the same seed, a larger count begins with the images of a smaller one, so answers can be reused. Copies of an
    image count once; an unreadable image is replaced by the next one.

    Raises:
        DataError: If there are none.
    """
    images: dict[str, AskedImage] = {}
    errors = []
    copies = 0
    for sample in _order_by_class_share(data, seed):
        if len(images) == count:
            break
        try:
            digest = hashlib.sha256(sample.image.read()).hexdigest()
            if digest in images:
                copies += 1
                continue
            # Decoded to know that it can be read; the image itself is read again when it is sent.
            decode_sample(sample, DECODED_SIDES)
        except (OSError, ImageError) as error:
            errors.append(str(error))
            continue
        images[digest] = AskedImage(sample=sample, label=str(data.label_of(sample)), sha256=digest)
        on_progress("reading images", len(images), count)
    if not images:
        raise DataError(f"{data.name} has no readable image with a label, so there is nothing to ask about")
    notes = []
    if len(images) < count:
        notes.append(f"{len(images)} of {count} images: there are no more")
    if copies:
        notes.append(f"{counted(copies, 'copy of another image was', 'copies of other images were')} skipped")
    if errors:
        notes.append(f"{counted(len(errors), 'image')} can't be read, skipped: {errors[0]}")
    return Selection(tuple(images.values()), tuple(notes))


def _order_by_class_share(data: DataSet, seed: int) -> list[Sample]:
    """Order all samples with a label so that every prefix has each class in proportion to its size (Webster)."""

    def random_order(sample: Sample) -> str:
        # A hash instead of a generator: a sample's number depends on its key alone, not on the samples before it.
        return hashlib.sha256(f"{seed} {sample.key}".encode("utf-8", "surrogatepass")).hexdigest()

    labelled = sorted((sample for sample in data.samples if sample.label is not None), key=random_order)
    sizes = Counter(sample.label for sample in labelled)
    counts: Counter[int | None] = Counter()
    # Sample k of a class with n samples stands at (k + 1/2) / n: classes are spread evenly from 0 to 1.
    positions = []
    for sample in labelled:
        positions.append((counts[sample.label] + 0.5) / sizes[sample.label])
        counts[sample.label] += 1
    order = sorted(range(len(labelled)), key=lambda i: (positions[i], random_order(labelled[i])))
    return [labelled[i] for i in order]


def image_url(sample: Sample) -> str:
    """Encode an image for a request: a JPEG of at most 1,024 px without the file's metadata, in base64.

    Raises:
        ImageError: If it can't be read.
    """
    image, _ = decode_sample(sample, DECODED_SIDES)
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return data_url(encode_image(image, "JPEG", quality=JPEG_QUALITY), "image/jpeg")
