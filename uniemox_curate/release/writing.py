"""Writing the files of a release from its record: images in class folders, tables, documents, checksums."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from uniemox.data import write_splits
from uniemox.errors import DataError, ImageError
from uniemox.io import (
    MAX_BYTES,
    PARTIAL,
    Progress,
    open_regular,
    read_limited,
    refuse_special,
    silent,
    without_metadata,
    write_file,
    writing,
)
from uniemox_curate.annotate.answer_files import as_csv
from uniemox_curate.project import Project
from uniemox_curate.questions import scales_of
from uniemox_curate.release.config import ABOUT, IMAGES, ReleasedImage, WrittenImage
from uniemox_curate.release.documents import ALL_ANSWERS, answer_tables, as_json, label_studio, write_documents
from uniemox_curate.release.facts import answer_facts, shared_origins
from uniemox_curate.release.hub_card import metadata_tables
from uniemox_curate.release.record import ReleaseRecord
from uniemox_curate.release.splitting import FILE

MARK = ".uniemox-release"  # marks a folder that may be overwritten; its second line is the sha256 of README.md
NAMED = "uniemox curate release of project "  # begins the content of MARK
README = "README.md"
NEW_README = "README.new.md"
SUMS = "SHA256SUMS"
RATINGS = "ratings.csv"
# Files that name or count the images.
LISTS = (
    *("labels.csv", "soft_labels.csv", "provenance.csv", "answers.csv", RATINGS, FILE),
    *("label_studio.json", "statistics.json", "agreement.json", "croissant.json", SUMS),
)
# Texts with numbers of images.
FIGURES = ("licences.md", "statistics.md")
# All files that are written beside the images and README.md.
FILES = (*LISTS, ALL_ANSWERS, "plan.json", *FIGURES)


def mark_of(project: Project) -> str:
    """Return the first line of MARK, which only releases of this project have."""
    return f"{NAMED}{project.store.setting('id')}\n"


def check_folder(folder: Path) -> None:
    """Raise DataError for a link, a pipe or a device in a release, which would be written through or read forever."""
    for path in folder.rglob("*"):
        refuse_special(path)


def digest_of(data: bytes) -> str:
    """Return the sha256 of a file's content, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the sha256 of a file of any size, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def beside(folder: Path, state: str) -> Path:
    """Return the folder next to a release in which a takedown keeps the old one, or writes the new one."""
    return folder.with_name(f".{folder.name}.{state}{PARTIAL}")


def restore_interrupted(folder: Path) -> None:
    """Put a release back that a takedown, which was then killed, had moved aside.

    Raises:
        OSError: If the folder can't be read or renamed.
    """
    old = beside(folder, "old")
    if not os.path.lexists(folder) and old.is_dir():
        old.rename(folder)


def write_release(
    project: Project,
    folder: Path,
    record: ReleaseRecord,
    *,
    written: Mapping[str, WrittenImage],
    progress: Progress = silent,
) -> dict[str, WrittenImage]:
    """Write all files of a release over those in the folder; images that are not part of it are removed.

    It counts the images in the figures of the record.

    Args:
        folder: Folder with MARK; other files in it stay.
        written: Image files by path that need not be made again if the folder holds them.

    Returns:
        All image files by path.

    Raises:
        DataError: If a file can't be written, or an image of the project can't be read or saved.
    """
    files = _place_images(project, folder / IMAGES, record, written, progress)
    is_kept = record.config.metadata == "keep"
    record.figures["metadata"] = {
        "asked": record.config.metadata,
        "encoded again": 0 if is_kept else sum(not file.is_exact for file in files.values()),
    }
    _write_tables(project, folder, record)
    _write_texts(project, folder, record, files)
    return files


def _place_images(
    project: Project, root: Path, record: ReleaseRecord, written: Mapping[str, WrittenImage], progress: Progress
) -> dict[str, WrittenImage]:
    """Write new and changed images, remove all others, and return all by path."""
    wanted = {root / path for path in (*metadata_tables(record.images), *(image.path for image in record.images))}
    for path in sorted(root.rglob("*"), reverse=True):  # contents before their folder
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        elif path.is_file() and path not in wanted:
            path.unlink()
    files = {}
    for number, image in enumerate(record.images, start=1):
        target = root / image.path
        try:
            known = written.get(image.path)
            if known is None or not target.exists() or digest_of_file(target) != known.digest:
                data, is_exact = _file_of(project, image, keep=record.config.metadata == "keep")
                known = WrittenImage(digest_of(data), is_exact)
                if not target.exists() or digest_of_file(target) != known.digest:
                    write_file(target, data)
        except OSError as error:
            raise DataError(f"{target}: can't be written ({error.strerror})") from error
        files[image.path] = known
        progress("writing", number, len(record.images))
    return files


