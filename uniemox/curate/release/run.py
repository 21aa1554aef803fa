"""Release: images in class folders with all texts and tables."""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from uniemox.curate import tables as t
from uniemox.curate.annotate.agree import agreement_now
from uniemox.curate.annotate.answer_files import as_csv
from uniemox.curate.annotate.assignment import suggested_by
from uniemox.curate.annotate.verdicts import OWNER_SAYS, Verdict, read_answers, verdicts
from uniemox.curate.project import SUFFIXES, Project, utc
from uniemox.curate.release.config import ABOUT, ReleaseConfig, ReleasedImage
from uniemox.curate.release.documents import answer_tables, as_json, label_studio, statistics, terms_of, write_documents
from uniemox.curate.release.metadata import orientation_of, without_metadata
from uniemox.curate.release.splitting import FILE, PLOT, kept_images, read_scheme
from uniemox.curate.status import status
from uniemox.data.source import public_name
from uniemox.data.splits import write_splits
from uniemox.errors import DataError
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

MARK = ".uniemox-release"  # marks a folder that may be overwritten; its second line is the sha256 of README.md
NAMED = "uniemox curate release of project "  # begins the content of MARK
IMAGES = "pictures"
NEW_README = "README.new.md"
SUMS = "SHA256SUMS"
MAX_LISTED = 20  # images in an error, so that its advice stays visible
NAME_DIGITS = 20  # digits of the sha256 in the name of an image


def release(project: Project, folder: Path, config: ReleaseConfig, progress: Progress = silent) -> dict[str, Any]:
    """Write a release into a new folder or over an old release; files that are no longer part of it are removed.

    Images without a split, because they were kept after the split was drawn, are left out and counted.

    Returns:
        The number of images, the numbers left out, and the statistics.

    Raises:
        DataError: If the folder holds something else, nothing is kept, there are no splits, or a licence is given while
            some images have no known one.
    """
    folder = Path(os.path.realpath(folder))
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise DataError(f"{folder} has other files; give an empty folder, or one with a release")
    kept = verdicts(project, rule=config.rule, min_answers=config.min_answers)
    everything, left = release_rows(project, kept)
    rows = _licensed(everything, config)
    check_folder(folder)
    if (folder / MARK).exists():
        mark = read_limited(folder / MARK).decode("utf-8", "replace")
    else:
        mark = ""
    is_ours = mark.startswith(mark_of(project))
    if mark.startswith(NAMED) and not is_ours:
        raise DataError(f"{folder} has a release of another project; give another folder, or remove this one")
    with ExitStack() as at_end:
        with writing(folder):
            at_end.callback(FileLock(folder / MARK).release)
        if not is_ours:
            write_file(folder / MARK, mark_of(project))
        options = {"options": json.dumps(asdict(config)), "at": time.time(), "pictures": len(rows)}
        with project.store.write() as connection:
            connection.execute(t.releases.delete().where(t.releases.c.folder == str(folder)))
            connection.execute(insert(t.releases).values(folder=str(folder), **options))
        sums, left_in = _place_images(folder / IMAGES, rows, progress, keep=config.metadata == "keep")
        figures = statistics(config.name, status(project), project.plan)
        figures["metadata"] = {"asked": config.metadata, "still there": left_in}
        _write_tables(project, folder, config, rows)
        write_texts(project, folder, config, figures, sums)
    unlicensed = len(everything) - len(rows)
    return {"pictures": len(rows), "without split": left, "unlicensed": unlicensed, "statistics": figures}


def mark_of(project: Project) -> str:
    """Return the first line of MARK, which only releases of this project have."""
    return f"{NAMED}{project.store.setting('id')}\n"


