"""Search an indexed folder by similarity, emotion and mood."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, ImageError
from uniemox.insight.columns import COUNTS, FACES, PEOPLE, column_names, why_missing
from uniemox.insight.index import Index, refuse_missing, update_index
from uniemox.insight.mood import EXAMPLE, Condition, parse_mood
from uniemox.insight.survey.lines import EXHAUST, NewAnswers
from uniemox.insight.survey.page import row_of_images
from uniemox.insight.survey.summary import SurveyImage
from uniemox.io.html import percent, write_html
from uniemox.io.walking import LeftOut
from uniemox.labels import AXES, clean
from uniemox.labels.rating_scale import HIGHEST_RATING, LOWEST_RATING
from uniemox.plurals import counted
from uniemox.predict.confidence import unflagged_note
from uniemox.predict.data_urls import is_data_url
from uniemox.predict.images import ImageLike, walk
from uniemox.predict.prediction import Failure
from uniemox.predict.predictor import Predictor

PAGES = (".html", ".htm")


@dataclass(frozen=True, slots=True)
class Query:
    """Criteria of a search.

    Raises:
        ConfigError: For no criterion, for both an image and an emotion, for a malformed mood, or for a count below 1.
    """

    like: ImageLike | None = None
    """Image, or folder of images, to whose mean features the results are similar."""
    emotion: str | None = None
    """Label; the highest probability comes first."""
    mood: str = ""
    """Conditions that must all hold, such as "valence>6 arousal<5"."""
    count: int = 24
    """Maximum number of results."""
    unfamiliar: bool = False
    """Also return images whose predictions are guesses."""
    conditions: tuple[Condition, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditions", tuple(parse_mood(self.mood)))
        if self.count < 1:
            raise ConfigError(f"count must be at least 1, got {self.count}")
        if self.like is not None and self.emotion is not None:
            raise ConfigError("give one criterion: an image or an emotion, not both")
        if self.like is None and self.emotion is None and not self.conditions:
            raise ConfigError("give a criterion: an image, an emotion or a mood")

    @property
    def needs_faces(self) -> bool:
        """True if a condition is about the number of faces."""
        return any(clean(condition.name) == FACES for condition in self.conditions)

    @property
    def needs_people(self) -> bool:
        """True if a condition is about the number of people."""
        return any(clean(condition.name) == PEOPLE for condition in self.conditions)

    @property
    def score_name(self) -> str:
        """Name of the quantity that a hit's score measures."""
        if self.like is not None:
            return "similarity: cosine of the features, at most 1"
        if self.emotion is not None:
            return f"probability of {self.emotion}"
        return self.conditions[0].name

    @property
    def value_names(self) -> tuple[str, ...]:
        """Names of the values that the query asks for besides the score, in its order."""
        names = dict.fromkeys(condition.name for condition in self.conditions)
        score = self.emotion
        if self.like is None and score is None:
            score = self.conditions[0].name
        names.pop(score or "", None)
        return tuple(names)

    @property
    def like_text(self) -> str:
        """Name of the image or folder that the results are similar to."""
        if not isinstance(self.like, (str, os.PathLike)) or is_data_url(str(self.like)):
            return "an image"
        return os.fspath(self.like)

    def __str__(self) -> str:
        words = []
        if self.like is not None:
            words.append(f"like {self.like_text}")
        if self.emotion is not None:
            words.append(self.emotion)
        return ", ".join([*words, *map(str, self.conditions)])


@dataclass(frozen=True, slots=True)
class Hit:
    """Image that matches a search."""

    path: str
    score: float
    """Cosine of the features with `like`, else the probability of the emotion, else the first value of the mood."""
    values: dict[str, float] = field(repr=False)
    """Probability of each label; valence, arousal, familiarity, people and faces as far as they were predicted."""
    is_unfamiliar: bool = False
    """True if the prediction is a guess, because the image is unlike the training images."""


@dataclass(frozen=True, slots=True)
class SearchResults:
    """Hits of a search, best first."""

    hits: tuple[Hit, ...]
    searched: int
    """Number of images in the index."""
    matches: int
    """Number of images that match, hits included, without guesses."""
    guesses: int
    """Number of images that match, but were left out because their predictions are guesses."""
    first_guess: str = ""
    """Path of the best of these guesses, if it would be among the hits."""
    first_guess_rank: int = 0
    """Its place among the hits if guesses counted, from 1 on; 0 if it would not be among them."""
    query_images: int = 0
    """Number of searched images that are the query, or lie in its folder."""
    unreadable: int = 0
    """Number of images of the folder that could not be read, and are not in the index."""
    unflagged_note: str | None = None
    """Sentence about a model that can't tell which predictions are guesses, so that none or only blank images are left
    out; None for other models."""
    is_query_left_out: bool = True
    """False if all searched images lie in the query's folder: the results are then its most typical images."""

    @property
    def guesses_note(self) -> str:
        """Clause about the guesses that were left out; empty if none was."""
        if self.guesses == 0:
            return ""
        note = counted(self.guesses, "further image matches", "further images match")
        note += ", but with predictions that are guesses"
        if self.first_guess:
            note += f" ({self.first_guess} would be number {self.first_guess_rank})"
        return note

    @property
    def query_note(self) -> str:
        """Sentence about the query's own images; empty if none was searched."""
        if self.query_images == 0:
            return ""
        if not self.is_query_left_out:
            return "the query has all searched images, so none is left out: the most typical come first"
        return counted(self.query_images, "image was left out: it is", "images were left out: they are") + " the query"


