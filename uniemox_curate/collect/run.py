"""Collect: search the sources, then fetch their candidates. Resumes at any point after it was stopped."""

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, func, insert, select, update

from uniemox.errors import DataError, ImageError
from uniemox.io import Progress, is_raw, open_image, read_limited, silent
from uniemox_curate import tables as t
from uniemox_curate.collect.candidates import Candidate, ImageSource
from uniemox_curate.collect.config import CollectConfig
from uniemox_curate.collect.fetch import FetchError, Redirect, Robots, get_once
from uniemox_curate.collect.folders import is_below, path_of
from uniemox_curate.collect.schedule import Download, fetch_all
from uniemox_curate.decisions import follow_takedowns, taken_down
from uniemox_curate.project import Project

# Candidates of one transaction. Of downloads, as many may be lost if the process is killed.
CANDIDATES_PER_SEARCH = 500
CANDIDATES_PER_FETCH = 50

SavedImage = dict[str, Any]
"""Row of tables.images for an image whose file has been written."""


def search(
    project: Project, sources: Sequence[ImageSource], config: CollectConfig, progress: Progress = silent
) -> list[str]:
    """Search every source for every keyword and save the candidates.

    A finished search is not repeated for the same number of results.

    Returns:
        One line per source that failed; all others are searched.
    """
    keywords = [(label, keyword) for label in project.plan.labels for keyword in project.plan.keywords[label]]
    searches: list[tuple[ImageSource, str | None, str]] = []
    for source in sources:
        if source.is_searched:
            searches += [(source, label, keyword) for label, keyword in keywords]
        else:
            searches.append((source, None, ""))
    done = {(row.source, row.keyword, row.label): row.asked for row in project.rows(select(t.searches))}
    problems: dict[str, str] = {}
    for number, (source, label, keyword) in enumerate(searches):
        progress("asking", number, len(searches))
        is_done = keyword != "" and done.get((source.name, keyword, label or ""), 0) >= config.per_keyword
        if source.name in problems or is_done:
            continue
        count = 0
        candidates = iter(source.offers(label, keyword, config.per_keyword))
        try:
            while chunk := list(islice(candidates, CANDIDATES_PER_SEARCH)):
                _save_candidates(project, source, chunk)
                count += len(chunk)
        except DataError as error:
            problems[source.name] = str(error)
            continue
        row = {"source": source.name, "keyword": keyword, "label": label or ""}
        with project.store.write() as connection:
            connection.execute(t.searches.delete().filter_by(**row))
            connection.execute(insert(t.searches).values(**row, asked=config.per_keyword, found=count, at=time.time()))
    progress("asking", len(searches), len(searches))
    return list(problems.values())


def _save_candidates(project: Project, source: ImageSource, chunk: Sequence[Candidate]) -> None:
    """Save new candidates. The owner's folder or table also changes fields of known ones, except to empty values."""
    fresh = {(candidate.address, candidate.keyword): asdict(candidate) for candidate in chunk}
    addresses = [candidate.address for candidate in chunk]
    query = select(t.candidates).where(t.candidates.c.source == source.name, t.candidates.c.address.in_(addresses))
    state = {"source": source.name, "state": "waiting", "found_at": time.time()}
    with project.store.write() as connection:
        changed = []
        for row in connection.execute(query).mappings():
            fields = fresh.pop((row["address"], row["keyword"]), {})
            fields = {name: row[name] if value in ("", None) else value for name, value in fields.items()}
            if not source.is_searched and any(row[name] != value for name, value in fields.items()):
                changed.append({"number": row["id"], **fields})
        if changed:
            connection.execute(update(t.candidates).where(t.candidates.c.id == bindparam("number")), changed)
        if fresh:
            connection.execute(insert(t.candidates), [{**fields, **state} for fields in fresh.values()])


def fetch(
    project: Project,
    config: CollectConfig,
    progress: Progress = silent,
    *,
    folders: Sequence[Path] = (),
    retry: bool = False,
) -> dict[str, int]:
    """Fetch every waiting candidate and keep the images; fetch images again whose files are missing.

    Args:
        folders: Folders below which candidates on this machine are read; a stranger's project could name other files.
        retry: Also fetch candidates that failed for good, except those of images that were taken down.

    Returns:
        The numbers fetched, failed for good, and waiting for another run because their host was not available.
    """
    missing = [{"number": number} for number in _missing(project)]
    with project.store.write() as connection:
        if missing:
            # The state is compared again, because a takedown may have deleted some of them meanwhile.
            is_meant = (t.candidates.c.id == bindparam("number")) & (t.candidates.c.state == "fetched")
            connection.execute(update(t.candidates).where(is_meant).values(state="waiting"), missing)
        if retry:
            is_failed = (t.candidates.c.state == "failed") & (t.candidates.c.reason != "taken down")
            connection.execute(update(t.candidates).where(is_failed).values(state="waiting", reason=""))
        follow_takedowns(connection)
    query = select(t.candidates.c.id, t.candidates.c.source, t.candidates.c.address, t.images.c.sha256)
    # A candidate that was fetched before has an image, whose sha256 is compared.
    query = query.outerjoin(t.images)
    rows = project.rows(query.where(t.candidates.c.state == "waiting").order_by(t.candidates.c.rank, t.candidates.c.id))
    roots = [folder.resolve() for folder in folders]
    allowed = [row for row in rows if row.source != t.FOLDER or is_below(path_of(row.address), roots)]
    jobs = [Download(row.address, key=row) for row in allowed]
    counts = {"fetched": 0, "failed": 0, "waiting": len(rows) - len(allowed)}
    ended: list[tuple[Download, SavedImage | FetchError]] = []
    robots = Robots(config)
    try:
        with closing(fetch_all(jobs, lambda job: _fetch_one(project, job, config, robots), config)) as results:
            for number, result in enumerate(results, start=1):
                ended.append(result)
                if len(ended) >= CANDIDATES_PER_FETCH:
                    _save_results(project, ended, counts)
                    ended = []
                progress("fetching", number, len(jobs))
    finally:
        _save_results(project, ended, counts)
    return counts


