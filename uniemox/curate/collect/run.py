"""Collect: ask the sources, then fetch what they offer; stopped at any moment, it resumes where it was."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy import func, insert, select, update

from uniemox.curate import tables as t
from uniemox.curate.collect.fetch import FetchConfig, Fetched, FetchFailure, Redirect, get_once
from uniemox.curate.collect.politeness import Moved, PolitenessConfig, fetch_all
from uniemox.curate.collect.robots import Robots
from uniemox.curate.collect.sources.candidate import Candidate, ImageSource
from uniemox.curate.project import Progress, Project, silent
from uniemox.curate.release.takedown import give_back
from uniemox.curate.store import taken_down
from uniemox.errors import DataError, ImageError
from uniemox.io.files import read_limited
from uniemox.io.images import open_image

AT_ONCE = 50  # candidates in one transaction


@dataclass(frozen=True, slots=True)
class Kept:
    """An image whose file has been written."""

    sha256: str
    format: str
    bytes: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class _Job:
    candidate: int
    source: str
    address: str
    redirects: int = 0
    """That led to the address."""


def search(project: Project, sources: Sequence[ImageSource], limit: int, progress: Progress = silent) -> list[str]:
    """Ask every source for every keyword, and write down what it offers.

    limit: results of a keyword. Searches that were carried through for as many are not repeated.
    Returns a line for each source that could not be asked to the end; the others are asked all the same.
    """
    searches = [(source, *words) for source in sources for words in source.words(project.plan)]
    done = {(row.source, row.keyword, row.label): row.asked for row in project.rows(select(t.searches))}
    problems: dict[str, str] = {}
    for number, (source, label, keyword) in enumerate(searches):
        progress("asking", number, len(searches))
        is_list = not keyword
        if source.name in problems or (not is_list and done.get((source.name, keyword, label or ""), 0) >= limit):
            continue
        found = 0
        try:
            for chunk in _chunks(source.offers(label, keyword, limit)):
                _offer(project, source.name, chunk)
                found += len(chunk)
        except DataError as error:
            problems[source.name] = str(error)
            continue
        row = {"source": source.name, "keyword": keyword, "label": label or ""}
        with project.store.write() as connection:
            connection.execute(t.searches.delete().filter_by(**row))
            connection.execute(insert(t.searches).values(**row, asked=limit, found=found, at=time.time()))
    progress("asking", len(searches), len(searches))
    return list(problems.values())


def _chunks(candidates: Iterable[Candidate]) -> Iterator[list[Candidate]]:
    chunk: list[Candidate] = []
    for candidate in candidates:
        chunk.append(candidate)
        if len(chunk) == 500:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _offer(project: Project, source: str, chunk: Sequence[Candidate]) -> None:
    """Write candidates down that are not known yet."""
    addresses = [candidate.address for candidate in chunk]
    known_query = select(t.candidates.c.address, t.candidates.c.keyword).where(
        t.candidates.c.source == source, t.candidates.c.address.in_(addresses)
    )
    with project.store.write() as connection:
        known = {(row.address, row.keyword) for row in connection.execute(known_query)}
        rows = []
        for candidate in chunk:
            if (candidate.address, candidate.keyword) not in known:
                known.add((candidate.address, candidate.keyword))
                rows.append({**asdict(candidate), "source": source, "state": "waiting", "found_at": time.time()})
        if rows:
            connection.execute(insert(t.candidates), rows)


def fetch(
    project: Project,
    fetching: FetchConfig,
    politeness: PolitenessConfig,
    progress: Progress = silent,
) -> dict[str, int]:
    """Fetch every candidate that waits, and keep what is an image.

    Returns how many were fetched, failed for good, or wait for another run because their host could not be reached.
    """
    give_back(project)
    query = select(t.candidates.c.id, t.candidates.c.source, t.candidates.c.address)
    rows = project.rows(query.where(t.candidates.c.state == "waiting").order_by(t.candidates.c.rank, t.candidates.c.id))
    jobs = [(row.address, _Job(row.id, row.source, row.address)) for row in rows]
    counts = {"fetched": 0, "failed": 0, "waiting": 0}
    ended: list[tuple[_Job, Kept | FetchFailure]] = []
    robots = Robots(fetching)
    try:
        with closing(fetch_all(jobs, lambda job: _fetch_one(project, job, fetching, robots), politeness)) as results:
            for number, result in enumerate(results, start=1):
                ended.append(result)
                if len(ended) >= AT_ONCE:
                    _write_down(project, ended, counts)
                    ended = []
                progress("fetching", number, len(jobs))
    finally:
        _write_down(project, ended, counts)
    return counts


def _fetch_one(project: Project, job: _Job, fetching: FetchConfig, robots: Robots) -> Kept | FetchFailure | Moved[_Job]:
    """One request. A redirect is another job, so that its host's rules are read and its turn is waited for."""
    found: Fetched | Redirect | FetchFailure
    if job.source == "folder":
        found = _read_file(job.address, fetching)
    else:
        found = robots.problem(job.address) or get_once(job.address, fetching)
    if isinstance(found, Redirect):
        if job.redirects == fetching.max_redirects:
            return FetchFailure(f"more than {fetching.max_redirects} redirects")
        return Moved(found.address, replace(job, address=found.address, redirects=job.redirects + 1))
    if isinstance(found, FetchFailure):
        return found
    try:
        image = open_image(found.data, "it")
        image_format = str(image.format)
        sha256 = project.keep_file(found.data, image_format)
    except ImageError as error:
        return FetchFailure(f"no image: {error}")
    return Kept(sha256, image_format, len(found.data), *image.size)


