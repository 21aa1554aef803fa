"""Progress of a project, for the terminal and as a page."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import func, select

from uniemox.io import jpeg_url, write_html
from uniemox.plurals import counted
from uniemox_curate import tables as t
from uniemox_curate.annotate.agree import AgreementStats
from uniemox_curate.collect.folders import waits_for_folder
from uniemox_curate.counters import AnswerTime, Counts, count
from uniemox_curate.decisions import LEFT_OUT, current, history
from uniemox_curate.next_step import NextStep, next_step
from uniemox_curate.progress import (
    Agreed,
    AgreementFigures,
    Annotated,
    Collected,
    Progress,
    Released,
    Screened,
    SplitDrawn,
    WrittenRelease,
)
from uniemox_curate.project import Project
from uniemox_curate.saved_results import SPLIT, parse_split, saved_agreement, saved_release, saved_split
from uniemox_curate.staleness import agreement_change, release_change, split_change

# Maximum number of decisions in the history.
MAX_BATCHES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorProgress:
    """What one annotator has done."""

    name: str
    answered: int
    skipped: int
    checks: int
    """Number of answered attention checks."""
    checks_passed: int
    median_s: float | None
    """Median time of an answer, s, to 0.1 s; None if no time was recorded."""
    is_revoked: bool
    """True if the annotator has no access: it was revoked, or the answers come from a file."""
    is_left_out: bool
    """True if the answers do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectStatus:
    """State of a project."""

    folder: str
    """Name of the project's folder."""
    labels: Sequence[str]
    progress: Progress
    annotators: Sequence[AnnotatorProgress]
    history: Sequence[Mapping[str, Any]]
    """The newest batches of decisions first, as `decisions.history` returns them."""
    next: NextStep

    @property
    def sentences(self) -> dict[str, str]:
        """A sentence for each step."""
        return _sentences(self.progress)

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "folder": self.folder,
            "labels": list(self.labels),
            "steps": self.progress.to_json(),
            "told": self.sentences,
            "people": [asdict(annotator) for annotator in self.annotators],
            "history": list(self.history),
            "next": self.next.command,
            "why": self.next.reason,
        }


def status(project: Project, folder: str | None = None) -> ProjectStatus:
    """Return a project's state.

    Args:
        project: The project.
        folder: Its folder for the next command, quoted for the shell; None: its name.
    """
    counts = count(project.store)
    people = annotators(project, counts)
    screened = _screened(project, counts)
    progress = Progress(
        collect=_collected(project),
        screen=screened,
        annotate=Annotated(
            answered_twice=counts.answered_twice,
            answered_or_skipped=counts.answered_or_skipped,
            to_answer=screened.kept,
            annotators=len(people),
            annotators_who_count=sum(not person.is_left_out for person in people),
            checks=note_on_checks(people, project.plan.check_every),
        ),
        agree=_agreement(project, counts),
        split=_split(project, counts),
        release=_released(project, counts),
    )
    with project.store.read() as connection:
        batches = history(connection, MAX_BATCHES)
    return ProjectStatus(
        folder=project.folder.name,
        labels=project.plan.labels,
        progress=progress,
        annotators=people,
        history=batches,
        next=next_step(folder or project.folder.name, progress),
    )


def write_status_page(
    path: Path, project_status: ProjectStatus, agreement: AgreementStats | None, plot: Path | None
) -> None:
    """Write the page.

    Args:
        path: File to write.
        project_status: The state to show.
        agreement: Statistics to show; None shows none.
        plot: Image of the split; None shows none.

    Raises:
        DataError: If the file can't be written.
    """
    url = ""
    if plot is not None and plot.exists():
        with Image.open(plot) as image:
            url = jpeg_url(image, max_side_px=1600)
    write_html(
        path,
        "uniemox_curate/status_page.html",
        title=f"Project {project_status.folder}",
        status=project_status,
        agreement=agreement,
        plot=url,
    )


