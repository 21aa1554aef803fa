"""Lines of a survey: predictions with the date and the features of each image."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from uniemox.errors import ConfigError, ImageError
from uniemox.insight.features import pack
from uniemox.io.borders import image_border
from uniemox.io.files import read_limited
from uniemox.io.images import MAX_BYTES, open_image
from uniemox.io.raw_preview import exif_of_raw, is_raw
from uniemox.plurals import counted
from uniemox.predict.data_urls import is_data_url
from uniemox.predict.path_set import PathSet
from uniemox.predict.prediction import Failure, Prediction
from uniemox.predict.predictor import Predictor
from uniemox.predict.writing import ResultFile

# Consumes an iterable without storing its elements.
EXHAUST = partial(deque[Any], maxlen=0)
MAX_EXIF_BYTES = 2**20
# In this order: when it was taken, when a scanner or camera digitised it, when the file was last changed.
_DATE_TAGS = (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime)
# 2015:06:01 by the standard; phones and scanners also write 2015-06-01, 2015/06/01, 2015.6.1, 2015 06 01 and 20150601.
_DATE = re.compile(r"[\s\0]*(\d{4})(?:\s*[:/.\-\s]\s*(\d\d?)\s*[:/.\-\s]\s*(\d\d?)(?!\d)|(\d\d)(\d\d)(?!\d))")


def record_requested(images: Iterable[str], requested: PathSet, report: Callable[[str], object]) -> Iterator[str]:
    """Yield the paths, those of one file once, and add each to `requested`.

    Args:
        images: Paths of the images.
        requested: Gets the paths.
        report: Gets the number of paths that were left out, because an earlier one names the same file.

    Raises:
        ConfigError: For a data URL, which has no path to group by.
    """
    # Hashes, because millions of absolute paths would fill the memory.
    hashes = set[int]()
    repeated = 0
    for image in images:
        if is_data_url(image):
            raise ConfigError("a survey is about files; save the image of the data URL and give its path")
        path_hash = hash(os.path.abspath(image))
        if path_hash in hashes:
            repeated += 1
            continue
        hashes.add(path_hash)
        requested.add(image)
        yield image
    if repeated:
        images_text = counted(repeated, "image was", "images were")
        report(f"{images_text} named more than once and counted once")


class NewAnswers:
    """Predictions of the images that a file lacks: iterating predicts them, and writes and yields the predictions.

    Each line also gets `taken`, the date of the photograph (YYYY-MM-DD or null), and `features`.

    Args:
        predictor: From `load`.
        images: Paths of the images.
        file: File of predictions.
        labels: Label set of the predictions; None: the model's.
        index: Index that also gets the predictions, under absolute paths.
        path_as_given: Function that returns the path by which people know an image, for yielded failures.
    """

    def __init__(
        self,
        predictor: Predictor,
        images: Iterable[str],
        file: ResultFile,
        labels: str | None,
        index: ResultFile | None = None,
        path_as_given: Callable[[str], str] = str,
    ) -> None:
        self._predictor = predictor
        self._images = images
        self._file = file
        self._labels = labels
        self._index = index
        self._path_as_given = path_as_given
        self.skipped = 0
        """Number of images that were passed over, because the file has their predictions."""
        self.failed_again: set[str] = set()
        """Paths of yielded failures that were failures in the file, too."""

    def __iter__(self) -> Iterator[Prediction | Failure]:
        for result in self._predictor.predict_each(self._missing(), labels=self._labels, with_embedding=True):
            extra_fields = {}
            if isinstance(result, Prediction):
                extra_fields["taken"] = None if result.path is None else date_taken(Path(result.path))
                extra_fields["features"] = None if result.embedding is None else pack(result.embedding)
            self._file.write(result, extra_fields)
            if self._index is not None and result.path is not None:
                self._index.write(replace(result, path=os.path.abspath(result.path)), extra_fields)
            yield self._named(result) if isinstance(result, Failure) else result

    def _named(self, failure: Failure) -> Failure:
        """Return a failure with the path as it was given, and record whether the image had failed before."""
        if failure.path is None:
            return failure
        path = self._path_as_given(failure.path)
        error = failure.error
        # A long path is shortened in the reason, and stays as it is.
        if error.startswith(failure.path):
            error = path + error.removeprefix(failure.path)
        if failure.path in self._file.failed:
            self.failed_again.add(path)
        return Failure(path=path, error=error)

    def _missing(self) -> Iterator[str]:
        for image in self._images:
            if self._file.has(image):
                self.skipped += 1
            else:
                yield image


def date_taken(path: Path) -> str | None:
    """Return the date of a photograph by its EXIF, YYYY-MM-DD; None without one, or for more than 1 MiB of EXIF."""
    try:
        with image_border(str(path)):
            data = read_limited(path, MAX_BYTES)
            exif = exif_of_raw(data) if is_raw(data) else _exif_of(data, str(path))
            if exif is None:
                return None
            inner = exif.get_ifd(ExifTags.IFD.Exif)
            values = (ifd.get(tag) for tag in _DATE_TAGS for ifd in (inner, exif))
            return next(filter(None, map(parse_date, values)), None)
    # The image itself was read, so it is predicted without a date.
    except ImageError:
        return None


def _exif_of(data: bytes, name: str) -> Image.Exif | None:
    """Return the EXIF of an image; None if it has more than 1 MiB."""
    image = open_image(data, name)
    # The call decodes no values yet, so the size can be checked first. The EXIF of a PNG may follow its pixels.
    exif = image.getexif()
    if len(image.info.get("exif", b"")) > MAX_EXIF_BYTES:
        return None
    return exif


def parse_date(value: object) -> str | None:
    """Return the date in an EXIF value, YYYY-MM-DD; None for others, such as 0000:00:00 of a camera without a clock.

    >>> parse_date("2015:06:01 12:30:00"), parse_date("2015/06/01"), parse_date("0000:00:00 00:00:00")
    ('2015-06-01', '2015-06-01', None)
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    match = _DATE.match(text)
    if match is None:
        return None
    try:
        return date(*(int(part) for part in match.groups() if part is not None)).isoformat()
    # There is no such day, such as 30 February.
    except ValueError:
        return None
