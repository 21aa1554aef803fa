"""Record of a release in the project's database: all that its files say, so that they can be written again.

The project changes after a release: images are dropped, answered again, or divided into other splits. The record does
not change, so that a takedown can write the same release without some images.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from time import time
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from uniemox.data import public_name
from uniemox.errors import DataError
from uniemox.io import is_plain_name, plain_format
from uniemox.plurals import counted
from uniemox_curate import tables as t
from uniemox_curate.annotate.agree import agreement_now
from uniemox_curate.annotate.assignment import suggested_by
from uniemox_curate.annotate.kept_sets import KeptSet, kept_set
from uniemox_curate.annotate.origins import AnswerOrigins
from uniemox_curate.annotate.verdicts import OWNER_SAYS, LatestAnswers, Verdict, answers_that_do_not_count, verdicts
from uniemox_curate.licences import FOLDER_EXAMPLE, terms_of
from uniemox_curate.next_step import split_command
from uniemox_curate.plan import MIN_ANSWERS
from uniemox_curate.project import SUFFIXES, Project, inserted_id, utc
from uniemox_curate.questions import published_names
from uniemox_curate.release.config import ABOUT, IMAGES, ReleaseConfig, ReleasedAnswer, ReleasedImage, WrittenImage
from uniemox_curate.release.documents import all_answers_table, annotator_numbers, statistics
from uniemox_curate.release.splitting import kept_images, read_scheme
from uniemox_curate.saved_results import saved_split
from uniemox_curate.status import status

MAX_LISTED = 20  # images in an error, so that its advice stays visible
RECORD_LICENCE = f"to record one for files of your own, run collect with --source {FOLDER_EXAMPLE}"
TEXTS = ("licence", "address", "citation")
"""Fields of ReleaseConfig that the next release into the same folder keeps unless it has others."""
NAME_DIGITS = 20  # digits of the sha256 in the name of an image
# Fields of ReleasedImage that the table has as columns of its own, or that `pictures` has.
_OWN_COLUMNS = ("picture", "sha256", "format")


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """All that the files of a release say, except for splits.png."""

    config: ReleaseConfig
    images: Sequence[ReleasedImage]
    """In the order of their paths."""
    figures: dict[str, Any]
    """Result of `statistics`, and the number of images at first; writing the release adds the numbers of its images."""
    agreement: dict[str, Any] | None
    """Agreement of all answers; None if no image has two."""
    split_method: str
    models: Sequence[str]
    """Models whose suggestions annotators saw."""
    answer_columns: Sequence[str]
    """Details of answers in answers.csv."""
    all_answers: str
    """Content of answers_all.csv."""
    consenting: Sequence[str] | None = None
    """Numbers of annotators who agreed to the consent text before their first answer; None: older versions have not
    recorded them."""
    image_root: str = ""
    """Folder of the images relative to the tables, in front of their paths; older versions wrote none."""


@dataclass(frozen=True, slots=True)
class ReleaseSelection:
    """The images of a new release, and the numbers of those left out."""

    images: Sequence[ReleasedImage]
    without_split: int
    unlicensed: int
    agreed: KeptSet
    """All images that the rule keeps, whether they are released or not; the status compares them with later ones."""


def select_images(
    project: Project, config: ReleaseConfig, answers: LatestAnswers, origins: AnswerOrigins
) -> ReleaseSelection:
    """Select the images that the rule keeps, that have a split, and that may be released.

    Raises:
        DataError: If nothing is kept, there are no splits, or a licence is given while some images have no known one.
    """
    agreed = verdicts(project, rule=config.rule)
    decided = agreed
    if config.min_answers != MIN_ANSWERS:
        decided = verdicts(project, rule=config.rule, min_answers=config.min_answers)
    images, without_split = _images_with_split(project, decided, config, answers, origins)
    licensed = _licensed(images, config)
    return ReleaseSelection(licensed, without_split, len(images) - len(licensed), kept_set(agreed))


def record_now(
    project: Project,
    config: ReleaseConfig,
    images: Sequence[ReleasedImage],
    answers: LatestAnswers,
    origins: AnswerOrigins,
) -> ReleaseRecord:
    """Return the record of a release of some images from the present state of a project."""
    numbers = annotator_numbers(answers)
    agreement = agreement_now(project)
    details = [fields for by_name in answers.details.values() for fields in by_name.values()]
    split = saved_split(project.store)
    published = published_names(project.plan.answer.known)
    return ReleaseRecord(
        config=config,
        images=images,
        figures=statistics(config.name, status(project), project.plan)
        | {"released at first": len(images), "not counted": answers_that_do_not_count(project)},
        agreement=agreement.anonymous() if agreement.pictures else None,
        split_method=str(None if split is None else split.how),
        models=[public_name(model) for model in suggested_by(project)],
        answer_columns=[name for name in published if any(name in fields for fields in details)],
        all_answers=all_answers_table(answers),
        consenting=[number for name, number in numbers.items() if name in origins.consenting],
        image_root=f"{IMAGES}/",
    )


def save_record(project: Project, folder: str, record: ReleaseRecord) -> int:
    """Save the record of a release in place of an older one in the same folder, and return its number."""
    content = {
        "figures": record.figures,
        "agreement": record.agreement,
        "split_method": record.split_method,
        "models": record.models,
        "answer_columns": record.answer_columns,
        "all_answers": record.all_answers,
        "consenting": record.consenting,
        "image_root": record.image_root,
    }
    images = [{"picture_id": image.picture, "content": _to_json(image)} for image in record.images]
    values = {"folder": folder, "options": json.dumps(asdict(record.config)), "at": time(), "pictures": len(images)}
    with project.store.write() as connection:
        older = select(t.releases.c.id).where(t.releases.c.folder == folder)
        for table in (t.released_images, t.release_records):
            connection.execute(delete(table).where(table.c.release_id.in_(older)))
        connection.execute(delete(t.releases).where(t.releases.c.folder == folder))
        number = inserted_id(connection.execute(insert(t.releases).values(values)))
        connection.execute(insert(t.release_records).values(release_id=number, content=json.dumps(content)))
        connection.execute(insert(t.released_images), [{"release_id": number, **image} for image in images])
    return number


def released_texts(project: Project, folder: str) -> dict[str, str]:
    """Return licence, address and citation of the release in a folder; none if there is no record of it."""
    rows = project.rows(select(t.releases.c.options).where(t.releases.c.folder == folder))
    return {name: json.loads(row.options).get(name, "") for row in rows for name in TEXTS}


def load_record(project: Project, release: Any) -> tuple[ReleaseRecord, dict[str, WrittenImage]]:
    """Return the record of a release, and by path the images that were written completely.

    Args:
        release: Row of tables.releases.

    Raises:
        DataError: If an older version of uniemox made the release.
    """
    query = select(t.release_records.c.content).where(t.release_records.c.release_id == release.id)
    texts = [row.content for row in project.rows(query)]
    if not texts:
        raise DataError("an older version of uniemox made it, without a record of its content")
    query = (
        select(t.released_images, t.images.c.sha256, t.images.c.format)
        .join(t.images, t.images.c.id == t.released_images.c.picture_id)
        .where(t.released_images.c.release_id == release.id)
    )
    images = []
    written = {}
    for row in project.rows(query):
        content = json.loads(row.content)
        content["answers"] = [ReleasedAnswer(*answer) for answer in content["answers"]]
        image = ReleasedImage(**content, picture=row.picture_id, sha256=row.sha256, format=row.format)
        images.append(image)
        if row.digest is not None:
            written[image.path] = WrittenImage(row.digest, bool(row.is_exact))
    images.sort(key=lambda image: image.path)
    config = ReleaseConfig(**json.loads(release.options))
    return ReleaseRecord(config=config, images=images, **json.loads(texts[0])), written


def save_written(project: Project, number: int, record: ReleaseRecord, written: Mapping[str, WrittenImage]) -> None:
    """Save that all images of a release are written.

    Args:
        number: Number of the release.
        written: Files by path.
    """
    table = t.released_images
    query = (
        update(table)
        .where(table.c.release_id == number, table.c.picture_id == bindparam("picture"))
        .values(digest=bindparam("new_digest"), is_exact=bindparam("new_is_exact"))
    )
    values = [
        {
            "picture": image.picture,
            "new_digest": written[image.path].digest,
            "new_is_exact": int(written[image.path].is_exact),
        }
        for image in record.images
    ]
    with project.store.write() as connection:
        if values:
            connection.execute(query, values)
        count = update(t.releases).where(t.releases.c.id == number)
        connection.execute(count.values(pictures=len(values)))


def forget_images(connection: Connection, images: Any) -> None:
    """Remove images from the records of all releases.

    Args:
        images: Numbers, or a query for them.
    """
    connection.execute(delete(t.released_images).where(t.released_images.c.picture_id.in_(images)))


def _to_json(image: ReleasedImage) -> str:
    fields = asdict(image)
    for name in _OWN_COLUMNS:
        del fields[name]
    return json.dumps(fields)


def _images_with_split(
    project: Project,
    decided: Mapping[int, Verdict],
    config: ReleaseConfig,
    answers: LatestAnswers,
    origins: AnswerOrigins,
) -> tuple[list[ReleasedImage], int]:
    """Return the kept images that have a split in the order of their paths, and the number of the others."""
    rows = kept_images(project, decided)
    scheme = read_scheme(project, len(rows))
    about = provenance(project)
    published = published_names(project.plan.answer.known)
    numbers = annotator_numbers(answers)
    images = []
    for row in rows:
        split = scheme.get(row.sha256)
        if split is None:
            continue
        verdict = decided[row.id]
        label = str(verdict.label)
        style = row.style or ""
        image_format = row.format if config.metadata == "keep" else plain_format(row.format)
        name = f"{row.sha256[:NAME_DIGITS]}.{SUFFIXES[image_format]}"
        parts = [part for part in (split, label, style, name) if part]
        if not all(map(is_plain_name, parts)):
            raise DataError(
                f"{project.folder}: {parts} can't be folders of a release; rename the split, label or style"
            )
        project.image_path(row.sha256, row.format)  # refuses a file outside of the project before anything is written
        images.append(
            ReleasedImage(
                path="/".join(parts),
                label=label,
                split=split,
                style=style,
                shares=verdict.shares,
                sha256=row.sha256,
                format=row.format,
                picture=row.id,
                about=about.get(row.id, dict.fromkeys(ABOUT, "")),
                decided="owner" if verdict.reason == OWNER_SAYS else "annotators",
                answers=_published_answers(row.id, answers, origins, numbers=numbers, published=published),
            )
        )
    if not images:
        draw = split_command(str(project.folder), len(rows))
        raise DataError(f"{project.folder}: no kept image has a split; draw them: {draw}")
    return sorted(images, key=lambda image: image.path), len(rows) - len(images)


def _published_answers(
    picture: int,
    answers: LatestAnswers,
    origins: AnswerOrigins,
    *,
    numbers: Mapping[str, str],
    published: Sequence[str],
) -> list[ReleasedAnswer]:
    """Return the answers to an image, without names and unpublished fields."""
    details = answers.details.get(picture, {})
    return [
        ReleasedAnswer(
            annotator=numbers[name],
            label=label,
            details={key: value for key, value in details.get(name, {}).items() if key in published},
            origin=origins.by_answer.get((picture, name), ""),
            seconds=answers.seconds.get(picture, {}).get(name, 0.0),
        )
        for name, label in answers.by_image.get(picture, {}).items()
    ]


def _licensed(images: Sequence[ReleasedImage], config: ReleaseConfig) -> Sequence[ReleasedImage]:
    """Return the images that may be released.

    Raises:
        DataError: With the images whose licence prevents it.
    """
    unknown = [image for image in images if terms_of(image.about["licence"]).needs_credit is None]
    if config.only_licensed:
        if len(unknown) == len(images):
            raise DataError(
                f"none of {len(images)} images has a known licence; nothing is left to release; {RECORD_LICENCE}"
            )
        paths = {image.path for image in unknown}
        return [image for image in images if image.path not in paths]
    if unknown and config.licence:
        lines = [f"{image.about['address'] or image.sha256} ({image.label})" for image in unknown[:MAX_LISTED]]
        if len(unknown) > MAX_LISTED:
            lines.append(f"and {len(unknown) - MAX_LISTED} more (provenance.csv of a release without --licence)")
        raise DataError(
            f"{len(unknown)} of {counted(len(images), 'image')} without a known licence, so the release can't be "
            f"{config.licence}; give --only-licensed to leave them out, or release into a new folder without "
            f"--licence; {RECORD_LICENCE}; without one are:\n" + "\n".join(lines)
        )
    return images


def provenance(project: Project) -> dict[int, dict[str, str]]:
    """Return the fields of ABOUT of each image's first candidate, preferring one whose licence has known terms."""
    candidates = t.candidates.c
    query = select(t.candidates).where(candidates.picture_id.is_not(None))
    rows = project.rows(query.order_by(candidates.licence == "", candidates.id))
    fields: dict[int, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: terms_of(row.licence).needs_credit is None):
        if row.picture_id not in fields:
            fields[row.picture_id] = {name: getattr(row, name) for name in ABOUT[1:-1]} | {
                # No path of this machine: the title of a file from a folder is its path below that folder.
                "address": row.title if row.source == t.FOLDER else row.address,
                "fetched": utc(row.fetched_at) if row.fetched_at else "",
            }
    return fields
