"""Index of a folder: predictions and features of its images, stored in it."""

import os
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, DataError
from uniemox.insight.columns import COUNTS
from uniemox.insight.features import unpack
from uniemox.insight.index_file import CACHE, ELSEWHERE, find_index, index_header, open_index, set_aside
from uniemox.insight.survey.lines import EXHAUST, NewAnswers
from uniemox.io.arrays import load_arrays
from uniemox.io.files import replacing
from uniemox.io.walking import LeftOut
from uniemox.labels import AFFECT
from uniemox.predict.images import is_listed_name, walk
from uniemox.predict.predictor import Predictor
from uniemox.predict.tables import checking_fields, read_lines
from uniemox.predict.writing import AnswerHeader, was_written

# Maximum size of the copy, as a multiple of the size of the predictions. Our copies are smaller, unless one path is
# very long: NumPy stores all paths with the length of the longest.
MAX_GROWTH = 4
# Number of rows of features that are converted to float32 at once.
SCORE_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Index:
    """Predictions and features of N images."""

    paths: NDArray[np.str_]
    columns: tuple[str, ...]
    """Labels of the model; valence, arousal, familiarity, people and faces as far as they were predicted."""
    values: NDArray[np.float32]
    """(N, columns): probabilities and familiarity, 0 to 1; valence and arousal, 1 to 9; numbers of people and faces."""
    is_unfamiliar: NDArray[np.bool_]
    """(N,), True if the prediction is a guess."""
    features: NDArray[np.int8]
    """(N, D), see `pack`."""
    unreadable: int = 0
    """Number of further images of the folder, which could not be read."""

    def column(self, name: str) -> NDArray[np.float32]:
        """Return the values (N,) of a column.

        Raises:
            ConfigError: For an unknown name.
        """
        if name not in self.columns:
            raise ConfigError(f"the index has no {name!r}; choose one of {', '.join(self.columns)}")
        return self.values[:, self.columns.index(name)]

    def cosines(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine of each image's features with those of a query, (N,).

        Args:
            features: Features of the query, (D,), from `Predictor.embed`.
        """
        direction = features / (np.linalg.norm(features) or 1)
        cosines = np.empty(len(self.features), np.float32)
        for start in range(0, len(cosines), SCORE_ROWS):
            rows = self.features[start : start + SCORE_ROWS].astype(np.float32)
            lengths = np.maximum(np.linalg.norm(rows, axis=1), 1)
            cosines[start : start + SCORE_ROWS] = rows @ direction / lengths
        return cosines

    def rows(self, selected: NDArray[np.bool_]) -> "Index":
        """Return an index of some of the images.

        Args:
            selected: (N,), True for the images that it has.
        """
        return replace(
            self,
            paths=self.paths[selected],
            values=self.values[selected],
            is_unfamiliar=self.is_unfamiliar[selected],
            features=self.features[selected],
        )


def update_index(
    predictor: Predictor,
    folder: Path,
    watch: Callable[[NewAnswers], object] = EXHAUST,
    report: Callable[[str], object] = warnings.warn,
    *,
    index_path: Path | None = None,
) -> Index:
    """Predict the images of a folder that its index lacks, and return the index without images that no longer exist.

    If there are new images, or an unreadable one has changed, all unreadable ones are tried again.
    The index is in FOLDER/.uniemox/, one for each model: lines with predictions and features, and a copy of them that
    loads fast.

    Args:
        predictor: From `load`.
        folder: Folder of images. The index's paths begin with it as it is given, as those of `predict` do.
        watch: Function that consumes new predictions.
        report: Gets notes about folders that were skipped, and about a damaged index or one of an earlier version.
        index_path: Folder for the index; None: FOLDER/.uniemox/.

    Raises:
        InUseError: If another process writes the index.
        DataError: If a file can't be written, or if no image can be read.
    """
    root = os.path.abspath(folder)
    # Before anything is written.
    refuse_missing(folder)
    skipped = LeftOut()
    images = [str(path) for path in walk(Path(root), skipped)]
    for note in skipped.notes(is_listed_name):
        report(note)
    if not images:
        raise DataError(f"{folder}: no image in this folder or in those inside it")
    header = index_header(predictor)
    lines = find_index(predictor, folder, index_path, report)
    cache = lines.with_suffix(CACHE)
    index, failed = _load(cache, lines, header) or (None, frozenset[str]())
    # A stranger's folder may come with an index of long paths, which NumPy stores with the length of the longest. An
    # index that the user names may serve several folders.
    among = frozenset(images) if index_path is None else None

    def as_given(path: str) -> str:
        # The file has absolute paths, so that it serves callers in any working directory.
        return str(folder / Path(path).relative_to(root))

    if index is None or _is_outdated(index, failed, images, lines):

        def predict_missing() -> None:
            with open_index(lines, header, report) as file:
                watch(NewAnswers(predictor, images, file, None, path_as_given=as_given))

        predict_missing()
        try:
            index, failed = _read(lines, among)
        except DataError:
            # A field that only an index needs, such as the features, is damaged.
            set_aside(lines, report)
            predict_missing()
            index, failed = _read(lines, among)
        if index is None:
            raise DataError(f"{folder}: no image could be read ({len(failed):,} tried); {lines} has the reasons")
        if cache.is_dir():
            set_aside(cache, report)
        _save(cache, index, failed, header)
    index = index.rows(np.isin(index.paths, images))
    paths = np.array(list(map(as_given, index.paths.tolist())), np.str_)
    return replace(index, paths=paths, unreadable=len(failed.intersection(images)))


def refuse_missing(folder: Path) -> None:
    """Raise DataError if there is no such folder."""
    if os.path.isfile(folder):
        raise DataError(f"{folder} is a file; give the folder of the images")
    if not os.path.isdir(folder):
        raise DataError(f"{folder}: there is no such folder")


def _is_outdated(index: Index, failed: frozenset[str], images: list[str], lines: Path) -> bool:
    """Return True if images are new, or were written after the lines of an index."""
    known = failed.union(index.paths.tolist())
    if not known.issuperset(images):
        return True
    since_ns = lines.stat().st_mtime_ns
    if any(was_written(image, since_ns, or_moved=True) for image in failed.intersection(images)):
        return True
    return any(was_written(image, since_ns) for image in images)


def _read(lines: Path, among: Collection[str] | None) -> tuple[Index | None, frozenset[str]]:
    """Read the predictions of an index.

    Args:
        lines: File of the index.
        among: Paths of the images to read; None: all.

    Returns:
        Index of the images, None if there is no prediction; and the paths of the unreadable images.

    Raises:
        DataError: If the file can't be read.
    """
    # Of an image that has changed, the last line counts.
    rows: dict[str, tuple[list[float], bool, NDArray[np.int8]]] = {}
    failed = set[str]()
    columns: tuple[str, ...] = ()
    with checking_fields(lines):
        for answer in read_lines(lines):
            path = str(answer["path"])
            if among is not None and path not in among:
                continue
            if "scene" not in answer:
                rows.pop(path, None)
                failed.add(path)
                continue
            numbers = _numbers_of(answer)
            columns = columns or tuple(numbers)
            failed.discard(path)
            rows[path] = (
                [numbers[name] for name in columns],
                bool(answer.get("is_unfamiliar")),
                unpack(answer["features"]),
            )
        if not rows:
            return None, frozenset(failed)
        values, flags, features = zip(*rows.values(), strict=True)
        index = Index(
            np.array(list(rows)), columns, np.array(values, np.float32), np.array(flags, np.bool_), np.stack(features)
        )
    return index, frozenset(failed)


def _numbers_of(answer: dict[str, Any]) -> dict[str, float]:
    """Return the values of a prediction in JSON form, by column."""
    numbers = dict(answer["scene"])
    for name in (*AFFECT, "familiarity"):
        if name not in numbers and answer.get(name) is not None:
            numbers[name] = answer[name]
    for name, field in zip(COUNTS, ("persons", "faces"), strict=True):
        if answer.get(field) is not None:
            numbers[name] = len(answer[field])
    return numbers


def _save(cache: Path, index: Index, failed: Iterable[str], header: AnswerHeader) -> None:
    """Write the copy of an index that loads fast."""
    with replacing(cache, remedy=ELSEWHERE) as partial, partial.open("wb") as file:
        np.savez(
            file,
            paths=index.paths,
            columns=np.array(index.columns),
            values=index.values,
            is_unfamiliar=index.is_unfamiliar,
            features=index.features,
            failed=np.array(sorted(failed), np.str_),
            asked=np.array(header.asked),
        )


def _load(cache: Path, lines: Path, header: AnswerHeader) -> tuple[Index, frozenset[str]] | None:
    """Load the copy of an index; None if it is missing, older than the lines, of another model, or damaged."""
    try:
        copy = os.stat(cache)
        original = os.stat(lines)
        if copy.st_mtime_ns < original.st_mtime_ns or copy.st_size > MAX_GROWTH * original.st_size:
            return None
        arrays = load_arrays(cache)
        if str(arrays["asked"]) != header.asked:
            return None
        texts = [arrays[name] for name in ("paths", "columns", "failed")]
        if any(text.dtype.kind != "U" or not text.dtype.itemsize or text.ndim != 1 for text in texts):
            return None
        paths, columns, failed = texts
        numbers = (arrays["values"], arrays["is_unfamiliar"], arrays["features"])
        index = Index(paths, tuple(columns.tolist()), *numbers)
        return (index, frozenset(failed.tolist())) if _is_whole(index) else None
    except Exception:  # noqa: BLE001 - whatever is wrong with a copy that may be a stranger's, it is made again
        return None


def _is_whole(index: Index) -> bool:
    """Return True if the parts of an index have the same number of rows and the right types."""
    count = len(index.paths)
    return (
        index.values.shape == (count, len(index.columns))
        and index.values.dtype == np.float32
        and index.is_unfamiliar.shape == (count,)
        and index.is_unfamiliar.dtype == np.bool_
        and index.features.ndim == 2
        and len(index.features) == count
        and index.features.dtype == np.int8
    )
