"""Progress of a project, for the terminal and as a page."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
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
from uniemox_curate.next_step import next_step
from uniemox_curate.project import Project
from uniemox_curate.staleness import agreement_change, release_change, split_change

# Maximum number of decisions in the history.
MAX_BATCHES = 50


def status(project: Project, folder: str | None = None) -> dict[str, Any]:
    """Return a project's state as JSON: counts of each step, annotators, recent decisions, and the next command."""
    counts = count(project.store)
    collected = _collected(project)
    screened = _screened(project, counts)
    with project.store.read() as connection:
        batches = history(connection, MAX_BATCHES)
    people = annotators(project, counts)
    judged = select(current("verdict").c.picture_id)
    steps = {
        "collect": collected,
        "screen": screened,
        "annotate": {
            "answered twice": counts.answered_twice,
            "answered or skipped": counts.answered_or_skipped,
            "to answer": screened["kept"],
            "annotators": len(people),
            "annotators who count": sum(not row["is_left_out"] for row in people),
            "checks": note_on_checks(people, project.plan.check_every),
        },
        "agree": _agreement(project, counts) | {"judged": project.count(judged)},
        "split": _split_step(project, counts),
        "release": _released(project, counts),
    }
    step = next_step(folder or project.folder.name, steps)
    return {
        "folder": project.folder.name,
        "labels": list(project.plan.labels),
        "steps": steps,
        "told": sentences(steps),
        "people": people,
        "history": batches,
        "next": step.command,
        "why": step.reason,
    }


def write_status_page(
    path: Path, state: Mapping[str, Any], agreement: AgreementStats | None, plot: Path | None
) -> None:
    """Write the page.

    Args:
        path: File to write.
        state: Result of `status`.
        agreement: Statistics to show; None shows none.
        plot: Image of the split; None shows none.

    Raises:
        DataError: If the file can't be written.
    """
    url = ""
    if plot is not None and plot.exists():
        with Image.open(plot) as image:
            url = jpeg_url(image, max_side_px=1600)
    title = f"Project {state['folder']}"
    write_html(path, "uniemox_curate/status_page.html", title=title, status=state, agreement=agreement, plot=url)


def sentences(steps: Mapping[str, Any]) -> dict[str, str]:
    """Return a sentence for each step."""
    collect, screen, annotate, agree = (steps[name] for name in ("collect", "screen", "annotate", "agree"))
    different = collect["different pictures"] - screen["taken down"]
    return {
        "collect": f"{collect['fetched']:,} of {collect['offered']:,} fetched, {collect['failed']:,} failed, "
        f"{collect['waiting']:,} waiting, {collect['taken down']:,} taken down; "
        f"{counted(different, 'different image')}; from {_list(collect['sources'])}",
        "screen": f"{screen['looked at']:,} looked at, {screen['kept']:,} kept; dropped: {_list(screen['dropped'])}; "
        f"styles: {_list(screen['styles'])}; {screen['taken down']:,} taken down",
        "annotate": _annotated(annotate),
        "agree": f"{_agreed(agree.get('figures'))}; rule {agree['rule']}: {agree['kept']:,} kept, "
        f"{agree['disputed']:,} without agreement; {agree['judged']:,} judged",
        "split": _split(steps["split"]),
        "release": _releases(steps["release"]),
    }


def annotators(project: Project, counts: Counts) -> list[dict[str, Any]]:
    """Return all people but the owner: answers, attention checks passed, median time to 0.1 s, access."""
    times: dict[tuple[int, str], list[AnswerTime]] = defaultdict(list)
    for answer_time in counts.times:
        times[answer_time.person, answer_time.kind].append(answer_time)
    numbers = Counter({key: sum(part.count for part in parts) for key, parts in times.items()})
    people = select(t.people, t.people.c.name.in_(LEFT_OUT).label("is_left_out"))
    return [
        {
            "name": row.name,
            "answered": numbers[row.id, "answered"],
            "skipped": numbers[row.id, "skipped"],
            "checks": numbers[row.id, "passed"] + numbers[row.id, "missed"],
            "checks_passed": numbers[row.id, "passed"],
            "median_s": _median_s(times[row.id, "answered"]),
            "is_revoked": row.revoked_at is not None or row.role != "annotator",
            "is_left_out": row.is_left_out,
        }
        for row in project.rows(people.where(t.people.c.name != "owner").order_by(t.people.c.id))
    ]


def note_on_checks(people: Sequence[Mapping[str, Any]], check_every: int) -> str:
    """Return a clause about annotators who missed attention checks, or have answered none; empty if there are none.

    Args:
        people: Result of `annotators`.
        check_every: Number of images from one attention check to the next; 0: there are none.
    """
    people = [row for row in people if row["answered"] and not row["is_left_out"]]
    notes = []
    missed = [row for row in people if row["checks_passed"] < row["checks"]]
    if missed:
        passed = ", ".join(f"{row['name']} {row['checks_passed']} of {row['checks']}" for row in missed)
        notes.append(f"attention checks passed: {passed} (uniemox curate leave-out stops counting an annotator)")
    unchecked = [row["name"] for row in people if not row["checks"]]
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


