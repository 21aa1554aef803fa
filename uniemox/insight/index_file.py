"""Files of a folder's index, which `search`, `tag` and `survey` share: one for each model, in FOLDER/.uniemox/."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from uniemox.errors import DataError
from uniemox.insight.features import FEATURES_FORMAT
from uniemox.io.files import fingerprint_of, refuse_special, replacing
from uniemox.io.typed import read_json_lines
from uniemox.predict.predictor import Predictor
from uniemox.predict.tables import REMEDY, AnswerLine, read_lines
from uniemox.predict.writing import AnswerHeader, ResultFile

# Walks through a folder of images pass over names that begin with a dot.
INDEX = ".uniemox"
LINES = ".jsonl"
# Copy of the lines that loads fast.
CACHE = ".npz"
# Endings of the index of earlier versions, which was next to the folder.
OLD_FACES = ".faces"
OLD_LINES = ".uniemox.jsonl"
OLD_CACHE = ".uniemox.npz"


def index_header(predictor: Predictor) -> AnswerHeader:
    """Return the header of the predictions in a predictor's index."""
    return AnswerHeader.of_question(predictor, None, None, stored=FEATURES_FORMAT)


def index_folder(folder: Path, index: Path | None = None) -> Path:
    """Return the folder with the indices of a folder of images.

    Args:
        folder: Folder of images.
        index: Another folder for its indices; several folders of images may share it.
    """
    # Without links being followed, `..` is resolved: a folder has one index, however it is spelled.
    return Path(os.path.abspath(folder)) / INDEX if index is None else index


def find_index(predictor: Predictor, folder: Path, index: Path | None, report: Callable[[str], object]) -> Path:
    """Return the file with a predictor's answers about a folder's images, which may not exist yet.

    The index that an earlier version made next to the folder is moved here, if it is of the same model.

    Args:
        predictor: From `load`. Models, detectors and formats with other answers have files of their own.
        folder: Folder of images.
        index: See `index_folder`.
        report: Gets a note about the index of an earlier version.

    Raises:
        DataError: If FOLDER/.uniemox is a link, or if an index of an earlier version can't be read or moved.
    """
    header = index_header(predictor)
    place = index_folder(folder, index)
    # A stranger's folder must not lead elsewhere; a folder that the user names may.
    if index is None:
        refuse_special(place)
    lines = place / f"{fingerprint_of([], repr(header))}{LINES}"
    if not lines.exists():
        _move_old(Path(os.path.abspath(folder)), lines, header, report)
    return lines


def _move_old(folder: Path, lines: Path, header: AnswerHeader, report: Callable[[str], object]) -> None:
    """Move the index that an earlier version made next to a folder to `lines`, or report that it is not used."""
    name = folder.name + (OLD_FACES if header.has_faces else "")
    if not folder.name:
        return
    old = folder.with_name(name + OLD_LINES)
    if old.is_symlink() or not old.is_file():
        return
    answers = (line for _, line in read_json_lines(old, AnswerLine, remedy=REMEDY, may_be_cut=True))
    first = next((line for line in answers if isinstance(line.scene, dict)), None)
    if first is None or AnswerHeader.of(first) != header:
        report(f"{old} is not used: an index of another model or version; delete it if you don't need it")
        return
    _make_folder(lines.parent)
    # The time of the file tells which images have changed since, so it stays. The folder may be on another disk.
    with replacing(lines) as partial:
        shutil.copy2(old, partial)
    with suppress(OSError):
        old.with_name(name + OLD_CACHE).unlink(missing_ok=True)
        old.unlink()
    report(f"the index {old} is now {lines}")


@contextmanager
def open_index(lines: Path, header: AnswerHeader) -> Iterator[ResultFile]:
    """Open an index to append predictions; lines of unreadable and of overwritten images are removed.

    The file then has the time at which it was opened, so that images that are overwritten meanwhile count as changed.

    Args:
        lines: From `find_index`.
        header: From `index_header`.

    Raises:
        ConfigError: If another process writes it, or if it has other predictions.
        DataError: If it can't be read or written.
    """
    _make_folder(lines.parent)
    began_ns = time.time_ns()
    with ResultFile(lines, resume=True, answered=header) as file:
        try:
            yield file
        finally:
            # The file may have been deleted meanwhile.
            with suppress(OSError):
                os.utime(lines, ns=(began_ns, began_ns))


def _make_folder(place: Path) -> None:
    """Make the folder of an index.

    Raises:
        DataError: If it can't be written.
    """
    reason = "no permission"
    try:
        place.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(place, os.W_OK)
    except OSError as error:
        is_writable = False
        reason = error.strerror or str(error)
    if not is_writable:
        raise DataError(
            f"{place}: the index can't be written there ({reason}); name another folder for it: --index FOLDER "
            "(in Python: index=FOLDER)"
        )


def copy_answers(lines: Path, target: ResultFile, paths: Mapping[str, str]) -> None:
    """Copy predictions to a file that lacks them.

    Args:
        lines: File with predictions.
        target: File to append them to.
        paths: Path in `target` of each path in `lines` whose prediction is copied.

    Raises:
        DataError: If a file can't be read or written.
    """
    remaining = dict(paths)
    for answer in read_lines(lines):
        if "scene" in answer and answer.get("path") in remaining:
            target.copy(answer, remaining.pop(answer["path"]))
