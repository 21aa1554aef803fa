"""Release: images in class folders, and beside them all that others need to trust, use and cite them."""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import insert, select, update

from uniemox.curate import tables as t
from uniemox.curate.annotate.figures import figures_now
from uniemox.curate.annotate.suggesting import suggested_by
from uniemox.curate.annotate.verdicts import OWNER_SAYS, Rule, Verdict, verdicts
from uniemox.curate.licences import is_known_licence, report
from uniemox.curate.project import ENDING, Progress, Project, silent, write_whole
from uniemox.curate.release.answer_tables import answer_tables, as_csv
from uniemox.curate.release.croissant import croissant
from uniemox.curate.release.datasheet import datasheet, statistics, table_two
from uniemox.curate.release.label_studio import label_studio
from uniemox.curate.release.metadata import orientation_of, without_metadata
from uniemox.curate.release.splitting import FILE, PLOT, kept_data, read_scheme
from uniemox.curate.status import status
from uniemox.data.splits import write_splits
from uniemox.errors import ConfigError, DataError
from uniemox.io.files import read_limited
from uniemox.io.images import MAX_BYTES

MARK = ".uniemox-release"  # in a folder that may be written over
IMAGES = "pictures"
MAX_LISTED = 20  # images in an error; a thousand would scroll its advice away
NAME_DIGITS = 20  # of the sha256 in the name of an image
LISTS = (
    *("labels.csv", "soft_labels.csv", "provenance.csv", "answers.csv", "ratings.csv", "splits.json"),
    "label_studio.json",
    *("statistics.json", "agreement.json", "croissant.json", "SHA256SUMS"),
)
"""Files of a release that name its images, or what it has of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseConfig:
    """What a release is called, and by which rule its images are kept."""

    name: str
    """Of the data set, in its texts and metadata."""
    version: str = "1.0.0"
    """Three numbers, as Croissant asks for."""
    licence: str = ""
    """Of the collection: its labels and texts, such as CC-BY-4.0. Empty: not decided yet."""
    address: str = ""
    """Where it will be found."""
    citation: str = ""
    """How to cite it."""
    rule: Rule = "both"
    """Which images are kept, see `decide`."""
    min_answers: int = 2
    """Images with fewer are left out."""
    only_licensed: bool = False
    """Leave out images whose licence is not known."""
    metadata: Literal["remove", "keep"] = "remove"
    """What is done with what files say beside the image: place, time, camera, names."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+\.\d+\.\d+", self.version):
            raise ConfigError(f"version must be three numbers such as 1.0.0, got {self.version!r}")
        if not self.name.strip() or not self.name.isprintable():
            raise ConfigError(f"name must be a printable text, got {self.name!r}")


@dataclass(frozen=True, slots=True)
class ReleasedImage:
    """An image of a release."""

    path: str
    """From the folder of the images."""
    label: str
    split: str
    style: str
    shares: Mapping[str, float]
    sha256: str
    """Hash of the file as it was collected."""
    picture: int
    file: Path
    """Where it lies in the project."""
    about: Mapping[str, str]
    """address, page, title, licence, licence_address, author, source, keyword, fetched of its first candidate."""
    by_owner: bool = False
    """Whether the owner decided its label, because annotators did not agree."""

    @property
    def decided(self) -> str:
        """By whom its label was."""
        return "owner" if self.by_owner else "annotators"


ABOUT = ("address", "page", "title", "licence", "licence_address", "author", "source", "keyword", "fetched")


def release(project: Project, folder: Path, config: ReleaseConfig, progress: Progress = silent) -> dict[str, Any]:
    """Write a release, or write one anew; what is no longer part of it goes.

    Images whose split was never drawn, because they were kept later, are left out and counted.
    Returns how many images it has, how many were left out, and its figures.
    Raises DataError if the folder holds something else, nothing is kept, there are no splits, or a licence is given
    for images of which some have no known one.
    """
    folder = folder.absolute()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise DataError(f"{folder} holds something else; name an empty folder, or one that a release was written to")
    found = verdicts(project, rule=config.rule, min_answers=config.min_answers)
    rows, left = release_rows(project, found)
    everything, rows = rows, _licensed(rows, config)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MARK, b"uniemox curate release\n")
    _register(project, folder, config, len(rows))
    sums, left_in = _place_images(folder / IMAGES, rows, progress, keep=config.metadata == "keep")
    figures = statistics(config.name, rows, status(project), project.plan)
    figures["metadata"] = {"asked": config.metadata, "still there": left_in}
    _write_texts(project, folder, config, rows, figures)
    _write_checksums(folder, sums)
    unlicensed = len(everything) - len(rows)
    return {"pictures": len(rows), "without split": left, "unlicensed": unlicensed, "statistics": figures}


