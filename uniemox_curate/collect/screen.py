"""Screen: drop unsuitable images automatically. People drop the rest on the page."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, func, insert, select, true, update

from uniemox.bounds import check_numbers
from uniemox.data import PLACEHOLDER_LABELS, PLACEHOLDER_TIMES, THUMB, DataSet, near_groups, scan
from uniemox.io import DecoderPool, Progress, in_parts, silent, usable_cores
from uniemox.plurals import counted
from uniemox_curate import tables as t
from uniemox_curate.annotate.verdicts import last_answers
from uniemox_curate.decisions import LEFT_OUT, Change, append, current, decisions, taken_down
from uniemox_curate.project import Project, searched_labels
from uniemox_curate.scoring import IMAGES_PER_PREDICTION, Scorer, samples_of
from uniemox_curate.store import put_setting

# Author of automatic decisions. A later screen changes only these.
ACTOR = "screen"
AUTOMATIC = select(t.batches.c.id).where(t.batches.c.actor == ACTOR)
UNREAD = "can't be read now"
# Images of one transaction.
IMAGES_PER_SCAN = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenConfig:
    """Limits below which images are dropped."""

    min_side_px: int = 128
    """Minimum length of the shorter side."""
    min_score: float = 0.0
    """Minimum probability, 0 to 1, of the searched label by a model; 0 only sorts by it."""

    def __post_init__(self) -> None:
        check_numbers(self, at_least={"min_side_px": 1, "min_score": 0}, below={"min_score": 1})


def screen(
    project: Project,
    config: ScreenConfig | None = None,
    *,
    against: Sequence[DataSet] | None = None,
    score: Scorer | None = None,
    model: str = "",
    progress: Progress = silent,
) -> dict[str, int]:
    """Scan new images, then judge all images again and save changed decisions.

    Decisions by a person stay.

    Args:
        against: Test sets whose images must not be in the new data set; those of earlier calls count, unless it is
            empty.
        score: Function that returns a model's probabilities; None: saved scores stay.
        model: Name of the model; scores of another model are replaced.
        progress: Called with the work, the number of images that are done, and their total.

    Returns:
        The number of dropped images by reason, of kept ones under "kept", and of those that could not be read now,
        which the next call tries again.
    """
    config = config or ScreenConfig()
    if against is not None and not against:
        with project.store.write() as connection:
            connection.execute(t.benchmarks.delete())
    unread = _scan_images(project, progress)
    unread += sum(_scan_benchmark(project, data, progress) for data in against or ())
    if score is not None:
        _score(project, score, model, progress)
    progress("comparing", 0, 1)
    images = _scanned_images(project)
    benchmarks = project.rows(select(t.benchmarks))
    reasons, groups = _judge(images, searched_labels(project), benchmarks, _work_on(project), config)
    progress("comparing", 1, 1)
    with project.store.write() as connection:
        before = decisions(connection, "screen")
        automatic = set(connection.scalars(AUTOMATIC))
        changes = []
        for image in images:
            decision = before.get(image.id)
            value, reason = ("drop", reasons[image.id]) if image.id in reasons else ("keep", "")
            is_changed = decision is not None and (decision.value, decision.reason) != (value, reason)
            if decision is None or (decision.batch_id in automatic and is_changed):
                changes.append(Change(image.id, "screen", value, reason))
        append(connection, actor=ACTOR, step="screen", note=f"{counted(len(changes), 'image')} judged", changes=changes)
        if groups:
            numbers = [{"number": number, "id": image} for image, number in groups.items()]
            in_group = update(t.looks).where(t.looks.c.picture_id == bindparam("id"))
            connection.execute(in_group.values(near_group=bindparam("number")), numbers)
    now = current("screen")
    rows = project.rows(select(now).where(now.c.picture_id.not_in(taken_down())))
    counts = Counter("kept" if row.value == "keep" else row.reason.split(":")[0] for row in rows)
    return {**counts, **({UNREAD: unread} if unread else {})}


def remembered_config(project: Project, min_side_px: int | None, min_score: float | None) -> ScreenConfig:
    """Save the given settings for later calls; None takes the saved value, or else the default.

    Raises:
        ConfigError: For settings out of range.
    """
    # Older projects have other names.
    new_names = {"least_side_px": "min_side_px", "least_score": "min_score"}
    saved = project.store.setting("screen") or {}
    values = {new_names.get(name, name): value for name, value in saved.items()}
    if min_side_px is not None:
        values["min_side_px"] = min_side_px
    if min_score is not None:
        values["min_score"] = min_score
    config = ScreenConfig(**values)
    project.store.set("screen", asdict(config))
    return config


def _scanned_images(project: Project) -> list[Any]:
    """Return rows with id, sha256, the scan, and `addresses`, the number of addresses that led to the image."""
    addresses = func.count(t.candidates.c.address.distinct())
    of_image = t.candidates.c.picture_id == t.images.c.id
    count = select(addresses).where(of_image).correlate(t.images).scalar_subquery().label("addresses")
    return project.rows(select(t.images.c.id, t.images.c.sha256, t.looks, count).join(t.looks).order_by(t.images.c.id))


class Work(IntEnum):
    """What people have decided about an image, in the order in which one of several near duplicates stays."""

    DROPPED = -1
    NONE = 0
    ANSWERED = 1
    JUDGED = 2
    KEPT = 3


class ImageWork(NamedTuple):
    """Work of people on an image. Of several near duplicates, the one with the greatest stays."""

    decided: Work = Work.NONE
    answers: int = 0


def _work_on(project: Project) -> dict[int, ImageWork]:
    """Return what people have decided, by image; images without an entry have no work."""
    query = last_answers(t.tasks.c.picture_id, func.count().label("answers"))
    query = query.where(t.people.c.name.not_in(LEFT_OUT)).group_by(t.tasks.c.picture_id)
    answers = {row.picture_id: row.answers for row in project.rows(query)}
    decided = dict.fromkeys(answers, Work.ANSWERED)
    decided |= {row.picture_id: Work.JUDGED for row in project.rows(select(current("verdict")))}
    screened = current("screen")
    for row in project.rows(select(screened).where(screened.c.batch_id.not_in(AUTOMATIC))):
        decided[row.picture_id] = Work.KEPT if row.value == "keep" else Work.DROPPED
    return {image: ImageWork(level, answers.get(image, 0)) for image, level in decided.items()}


def _judge(
    images: Sequence[Any],
    labels: Mapping[int, set[str]],
    benchmarks: Sequence[Any],
    work: Mapping[int, ImageWork],
    config: ScreenConfig,
) -> tuple[dict[int, str], dict[int, int]]:
    """Return the reason for each dropped image, and the number of each image's group of near duplicates.

    Of near duplicates the one with the most work of people stays, so that none is lost; else the largest, or the first
    of several largest.

    Args:
        images: Rows that `_scanned_images` returns.
        labels: Searched labels by image.
        benchmarks: Rows of images that must not be in the data set.
        work: What people have decided, from `_work_on`.
        config: Limits.
    """
    reasons: dict[int, str] = {}
    by_hash = {benchmark.sha256: f"{benchmark.name}, {benchmark.key}" for benchmark in benchmarks}
    for image in images:
        if image.problem:
            reasons[image.id] = f"unreadable: {image.problem}"
        elif min(image.width, image.height) < config.min_side_px:
            reasons[image.id] = f"too small: {image.width} x {image.height} px"
        elif image.sha256 in by_hash:
            reasons[image.id] = f"in a benchmark: {by_hash[image.sha256]}"
        elif image.score is not None and image.score < config.min_score:
            reasons[image.id] = f"mismatch: the model gives its label {image.score:.3f}"

    groups, in_tests = _group_near_duplicates(images, benchmarks)
    for number, members in groups.items():
        names = set().union(*(labels.get(image.id, ()) for image in members))
        # Many addresses with one image, searched for as different labels, show "image not available".
        addresses = sum(image.addresses for image in members)
        is_placeholder = addresses >= PLACEHOLDER_TIMES and len(names) >= PLACEHOLDER_LABELS
        work_on = {image.id: work.get(image.id, ImageWork()) for image in members}
        # What a person keeps stays, whatever its size; what a person has dropped is no candidate.
        candidates = [
            image
            for image in members
            if work_on[image.id].decided is Work.KEPT
            or (image.id not in reasons and work_on[image.id].decided is not Work.DROPPED)
        ]
        if not candidates:
            continue
        if number in in_tests:
            reason = f"in a benchmark: {in_tests[number]}, nearly the same"
        elif is_placeholder:
            reason = f"placeholder: found under {', '.join(sorted(names))}"
        else:
            best = max(candidates, key=lambda image: (work_on[image.id], image.width * image.height, -image.id))
            candidates.remove(best)
            reason = f"near duplicate: of image {best.id}"
        reasons |= {image.id: reason for image in candidates}
    return reasons, {image.id: number for number, members in groups.items() for image in members}


def _group_near_duplicates(
    images: Sequence[Any], benchmarks: Sequence[Any]
) -> tuple[dict[int, list[Any]], dict[int, str]]:
    """Return the readable images by group of near duplicates, and the name of a benchmark's image by group."""
    readable = [image for image in images if image.thumb is not None]
    tests = [benchmark for benchmark in benchmarks if benchmark.thumb is not None]
    thumbs = [np.frombuffer(row.thumb, np.uint8).reshape(THUMB, THUMB, 3) for row in (*readable, *tests)]
    numbers = near_groups(np.stack(thumbs)).tolist() if thumbs else []

    groups: dict[int, list[Any]] = defaultdict(list)
    for number, image in zip(numbers, readable, strict=False):
        groups[number].append(image)
    test_numbers = numbers[len(readable) :]
    names = {number: f"{test.name}, {test.key}" for number, test in zip(test_numbers, tests, strict=True)}
    return groups, names


