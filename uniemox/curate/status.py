"""How far a project is, for the page and the terminal."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select

from uniemox.curate import tables as t
from uniemox.curate.annotate.assignment import pool
from uniemox.curate.annotate.verdicts import disputed, read_answers
from uniemox.curate.project import Project
from uniemox.curate.store import SKIP, decisions, history, last_batch, left_out, taken_down

MAX_BATCHES = 50


def status(project: Project) -> dict[str, Any]:
    """Every step with its counts, the people, what was done last, and what to do next, as JSON."""
    collected, screened = _collected(project), _screened(project)
    answers = read_answers(project)
    with project.store.read() as connection:
        judged = {image: one.value for image, one in decisions(connection, "verdict").items()}
        batches = [dict(row) for row in history(connection, MAX_BATCHES)]
    people = annotators(project)
    fully = sum(len(said) >= 2 for said in answers.by_picture.values())
    steps = {
        "collect": collected,
        "screen": screened,
        "annotate": {"answered twice": fully, "to answer": screened["kept"], "annotators": len(people)},
        "agree": {"disputed": len(disputed(answers, judged)), "judged": len(judged)} | _figures(project),
        "split": project.store.setting("split") or {},
        "release": {"releases": _releases(project)},
    }
    return {
        "folder": project.folder.name,
        "labels": list(project.plan.labels),
        "steps": steps,
        "told": told(steps),
        "people": people,
        "history": batches,
        "next": _next(project, steps),
    }


def told(steps: Mapping[str, Any]) -> dict[str, str]:
    """A sentence for each step."""
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
        "agree": f"{_figures_told(agree.get('figures'))}; {agree['disputed']:,} disputed, {agree['judged']:,} judged",
        "split": f"{_list(split['sizes'])} ({split['how']})" if split else "not yet",
        "release": "; ".join(releases) or "not yet",
    }


def annotators(project: Project) -> list[dict[str, Any]]:
    """Everybody who was invited to annotate: answers, attention checks passed, time for an image, access."""
    last = select(func.max(t.answers.c.id)).group_by(t.answers.c.task_id)
    query = (
        select(t.tasks.c.person_id, t.tasks.c.check_label, t.answers.c.label, t.answers.c.seconds)
        .join(t.tasks, t.tasks.c.id == t.answers.c.task_id)
        .where(t.answers.c.id.in_(last))
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
            "median_s": sorted(seconds[row.id])[len(seconds[row.id]) // 2] if seconds[row.id] else None,
            "is_revoked": row.revoked_at is not None,
            "is_left_out": row.name in silenced,
        }
        for row in people
    ]


def _collected(project: Project) -> dict[str, Any]:
    query = select(t.candidates.c.source, t.candidates.c.state, func.count().label("n"))
    rows = project.rows(query.group_by(t.candidates.c.source, t.candidates.c.state))
    states = {state: sum(row.n for row in rows if row.state == state) for state in ("fetched", "failed", "waiting")}
    sources = {
        source: sum(row.n for row in rows if row.source == source) for source in sorted({r.source for r in rows})
    }
    images = project.count(select(func.count()).select_from(t.images))
    return {"offered": sum(states.values()), **states, "different pictures": images, "sources": sources}


def _screened(project: Project) -> dict[str, Any]:
    with project.store.read() as connection:
        found = decisions(connection, "screen")
        styles = Counter(one.value for one in decisions(connection, "style").values() if one.value)
        kept = len(pool(connection))
        taken = taken_down(connection)
    reasons = Counter(
        one.reason.split(":")[0] for number, one in found.items() if one.value == "drop" and number not in taken
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
    """The last agreement that was computed, in short."""
    found = project.store.setting("agreement")
    if found is None:
        return {}
    newest = project.count(select(func.max(t.answers.c.id)))
    with project.store.read() as connection:
        batch = last_batch(connection)
    shown = {name: {key: _rounded(value) for key, value in found[name].items()} for name in ("percent", "alpha")}
    later = {"later answers": newest - found["of_answers"], "later steps": batch - found.get("of_batch", 0)}
    return {"figures": {"pictures": found["pictures"], **shown, **later}}


def _figures_told(figures: Mapping[str, Any] | None) -> str:
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


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _releases(project: Project) -> list[dict[str, Any]]:
    rows = project.rows(select(t.releases).order_by(t.releases.c.id))
    return [{"folder": row.folder, "pictures": row.pictures, "at": row.at} for row in rows]


def _next(project: Project, steps: dict[str, Any]) -> str:
    """The command that continues the work."""
    name = project.folder.name
    collected, screened = steps["collect"], steps["screen"]
    if not collected["offered"]:
        return f"uniemox curate collect {name} --source folder:IMAGES (or openverse, commons, bing, csv:TABLE)"
    if collected["waiting"]:
        return f"uniemox curate collect {name}"
    if screened["to look at"]:
        return f"uniemox curate screen {name}"
    if steps["annotate"]["annotators"] < 2:
        return f"uniemox curate invite {name} NAME"
    if steps["annotate"]["answered twice"] < steps["annotate"]["to answer"]:
        return f"uniemox curate serve {name}"
    if "figures" not in steps["agree"]:
        return f"uniemox curate agree {name}"
    if not steps["split"]:
        return f"uniemox curate split {name}"
    return f"uniemox curate release {name} FOLDER"