def _read_file(address: str, fetching: FetchConfig) -> Fetched | FetchFailure:
    path = Path(url2pathname(urlsplit(address).path))
    try:
        return Fetched(read_limited(path, fetching.max_bytes), address)
    except OSError as error:
        return FetchFailure(f"can't be read ({error.strerror or error})")


def _write_down(project: Project, ended: Sequence[tuple[_Job, Kept | FetchFailure]], counts: dict[str, int]) -> None:
    """Images and the fate of candidates, in one short transaction."""
    if not ended:
        return
    now = time.time()
    kept = {found.sha256: found for _, found in ended if isinstance(found, Kept)}
    with project.store.write() as connection:
        query = select(t.images.c.sha256, t.images.c.id).where(t.images.c.sha256.in_(kept))
        ids = {row.sha256: row.id for row in connection.execute(query)}
        taken = taken_down(connection)
        fresh = [{**asdict(found), "added_at": now} for sha256, found in kept.items() if sha256 not in ids]
        if fresh:
            connection.execute(insert(t.images), fresh)
            ids = {row.sha256: row.id for row in connection.execute(query)}
        for job, found in ended:
            values: dict[str, object] = {"fetched_at": now}
            if isinstance(found, Kept):
                number = ids[found.sha256]
                is_taken = number in taken
                values |= {"state": "failed" if is_taken else "fetched", "picture_id": number}
                values |= {"reason": "taken down" if is_taken else ""}
                if is_taken:
                    project.image_path(found.sha256, found.format).unlink(missing_ok=True)
            else:
                values |= {"state": "waiting" if found.may_pass else "failed", "reason": found.reason}
            counts[str(values["state"])] += 1
            connection.execute(update(t.candidates).where(t.candidates.c.id == job.candidate).values(**values))


def failures(project: Project) -> dict[str, int]:
    """Why candidates were not fetched: reason to number."""
    query = select(t.candidates.c.reason, func.count().label("n")).where(t.candidates.c.reason != "")
    rows = project.rows(query.group_by(t.candidates.c.reason).order_by(func.count().desc()))
    return {row.reason: row.n for row in rows}