def _file_of(project: Project, image: ReleasedImage, *, keep: bool) -> tuple[bytes, bool]:
    """Return the bytes of an image for a release, and True if they have all pixels of the collected file.

    Args:
        keep: Leave the metadata in the file.
    """
    path = project.image_path(image.sha256, image.format)
    remedy = "repeat uniemox curate collect"
    try:
        data = read_limited(path, MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}); if it is missing, {remedy}") from error
    if digest_of(data) != path.stem:
        raise DataError(f"{path}: it is damaged; delete it, then {remedy}")
    if keep:
        return data, True
    try:
        plain = without_metadata(data, str(path))
    except ImageError as error:
        remedy = "drop the image on the page /screen, or give --metadata keep"
        raise DataError(f"{error}; its metadata can't be removed: {remedy}") from error
    return plain.data, plain.is_exact


def _write_tables(project: Project, folder: Path, record: ReleaseRecord) -> None:
    labels = project.plan.labels
    images = record.images
    root = record.image_root
    scales = scales_of(project.plan.answer.known)
    answers = answer_tables(images, record.answer_columns, scales, root)
    texts = {
        "labels.csv": as_csv(
            ["path", "label", "split", "domain"],
            ([f"{root}{image.path}", image.label, image.split, image.style] for image in images),
        ),
        "soft_labels.csv": as_csv(
            ["path", "split", *labels],
            ([f"{root}{image.path}", image.split, *(image.shares.get(name, 0) for name in labels)] for image in images),
        ),
        "provenance.csv": as_csv(
            ["path", "sha256", *ABOUT, "decided"],
            (
                [f"{root}{image.path}", image.sha256, *(image.about[name] for name in ABOUT), image.decided]
                for image in images
            ),
        ),
        **answers,
        ALL_ANSWERS: record.all_answers,
        "agreement.json": as_json(record.agreement),
        "plan.json": project.plan.to_json() + "\n",
        "label_studio.json": as_json(label_studio(images)),
    }
    with writing(folder):
        for path in (*folder.glob(f"*{PARTIAL}"), folder / RATINGS):  # of an earlier release
            path.unlink(missing_ok=True)
    texts |= {f"{IMAGES}/{path}": text for path, text in metadata_tables(images).items()}
    for name, text in texts.items():
        write_file(folder / name, text.encode("utf-8", "replace"))
    scheme = {image.path: image.split for image in images}
    write_splits(folder / FILE, scheme, source=record.config.name, how=record.split_method)


def write_readme(project: Project, folder: Path, text: str) -> None:
    """Write README.md of a release; one that was edited since it was written stays, and the text is in NEW_README."""
    readme = folder / README
    digests = read_limited(folder / MARK).decode("utf-8", "replace").splitlines()[1:]
    is_edited = bool(digests) and readme.is_file() and digests != [digest_of(read_limited(readme))]
    with writing(folder):
        (folder / NEW_README).unlink(missing_ok=True)
    content = text.encode("utf-8", "replace")
    write_file(folder / NEW_README if is_edited else readme, content)
    write_file(folder / MARK, f"{mark_of(project)}{digest_of(content)}\n")


def _write_texts(project: Project, folder: Path, record: ReleaseRecord, files: Mapping[str, WrittenImage]) -> None:
    """Write the documents and checksums of a release from its tables.

    Args:
        files: Image files by path.
    """
    text = write_documents(
        folder,
        record.config,
        project.plan,
        record.figures,
        answers=answer_facts(record.images, project.plan.answer.known, record.consenting),
        origins=shared_origins(record.images),
        models=record.models,
        image_root=record.image_root,
    )
    write_readme(project, folder, text)
    # In the form of sha256sum, for `sha256sum -c`.
    lines = [f"{file.digest}  {IMAGES}/{path}" for path, file in files.items()]
    lines += [f"{digest_of_file(folder / IMAGES / path)}  {IMAGES}/{path}" for path in metadata_tables(record.images)]
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != SUMS and not path.name.startswith(MARK):
            lines.append(f"{digest_of_file(path)}  {path.name}")
    write_file(folder / SUMS, ("\n".join(lines) + "\n").encode())
