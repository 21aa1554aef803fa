"""Release: images in class folders with all texts and tables."""

import os
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from uniemox.errors import DataError
from uniemox.io import FileLock, Progress, read_limited, refuse_special, silent, write_file, writing
from uniemox_curate.annotate.origins import read_origins
from uniemox_curate.annotate.verdicts import read_answers
from uniemox_curate.counters import count
from uniemox_curate.project import Project
from uniemox_curate.release.config import ReleaseConfig
from uniemox_curate.release.record import record_now, released_texts, save_record, save_written, select_images
from uniemox_curate.release.splitting import PLOT
from uniemox_curate.release.writing import MARK, NAMED, check_folder, mark_of, restore_interrupted, write_release
from uniemox_curate.saved_results import RELEASE, KeptRecord, SavedRelease, saved_split


def release(project: Project, folder: Path, config: ReleaseConfig, progress: Progress = silent) -> dict[str, Any]:
    """Write a release into a new folder or over an old release; files that are no longer part of it are removed.

    Images without a split, because they were kept after the split was drawn, are left out and counted. An old release
    of the project keeps its licence, address and citation unless `config` has others.

    Returns:
        The number of images, the numbers left out, the texts kept from the old release, and the statistics.

    Raises:
        DataError: If the folder holds something else, nothing is kept, there are no splits, a licence is given while
            some images have no known one, or the metadata of an image can't be removed.
    """
    folder = Path(os.path.realpath(folder))
    with writing(folder):
        restore_interrupted(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise DataError(f"{folder} has other files; give an empty folder, or one with a release")
    check_folder(folder)
    if (folder / MARK).exists():
        mark = read_limited(folder / MARK).decode("utf-8", "replace")
    else:
        mark = ""
    is_ours = mark.startswith(mark_of(project))
    if mark.startswith(NAMED) and not is_ours:
        raise DataError(f"{folder} has a release of another project; give another folder, or remove this one")
    kept_texts = _texts_to_keep(project, folder, config) if is_ours else {}
    config = replace(config, **kept_texts)
    counts = count(project.store)
    answers = read_answers(project)
    origins = read_origins(project)
    selection = select_images(project, config, answers, origins)
    record = record_now(project, config, selection.images, answers, origins)
    with ExitStack() as at_end:
        with writing(folder):
            at_end.callback(FileLock(folder / MARK).release)
        if not is_ours:
            write_file(folder / MARK, mark_of(project))
        # Before the first image, so that a takedown also finds a release that was killed.
        number = save_record(project, str(folder), record)
        _copy_plot(project, folder)
        files = write_release(project, folder, record, written={}, progress=progress)
        save_written(project, number, record, files)
        # By which the status tells whether the release is stale.
        split = saved_split(project.store)
        saved = SavedRelease(
            number=number,
            kept=KeptRecord.of(selection.agreed, config.rule, counts),
            split=None if split is None else split.sha256,
            min_answers=config.min_answers,
        )
        project.store.set(RELEASE, asdict(saved))
        project.store.set("rule", config.rule)
    return {
        "pictures": len(record.images),
        "without split": selection.without_split,
        "unlicensed": selection.unlicensed,
        "kept texts": kept_texts,
        "statistics": record.figures,
    }


def _texts_to_keep(project: Project, folder: Path, config: ReleaseConfig) -> dict[str, Any]:
    """Return the texts that the release in a folder has, and the new one lacks."""
    texts = released_texts(project, str(folder))
    return {name: text for name, text in texts.items() if text and not getattr(config, name)}


def _copy_plot(project: Project, folder: Path) -> None:
    """Copy the figure of the split; without one, remove that of an earlier release."""
    plot = project.folder / PLOT
    refuse_special(plot)
    with writing(folder / PLOT):
        if plot.exists():
            write_file(folder / PLOT, read_limited(plot))
        else:
            (folder / PLOT).unlink(missing_ok=True)