def _sentences(progress: Progress) -> dict[str, str]:
    """Return a sentence for each step."""
    collect = progress.collect
    screen = progress.screen
    agree = progress.agree
    different_images = counted(collect.different_images - screen.taken_down, "different image")
    return {
        "collect": f"{collect.fetched:,} of {collect.offered:,} fetched, {collect.failed:,} failed, "
        f"{collect.waiting:,} waiting, {collect.taken_down:,} taken down; "
        f"{different_images}; from {_list(collect.sources)}",
        "screen": f"{screen.looked_at:,} looked at, {screen.kept:,} kept; dropped: {_list(screen.dropped)}; "
        f"styles: {_list(screen.styles)}; {screen.taken_down:,} taken down",
        "annotate": _annotation_sentence(progress.annotate),
        "agree": f"{_agreement_sentence(agree.figures)}; rule {agree.rule}: {agree.kept:,} kept, "
        f"{agree.disputed:,} without agreement; {agree.judged:,} judged",
        "split": _split_sentence(progress.split),
        "release": _release_sentence(progress.release),
    }


def annotators(project: Project, counts: Counts) -> list[AnnotatorProgress]:
    """Return all people but the owner, in the order in which they were added."""
    times: dict[tuple[int, str], list[AnswerTime]] = defaultdict(list)
    for answer_time in counts.times:
        times[answer_time.person, answer_time.kind].append(answer_time)
    numbers = Counter({key: sum(part.count for part in parts) for key, parts in times.items()})
    people = select(t.people, t.people.c.name.in_(LEFT_OUT).label("is_left_out"))
    return [
        AnnotatorProgress(
            name=row.name,
            answered=numbers[row.id, "answered"],
            skipped=numbers[row.id, "skipped"],
            checks=numbers[row.id, "passed"] + numbers[row.id, "missed"],
            checks_passed=numbers[row.id, "passed"],
            median_s=_median_s(times[row.id, "answered"]),
            is_revoked=row.revoked_at is not None or row.role != "annotator",
            is_left_out=row.is_left_out,
        )
        for row in project.rows(people.where(t.people.c.name != "owner").order_by(t.people.c.id))
    ]


def note_on_checks(people: Sequence[AnnotatorProgress], check_every: int) -> str:
    """Return a clause about annotators who missed attention checks, or have answered none; empty if there are none.

    Args:
        people: All annotators.
        check_every: Number of images from one attention check to the next; 0: there are none.
    """
    people = [person for person in people if person.answered and not person.is_left_out]
    notes = []
    missed = [person for person in people if person.checks_passed < person.checks]
    if missed:
        passed = ", ".join(f"{person.name} {person.checks_passed} of {person.checks}" for person in missed)
        notes.append(f"attention checks passed: {passed} (uniemox curate leave-out stops counting an annotator)")
    unchecked = [person.name for person in people if not person.checks]
    if unchecked and check_every == 0:
        notes.append("the plan has no attention checks: check_every is 0")
    elif unchecked:
        notes.append(
            f"no attention check came to {', '.join(unchecked)}: they come at random on the pages of uniemox curate "
            f"serve, one in about {check_every} images"
        )
    return "; ".join(notes)


def _median_s(times: Sequence[AnswerTime]) -> float | None:
    """Return the median of the answers' times, s; of two middle ones the higher; None without a recorded time."""
    # Imported answers without a time have 0.
    times = [part for part in times if part.tenths > 0]
    middle = sum(part.count for part in times) // 2
    for part in sorted(times, key=attrgetter("tenths")):
        if middle < part.count:
            return part.tenths / 10
        middle -= part.count
    return None


def _collected(project: Project) -> Collected:
    # Candidates that were taken down have state failed, so that they are not fetched again.
    is_taken_down = (t.candidates.c.state == "failed") & (t.candidates.c.reason == "taken down")
    columns = (t.candidates.c.source, t.candidates.c.state, is_taken_down.label("is_taken_down"))
    states: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    for row in project.rows(select(*columns, func.count().label("n")).group_by(*columns).order_by(*columns)):
        states["taken down" if row.is_taken_down else row.state] += row.n
        sources[row.source] += row.n
    return Collected(
        offered=sources.total(),
        fetched=states["fetched"],
        failed=states["failed"],
        waiting=states["waiting"],
        taken_down=states["taken down"],
        different_images=project.count(select(t.images.c.id)),
        sources=dict(sources),
        waits_for_folder=waits_for_folder(project),
    )