def _scan_images(project: Project, progress: Progress) -> int:
    """Scan new images, and return the number of those whose files can't be read now."""
    query = select(t.images.c.id, t.images.c.sha256, t.images.c.format)
    query = query.outerjoin(t.looks, t.looks.c.picture_id == t.images.c.id).where(t.looks.c.picture_id.is_(None))
    rows = project.rows(query.where(t.images.c.id.not_in(taken_down())).order_by(t.images.c.id))
    count = 0
    # Processes that can be ended, because collected files may be crafted to block their decoder.
    with closing(DecoderPool(usable_cores())) as decoders:
        for part in in_parts(rows, IMAGES_PER_SCAN, "looking at images", progress):
            scanned = [
                {"picture_id": row.id, "problem": look.problem, "width": look.size[0], "height": look.size[1]}
                | {"thumb": _bytes_of(look.thumb), "histogram": _bytes_of(look.histogram, "<f4")}
                for row, look in zip(part, scan(samples_of(project, part), decoders=decoders), strict=True)
                if look.sha256
            ]
            count += len(scanned)
            if scanned:
                with project.store.write() as connection:
                    connection.execute(insert(t.looks), scanned)
    # Images may have been taken down while they were scanned; their thumbnails must not stay.
    with project.store.write() as connection:
        connection.execute(t.looks.delete().where(t.looks.c.picture_id.in_(taken_down())))
    return len(rows) - count


