"""Croissant metadata of a release: JSON-LD by which programs find images, labels and splits."""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from uniemox.errors import DataError, MissingPackageError
from uniemox.io import write_file
from uniemox.plurals import counted
from uniemox_curate.release.config import IMAGES, ReleaseConfig
from uniemox_curate.release.hub_card import hub_licence

NAME = "croissant.json"
TABLES = ("labels.csv", "soft_labels.csv", "provenance.csv")
# Media types of the images of a release. mlcroissant reads JPEG and PNG, and opens all images of a set that has one of
# these types; so they come first.
TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "tif": "image/tiff",
    "ppm": "image/x-portable-pixmap",
    "avif": "image/avif",
    "heic": "image/heic",
}
FIELDS = {
    "label": "One of {labels}.",
    "split": "train, val or test.",
    "domain": "The image's style; empty if it was not tagged.",
}
"""Columns of labels.csv besides path."""
RECORDS = "pictures"
IMAGE_FILES = "image-files"


def write_croissant(
    folder: Path,
    config: ReleaseConfig,
    paths: Sequence[str],
    labels: Sequence[str],
    *,
    image_licences: Iterable[str],
    image_root: str,
) -> None:
    """Write Croissant metadata as JSON-LD (https://docs.mlcommons.org/croissant): images, tables and records.

    A record has the image, its path, label, split and domain.

    Args:
        folder: Release with its tables.
        config: Texts of the release.
        paths: Paths of all images in the tables.
        labels: Labels of the data set.
        image_licences: Licences of the images, which they keep.
        image_root: Folder in front of the paths; "" if they are relative to the folder of images.

    Raises:
        DataError: If mlcroissant finds an error.
        MissingPackageError: Without it.
    """
    try:
        import mlcroissant as mlc  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingPackageError("Croissant needs mlcroissant; run: pip install 'uniemox[curate]'") from None
    tables = [
        mlc.FileObject(
            id=name,
            name=name,
            content_url=name,
            encoding_formats=["text/csv"],
            sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        )
        for name in TABLES
    ]
    metadata = mlc.Metadata(
        name=config.name,
        description=f"{counted(len(paths), 'image')} with one of {len(labels)} emotions each: {', '.join(labels)}.",
        license=_licences(config.licence, image_licences),
        url=config.address or None,
        cite_as=config.citation or None,
        version=config.version,
        date_published=datetime.now(UTC).replace(microsecond=0),
        distribution=[*tables, _image_files(mlc, paths)],
        record_sets=[mlc.RecordSet(id=RECORDS, name=RECORDS, fields=_fields(mlc, labels, image_root))],
    )
    path = folder / NAME
    write_file(path, (json.dumps(metadata.to_json(), indent=1, ensure_ascii=False, default=str) + "\n").encode())
    logger = logging.getLogger("absl")
    level = logger.level
    # The library prints warnings about recommended fields.
    logger.setLevel(logging.ERROR)
    try:
        mlc.Dataset(jsonld=path)
    except mlc.ValidationError as error:
        raise DataError(f"{path}: the Croissant metadata are not valid: {error}") from error
    finally:
        logger.setLevel(level)


def _licences(licence: str, of_images: Iterable[str]) -> list[str] | None:
    """Return all licences of a release, each in one spelling; None if that of labels and texts is not decided."""
    if not licence:
        return None
    spellings = {hub_licence(name): name for name in sorted(of_images)}
    spellings.pop(hub_licence(licence), None)
    return [licence, *spellings.values()]


def _image_files(mlc: Any, paths: Iterable[str]) -> Any:
    """Return the set of all image files, next to the metadata."""
    endings = {PurePosixPath(path).suffix.removeprefix(".") for path in paths}
    present = [ending for ending in TYPES if ending in endings]
    return mlc.FileSet(
        id=IMAGE_FILES,
        name=IMAGE_FILES,
        description="Images in folders of splits and labels.",
        encoding_formats=[TYPES[ending] for ending in present],
        includes=[f"{IMAGES}/*.{ending}" for ending in present],
    )


def _fields(mlc: Any, labels: Sequence[str], image_root: str) -> list[Any]:
    """Return the fields of a record; the path of an image joins its file with its row of labels.csv."""
    # Tables of older versions have paths below the folder of images. mlcroissant applies the expression to the path in
    # the release, and again to its result; without one, it does not find the row.
    as_in_tables = mlc.Transform(regex="^(.+)$" if image_root else f"^(?:{IMAGES}/)?(.+)$")
    path = mlc.Field(
        id=f"{RECORDS}/path",
        name="path",
        description="The image's file.",
        data_types=mlc.DataType.TEXT,
        source=mlc.Source(
            file_set=IMAGE_FILES,
            extract=mlc.Extract(file_property=mlc.FileProperty.fullpath),
            transforms=[as_in_tables],
        ),
        references=mlc.Source(file_object="labels.csv", extract=mlc.Extract(column="path")),
    )
    image = mlc.Field(
        id=f"{RECORDS}/image",
        name="image",
        description="The image.",
        data_types=mlc.DataType.IMAGE_OBJECT,
        source=mlc.Source(file_set=IMAGE_FILES, extract=mlc.Extract(file_property=mlc.FileProperty.content)),
    )
    columns = [
        mlc.Field(
            id=f"{RECORDS}/{name}",
            name=name,
            description=about.format(labels=", ".join(labels)),
            data_types=mlc.DataType.TEXT,
            source=mlc.Source(file_object="labels.csv", extract=mlc.Extract(column=name)),
        )
        for name, about in FIELDS.items()
    ]
    return [image, path, *columns]