def _missing(project: Project) -> list[int]:
    """Return the candidates whose image file is missing.

    Images of a folder that can't be read are not missing. If no folder can be read, none are: their drive may be away.
    """
    query = select(t.candidates.c.id, t.images.c.sha256).join(t.images).where(t.candidates.c.state == "fetched")
    rows = project.rows(query)
    walked = list(os.walk(project.folder / "pictures"))
    read_folders = {os.path.basename(folder) for folder, _, _ in walked[1:]}
    unread_folders = {name for _, folders, _ in walked for name in folders} - read_folders
    present = {os.path.splitext(name)[0] for _, _, files in walked for name in files}
    if not read_folders:
        return []
    return [row.id for row in rows if row.sha256[:2] not in unread_folders and row.sha256 not in present]


def _fetch_one(
    project: Project, job: Download, config: CollectConfig, robots: Robots
) -> SavedImage | FetchError | Download:
    """Send one request. A redirect becomes another job, so that its host's rules and rate apply."""
    result: bytes | Redirect | FetchError
    if job.key.source == t.FOLDER:
        try:
            result = read_limited(path_of(job.address), config.max_bytes)
        except OSError as error:
            return FetchError(f"can't be read ({error.strerror or error})")
    else:
        result = robots.problem(job.address) or get_once(job.address, config)
    if isinstance(result, Redirect):
        if job.redirects == config.max_redirects:
            return FetchError(f"more than {config.max_redirects} redirects")
        return Download(result.address, job.key, job.redirects + 1)
    if isinstance(result, FetchError):
        return result
    try:
        # A data set is published in formats that all browsers show.
        if is_raw(result):
            return FetchError("a camera raw; save it as JPEG")
        image = open_image(result, "the file")
        image_format = str(image.format)
        if job.key.sha256 not in (None, hashlib.sha256(result).hexdigest()):
            return FetchError("another image than before is at its address now")
        sha256 = project.keep_file(result, image_format)
    except ImageError as error:
        return FetchError(f"no image: {error}")
    width, height = image.size
    return {"sha256": sha256, "format": image_format, "bytes": len(result), "width": width, "height": height}


def _save_results(
    project: Project, ended: Sequence[tuple[Download, SavedImage | FetchError]], counts: dict[str, int]
) -> None:
    """Save images and the states of candidates in one short transaction, and count the states."""
    if not ended:
        return
    now = time.time()
    images = {result["sha256"]: result for _, result in ended if not isinstance(result, FetchError)}
    with project.store.write() as connection:
        query = select(t.images.c.sha256, t.images.c.id).where(t.images.c.sha256.in_(images))
        ids = {row.sha256: row.id for row in connection.execute(query)}
        taken = set(connection.scalars(taken_down()))
        fresh = [{**result, "added_at": now} for sha256, result in images.items() if sha256 not in ids]
        if fresh:
            connection.execute(insert(t.images), fresh)
            ids = {row.sha256: row.id for row in connection.execute(query)}
        for job, result in ended:
            image: dict[str, int] = {}
            reason = ""
            if isinstance(result, FetchError):
                state = "waiting" if result.may_pass else "failed"
                reason = result.reason
            elif ids[result["sha256"]] in taken:
                state = "failed"
                reason = "taken down"
                image = {"picture_id": ids[result["sha256"]]}
                project.image_path(result["sha256"], result["format"]).unlink(missing_ok=True)
            else:
                state = "fetched"
                image = {"picture_id": ids[result["sha256"]]}
            counts[state] += 1
            of_candidate = update(t.candidates).where(t.candidates.c.id == job.key.id)
            connection.execute(of_candidate.values(state=state, reason=reason, fetched_at=now, **image))


def failures(project: Project) -> dict[str, int]:
    """Return the number of candidates that were not fetched, by reason."""
    query = select(t.candidates.c.reason, func.count().label("n")).where(t.candidates.c.reason != "")
    rows = project.rows(query.group_by(t.candidates.c.reason).order_by(func.count().desc()))
    return {row.reason: row.n for row in rows}