def _licensed(rows: list[ReleasedImage], config: ReleaseConfig) -> list[ReleasedImage]:
    """The images that may be released. Raises DataError, with the images of unknown licence, if they are in the way."""
    known = {row.path for row in rows if is_known_licence(row.about.get("licence", ""))}
    unknown = [row for row in rows if row.path not in known]
    if config.only_licensed:
        if not known:
            raise DataError(f"none of {len(rows)} images has a known licence; nothing is left to release")
        return [row for row in rows if row.path in known]
    if unknown and config.licence:
        lines = [f"{row.about.get('address') or row.sha256} ({row.label})" for row in unknown[:MAX_LISTED]]
        if len(unknown) > MAX_LISTED:
            lines.append(f"and {len(unknown) - MAX_LISTED} more (provenance.csv of a release without --licence)")
        raise DataError(
            f"{len(unknown)} of {len(rows)} images have no known licence, so the release can't be {config.licence}; "
            "give --only-licensed to leave them out, or leave --licence out:\n" + "\n".join(lines)
        )
    return rows


def remove(folder: Path, sha256: Iterable[str]) -> bool:
    """Take images out of a release, with the lists that may name them; False if there is no release any more.

    What is left has to be written again. Raises OSError.
    """
    if not (folder / MARK).exists():
        return False
    names = {digest[:NAME_DIGITS] for digest in sha256}
    found = [path for path in (folder / IMAGES).rglob("*") if path.stem in names]
    for path in found:
        path.unlink()
    if found:
        for name in LISTS:
            (folder / name).unlink(missing_ok=True)
    return True


def empty(project: Project, folder: Path) -> bool:
    """Whether a release has no image left; that is written down then."""
    if any(path.is_file() for path in (folder / IMAGES).rglob("*")):
        return False
    with project.store.write() as connection:
        connection.execute(update(t.releases).where(t.releases.c.folder == str(folder)).values(pictures=0))
    return True


def release_rows(project: Project, found: Mapping[int, Verdict]) -> tuple[list[ReleasedImage], int]:
    """The images of a release in the order of their paths, and how many have no split."""
    data, _ = kept_data(project, found)
    scheme = read_scheme(project)
    numbers = {row.sha256: (row.id, row.format) for row in project.rows(select(t.images))}
    about = provenance(project)
    rows = []
    for sample in data.samples:
        split = scheme.get(sample.key)
        if split is None:
            continue
        image, image_format = numbers[sample.key]
        label, style = str(data.label_of(sample)), sample.domain or ""
        path = "/".join(
            part for part in (split, label, style, f"{sample.key[:NAME_DIGITS]}.{ENDING[image_format]}") if part
        )
        file = project.image_path(sample.key, image_format)
        shares = sample.distribution or {}
        by_owner = found[image].reason == OWNER_SAYS
        own = about.get(image, {})
        rows.append(ReleasedImage(path, label, split, style, shares, sample.key, image, file, own, by_owner))
    if not rows:
        raise DataError(f"{project.folder}: no kept image has a split; draw them: uniemox curate split")
    return sorted(rows, key=lambda row: row.path), len(data) - len(rows)


def provenance(project: Project) -> dict[int, dict[str, str]]:
    """By image: what its first candidate says, one with a licence before one without."""
    query = select(t.candidates).where(t.candidates.c.picture_id.is_not(None)).order_by(t.candidates.c.id)
    found: dict[int, dict[str, str]] = {}
    for row in project.rows(query):
        if row.picture_id in found and (found[row.picture_id]["licence"] or not row.licence):
            continue
        fetched = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row.fetched_at)) if row.fetched_at else ""
        address = row.title if row.source == "folder" else row.address  # no paths of one's own disk
        found[row.picture_id] = {**{name: getattr(row, name) for name in ABOUT[1:-1]}, "fetched": fetched}
        found[row.picture_id]["address"] = address
    return found