def _screened(project: Project, counts: Counts) -> Screened:
    fetched = select(t.candidates.c.picture_id).where(t.candidates.c.state == "fetched").distinct()
    looks = select(t.looks.c.picture_id)
    return Screened(
        looked_at=project.count(looks),
        to_look_at=project.count(fetched.where(t.candidates.c.picture_id.not_in(looks))),
        kept=counts.passed_screen,
        taken_down=counts.taken_down,
        dropped=counts.dropped,
        styles=counts.styles,
    )


def _agreement(project: Project, counts: Counts) -> Agreed:
    """Return the images that the rule keeps, those without agreement, and the last computed agreement in short."""
    saved = saved_agreement(project.store)
    with project.store.read() as connection:
        change = agreement_change(connection, saved, counts)
    figures = None
    if saved is not None:
        figures = AgreementFigures(
            images=saved.pictures,
            percent=_rounded(saved.percent),
            alpha=_rounded(saved.alpha),
            later_answers=counts.newest_answer - saved.of_answers,
            later_steps=counts.newest_batch - saved.of_batch,
        )
    return Agreed(
        rule=counts.basis.rule,
        kept=counts.labelled.images,
        disputed=counts.disputed,
        change=change,
        figures=figures,
        judged=project.count(select(current("verdict").c.picture_id)),
    )


def _rounded(figure: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 3) for name, value in figure.items()}


def _split(project: Project, counts: Counts) -> SplitDrawn | None:
    """Return the split with a clause about later changes; None if there is none."""
    stored = project.store.setting(SPLIT)
    if not stored:
        return None
    saved = parse_split(stored, project.store)
    with project.store.read() as connection:
        change = split_change(connection, saved, counts)
    # Without a change, only takedowns make the kept images fewer than those of the split.
    missing = saved.images - counts.labelled.images
    return SplitDrawn(saved=saved, stored=stored, change=change, taken_down=0 if change else max(missing, 0))


def _released(project: Project, counts: Counts) -> Released:
    """Return all releases, and of the newest one the options and a clause about later changes."""
    rows = project.rows(select(t.releases).order_by(t.releases.c.id))
    if not rows:
        return Released()
    saved = saved_release(project.store)
    split = saved_split(project.store)
    with project.store.read() as connection:
        change = release_change(connection, rows[-1], saved, split, counts)
    return Released(
        releases=[WrittenRelease(folder=row.folder, images=row.pictures, at=row.at) for row in rows],
        options=json.loads(rows[-1].options),
        change=change,
    )


def _annotation_sentence(annotate: Annotated) -> str:
    """Return the progress of the annotation, and what is wrong with the attention checks."""
    sentence = (
        f"{annotate.answered_twice:,} of {counted(annotate.to_answer, 'image')} answered by two or more of "
        f"{counted(annotate.annotators, 'annotator')}"
    )
    if annotate.checks:
        sentence += f"; {annotate.checks}"
    return sentence


def _agreement_sentence(figures: AgreementFigures | None) -> str:
    if figures is None:
        return "not computed yet"
    parts = [
        f"{name} {figure['value']} ({figure['low']} to {figure['high']})"
        for name, figure in (("same answer", figures.percent), ("Krippendorff's α", figures.alpha))
    ]
    later = []
    if figures.later_answers:
        later.append(counted(figures.later_answers, "answer"))
    if figures.later_steps:
        later.append(counted(figures.later_steps, "step"))
    before = f", before the last {' and '.join(later)}" if later else ""
    return f"{', '.join(parts)} on {counted(figures.images, 'image')}{before}"


def _split_sentence(split: SplitDrawn | None) -> str:
    """Return the sizes of the splits, how they were drawn, and why their shares differ from the requested ones."""
    if split is None:
        return "not yet"
    sentence = f"{_list(split.saved.sizes)} ({split.saved.how})"
    if split.saved.note:
        sentence += f"; {split.saved.note}"
    if split.change:
        sentence += f"; stale: {split.change}"
    if split.taken_down:
        sentence += f"; {split.taken_down:,} of them taken down since, and not released"
    return sentence


def _release_sentence(step: Released) -> str:
    """Return the sizes and folders of releases, and why the newest one is stale."""
    sentences = [f"{counted(release.images, 'image')} in {release.folder}" for release in step.releases]
    if not sentences:
        return "not yet"
    if step.change:
        sentences[-1] += f" (stale: {step.change})"
    return "; ".join(sentences)


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"
