"""Search a folder by similarity, emotion and mood, with an index of predictions next to it."""

import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, DataError
from uniemox.insight.survey.page import row_of_images
from uniemox.insight.survey.run import EXHAUST, Answers, answer_new, pack
from uniemox.insight.survey.summary import FEATURES, Place, unpack
from uniemox.io.files import open_regular, replacing
from uniemox.io.html import write_html
from uniemox.io.walking import LeftOut
from uniemox.labels import AFFECT
from uniemox.predict.images import is_listed_name, walk
from uniemox.predict.predictor import Predictor
from uniemox.predict.tables import checking_fields, read_lines
from uniemox.predict.writing import AnswerHeader, ResultFile

# after the folder's name
INDEX = ".uniemox.jsonl"
CACHE = ".uniemox.npz"
MAX_GROWTH = 4  # times the size of the index that a copy may have: ours are smaller, unless one path is very long
ROW = 12  # images per row of a page
COMPARE = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
_CONDITION = re.compile(r"([^\s<>=]+)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?)(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Index:
    """Predictions and features of N images."""

    paths: NDArray[np.str_]
    columns: tuple[str, ...]
    """Labels of the model, and valence and arousal if it predicts them."""
    values: NDArray[np.float32]
    """(N, columns): probabilities, 0 to 1; valence and arousal, 1 to 9."""
    features: NDArray[np.float32]
    """(N, 128), of length 1; see `pack`."""

    def column(self, name: str) -> NDArray[np.float32]:
        """Return the values (N,) of a label, or of valence or arousal.

        Raises:
            ConfigError: For an unknown name.
        """
        if name not in self.columns:
            raise ConfigError(f"the index has no {name!r}; choose one of {', '.join(self.columns)}")
        return self.values[:, self.columns.index(name)]


@dataclass(frozen=True, slots=True)
class Hit:
    """Image that matches a search."""

    path: str
    score: float
    """Cosine of the features with `like`, else the probability of the emotion, else the first value of the mood."""
    values: dict[str, float]


def update_index(
    predictor: Predictor,
    folder: Path,
    watch: Callable[[Answers], object] = EXHAUST,
    report: Callable[[str], object] = warnings.warn,
) -> Index:
    """Predict the images of a folder that its index lacks. Returns the index, without images that no longer exist.

    If there are new images, or an unreadable one has changed, all unreadable ones are tried again.
    FOLDER.uniemox.jsonl stores predictions and features, FOLDER.uniemox.npz a copy that loads fast.

    Args:
        watch: Function that consumes new predictions.
        report: Gets notes about folders that were left out.

    Raises:
        ConfigError: If the index was made with another model.
        DataError: If a file can't be read or written or if no image can be read.
    """
    folder = folder.absolute()
    lines, cache = (folder.with_name(folder.name + ending) for ending in (INDEX, CACHE))
    left = LeftOut()
    images = [str(path) for path in walk(folder, left)]
    for note in left.notes(is_listed_name):
        report(note)
    answered = AnswerHeader.of_question(predictor, None, None)
    index, failed = _load(cache, lines, answered) or (None, frozenset[str]())
    if index is None:
        paths = failed
    else:
        paths = failed.union(index.paths.tolist())
    has_repaired = any(_has_changed(one, lines.stat().st_mtime_ns) for one in failed.intersection(images))
    if index is None or not paths.issuperset(images) or has_repaired:
        began = time.time_ns()
        try:
            with ResultFile(lines, resume=lines.exists(), answered=answered) as file:
                watch(answer_new(predictor, images, file, None))
        except ConfigError as error:
            raise ConfigError(f"{error}. If the index is of another model, delete {lines}") from error
        index, failed = _read(lines)
        _save(cache, index, [one for one in failed if not _has_changed(one, began)], answered)
    there = np.isin(index.paths, images)
    return Index(index.paths[there], index.columns, index.values[there], index.features[there])


def search(
    index: Index,
    *,
    like: NDArray[np.float32] | None = None,
    emotion: str | None = None,
    mood: str = "",
    count: int = 24,
) -> list[Hit]:
    """Return the best images, best first.

    Args:
        like: Features (D,) of an image, from `Predictor.embed`.
        emotion: A label; highest probability first.
        mood: Conditions that must all hold, such as "valence>7 arousal<4"; labels have values from 0 to 1.

    Raises:
        ConfigError: For an unknown name, a malformed mood, or no criterion.
    """
    conditions = parse_mood(mood)
    if like is None and emotion is None and not conditions:
        raise ConfigError("give a criterion: an image, an emotion or a mood")
    keep = np.ones(len(index.paths), bool)
    for name, sign, limit in conditions:
        keep &= COMPARE[sign](index.column(name), limit)
    is_lowest_first = False
    if like is not None:
        wanted = unpack(pack(like))
        score = index.features @ (wanted / np.linalg.norm(wanted))
    elif emotion is not None:
        score = index.column(emotion)
    else:
        score = index.column(conditions[0][0])
        is_lowest_first = "<" in conditions[0][1]
    places = np.flatnonzero(keep)
    best = places[np.argsort(score[places] * (1 if is_lowest_first else -1), kind="stable")[:count]]
    values = [dict(zip(index.columns, row, strict=True)) for row in index.values[best].tolist()]
    return [Hit(str(index.paths[i]), float(score[i]), row) for i, row in zip(best, values, strict=True)]


def write_page(hits: Sequence[Hit], title: str, out: Path, words: Callable[[float], str]) -> None:
    """Write a page of matching images, whose thumbnails open the files.  words: formats a score.

    Raises:
        DataError: If it can't be written.
    """
    places = [Place(hit.path, "", hit.score) for hit in hits]
    images = row_of_images(places, out.parent, words)
    rows = [images[first : first + ROW] for first in range(0, len(images), ROW)]
    write_html(out, "insight/search.html", title=title, rows=rows)


def parse_mood(text: str) -> list[tuple[str, str, float]]:
    """Split conditions such as "valence>7 arousal<4" into name, sign and limit.

    Raises:
        ConfigError: For other text.
    """
    text = text.strip()
    conditions = list(_CONDITION.finditer(text))
    if "".join(one.group(0) for one in conditions) != text:
        raise ConfigError(f"the mood {text!r} is not a list of conditions; write it as 'valence>7 arousal<4'")
    return [(one[1], one[2], float(one[3])) for one in conditions]


def _read(lines: Path) -> tuple[Index, frozenset[str]]:
    """Read the lines of an index; also returns the unreadable images."""
    paths = []
    values = []
    features = []
    failed = set()
    columns: tuple[str, ...] = ()
    with checking_fields(lines):
        for answer in read_lines(lines):
            if "scene" not in answer:
                failed.add(str(answer["path"]))
                continue
            columns = columns or (*answer["scene"], *(name for name in AFFECT if answer.get(name) is not None))
            paths.append(str(answer["path"]))
            values.append([answer["scene"].get(name, answer.get(name)) for name in columns])
            row = unpack(answer["features"])
            features.append(row / (np.linalg.norm(row) or 1))
        if not paths:
            raise DataError(f"{lines}: none of its {len(failed)} images could be read")
        return Index(np.array(paths), columns, np.array(values, np.float32), np.stack(features)), frozenset(failed)


def _has_changed(image: str, since_ns: int) -> bool:
    """Return True if an image was written, or moved here, after a time, or has gone."""
    with suppress(OSError):
        return os.stat(image).st_ctime_ns > since_ns
    return True


def _save(cache: Path, index: Index, failed: Iterable[str], answered: AnswerHeader) -> None:
    with replacing(cache) as partial, partial.open("wb") as file:
        np.savez(
            file,
            paths=index.paths,
            columns=np.array(index.columns),
            values=index.values,
            features=index.features.astype(np.float16),
            failed=np.array(sorted(failed), np.str_),
            asked=np.array(answered.asked),
        )


def _load(cache: Path, lines: Path, answered: AnswerHeader) -> tuple[Index, frozenset[str]] | None:
    """Load the copy of an index; None if it is missing, older than the lines, of another model, or damaged."""
    try:
        copy = os.stat(cache)
        original = os.stat(lines)
        if copy.st_mtime_ns < original.st_mtime_ns or copy.st_size > MAX_GROWTH * original.st_size:
            return None
        with open_regular(cache) as file, np.load(file, allow_pickle=False) as kept:
            if any(part.compress_type for part in kept.zip.infolist()):  # not ours, and larger than the file
                return None
            if str(kept["asked"]) != answered.asked:
                return None
            texts = [kept[name] for name in ("paths", "columns", "failed")]
            if any(one.dtype.kind != "U" or not one.dtype.itemsize or one.ndim != 1 for one in texts):
                return None
            columns = tuple(texts[1].tolist())
            failed = frozenset(texts[2].tolist())
            index = Index(texts[0], columns, kept["values"], kept["features"].astype(np.float32))
            rows = len(index.paths)
            fits = index.values.shape == (rows, len(columns)) and index.values.dtype == np.float32
            is_whole = fits and index.features.shape == (rows, FEATURES) and np.isfinite(index.features).all()
            return (index, failed) if is_whole else None
    except Exception:  # noqa: BLE001 - whatever is wrong with a copy that may be a stranger's, it is made again
        return None
