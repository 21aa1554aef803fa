"""Settings of a release, and what it holds of each image."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from uniemox.errors import ConfigError
from uniemox_curate.plan import MIN_ANSWERS, Rule

if TYPE_CHECKING:
    from uniemox_curate.annotate.origins import Origin

ABOUT = ("address", "page", "title", "licence", "licence_address", "author", "source", "keyword", "fetched")
"""Provenance fields of an image."""
IMAGES = "pictures"
"""Folder of a release with its images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseConfig:
    """Name and texts of a release, and the rule by which images are kept."""

    name: str
    """Name of the data set in its texts and metadata."""
    version: str = "1.0.0"
    """Version of the data set: three numbers, as Croissant requires."""
    licence: str = ""
    """Licence of labels and texts, such as CC-BY-4.0; images keep their own licences. Refused if an image has no known
    licence. Default: that of the release that is replaced; undecided for the first one."""
    address: str = ""
    """Web address of the data set, for its metadata. Default: that of the release that is replaced."""
    citation: str = ""
    """Text for citing the data set. Default: that of the release that is replaced."""
    rule: Rule = "both"
    """Rule for keeping images, see `decide`."""
    min_answers: int = MIN_ANSWERS
    """Minimum number of answers that an image needs to be kept."""
    only_licensed: bool = False
    """Leave out images without a known licence."""
    metadata: Literal["remove", "keep"] = "remove"
    """remove: save image files again without place, time, camera, names and comments. All pixels stay the same, also of
    JPEGs; AVIF and HEIC become PNG. Rare exceptions are counted. keep: copy the files unchanged."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise ConfigError(f"version must be three numbers such as 1.0.0, got {self.version!r}")
        if not self.name.strip() or not self.name.isprintable():
            raise ConfigError(f"name must be a printable text, got {self.name!r}")


class ReleasedAnswer(NamedTuple):
    """An annotator's answer to an image."""

    annotator: str
    """Number in place of the name, such as "annotator 1"."""
    label: str
    details: Mapping[str, Any]
    """Further fields that are published."""
    origin: "Origin" = ""
    """Way in which it was given; releases of older versions have not recorded it."""
    seconds: float = 0.0
    """Time that it took; 0: not recorded, as in releases of older versions."""


@dataclass(frozen=True, slots=True)
class ReleasedImage:
    """An image of a release."""

    path: str
    """Path relative to the folder of images."""
    label: str
    split: str
    style: str
    shares: Mapping[str, float]
    sha256: str
    """SHA-256 of the collected file."""
    format: str
    """Format of the collected file."""
    picture: int
    """Number of the image in the project."""
    about: Mapping[str, str]
    """Provenance by field of ABOUT; empty text if unknown."""
    decided: Literal["owner", "annotators"]
    """Who decided the label."""
    answers: Sequence[ReleasedAnswer]


class WrittenImage(NamedTuple):
    """The file of an image in a release."""

    digest: str
    """SHA-256."""
    is_exact: bool
    """It has all pixels of the collected file, unchanged."""
