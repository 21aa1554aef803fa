"""Files of a folder's index, which `search`, `tag` and `survey` share: one for each model, in FOLDER/.uniemox/."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from msgspec import UNSET

from uniemox.errors import ConfigError, DataError, InUseError
from uniemox.insight.features import FEATURES_FORMAT
from uniemox.io.drive import copy_file
from uniemox.io.files import fingerprint_of, refuse_special, replacing, writing
from uniemox.io.system_folders import refuse_library
from uniemox.io.typed import read_json_lines
from uniemox.predict.opening import EMBEDDED_NAME, load, open_finder
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
ELSEWHERE = "name another folder for it: --index FOLDER (in Python: index=FOLDER)"


def index_header(predictor: Predictor) -> AnswerHeader:
    """Return the header of the predictions in a predictor's index."""
    return AnswerHeader.for_predictor(predictor, None, None, stored=FEATURES_FORMAT)


def index_folder(folder: Path, index: Path | None = None) -> Path:
    """Return the folder with the indices of a folder of images.

    Args:
        folder: Folder of images.
        index: Another folder for its indices; several folders of images may share it.
    """
    # Without links being followed, `..` is resolved: a folder has one index, however it is spelled.
    return Path(os.path.abspath(folder)) / INDEX if index is None else index


def index_lines(predictor: Predictor, folder: Path, index: Path | None = None) -> Path:
    """Return the name of the file with a predictor's answers about a folder's images.

    Args:
        predictor: From `load`. Models, detectors and formats with other answers have files of their own.
        folder: Folder of images.
        index: See `index_folder`.
    """
    return index_folder(folder, index) / f"{fingerprint_of([], repr(index_header(predictor)))}{LINES}"


def open_for_index(
    folder: Path,
    index: Path | None,
    model: str | Path | None = None,
    *,
    needs_people: bool = False,
    needs_faces: bool = False,
) -> Predictor:
    """Open the predictor of a folder's index.

    People take half of the time of a first index, so they are looked for only if they are needed, or if the index of an
    earlier call has them.

    Args:
        folder: Folder of images.
        index: See `index_folder`.
        model: See `load`.
        needs_people: The index must have the number of people.
        needs_faces: The index must have the number of faces.

    Raises:
        UniemoxError: As `load`.
    """
    predictor = load(model, finder=None, faces="find" if needs_faces else None)
    if not needs_people and index_lines(predictor, folder, index).exists():
        return predictor
    with_people = Predictor(predictor.network, open_finder(EMBEDDED_NAME), face_reader=predictor.face_reader)
    has_people = needs_people or index_lines(with_people, folder, index).exists()
    return with_people if has_people else predictor


def find_index(predictor: Predictor, folder: Path, index: Path | None, report: Callable[[str], object]) -> Path:
    """Return the file with a predictor's answers about a folder's images, which may not exist yet.

    The index that an earlier version made next to the folder is moved here, if it is of the same model.

    Args:
        predictor: From `load`.
        folder: Folder of images.
        index: See `index_folder`.
        report: Gets a note about the index of an earlier version.

    Raises:
        DataError: If FOLDER/.uniemox is a link, or if the index of an earlier version can't be moved.
    """
    header = index_header(predictor)
    index_path = index_folder(folder, index)
    # A stranger's folder must not lead elsewhere; a folder that the user names may.
    if index is None:
        refuse_special(index_path)
    lines = index_lines(predictor, folder, index)
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
    try:
        answers = (line for _, line in read_json_lines(old, AnswerLine, remedy=REMEDY, may_be_cut=True))
        first = next((line for line in answers if isinstance(line.scene, dict)), None)
    except DataError:
        report(f"{old} is not used: it is damaged; delete it if you don't need it")
        return
    if first is None or AnswerHeader.of(first) != header:
        report(f"{old} is not used: an index of another model or version; delete it if you don't need it")
        return
    _make_folder(lines.parent)
    # The time of the file tells which images have changed since, so it stays. The folder may be on another disk.
    with replacing(lines, remedy=ELSEWHERE) as partial:
        copy_file(old, partial)
    with suppress(OSError):
        old.with_name(name + OLD_CACHE).unlink(missing_ok=True)
        old.unlink()
    report(f"the index {old} is now {lines}")


@contextmanager
def open_index(lines: Path, header: AnswerHeader, report: Callable[[str], object]) -> Iterator[ResultFile]:
    """Open an index to append predictions; lines of unreadable and of overwritten images are removed.

    A damaged index is moved aside, and a new one begins.

    Args:
        lines: From `find_index`.
        header: From `index_header`.
        report: Gets a note about a damaged index.

    Raises:
        InUseError: If another process writes it.
        DataError: If it can't be written.
    """
    _make_folder(lines.parent)
    try:
        opened = ResultFile(lines, resume=True, answered=header, remedy=ELSEWHERE)
    except InUseError:
        raise InUseError(f"another process is writing the index {lines}; wait until it ends, or {ELSEWHERE}") from None
    except (ConfigError, DataError):
        # A full disk is no reason to give an index up.
        if not _is_damaged(lines, header):
            raise
        set_aside(lines, report)
        opened = ResultFile(lines, resume=True, answered=header, remedy=ELSEWHERE)
    with opened as file:
        yield file


def _is_damaged(lines: Path, header: AnswerHeader) -> bool:
    """Return True if an index can't be read, or if it has other predictions than its name says."""
    if not os.path.lexists(lines):
        return False
    try:
        answers = (line for _, line in read_json_lines(lines, AnswerLine, remedy=REMEDY, may_be_cut=True))
        return any(AnswerHeader.of(line) != header for line in answers if line.scene is not UNSET)
    except DataError:
        return True


def set_aside(file: Path, report: Callable[[str], object]) -> None:
    """Rename a damaged file of an index, or a folder of its name, so that a new one can be written.

    Args:
        file: File of an index.
        report: Gets a note about it.

    Raises:
        DataError: If it can't be renamed.
    """
    names = (file.with_name(f"{file.name}.damaged{number}") for number in count(1))
    spare = next(name for name in names if not os.path.lexists(name))
    with writing(file, remedy=ELSEWHERE):
        file.rename(spare)
    report(
        f"the index {file} is damaged, so it is built again; the damaged one is now {spare.name}, and may be deleted"
    )


def _make_folder(index_path: Path) -> None:
    """Make the folder of an index.

    Raises:
        DataError: If it can't be written.
    """
    refuse_library(index_path)
    reason = "no permission"
    try:
        index_path.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(index_path, os.W_OK)
    except OSError as error:
        is_writable = False
        reason = error.strerror or str(error)
    if not is_writable:
        raise DataError(f"{index_path}: the index can't be written there ({reason}); {ELSEWHERE}")


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