def search_folder(
    predictor: Predictor,
    folder: Path,
    query: Query,
    *,
    out: Path | None = None,
    index_path: Path | None = None,
    watch: Callable[[NewAnswers], object] = EXHAUST,
    report: Callable[[str], object] = warnings.warn,
) -> SearchResults:
    """Update a folder's index, search it, and write a page of the results if requested; see `uniemox.search`.

    Args:
        predictor: From `load`.
        folder: Folder of images, including its subfolders.
        query: Criteria of the search.
        out: HTML file to write; None: no page.
        index_path: Folder for the index; None: FOLDER/.uniemox/.
        watch: Function that consumes the predictions of images that are not yet in the index.
        report: Gets notes about folders that were skipped, and about a model that can't tell which predictions are
            guesses.

    Raises:
        ConfigError: For unknown names, and if another process writes the index.
        DataError: If there is no such folder, a file can't be read or written, or no image can be read.
        ImageError: If the image to compare with can't be read.
    """
    if out is not None and out.suffix.lower() not in PAGES:
        raise ConfigError(f"{out}: expected a name that ends in .html")
    refuse_missing(folder)
    query = as_spelled(query, predictor)
    _check_names(query, predictor)
    note_on_unflagged = unflagged_note(predictor.network.info)
    if note_on_unflagged is not None:
        report(note_on_unflagged)
    features = None if query.like is None else _mean_features(predictor, query.like, report)
    index = update_index(predictor, folder, watch, report, index_path=index_path)
    results = replace(search(index, query, features), unflagged_note=note_on_unflagged)
    if out is not None:
        write_page(results, query, predictor.name, folder, out)
    return results


def _mean_features(predictor: Predictor, like: ImageLike, report: Callable[[str], object]) -> NDArray[np.float32]:
    """Return the features of an image, or the mean over the readable images of a folder, (D,)."""
    if not (isinstance(like, (str, os.PathLike)) and os.path.isdir(like)):
        return predictor.embed(like)[0]
    rows = []
    for answer in predictor.predict_each(walk(Path(like), LeftOut()), with_embedding=True):
        if isinstance(answer, Failure):
            report(f"{answer.error}; left out of the query")
        elif answer.embedding is not None:
            rows.append(answer.embedding)
    if not rows:
        raise ImageError(f"{os.fspath(like)} has no readable image to compare with")
    return np.mean(rows, axis=0, dtype=np.float32)


def search(index: Index, query: Query, features: NDArray[np.float32] | None = None) -> SearchResults:
    """Return the images that match a query, best first.

    Args:
        index: From `update_index`.
        query: Criteria of the search.
        features: Features of `query.like`, (D,). The query's own images are left out of the results, unless its folder
            has all searched images.

    Raises:
        ConfigError: For unknown names, and for limits that no value reaches.
    """
    matches = np.ones(len(index.paths), bool)
    for condition in query.conditions:
        column = index.column(condition.name)
        condition.check()
        matches &= condition.holds(column)
    is_lowest_first = False
    is_query = np.zeros(len(index.paths), bool)
    is_query_left_out = True
    if features is not None:
        score = index.cosines(features)
        is_query = _is_query(index, query.like)
        # If the query's folder has all searched images, none would be left to show.
        is_query_left_out = not (is_query.all() and os.path.isdir(query.like_text))
        if is_query_left_out:
            matches &= ~is_query
    elif query.emotion is not None:
        score = index.column(query.emotion)
    else:
        first = query.conditions[0]
        score = index.column(first.name)
        is_lowest_first = "<" in first.sign
    indices = np.flatnonzero(matches)
    ranked = indices[np.argsort(score[indices] if is_lowest_first else -score[indices], kind="stable")]
    guess_ranks = np.flatnonzero(index.is_unfamiliar[ranked])
    if query.unfamiliar:
        guess_ranks = guess_ranks[:0]
    first_guess = ""
    first_guess_rank = 0
    if len(guess_ranks) and guess_ranks[0] < query.count:
        first_guess = str(index.paths[ranked[guess_ranks[0]]])
        first_guess_rank = int(guess_ranks[0]) + 1
    familiar = np.delete(ranked, guess_ranks)
    best = familiar[: query.count]
    hits = tuple(
        Hit(
            str(index.paths[row]),
            float(score[row]),
            dict(zip(index.columns, index.values[row].tolist(), strict=True)),
            bool(index.is_unfamiliar[row]),
        )
        for row in best
    )
    return SearchResults(
        hits,
        searched=len(index.paths),
        matches=len(familiar),
        guesses=len(guess_ranks),
        first_guess=first_guess,
        first_guess_rank=first_guess_rank,
        query_images=int(is_query.sum()),
        unreadable=index.unreadable,
        is_query_left_out=is_query_left_out,
    )


