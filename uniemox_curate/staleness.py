"""Comparison of the agreement, the split and the newest release with the images that the rule keeps now."""

import json
from typing import Any

from sqlalchemy import Connection, or_, select

from uniemox.plurals import counted
from uniemox_curate import tables as t
from uniemox_curate.annotate.kept_sets import KeptSet
from uniemox_curate.counters import Counts, labelled_at, switched_people
from uniemox_curate.decisions import taken_down
from uniemox_curate.plan import MIN_ANSWERS
from uniemox_curate.project import SKIP
from uniemox_curate.saved_results import KeptRecord, SavedAgreement, SavedRelease, SavedSplit


def agreement_change(connection: Connection, saved: SavedAgreement | None, counts: Counts) -> str:
    """Return a clause about changes since agreement was computed; empty if it is up to date, or was never computed.

    Args:
        connection: Connection to the database.
        saved: The last computed agreement.
        counts: Counts of the project.
    """
    if saved is None:
        return ""
    later = counts.newest_answer - saved.of_answers
    if later > 0:
        return f"{counted(later, 'answer')} came later"
    # Figures do not depend on the rule. Older versions have not recorded the images.
    if saved.kept.newest_batch is None or saved.rule != counts.basis.rule:
        return ""
    return _difference(_without(connection, saved.kept, taken_down()), counts.labelled)


def split_change(connection: Connection, saved: SavedSplit | None, counts: Counts) -> str:
    """Return a clause about changes since the split was drawn; empty if it is up to date, or was never drawn.

    Args:
        connection: Connection to the database.
        saved: The last drawn split.
        counts: Counts of the project.
    """
    if saved is None:
        return ""
    if saved.kept.newest_batch is not None:
        # An image whose takedown was undone still has its split.
        return _difference(_without(connection, saved.kept, taken_down()), counts.labelled)
    # Older versions recorded numbers alone. Fewer images may be due to a takedown, which needs no other split.
    return _numbers(saved.images, counts.labelled.images) if saved.images < counts.labelled.images else ""


def release_change(
    connection: Connection, row: Any, saved: SavedRelease | None, split: SavedSplit | None, counts: Counts
) -> str:
    """Return a clause about changes since the newest release; empty if it is up to date.

    Args:
        connection: Connection to the database.
        row: Row of the newest release.
        saved: The newest release, if a version recorded it.
        split: The last drawn split.
        counts: Counts of the project.
    """
    newest_batch = None if saved is None else saved.kept.newest_batch
    if saved is None or saved.number != row.id or newest_batch is None:
        options = json.loads(row.options)
        # Older versions recorded numbers alone, which depend on further options.
        if options.get("only_licensed") or options.get("min_answers", MIN_ANSWERS) != MIN_ANSWERS:
            return ""
        return "" if row.pictures == counts.labelled.images else _numbers(row.pictures, counts.labelled.images)
    # An image whose takedown was undone does not return to the release.
    record = saved.kept
    events = t.events.c
    is_removed = or_(events.batch_id > newest_batch, events.picture_id.in_(taken_down()))
    removed = select(events.picture_id).where(events.field == "taken", is_removed)
    if change := _difference(_without(connection, record, removed), counts.labelled):
        return change
    if saved.split != (None if split is None else split.sha256):
        return "the split was drawn again"
    # The datasheet names the rule.
    if record.rule != counts.basis.rule:
        return f"the split was drawn by the rule {counts.basis.rule}, and the release by {record.rule}"
    # Then more than the labels depends on the answers: the shares, or which images have enough answers.
    needs_answers = counts.basis.rule == "soft" or saved.min_answers != MIN_ANSWERS
    if needs_answers and record.newest_answer < counts.newest_answer:
        return f"{counted(counts.newest_answer - record.newest_answer, 'answer')} came later"
    if needs_answers and _has_other_people(connection, row.id, newest_batch, counts):
        return "the answers of other annotators count now"
    return ""


def _has_other_people(connection: Connection, release: int, newest_batch: int, counts: Counts) -> bool:
    """Return True if an annotator who was left out since a release, or counts again, answered one of its images.

    Args:
        connection: Connection to the database.
        release: Number of the release.
        newest_batch: Number of the newest batch of decisions at its time.
        counts: Counts of the project.
    """
    people = switched_people(connection, counts, newest_batch)
    if not people:
        return False
    tasks = t.tasks.c
    released = select(t.released_images.c.picture_id).where(t.released_images.c.release_id == release)
    query = select(t.answers.c.id).join(t.tasks, tasks.id == t.answers.c.task_id)
    query = query.where(tasks.person_id.in_(people), tasks.picture_id.in_(released), t.answers.c.label != SKIP)
    return connection.execute(query.limit(1)).first() is not None


def _without(connection: Connection, record: KeptRecord, images: Any) -> KeptSet:
    """Return the recorded images without some of them.

    Args:
        connection: Connection to the database.
        record: Record with its images.
        images: Query for the numbers of images.
    """
    gone = labelled_at(
        connection, images, rule=record.rule, newest_answer=record.newest_answer, newest_batch=record.newest_batch or 0
    )
    return record.as_set.plus(-gone.images, -gone.fingerprint)


def _difference(before: KeptSet, now: KeptSet) -> str:
    """Return a clause about the images that the rule keeps now instead of others; empty if they are the same."""
    if before.images != now.images:
        return _numbers(before.images, now.images)
    if before.fingerprint != now.fingerprint:
        return f"the rule keeps {counted(now.images, 'image')} as before, but not the same images and labels"
    return ""


def _numbers(before: int, now: int) -> str:
    return f"the rule keeps {counted(now, 'image')} now instead of {before:,}"
