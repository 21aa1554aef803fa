"""Release: images in class folders with all texts and tables, written again without images that were taken down."""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import false, insert, or_, select, update

from uniemox.curate import tables as t
from uniemox.curate.annotate.agree import agreement_now
from uniemox.curate.annotate.answer_files import as_csv
from uniemox.curate.annotate.assignment import suggested_by
from uniemox.curate.annotate.verdicts import OWNER_SAYS, Verdict, read_answers, verdicts
from uniemox.curate.project import SUFFIXES, Change, Project, append, taken_down, utc
from uniemox.curate.release.config import ABOUT, ReleaseConfig, ReleasedImage
from uniemox.curate.release.documents import (
    answer_tables,
    as_json,
    label_studio,
    licence_counts,
    render,
    statistics,
    terms_of,
    write_croissant,
)
from uniemox.curate.release.metadata import orientation_of, without_metadata
from uniemox.curate.release.splitting import FILE, PLOT, kept_images, read_scheme
from uniemox.curate.status import status
from uniemox.data.readers.csv_table import read_rows
from uniemox.data.source import public_name
from uniemox.data.splits import write_splits
from uniemox.errors import ConfigError, DataError, UniemoxError
from uniemox.io.files import (
    PARTIAL,
    FileLock,
    is_plain_name,
    open_regular,
    read_limited,
    refuse_special,
    write_file,
    writing,
)
from uniemox.io.images import MAX_BYTES
from uniemox.io.progress import Progress, silent

MARK = ".uniemox-release"  # marks a folder that may be overwritten
NAMED = "uniemox curate release of project "  # begins the content of MARK
IMAGES = "pictures"
OLD_MARK = "uniemox curate release\n"  # of versions that did not name the project
MAX_LISTED = 20  # images in an error, so that its advice stays visible
MIN_HASH = 12  # digits of a sha256 that name an image
NAME_DIGITS = 20  # digits of the sha256 in the name of an image
LISTS = (
    *("labels.csv", "soft_labels.csv", "provenance.csv", "answers.csv", "ratings.csv", "splits.json"),
    *("label_studio.json", "statistics.json", "agreement.json", "croissant.json", "SHA256SUMS"),
)
"""Files of a release that name or count its images."""


def release(project: Project, folder: Path, config: ReleaseConfig, progress: Progress = silent) -> dict[str, Any]:
    """Write a release into a new folder or over an old release; files that are no longer part of it are removed.

    Images without a split, because they were kept after the split was drawn, are left out and counted.
    Returns the number of images, the numbers left out, and the statistics.
    Raises DataError if the folder holds something else, nothing is kept, there are no splits, or a licence is given
    while some images have no known one.
    """
    folder = folder.absolute()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise DataError(f"{folder} has other files; give an empty folder, or one with a release")
    kept = verdicts(project, rule=config.rule, min_answers=config.min_answers)
    everything, left = release_rows(project, kept)
    rows = _licensed(everything, config)
    _check_folder(folder)
    mark = read_limited(folder / MARK).decode("utf-8", "replace") if (folder / MARK).exists() else ""
    if mark.startswith(NAMED) and mark != _mark_of(project):
        raise DataError(f"{folder} has a release of another project; give another folder, or remove this one")
    with ExitStack() as at_end:
        with writing(folder):
            at_end.callback(FileLock(folder / MARK).release)
        write_file(folder / MARK, _mark_of(project))
        options = {"options": json.dumps(asdict(config)), "at": time.time(), "pictures": len(rows)}
        with project.store.write() as connection:
            connection.execute(t.releases.delete().where(t.releases.c.folder == str(folder)))
            connection.execute(insert(t.releases).values(folder=str(folder), **options))
        sums, left_in = _place_images(folder / IMAGES, rows, progress, keep=config.metadata == "keep")
        figures = statistics(config.name, rows, status(project), project.plan)
        figures["metadata"] = {"asked": config.metadata, "still there": left_in}
        _write_texts(project, folder, config, rows, figures)
        _write_checksums(folder, sums)
    unlicensed = len(everything) - len(rows)
    return {"pictures": len(rows), "without split": left, "unlicensed": unlicensed, "statistics": figures}