def _bytes_of(values: NDArray[Any] | None, dtype: str = "u1") -> bytes | None:
    if values is None:
        return None
    return values.astype(dtype).tobytes()


def _scan_benchmark(project: Project, data: DataSet, progress: Progress) -> int:
    """Scan new images of a test set, and return the number of those whose files can't be read now."""
    keys = {row.key for row in project.rows(select(t.benchmarks.c.key).where(t.benchmarks.c.name == data.name))}
    count = 0
    samples = list({sample.image_key: sample for sample in data.samples if sample.image_key not in keys}.values())
    for part in in_parts(samples, IMAGES_PER_SCAN, f"scanning {data.name}", progress):
        rows = [
            {"name": data.name, "key": sample.image_key, "sha256": look.sha256, "thumb": _bytes_of(look.thumb)}
            for sample, look in zip(part, scan(part), strict=True)
            if look.sha256
        ]
        count += len(rows)
        if rows:
            with project.store.write() as connection:
                connection.execute(insert(t.benchmarks), rows)
    return len(samples) - count


def _score(project: Project, score: Scorer, model: str, progress: Progress) -> None:
    """Save a model's probability of the label that an image was searched for, the largest of several.

    Only readable images with such a label are scored. The first scores of a model replace those of another.
    """
    labels = searched_labels(project)
    is_other = project.store.setting("scored by") != model
    query = select(t.images.c.id, t.images.c.sha256, t.images.c.format).join(t.looks)
    query = query.where(t.looks.c.problem == "", true() if is_other else t.looks.c.score.is_(None))
    rows = [row for row in project.rows(query.order_by(t.images.c.id)) if labels.get(row.id)]
    for part in in_parts(rows, IMAGES_PER_PREDICTION, "asking the model", progress):
        values = []
        for row, shares in zip(part, score(samples_of(project, part)), strict=True):
            if shares:
                share = max(shares.get(label, 0.0) for label in labels[row.id])
                values.append({"id": row.id, "share": float(share)})
        with project.store.write() as connection:
            # With the first scores, so that a stopped run leaves no scores of two models.
            if is_other:
                connection.execute(update(t.looks).values(score=None))
                put_setting(connection, "scored by", model)
                is_other = False
            if values:
                of_image = update(t.looks).where(t.looks.c.picture_id == bindparam("id"))
                connection.execute(of_image.values(score=bindparam("share")), values)
