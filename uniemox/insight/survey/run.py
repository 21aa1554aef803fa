"""A survey from images to the page."""

import glob
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from uniemox.errors import ConfigError, DataError
from uniemox.insight.features import FEATURES_FORMAT
from uniemox.insight.index_file import copy_answers, find_index, index_header, open_index
from uniemox.insight.survey.groupings import groupings_of, unmatched_rows
from uniemox.insight.survey.lines import EXHAUST, NewAnswers, record_requested
from uniemox.insight.survey.page import write_survey_page
from uniemox.insight.survey.summary import Summary, summarise
from uniemox.io.borders import shorten
from uniemox.predict.confidence import unflagged_note
from uniemox.predict.path_set import PathSet
from uniemox.predict.predictor import Predictor
from uniemox.predict.writing import AnswerHeader, ResultFile, existing_files, overwritten_note, refuse_answers

PAGES = (".html", ".htm")
TITLE_NAMES = 3  # names of images or folders in the page's title


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveySettings:
    """Settings of a survey.

    Raises:
        ConfigError: For a page whose name does not end in .html.
    """

    out: Path
    """HTML file to write."""
    by: Sequence[str] = ("folder", "date")
    """Groups to compare: folder, date, or columns of the table."""
    table: Path | None = None
    """CSV file with a column path and the columns that `by` names."""
    labels: str | None = None
    """Label set of the predictions; None: the model's."""
    resume: bool = False
    """Continue the file of predictions: skip images that it already contains."""
    index: Path | None = None
    """Folder for the index; None: FOLDER/.uniemox/ if the images are those of one folder, else no index."""

    def __post_init__(self) -> None:
        if self.out.suffix.lower() not in PAGES:
            raise ConfigError(f"{self.out}: expected a name that ends in .html")
        if self.index is not None and self.labels is not None:
            raise ConfigError("index and labels: the index has the model's own labels; leave out one of them")

    @property
    def lines(self) -> Path:
        """File in which the predictions are saved."""
        return self.out.with_name(self.out.name + ".jsonl")


def run_survey(
    open_predictor: Callable[[], Predictor],
    names: Sequence[str],
    images: Callable[[], Iterable[str]],
    settings: SurveySettings,
    *,
    watch: Callable[[NewAnswers], object] = EXHAUST,
    report: Callable[[str], object] = warnings.warn,
) -> Summary:
    """Predict images, save the predictions, and write a page about them; see `uniemox.survey`.

    Args:
        open_predictor: Function that opens the predictor, called once the settings are checked.
        names: Names of images or folders as they were given, for the title.
        images: Function that returns the paths of the images.
        settings: Groups to compare and files to use.
        watch: Function that consumes the new predictions.
        report: Gets lines about images that were named twice, rows of the table that match no image, groupings with one
            group, an index that can't be used, and a model that can't tell which images are unfamiliar.

    Raises:
        ConfigError: For settings that can't be used.
        DataError: For a file that can't be read or written, or a single path that is missing.
    """
    _refuse_missing(names)
    # The groups are checked before the model is opened, so that a wrong name fails at once.
    groupings = groupings_of(settings.by, settings.table)
    if not settings.resume:
        refuse_answers(*existing_files(settings.out, settings.lines))
    requested = PathSet()
    predictor = open_predictor()
    note_on_unflagged = unflagged_note(predictor.network.info)
    if note_on_unflagged is not None:
        report(note_on_unflagged)
    header = AnswerHeader.for_predictor(predictor, settings.labels, None, stored=FEATURES_FORMAT)
    with ExitStack() as stack:
        file = stack.enter_context(ResultFile(settings.lines, resume=settings.resume, answered=header))
        if file.overwritten:
            report(overwritten_note(file.overwritten))
        requested_images = record_requested(images(), requested, report)
        index = _enter_index(stack, predictor, names, settings=settings, report=report)
        if index is not None:
            listed = list(requested_images)
            copy_answers(index.lines, file, {os.path.abspath(path): path for path in listed if not file.has(path)})
            requested_images = iter(listed)
        watch(NewAnswers(predictor, requested_images, file, settings.labels, index))
    summary = summarise(settings.lines, groupings, requested, note_on_unflagged)
    if unmatched := unmatched_rows(groupings):
        report(unmatched)
    for note in summary.notes_on_groups:
        report(note)
    title = ", ".join(map(shorten, names[:TITLE_NAMES])) + " …" * (len(names) > TITLE_NAMES)
    write_survey_page(summary, f"Survey of {title}", settings.out)
    return summary


def _refuse_missing(names: Sequence[str]) -> None:
    """Raise DataError for a single path that is missing, before anything is written."""
    if len(names) != 1:
        return
    name = names[0]
    # Standard input, a pattern, or an address, about which reading it says more.
    if name == "-" or glob.has_magic(name) or ":" in name:
        return
    if not os.path.exists(name):
        raise DataError(f"{shorten(name)}: there is no such file or folder")


def _enter_index(
    stack: ExitStack,
    predictor: Predictor,
    names: Sequence[str],
    *,
    settings: SurveySettings,
    report: Callable[[str], object],
) -> ResultFile | None:
    """Open the index that a survey shares with searches; None if there is none, or if it can't be used.

    A survey needs no index, so one that can't be written is an error only if the settings name it.
    """
    is_folder = len(names) == 1 and os.path.isdir(names[0])
    if settings.labels is not None or not (is_folder or settings.index):
        return None
    try:
        lines = find_index(predictor, Path(names[0]), settings.index, report)
        return stack.enter_context(open_index(lines, index_header(predictor), report))
    except (ConfigError, DataError) as error:
        if settings.index is not None:
            raise
        report(f"{error}. This survey does not use the folder's index")
        return None