def as_spelled(query: Query, predictor: Predictor) -> Query:
    """Return a query whose emotion and mood are spelled as in the index, such as awe for Awe."""
    emotion = query.emotion
    if emotion is not None:
        emotion = _spelled(emotion, predictor.labels)
    names = column_names(predictor)
    conditions = [condition._replace(name=_spelled(condition.name, names)) for condition in query.conditions]
    mood = query.mood
    if conditions != list(query.conditions):
        mood = " ".join(map(str, conditions))
    return replace(query, emotion=emotion, mood=mood)


def _spelled(name: str, names: Sequence[str]) -> str:
    """Return the known name that differs from a name only in case, space and quotes; the name itself if none does."""
    if name in names:
        return name
    return next((known for known in names if clean(known) == clean(name)), name)


def _check_names(query: Query, predictor: Predictor) -> None:
    """Raise ConfigError for names that the index will not have, and for limits, before anything is predicted."""
    names = column_names(predictor)
    if query.emotion is not None and query.emotion not in predictor.labels:
        example = EXAMPLE
        if any(condition.name not in names for condition in parse_mood(EXAMPLE)):
            example = str(Condition(predictor.labels[0], ">", 0.5))
        raise ConfigError(
            f"{predictor.name} has no label {query.emotion!r}; choose one of {', '.join(predictor.labels)}, or give a "
            f"mood, such as {example!r}"
        )
    for condition in query.conditions:
        if condition.name not in names:
            raise ConfigError(why_missing(predictor, condition.name))
        condition.check()


def write_page(results: SearchResults, query: Query, model: str, folder: Path, out: Path) -> None:
    """Write a page of matching images, whose thumbnails open the files.

    Args:
        results: From `search`.
        query: Criteria of the search; if it is an image file, the page shows it.
        model: Name of the model.
        folder: The searched folder.
        out: HTML file to write.

    Raises:
        DataError: If it can't be written.
    """
    shown_images = [SurveyImage(hit.path, "", hit.score) for hit in results.hits]
    hits = {hit.path: hit for hit in results.hits}
    images: list[dict[str, Any]] = [*row_of_images(shown_images, out.parent, str)]
    for image in images:
        hit = hits[image["path"]]
        image["value"] = _score_text(hit, query)
        image["more"] = _other_texts(hit, query)
    query_images = []
    if isinstance(query.like, (str, os.PathLike)) and os.path.isfile(query.like):
        query_images = row_of_images([SurveyImage(os.fspath(query.like), "", 1.0)], out.parent, str)
    write_html(
        out,
        "uniemox/insight/search.html",
        title=f"{query} in {folder}",
        folder=folder,
        query=query,
        query_images=query_images,
        images=images,
        model=model,
        results=results,
        matches=matches_text(results),
    )


def _score_text(hit: Hit, query: Query) -> str:
    """Return the score of a hit as text, with its name."""
    if query.like is not None:
        return f"similarity {hit.score:.2f}"
    if query.emotion is not None:
        return f"{query.emotion} {percent(hit.score)}"
    return f"{query.score_name} {value_text(query.score_name, hit.score)}"


def _other_texts(hit: Hit, query: Query) -> list[str]:
    """Return the values besides the score that the query asks for, and whether the prediction is a guess."""
    texts = [f"{name} {value_text(name, hit.values[name])}" for name in query.value_names]
    if hit.is_unfamiliar:
        texts.append("a guess")
    return texts


def matches_text(results: SearchResults) -> str:
    """Return how many images match and how many of them are shown."""
    matches = counted(results.matches, "matching image")
    if results.matches == len(results.hits):
        return matches
    return f"{len(results.hits):,} of {matches}"


def value_text(name: str, value: float) -> str:
    """Return a value of a prediction as text.

    >>> value_text("people", 2.0), value_text("awe", 0.25), value_text("valence", 9.0)
    ('2', '0.25', '9.00 (end of the scale)')
    """
    if name in COUNTS:
        return f"{value:.0f}"
    text = f"{value:.2f}"
    # The model's ratings are cut off at the ends of the scale.
    if name in AXES and value in (LOWEST_RATING, HIGHEST_RATING):
        return f"{text} (end of the scale)"
    return text


def _is_query(index: Index, like: ImageLike | None) -> NDArray[np.bool_]:
    """Return which images of an index are the query, or are in the query's folder, (N,)."""
    if not isinstance(like, (str, os.PathLike)) or is_data_url(str(like)):
        return np.zeros(len(index.paths), bool)
    query = os.path.realpath(like)
    prefix = os.path.join(query, "")
    real_paths = [os.path.realpath(path) for path in index.paths.tolist()]
    return np.array([path == query or path.startswith(prefix) for path in real_paths], bool)