def _licensed(rows: list[ReleasedImage], config: ReleaseConfig) -> list[ReleasedImage]:
    """Return the images that may be released.

    Raises:
        DataError: With the images whose licence prevents it.
    """
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
    images = kept_images(project, kept)
    scheme = read_scheme(project)
    about = provenance(project)
    rows = []
    for image in images:
        split = scheme.get(image.sha256)
        verdict = kept[image.id]
        if split is None:
            continue
        label = str(verdict.label)
        style = image.style or ""
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

    Args:
        keep: Leave metadata in the files.

    Returns:
        sha256 by path, and the number of files whose metadata can't be removed.
    """
    wanted = {root / row.path for row in rows}
    for path in sorted(root.rglob("*"), reverse=True):  # contents before their folder
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and path not in wanted:
            path.unlink()
    sums = {}
    left_in = 0
    for number, row in enumerate(rows, start=1):
        target = root / row.path
        try:
            data = _bytes_of(row.file)
            if keep:
                plain = None
            else:
                plain = without_metadata(data, orientation_of(data, str(row.file)))
            left_in += plain is None and not keep
            data = plain or data
            if not target.exists() or target.stat().st_size != len(data) or target.read_bytes() != data:
                write_file(target, data)
        except OSError as error:
            raise DataError(f"{target}: can't be written ({error.strerror})") from error
        sums[row.path] = digest_of(data)
        progress("writing", number, len(rows))
    return sums, left_in


def _bytes_of(path: Path) -> bytes:
    remedy = "repeat uniemox curate collect"
    try:
        data = read_limited(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); if it is missing, {remedy}") from error
    if digest_of(data) != path.stem:
        raise DataError(f"{path}: it is damaged; delete it, then {remedy}")
    return data


def _write_tables(project: Project, folder: Path, config: ReleaseConfig, rows: Sequence[ReleasedImage]) -> None:
    labels = project.plan.labels
    stats = agreement_now(project)
    texts = {
        "labels.csv": as_csv(["path", "label", "split", "domain"], ([r.path, r.label, r.split, r.style] for r in rows)),
        "soft_labels.csv": as_csv(
            ["path", "split", *labels], ([r.path, r.split, *(r.shares.get(name, 0) for name in labels)] for r in rows)
        ),
        "provenance.csv": as_csv(
            ["path", "sha256", *ABOUT, "decided"],
            ([r.path, r.sha256, *(r.about[name] for name in ABOUT), r.decided] for r in rows),
        ),
        **answer_tables(read_answers(project), rows),
        "agreement.json": as_json(stats.anonymous() if stats.pictures else None),
        "plan.json": project.plan.to_json() + "\n",
        "label_studio.json": as_json(label_studio(rows)),
    }
    with writing(folder):
        for path in (*folder.glob(f"*{PARTIAL}"), folder / "ratings.csv", folder / PLOT):  # of the last release
            path.unlink(missing_ok=True)
    for name, text in texts.items():
        write_file(folder / name, text.encode("utf-8", "replace"))
    scheme = {row.path: row.split for row in rows}
    drawn = project.store.setting("split") or {}
    write_splits(folder / FILE, scheme, source=config.name, how=str(drawn.get("how")))
    if (project.folder / PLOT).exists():
        refuse_special(project.folder / PLOT)
        with writing(folder / PLOT):
            write_file(folder / PLOT, read_limited(project.folder / PLOT))


def write_texts(
    project: Project, folder: Path, config: ReleaseConfig, figures: dict[str, Any], sums: Mapping[str, str]
) -> None:
    """Write the documents and checksums of a release from its tables.

    A README.md that was edited since it was written stays; then the new text is in NEW_README.

    Args:
        figures: Of `statistics`.
        sums: sha256 of the images, by path.
    """
    models = [public_name(model) for model in suggested_by(project)]
    text = write_documents(folder, config, project.plan, figures, models=models).encode("utf-8", "replace")
    readme = folder / "README.md"
    written = read_limited(folder / MARK).decode("utf-8", "replace").splitlines()[1:]
    is_edited = bool(written) and readme.is_file() and written != [digest_of(read_limited(readme))]
    with writing(folder):
        (folder / NEW_README).unlink(missing_ok=True)
    write_file(folder / NEW_README if is_edited else readme, text)
    write_file(folder / MARK, f"{mark_of(project)}{digest_of(text)}\n")
    lines = [f"{digest}  {IMAGES}/{path}" for path, digest in sums.items()]  # for sha256sum -c
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != SUMS and not path.name.startswith(MARK):
            with open_regular(path) as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}")
    write_file(folder / SUMS, ("\n".join(lines) + "\n").encode())


def check_folder(folder: Path) -> None:
    """Raise DataError for a link, a pipe or a device in a release, which would be written through or read forever."""
    for path in folder.rglob("*"):
        refuse_special(path)


def digest_of(data: bytes) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
