"""Comparison of the agreement, the split and the newest release with the images that the rule keeps now."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, or_, select

from uniemox.plurals import counted
from uniemox_curate import tables as t
from uniemox_curate.annotate.kept_sets import KeptSet
from uniemox_curate.counters import Counts, labelled_at, switched_people
from uniemox_curate.decisions import taken_down
from uniemox_curate.plan import MIN_ANSWERS, Rule
from uniemox_curate.project import SKIP


def record_kept(images: KeptSet, rule: Rule, counts: Counts) -> dict[str, Any]:
    """Return what a setting keeps of the images that a rule keeps, so that later changes are noticed.

    Args:
        images: Images that the rule keeps.
        rule: Rule for keeping images.
        counts: Counts of the project.
    """
    moment = {"newest_answer": counts.newest_answer, "newest_batch": counts.newest_batch}
    return {**asdict(images), "rule": rule, **moment}


def agreement_change(connection: Connection, saved: Mapping[str, Any] | None, counts: Counts) -> str:
    """Return a clause about changes since agreement was computed; empty if it is up to date, or was never computed.

    Args:
        connection: Connection to the database.
        saved: The setting "agreement".
        counts: Counts of the project.
    """
    if saved is None:
        return ""
    later = counts.newest_answer - saved["of_answers"]
    if later > 0:
        return f"{counted(later, 'answer')} came later"
    # Figures do not depend on the rule. Older versions have not recorded the images.
    if not _has_images(saved) or saved["rule"] != counts.basis.rule:
        return ""
    return _difference(_without(connection, saved["kept"], taken_down()), counts.labelled)


def split_change(connection: Connection, saved: Mapping[str, Any] | None, counts: Counts) -> str:
    """Return a clause about changes since the split was drawn; empty if it is up to date, or was never drawn.

    Args:
        connection: Connection to the database.
        saved: The setting "split".
        counts: Counts of the project.
    """
    if not saved:
        return ""
    if _has_images(saved):
        # An image whose takedown was undone still has its split.
        return _difference(_without(connection, saved["kept"], taken_down()), counts.labelled)
    # Older versions recorded numbers alone. Fewer images may be due to a takedown, which needs no other split.
    images = sum(saved["sizes"].values())
    return _numbers(images, counts.labelled.images) if images < counts.labelled.images else ""


def release_change(
    connection: Connection, row: Any, saved: Mapping[str, Any] | None, split: Mapping[str, Any] | None, counts: Counts
) -> str:
    """Return a clause about changes since the newest release; empty if it is up to date.

    Args:
        connection: Connection to the database.
        row: Row of the newest release.
        saved: The setting "release".
        split: The setting "split".
        counts: Counts of the project.
    """
    if saved is None or saved["number"] != row.id or not _has_images(saved):
        options = json.loads(row.options)
        # Older versions recorded numbers alone, which depend on further options.
        if options.get("only_licensed") or options.get("min_answers", MIN_ANSWERS) != MIN_ANSWERS:
            return ""
        return "" if row.pictures == counts.labelled.images else _numbers(row.pictures, counts.labelled.images)
    # An image whose takedown was undone does not return to the release.
    events = t.events.c
    is_removed = or_(events.batch_id > saved["kept"]["newest_batch"], events.picture_id.in_(taken_down()))
    removed = select(events.picture_id).where(events.field == "taken", is_removed)
    if change := _difference(_without(connection, saved["kept"], removed), counts.labelled):
        return change
    if saved["split"] != (split or {}).get("sha256"):
        return "the split was drawn again"
    # The datasheet names the rule.
    if saved["kept"]["rule"] != counts.basis.rule:
        return f"the split was drawn by the rule {counts.basis.rule}, and the release by {saved['kept']['rule']}"
    # Then more than the labels depends on the answers: the shares, or which images have enough answers.
    needs_answers = counts.basis.rule == "soft" or saved["min_answers"] != MIN_ANSWERS
    if needs_answers and saved["kept"]["newest_answer"] < counts.newest_answer:
        return f"{counted(counts.newest_answer - saved['kept']['newest_answer'], 'answer')} came later"
    if needs_answers and _has_other_people(connection, row.id, saved["kept"]["newest_batch"], counts):
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


def _has_images(saved: Mapping[str, Any]) -> bool:
    """Return True if a setting has the result of `record_kept`; older versions have not recorded it."""
    return "newest_batch" in saved.get("kept", {})


def _without(connection: Connection, record: Mapping[str, Any], images: Any) -> KeptSet:
    """Return the recorded images without some of them.

    Args:
        connection: Connection to the database.
        record: Result of `record_kept`.
        images: Query for the numbers of images.
    """
    moment = {name: record[name] for name in ("rule", "newest_answer", "newest_batch")}
    gone = labelled_at(connection, images, **moment)
    return KeptSet(record["images"], record["fingerprint"]).plus(-gone.images, -gone.fingerprint)


def _difference(before: KeptSet, now: KeptSet) -> str:
    """Return a clause about the images that the rule keeps now instead of others; empty if they are the same."""
    if before.images != now.images:
        return _numbers(before.images, now.images)
    if before.fingerprint != now.fingerprint:
        return f"the rule keeps {counted(now.images, 'image')} as before, but not the same images and labels"
    return ""


def _numbers(before: int, now: int) -> str:
    return f"the rule keeps {counted(now, 'image')} now instead of {before:,}"