def _mark_of(project: Project) -> str:
    """Return the content of MARK, which only releases of this project have."""
    return f"{NAMED}{project.store.setting('id')}\n"


def _is_ours(project: Project, folder: Path) -> bool:
    """Return True if a release is of this project. Raises OSError, or DataError for a damaged table."""
    mark = read_limited(folder / MARK).decode("utf-8", "replace")
    if mark != OLD_MARK:
        return mark == _mark_of(project)
    listed = {row["sha256"] for _, row in read_rows(folder / "provenance.csv", columns=("sha256",))}
    return listed <= {row.sha256 for row in project.rows(select(t.images.c.sha256))}


def _check_folder(folder: Path) -> None:
    """Raise DataError for a link, a pipe or a device in a release, which would be written through or read forever."""
    for path in folder.rglob("*"):
        refuse_special(path)


def _licensed(rows: list[ReleasedImage], config: ReleaseConfig) -> list[ReleasedImage]:
    """Return the images that may be released. Raises DataError, with the images whose licence prevents it."""
    unknown = [row for row in rows if terms_of(row.about["licence"]).needs_credit is None]
    if config.only_licensed:
        if len(unknown) == len(rows):
            raise DataError(f"none of {len(rows)} images has a known licence; nothing is left to release")
        names = {row.path for row in unknown}
        return [row for row in rows if row.path not in names]
    if unknown and config.licence:
        lines = [f"{row.about['address'] or row.sha256} ({row.label})" for row in unknown[:MAX_LISTED]]
        if len(unknown) > MAX_LISTED:
            lines.append(f"and {len(unknown) - MAX_LISTED} more (provenance.csv of a release without --licence)")
        raise DataError(
            f"{len(unknown)} of {len(rows)} images have no known licence, so the release can't be {config.licence}; "
            "give --only-licensed to leave them out, or leave --licence out:\n" + "\n".join(lines)
        )
    return rows


def release_rows(project: Project, kept: Mapping[int, Verdict]) -> tuple[list[ReleasedImage], int]:
    """Return the images of a release in the order of their paths, and the number of images without a split."""
    images, scheme, about = kept_images(project, kept), read_scheme(project), provenance(project)
    rows = []
    for image in images:
        split, verdict = scheme.get(image.sha256), kept[image.id]
        if split is None:
            continue
        label, style = str(verdict.label), image.style or ""
        name = f"{image.sha256[:NAME_DIGITS]}.{SUFFIXES[image.format]}"
        parts = [part for part in (split, label, style, name) if part]
        if not all(map(is_plain_name, parts)):
            raise DataError(
                f"{project.folder}: {parts} can't be folders of a release; rename the split, label or style"
            )
        rows.append(
            ReleasedImage(
                path="/".join(parts),
                label=label,
                split=split,
                style=style,
                shares=verdict.shares,
                sha256=image.sha256,
                picture=image.id,
                file=project.image_path(image.sha256, image.format),
                about=about.get(image.id, dict.fromkeys(ABOUT, "")),
                decided="owner" if verdict.reason == OWNER_SAYS else "annotators",
            )
        )
    if not rows:
        raise DataError(f"{project.folder}: no kept image has a split; draw them: uniemox curate split")
    return sorted(rows, key=lambda row: row.path), len(images) - len(rows)


def provenance(project: Project) -> dict[int, dict[str, str]]:
    """Return the fields of ABOUT of each image's first candidate, preferring one with a licence."""
    candidates = t.candidates.c
    query = select(t.candidates).where(candidates.picture_id.is_not(None))
    fields: dict[int, dict[str, str]] = {}
    for row in project.rows(query.order_by(candidates.licence == "", candidates.id)):
        if row.picture_id not in fields:
            fields[row.picture_id] = {name: getattr(row, name) for name in ABOUT[1:-1]} | {
                "address": row.title if row.source == "folder" else row.address,  # no local paths
                "fetched": utc(row.fetched_at) if row.fetched_at else "",
            }
    return fields


