"""Content of a shard's index files, which may come from a stranger."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from uniemox.io.files import MAX_NAME
from uniemox.io.images import MAX_BYTES
from uniemox.io.typed import Count
from uniemox.labels import Kind
from uniemox.persons.box import Box

FORMAT: Literal["uniemox-shards-1"] = "uniemox-shards-1"
INDEX = "shards.json"
REMEDY = "write the shards again"
PLAIN_FIELDS = ("valence", "arousal", "dominance", "split", "text", "domain", "group", "source_sha256")
"""Fields of a sample that lines have unchanged."""


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """Label set in an index."""

    name: str
    labels: tuple[str, ...]
    kind: Kind


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard in an index."""

    name: str
    bytes: Count
    """Size of the tar file."""
    samples: Count


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """Content of INDEX."""

    format: Literal["uniemox-shards-1"]
    labels: StoredLabels
    shards: list[ShardEntry]
    short_side_px: int | None = None
    detector_seen: list[str] = field(default_factory=list)
    """Hashes of the training images of the detector that found the people."""
    broken: list[str] = field(default_factory=list)
    """A line for each image that could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardLine:
    """One sample in the index of a shard; the fields of `Sample`, with labels by name."""

    key: Annotated[str, Meta(max_length=MAX_NAME)]
    offset: Annotated[int, Meta(ge=0, lt=2**62)]
    """Position of the image in the tar file."""
    size: Annotated[int, Meta(ge=0, le=MAX_BYTES)]
    """Bytes of the image."""
    sha256: str
    label: str | None = None
    categories: tuple[str, ...] | None = None
    distribution: dict[str, float] | None = None
    boxes: list[tuple[float, float, float, float, float]] | None = None
    """x1, y1, x2, y2 in px of the stored image and confidence of each person."""
    target_box: Box | None = None
    annotation: dict[str, Any] | None = None
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    split: str | None = None
    text: str | None = None
    domain: str | None = None
    group: str | None = None
    source_sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None