def _register(project: Project, folder: Path, config: ReleaseConfig, count: int) -> None:
    values = {"options": json.dumps(asdict(config)), "at": time.time(), "pictures": count}
    with project.store.write() as connection:
        connection.execute(t.releases.delete().where(t.releases.c.folder == str(folder)))
        connection.execute(insert(t.releases).values(folder=str(folder), **values))


def _place_images(
    root: Path, rows: Sequence[ReleasedImage], progress: Progress, *, keep: bool
) -> tuple[dict[str, str], int]:
    """Write what is missing or other, remove what does not belong there.

    keep: metadata.  Returns sha256 by path, and the number of files in which metadata was kept though not wanted.
    """
    wanted = {row.path for row in rows}
    for path in [path for path in root.rglob("*") if path.is_file()] if root.exists() else []:
        if path.relative_to(root).as_posix() not in wanted:
            path.unlink()
    sums, left_in = {}, 0
    for number, row in enumerate(rows, start=1):
        target = root / row.path
        try:
            data = read_limited(row.file, MAX_BYTES)
            plain = None if keep else without_metadata(data, orientation_of(data))
            left_in += plain is None and not keep
            data = plain or data
            if not target.exists() or target.read_bytes() != data:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_whole(target, data)
        except OSError as error:
            raise DataError(f"{target}: can't be written ({error.strerror})") from error
        sums[row.path] = hashlib.sha256(data).hexdigest()
        progress("writing", number, len(rows))
    for place, folders, files in os.walk(root, topdown=False):
        if not folders and not files and Path(place) != root and not os.listdir(place):
            os.rmdir(place)
    return sums, left_in


def _write_texts(
    project: Project, folder: Path, config: ReleaseConfig, rows: Sequence[ReleasedImage], figures: Mapping[str, Any]
) -> None:
    scheme = {row.path: row.split for row in rows}
    labels = project.plan.labels
    answers, suggested = answer_tables(project, rows)
    suggestions = suggested, suggested_by(project)
    tables = {
        "labels.csv": as_csv(["path", "label", "split", "domain"], ([r.path, r.label, r.split, r.style] for r in rows)),
        "soft_labels.csv": as_csv(
            ["path", "split", *labels], ([r.path, r.split, *(r.shares.get(name, 0) for name in labels)] for r in rows)
        ),
        "provenance.csv": as_csv(
            ["path", "sha256", *ABOUT, "decided"],
            ([r.path, r.sha256, *(r.about.get(name, "") for name in ABOUT), r.decided] for r in rows),
        ),
        **answers,
    }
    agreement = figures_now(project)
    texts = {
        "README.md": datasheet(config, project.plan, rows, figures, agreement, suggestions),
        "licences.md": "\n".join(["# Licences", "", *report(row.about.get("licence", "") for row in rows)]) + "\n",
        "statistics.md": table_two(figures),
        "statistics.json": _json(figures),
        "agreement.json": _json(agreement),
        "plan.json": project.plan.to_json() + "\n",
        "label_studio.json": _json(label_studio(rows)),
    }
    for name, text in {**tables, **texts}.items():
        write_whole(folder / name, text.encode("utf-8", "replace"))
    write_splits(folder / FILE, scheme, source=config.name, how=str((project.store.setting("split") or {}).get("how")))
    if (project.folder / PLOT).exists():
        shutil.copyfile(project.folder / PLOT, folder / PLOT)
    write_whole(folder / "croissant.json", _json(croissant(folder, config, rows, labels)).encode())


def _write_checksums(folder: Path, sums: Mapping[str, str]) -> None:
    """As sha256sum -c reads them.  sums: of the images, by path."""
    lines = [f"{digest}  {IMAGES}/{path}" for path, digest in sums.items()]
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in (MARK, "SHA256SUMS"):
            lines.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}")
    write_whole(folder / "SHA256SUMS", ("\n".join(lines) + "\n").encode())


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
