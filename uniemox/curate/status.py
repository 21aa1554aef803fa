"""Progress of a project, for the page and the terminal."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import median_high
from typing import Any

from sqlalchemy import func, select

from uniemox.curate import tables as t
from uniemox.curate.annotate.assignment import pool
from uniemox.curate.annotate.verdicts import disputed, judged_labels, last_answers, read_answers
from uniemox.curate.project import SKIP, Project, decisions, history, last_batch, left_out, taken_down

MAX_BATCHES = 50


def status(project: Project) -> dict[str, Any]:
    """Return all steps with their counts, annotators, recent batches, and the next command, JSON-serialisable."""
    collected, screened = _collected(project), _screened(project)
    answers, judged = read_answers(project), judged_labels(project)
    with project.store.read() as connection:
        batches = [dict(row) for row in history(connection, MAX_BATCHES)]
    releases = select(t.releases.c.folder, t.releases.c.pictures, t.releases.c.at).order_by(t.releases.c.id)
    people = annotators(project)
    fully = sum(len(said) >= 2 for said in answers.by_picture.values())
    steps = {
        "collect": collected,
        "screen": screened,
        "annotate": {"answered twice": fully, "to answer": screened["kept"], "annotators": len(people)},
        "agree": {"disputed": len(disputed(answers, judged)), "judged": len(judged)} | _figures(project),
        "split": project.store.setting("split") or {},
        "release": {"releases": [dict(row._mapping) for row in project.rows(releases)]},
    }
    return {
        "folder": project.folder.name,
        "labels": list(project.plan.labels),
        "steps": steps,
        "told": sentences(steps),
        "people": people,
        "history": batches,
        "next": _next(project, steps),
    }


def sentences(steps: Mapping[str, Any]) -> dict[str, str]:
    """Return a sentence for each step."""
    collect, screen, annotate, agree = (steps[name] for name in ("collect", "screen", "annotate", "agree"))
    releases = [f"{one['pictures']:,} images in {one['folder']}" for one in steps["release"]["releases"]]
    split = steps["split"]
    return {
        "collect": f"{collect['fetched']:,} of {collect['offered']:,} fetched, {collect['failed']:,} failed, "
        f"{collect['waiting']:,} waiting; {collect['different pictures']:,} different images; "
        f"from {_list(collect['sources'])}",
        "screen": f"{screen['looked at']:,} looked at, {screen['kept']:,} kept; dropped: {_list(screen['dropped'])}; "
        f"styles: {_list(screen['styles'])}; {screen['taken down']:,} taken down",
        "annotate": f"{annotate['answered twice']:,} of {annotate['to answer']:,} images answered by two or more of "
        f"{annotate['annotators']} annotators",
        "agree": f"{_agreed(agree.get('figures'))}; {agree['disputed']:,} disputed, {agree['judged']:,} judged",
        "split": f"{_list(split['sizes'])} ({split['how']})" if split else "not yet",
        "release": "; ".join(releases) or "not yet",
    }


def annotators(project: Project) -> list[dict[str, Any]]:
    """Return all invited annotators: answers, attention checks passed, time for an image, access."""
    query = (
        select(t.tasks.c.person_id, t.tasks.c.check_label, t.answers.c.label, t.answers.c.seconds)
        .join(t.tasks, t.tasks.c.id == t.answers.c.task_id)
        .where(t.answers.c.id.in_(last_answers()))
    )
    checks: dict[int, Counter[bool]] = defaultdict(Counter)
    seconds: dict[int, list[float]] = defaultdict(list)
    skipped: Counter[int] = Counter()
    for row in project.rows(query):
        if row.check_label is None and row.label != SKIP:
            seconds[row.person_id].append(row.seconds)
        elif row.check_label is None:
            skipped[row.person_id] += 1
        else:
            checks[row.person_id][row.label == row.check_label] += 1
    with project.store.read() as connection:
        silenced = left_out(connection)
    people = project.rows(select(t.people).where(t.people.c.role == "annotator").order_by(t.people.c.id))
    return [
        {
            "name": row.name,
            "answered": len(seconds[row.id]),
            "skipped": skipped[row.id],
            "checks": checks[row.id].total(),
            "checks_passed": checks[row.id][True],
            "median_s": median_high(seconds[row.id]) if seconds[row.id] else None,
            "is_revoked": row.revoked_at is not None,
            "is_left_out": row.name in silenced,
        }
        for row in people
    ]


def _collected(project: Project) -> dict[str, Any]:
    columns = t.candidates.c.source, t.candidates.c.state
    states = dict.fromkeys(("fetched", "failed", "waiting"), 0)
    sources: Counter[str] = Counter()
    for row in project.rows(select(*columns, func.count().label("n")).group_by(*columns).order_by(*columns)):
        states[row.state] += row.n
        sources[row.source] += row.n
    images = project.count(select(func.count()).select_from(t.images))
    return {"offered": sources.total(), **states, "different pictures": images, "sources": dict(sources)}


def _screened(project: Project) -> dict[str, Any]:
    with project.store.read() as connection:
        screened = decisions(connection, "screen")
        styles = Counter(one.value for one in decisions(connection, "style").values() if one.value)
        kept = len(pool(connection))
        taken = taken_down(connection)
    reasons = Counter(
        one.reason.split(":")[0] for number, one in screened.items() if one.value == "drop" and number not in taken
    )
    looked = project.count(select(func.count()).select_from(t.looks))
    fresh = select(func.count(func.distinct(t.candidates.c.picture_id))).outerjoin(
        t.looks, t.looks.c.picture_id == t.candidates.c.picture_id
    )
    to_look_at = project.count(fresh.where(t.candidates.c.state == "fetched", t.looks.c.picture_id.is_(None)))
    dropped = dict(reasons.most_common())
    counts = {"looked at": looked, "to look at": to_look_at, "kept": kept, "taken down": len(taken)}
    return {**counts, "dropped": dropped, "styles": dict(styles)}


def _figures(project: Project) -> dict[str, Any]:
    """Return the last computed agreement in short."""
    saved = project.store.setting("agreement")
    if saved is None:
        return {}
    newest = project.count(select(func.max(t.answers.c.id)))
    with project.store.read() as connection:
        batch = last_batch(connection)
    shown = {
        name: {key: None if value is None else round(value, 3) for key, value in saved[name].items()}
        for name in ("percent", "alpha")
    }
    later = {"later answers": newest - saved["of_answers"], "later steps": batch - saved.get("of_batch", 0)}
    return {"figures": {"pictures": saved["pictures"], **shown, **later}}


def _agreed(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "not computed yet"
    parts = [
        f"{name} {one['value']} ({one['low']} to {one['high']})"
        for name, one in (("same answer", figures["percent"]), ("Krippendorff's α", figures["alpha"]))
    ]
    later = [f"{figures[f'later {name}']:,} {name}" for name in ("answers", "steps") if figures[f"later {name}"]]
    before = f", before the last {' and '.join(later)}" if later else ""
    return f"{', '.join(parts)} on {figures['pictures']:,} images{before}"


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"


def _next(project: Project, steps: dict[str, Any]) -> str:
    """Return the command that continues the work."""
    name = project.folder.name
    collected, annotated = steps["collect"], steps["annotate"]
    if not collected["offered"]:
        return f"uniemox curate collect {name} --source folder:IMAGES (or openverse, commons, bing, csv:TABLE)"
    commands = {
        f"collect {name}": collected["waiting"],
        f"screen {name}": steps["screen"]["to look at"],
        f"invite {name} NAME": annotated["annotators"] < 2,
        f"serve {name}": annotated["answered twice"] < annotated["to answer"],
        f"agree {name}": "figures" not in steps["agree"],
        f"split {name}": not steps["split"],
        f"release {name} FOLDER": True,
    }
    return f"uniemox curate {next(command for command, is_due in commands.items() if is_due)}"
