"""Machine-readable files of a release: Croissant metadata, tasks of Label Studio, tables of answers."""

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

from uniemox.curate.annotate.answer_files import cells, given_answers
from uniemox.curate.annotate.verdicts import read_answers
from uniemox.curate.project import Project
from uniemox.curate.release.config import ReleaseConfig, ReleasedImage
from uniemox.errors import DataError, MissingPackageError
from uniemox.io.files import write_rows

TABLES = ("labels.csv", "soft_labels.csv", "provenance.csv")
SCALES = ("intensity", "valence", "arousal")
PUBLISHED = ("labels", *SCALES, "suggested")  # details of answers that a release holds


def croissant(
    folder: Path, config: ReleaseConfig, rows: Sequence[ReleasedImage], labels: Sequence[str]
) -> dict[str, Any]:
    """Return Croissant metadata as JSON-LD (https://docs.mlcommons.org/croissant): tables, their hashes and records.

    folder: the release with its tables. Raises DataError if mlcroissant finds an error, MissingPackageError without it.
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
    fields = [
        mlc.Field(
            id=f"pictures/{name}",
            name=name,
            description=about,
            data_types=mlc.DataType.TEXT,
            source=mlc.Source(file_object="labels.csv", extract=mlc.Extract(column=name)),
        )
        for name, about in (
            ("path", "The image's file, below the folder pictures."),
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
    _check_croissant(mlc, folder / ".croissant-check.json", content)
    return content


def _check_croissant(mlc: Any, path: Path, content: dict[str, Any]) -> None:
    """Raise DataError if mlcroissant finds an error.  path: for a temporary file."""
    path.write_text(json.dumps(content), "utf-8")
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the library prints warnings
    try:
        mlc.Dataset(jsonld=path)
    except mlc.ValidationError as error:
        raise DataError(f"{path.parent}: the Croissant metadata are not valid: {error}") from error
    finally:
        logger.setLevel(level)
        path.unlink()


def label_studio(rows: Sequence[ReleasedImage]) -> list[dict[str, Any]]:
    """Return tasks of Label Studio with the label as annotation; images come from its local storage.

    Its project needs <Image name="image" value="$image"/> and <Choices name="emotion" toName="image">.
    """
    tasks = []
    for number, row in enumerate(rows, start=1):
        data = {"image": f"/data/local-files/?d=pictures/{row.path}", "sha256": row.sha256, "split": row.split}
        data |= {"style": row.style, "address": row.about.get("address", ""), "licence": row.licence}
        choice = {"id": row.sha256[:10], "from_name": "emotion", "to_name": "image", "type": "choices"}
        result = [{**choice, "value": {"choices": [row.label]}}]
        annotation = {"result": result, "was_cancelled": False, "ground_truth": True}
        tasks.append({"id": number, "data": {**data, "decided": row.decided}, "annotations": [annotation]})
    return tasks


def answer_tables(project: Project, rows: Sequence[ReleasedImage]) -> tuple[dict[str, str], int]:
    """Return the tables of answers by file name, and the number of answers with a visible suggestion.

    Annotators are numbered, comments are left out; means are added where values were asked for.
    """
    answers = read_answers(project)
    number = {name: f"annotator {i + 1}" for i, name in enumerate(answers.people)}
    details = {(one.picture, one.annotator): one.details for one in given_answers(project)}
    more = [name for name in PUBLISHED if any(name in content for content in details.values())]
    lines, means, suggested = [], [], 0
    for row in rows:
        own = [
            (name, label, details[row.picture, name]) for name, label in answers.by_picture.get(row.picture, {}).items()
        ]
        lines += [[row.path, number[name], label, *cells(content, more)] for name, label, content in own]
        suggested += sum("suggested" in content for _, _, content in own)
        values = [[content[name] for _, _, content in own if name in content] for name in SCALES]
        if any(values):
            means.append([row.path, max(map(len, values)), *(round(fmean(one), 3) if one else None for one in values)])
    tables = {"answers.csv": as_csv(["path", "annotator", "label", *more], lines)}
    if means:
        tables["ratings.csv"] = as_csv(["path", "answers", *SCALES], means)
    return tables, suggested


def as_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as text, safe for spreadsheets."""
    text = io.StringIO()
    write_rows(text, chain([header], rows))
    return text.getvalue()