def _collected(project: Project) -> dict[str, Any]:
    # Candidates that were taken down have state failed, so that they are not fetched again.
    is_taken_down = (t.candidates.c.state == "failed") & (t.candidates.c.reason == "taken down")
    columns = (t.candidates.c.source, t.candidates.c.state, is_taken_down.label("is_taken_down"))
    states = dict.fromkeys(("fetched", "failed", "waiting", "taken down"), 0)
    sources: Counter[str] = Counter()
    for row in project.rows(select(*columns, func.count().label("n")).group_by(*columns).order_by(*columns)):
        states["taken down" if row.is_taken_down else row.state] += row.n
        sources[row.source] += row.n
    images = project.count(select(t.images.c.id))
    return {
        "offered": sources.total(),
        **states,
        "different pictures": images,
        "sources": dict(sources),
        "waits for folder": waits_for_folder(project),
    }


def _screened(project: Project, counts: Counts) -> dict[str, Any]:
    fresh = select(t.candidates.c.picture_id).where(t.candidates.c.state == "fetched").distinct()
    return {
        "looked at": project.count(select(t.looks.c.picture_id)),
        "to look at": project.count(fresh.where(t.candidates.c.picture_id.not_in(select(t.looks.c.picture_id)))),
        "kept": counts.passed_screen,
        "taken down": counts.taken_down,
        "dropped": counts.dropped,
        "styles": counts.styles,
    }


def _agreement(project: Project, counts: Counts) -> dict[str, Any]:
    """Return the images that the rule keeps, those without agreement, and the last computed agreement in short."""
    saved = project.store.setting("agreement")
    with project.store.read() as connection:
        change = agreement_change(connection, saved, counts)
    step: dict[str, Any] = {
        "rule": counts.basis.rule,
        "kept": counts.labelled.images,
        "disputed": counts.disputed,
        "change": change,
    }
    if saved is None:
        return step
    figures = {
        name: {key: None if value is None else round(value, 3) for key, value in saved[name].items()}
        for name in ("percent", "alpha")
    }
    later = {
        "later answers": counts.newest_answer - saved["of_answers"],
        "later steps": counts.newest_batch - saved.get("of_batch", 0),
    }
    return step | {"figures": {"pictures": saved["pictures"], **figures, **later}}


def _split_step(project: Project, counts: Counts) -> dict[str, Any]:
    """Return the split with a clause about later changes, or nothing if there is none."""
    saved = project.store.setting("split")
    if not saved:
        return {}
    with project.store.read() as connection:
        change = split_change(connection, saved, counts)
    # Without a change, only takedowns make the kept images fewer than those of the split.
    missing = sum(saved["sizes"].values()) - counts.labelled.images
    return {**saved, "change": change, "taken down": 0 if change else max(missing, 0)}


def _released(project: Project, counts: Counts) -> dict[str, Any]:
    """Return all releases, and of the newest one the options and a clause about later changes."""
    rows = project.rows(select(t.releases).order_by(t.releases.c.id))
    releases = [{"folder": row.folder, "pictures": row.pictures, "at": row.at} for row in rows]
    if not rows:
        return {"releases": releases}
    settings = project.store.setting("release"), project.store.setting("split")
    with project.store.read() as connection:
        change = release_change(connection, rows[-1], *settings, counts)
    return {"releases": releases, "options": json.loads(rows[-1].options), "change": change}


def _agreed(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "not computed yet"
    parts = [
        f"{name} {figure['value']} ({figure['low']} to {figure['high']})"
        for name, figure in (("same answer", figures["percent"]), ("Krippendorff's α", figures["alpha"]))
    ]
    later = [counted(figures[f"later {noun}s"], noun) for noun in ("answer", "step") if figures[f"later {noun}s"]]
    before = f", before the last {' and '.join(later)}" if later else ""
    return f"{', '.join(parts)} on {counted(figures['pictures'], 'image')}{before}"


def _annotated(step: Mapping[str, Any]) -> str:
    """Return the progress of the annotation, and what is wrong with the attention checks."""
    sentence = (
        f"{step['answered twice']:,} of {counted(step['to answer'], 'image')} answered by two or more of "
        f"{counted(step['annotators'], 'annotator')}"
    )
    if step["checks"]:
        sentence += f"; {step['checks']}"
    return sentence


def _split(drawn: Mapping[str, Any]) -> str:
    """Return the sizes of the splits, how they were drawn, and why their shares differ from the requested ones."""
    if not drawn:
        return "not yet"
    sentence = f"{_list(drawn['sizes'])} ({drawn['how']})"
    # Splits of earlier versions have no note.
    if drawn.get("note"):
        sentence += f"; {drawn['note']}"
    if drawn["change"]:
        sentence += f"; stale: {drawn['change']}"
    if drawn["taken down"]:
        sentence += f"; {drawn['taken down']:,} of them taken down since, and not released"
    return sentence


def _releases(step: Mapping[str, Any]) -> str:
    """Return the sizes and folders of releases, and why the newest one is stale."""
    sentences = [f"{counted(release['pictures'], 'image')} in {release['folder']}" for release in step["releases"]]
    if not sentences:
        return "not yet"
    if step["change"]:
        sentences[-1] += f" (stale: {step['change']})"
    return "; ".join(sentences)


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"