def _place_images(
    root: Path, rows: Sequence[ReleasedImage], progress: Progress, *, keep: bool
) -> tuple[dict[str, str], int]:
    """Write new and changed images and remove all others.

    keep: leave metadata in the files.  Returns sha256 by path, and the number of files whose metadata can't be removed.
    """
    wanted = {root / row.path for row in rows}
    for path in sorted(root.rglob("*"), reverse=True):  # contents before their folder
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and path not in wanted:
            path.unlink()
    sums, left_in = {}, 0
    for number, row in enumerate(rows, start=1):
        target = root / row.path
        try:
            data = _bytes_of(row.file)
            plain = None if keep else without_metadata(data, orientation_of(data, str(row.file)))
            left_in += plain is None and not keep
            data = plain or data
            if not target.exists() or target.stat().st_size != len(data) or target.read_bytes() != data:
                write_file(target, data)
        except OSError as error:
            raise DataError(f"{target}: can't be written ({error.strerror})") from error
        sums[row.path] = hashlib.sha256(data).hexdigest()
        progress("writing", number, len(rows))
    return sums, left_in


def _bytes_of(path: Path) -> bytes:
    try:
        return read_limited(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _write_texts(
    project: Project, folder: Path, config: ReleaseConfig, rows: Sequence[ReleasedImage], figures: Mapping[str, Any]
) -> None:
    labels = project.plan.labels
    answers, suggested = answer_tables(read_answers(project), rows)
    stats = agreement_now(project)
    agreement = stats.anonymous() if stats.pictures else None
    values = {"figures": figures, "licences": licence_counts(row.about["licence"] for row in rows)}
    about = {
        "config": config,
        "plan": project.plan,
        "rows": rows,
        "sources": Counter(row.about["source"] for row in rows),
        "by_owner": sum(row.decided == "owner" for row in rows),
        "suggested": suggested,
        "models": [public_name(model) for model in suggested_by(project)],
        "agreement": agreement,
    }
    texts = {
        "labels.csv": as_csv(["path", "label", "split", "domain"], ([r.path, r.label, r.split, r.style] for r in rows)),
        "soft_labels.csv": as_csv(
            ["path", "split", *labels], ([r.path, r.split, *(r.shares.get(name, 0) for name in labels)] for r in rows)
        ),
        "provenance.csv": as_csv(
            ["path", "sha256", *ABOUT, "decided"],
            ([r.path, r.sha256, *(r.about[name] for name in ABOUT), r.decided] for r in rows),
        ),
        **answers,
        "README.md": render("datasheet.md", **values, **about),
        "licences.md": render("licences.md", **values),
        "statistics.md": render("statistics.md", **values),
        "statistics.json": as_json(figures),
        "agreement.json": as_json(agreement),
        "plan.json": project.plan.to_json() + "\n",
        "label_studio.json": as_json(label_studio(rows)),
    }
    with writing(folder):
        for path in (*folder.glob(f"*{PARTIAL}"), folder / "ratings.csv", folder / PLOT):  # of the last release
            path.unlink(missing_ok=True)
    for name, text in texts.items():
        write_file(folder / name, text.encode("utf-8", "replace"))
    scheme, drawn = {row.path: row.split for row in rows}, project.store.setting("split") or {}
    write_splits(folder / FILE, scheme, source=config.name, how=str(drawn.get("how")))
    if (project.folder / PLOT).exists():
        refuse_special(project.folder / PLOT)
        with writing(folder / PLOT):
            write_file(folder / PLOT, read_limited(project.folder / PLOT))
    write_croissant(folder, config, len(rows), labels)


def _write_checksums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write checksums for sha256sum -c.  sums: of the images, by path."""
    lines = [f"{digest}  {IMAGES}/{path}" for path, digest in sums.items()]
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != "SHA256SUMS" and not path.name.startswith(MARK):
            with open_regular(path) as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}")
    write_file(folder / "SHA256SUMS", ("\n".join(lines) + "\n").encode())


@dataclass(frozen=True, slots=True)
class TakenDown:
    """Result of a takedown."""

    sha256: tuple[str, ...]
    """Hashes of the deleted images."""
    releases: tuple[str, ...]
    """Folders of releases that were written again without them."""
    gone: tuple[str, ...]
    """Folders of releases that are no longer there; copies may exist elsewhere."""
    problems: tuple[str, ...]
    """A sentence for each file that could not be deleted, and for each release that could not be changed."""


def take_down(project: Project, which: str, *, because: str, actor: str = "owner") -> TakenDown:
    """Remove images from the project and its releases, so that they are not collected again.

    which: address of an image or its page, path below a local folder as in provenance.csv, or at least 12 digits of the
    sha256. Near duplicates go too. Files, previews and thumbnails are deleted; hash and addresses stay in the database.
    The decision can be undone: the next collect then fetches the image again. Images leave all releases before any
    release is written again, so that a release that can't be written keeps them in no other.
    Raises DataError if there is no such image, ConfigError for a hash that is too short.
    """
    images, looks, candidates = t.images.c, t.looks.c, t.candidates.c
    of_folder = (candidates.source == "folder") & (candidates.title == which)
    named = or_(candidates.address == which, candidates.page == which, of_folder)
    if not which.strip():  # many images have no page
        raise ConfigError("expected an address or a hash, got an empty text; which image is to be taken down?")
    is_hash = MIN_HASH <= len(which) <= 64 and not set(which.lower()) - set("0123456789abcdef")
    has_hash = images.sha256.like(f"{which.lower()}%") if is_hash else false()
    is_meant = or_(images.id.in_(select(candidates.picture_id).where(named)), has_hash)
    groups = select(looks.near_group).where(looks.picture_id.in_(select(images.id).where(is_meant)))
    copies = select(looks.picture_id).where(looks.near_group.in_(groups))
    rows = project.rows(select(t.images).where(or_(is_meant, images.id.in_(copies))))
    if not rows and not is_hash and not which.startswith(("http://", "https://", "file://")):
        raise ConfigError(f"expected an address, or at least {MIN_HASH} digits of a sha256, got {which!r}")
    if not rows:
        raise DataError(f"no image of {project.folder} has the address, page or hash {which}")
    numbers = [row.id for row in rows]
    with project.store.write() as connection:
        changes = [Change(row.id, "taken", "yes", because) for row in rows]
        append(connection, actor=actor, step="takedown", note=f"{which}: {because}", changes=changes)
        connection.execute(t.looks.delete().where(looks.picture_id.in_(numbers)))
        taken = update(t.candidates).where(candidates.picture_id.in_(numbers))
        connection.execute(taken.values(state="failed", reason="taken down"))
    problems = list(dict.fromkeys(one for row in rows for one in _delete_files(project, row)))
    return _leave_releases(project, [row.sha256 for row in rows], problems)


def _delete_files(project: Project, row: Any) -> Iterator[str]:
    """Delete an image and its preview, and parts of them that a killed writer left. Yield a sentence per failure."""
    for path_of, is_optional in (
        (lambda: project.image_path(row.sha256, row.format), False),
        (lambda: project.preview_path(row.sha256), True),
    ):
        try:
            path = path_of()
            names = os.listdir(path.parent)
        except DataError as error:  # a link that leads out of the project
            yield f"{error}; then repeat the takedown"
        except FileNotFoundError:
            if not is_optional:
                yield f"{path.parent}: this folder of images is missing; repeat the takedown when it is there"
        except OSError as error:
            yield f"{path.parent}: it can't be read ({error.strerror}); repeat the takedown"
        else:
            yield from _unlink(path.with_name(name) for name in names if name.startswith(row.sha256))


def _unlink(paths: Iterable[Path]) -> Iterator[str]:
    """Delete files. Yield a sentence for each one that can't be deleted."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            yield f"{path}: it can't be deleted ({error.strerror}); repeat the takedown"


def _leave_releases(project: Project, sha256: Sequence[str], problems: list[str]) -> TakenDown:
    """Remove images from every release that is still there, then write the non-empty ones again.

    problems: sentences for the result, to which further ones are added.
    """
    releases = project.rows(select(t.releases).order_by(t.releases.c.id))
    gone = [row.folder for row in releases if not (Path(row.folder) / MARK).exists()]
    removed, written, before = [], [], dict[str, dict[str, str]]()
    for row in releases:
        try:
            if row.folder in gone:
                continue
            if not Path(row.folder).is_absolute() or not _is_ours(project, Path(row.folder)):
                problems.append(f"{row.folder}: not a release of this project; if it is, repeat curate release on it")
                continue
            _check_folder(Path(row.folder))
            if row.pictures and _is_away(project, Path(row.folder)):
                remedy = "repeat the takedown when they are there, or curate release on it"
                problems.append(f"{row.folder}: its images are missing; {remedy}")
                continue
            before[row.folder] = _paths_in(Path(row.folder))
            if failures := _remove(Path(row.folder), sha256):
                problems += failures
            else:
                removed.append(row)
        except (OSError, DataError) as error:
            problems.append(f"{row.folder}: the images can't be removed ({error}); remove them by hand")
    for row in removed:
        try:
            others = _write_again(project, row, before[row.folder])
            written.append(row.folder)
            if others:
                change = f"{others} other images left it, or have another label or split"
                problems.append(f"{row.folder}: {change}, because the project has changed since; look at its tables")
        except (UniemoxError, OSError) as error:
            failure = f"the images are removed, but it can't be written again ({error})"
            problems.append(f"{row.folder}: {failure}; repeat curate release on it")
    return TakenDown(tuple(sha256), tuple(written), tuple(gone), tuple(problems))


def _write_again(project: Project, row: Any, before: Mapping[str, str]) -> int:
    """Write a release from today's project, and return the number of other images whose path changed.

    row: of tables.releases.  before: its images' paths by sha256.
    """
    folder = Path(row.folder)
    if any(path.is_file() for path in (folder / IMAGES).rglob("*")):
        release(project, folder, ReleaseConfig(**json.loads(row.options)))
    else:
        with project.store.write() as connection:
            connection.execute(update(t.releases).where(t.releases.c.id == row.id).values(pictures=0))
    now, taken = _paths_in(folder), _taken_down(project)
    return sum(now.get(sha256) != path for sha256, path in before.items() if sha256 not in taken)


def _is_away(project: Project, folder: Path) -> bool:
    """Return True if a release without any image should have some: its folder was moved, or is not mounted."""
    images = folder / IMAGES
    if not images.is_dir() or not any(images.iterdir()):  # a takedown leaves the folders of classes
        return True
    if any(path.is_file() for path in images.rglob("*")):
        return False
    return not _paths_in(folder).keys() <= _taken_down(project)


def _paths_in(folder: Path) -> dict[str, str]:
    """Return the paths of a release's images, with split and label, by sha256; none if its table is missing."""
    table = folder / "provenance.csv"
    rows = read_rows(table, columns=("path", "sha256")) if table.is_file() else ()
    return {row["sha256"]: row["path"] for _, row in rows}


def _taken_down(project: Project) -> set[str]:
    return {row.sha256 for row in project.rows(select(t.images.c.sha256).where(t.images.c.id.in_(taken_down())))}


def _remove(folder: Path, sha256: Iterable[str]) -> list[str]:
    """Remove images from a release, with the lists that may name them. Return a sentence per failure."""
    names = {digest[:NAME_DIGITS] for digest in sha256}
    paths = [path for path in (folder / IMAGES).rglob("*") if path.stem in names]
    is_empty = not any(path.is_file() for path in (folder / IMAGES).rglob("*"))  # then the lists aren't written again
    lists = [*folder.glob(f"*{PARTIAL}"), *(folder / name for name in LISTS)] if paths or is_empty else []
    return list(_unlink(paths + lists))
