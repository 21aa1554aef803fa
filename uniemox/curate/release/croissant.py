"""Croissant metadata of a release (https://docs.mlcommons.org/croissant), made and checked by its own library."""

import hashlib
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniemox.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    from uniemox.curate.release.run import ReleaseConfig, ReleasedImage

TABLES = ("labels.csv", "soft_labels.csv", "provenance.csv")


def croissant(
    folder: Path, config: "ReleaseConfig", rows: "Sequence[ReleasedImage]", labels: Sequence[str]
) -> dict[str, Any]:
    """The metadata as JSON-LD: the tables with their hashes, the images, and a record for each image.

    folder: the release, whose tables are written. Raises DataError if the library finds a fault, MissingPackageError
    without it.
    """
    try:
        import mlcroissant as mlc  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingPackageError("Croissant needs mlcroissant; run: pip install 'uniemox[curate]'") from None
    files = [
        mlc.FileObject(
            id=name,
            name=name,
            content_url=name,
            encoding_formats=["text/csv"],
            sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        )
        for name in TABLES
    ]
    text = mlc.DataType.TEXT
    fields = [
        mlc.Field(
            id=f"pictures/{name}",
            name=name,
            description=about,
            data_types=text,
            source=mlc.Source(file_object="labels.csv", extract=mlc.Extract(column=name)),
        )
        for name, about in (
            ("path", "The image's file, from the folder images."),
            ("label", f"One of {', '.join(labels)}."),
            ("split", "train, val or test."),
            ("domain", "The image's style; empty if it was not tagged."),
        )
    ]
    metadata = mlc.Metadata(
        name=config.name,
        description=f"{len(rows)} images with one of {len(labels)} emotions each: {', '.join(labels)}.",
        license=[config.licence] if config.licence else None,
        url=config.address or None,
        cite_as=config.citation or None,
        version=config.version,
        date_published=datetime.now(UTC).replace(microsecond=0),
        distribution=files,
        record_sets=[mlc.RecordSet(id="pictures", name="pictures", fields=fields)],
    )
    content: dict[str, Any] = json.loads(json.dumps(metadata.to_json(), default=str))
    check_croissant(folder, content)
    return content


def check_croissant(folder: Path, content: dict[str, Any]) -> list[str]:
    """What the library warns of. Raises DataError, with its words, if it finds an error.

    folder: where the files of the metadata lie.
    """
    import mlcroissant as mlc  # noqa: PLC0415 - an extra
    from mlcroissant import ValidationError  # noqa: PLC0415

    path = folder / ".croissant-check.json"
    path.write_text(json.dumps(content), "utf-8")
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the library prints its warnings too, which are returned here
    try:
        return sorted(mlc.Dataset(jsonld=path).metadata.issues.warnings)
    except ValidationError as error:
        raise DataError(f"{folder}: the Croissant metadata are not valid: {error}") from error
    finally:
        logger.setLevel(level)
        path.unlink()
