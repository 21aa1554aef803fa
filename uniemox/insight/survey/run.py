"""A survey from images to the page."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniemox.errors import ConfigError
from uniemox.insight.features import FEATURES_FORMAT
from uniemox.insight.survey.lines import EXHAUST, Answers, answer_new, record_requested
from uniemox.insight.survey.page import write_survey_page
from uniemox.insight.survey.summary import Summary, groupings_of, summarise, unmatched_rows
from uniemox.io.image_border import shorten
from uniemox.predict.predictor import Predictor
from uniemox.predict.writing import AnswerHeader, PathSet, ResultFile, overwritten_note

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

    def __post_init__(self) -> None:
        if self.out.suffix.lower() not in PAGES:
            raise ConfigError(f"{self.out}: expected a name that ends in .html")

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
    watch: Callable[[Answers], object] = EXHAUST,
    report: Callable[[str], object] = warnings.warn,
) -> Summary:
    """Predict images, save the predictions, and write a page about them; see `uniemox.survey`.

    Args:
        open_predictor: Function that opens the predictor, called once the settings are checked.
        names: Names of images or folders as they were given, for the title.
        images: Function that returns the paths of the images.
        settings: Groups to compare and files to use.
        watch: Function that consumes the new predictions.
        report: Gets a line about rows of the table that match no image.

    Raises:
        ConfigError: For settings that can't be used.
        DataError: For a file that can't be read or written.
    """
    # The groups are checked before the model is opened, so that a wrong name fails at once.
    groupings = groupings_of(settings.by, settings.table)
    requested = PathSet()
    predictor = open_predictor()
    header = AnswerHeader.of_question(predictor, settings.labels, None, stored=FEATURES_FORMAT)
    with ResultFile(settings.lines, resume=settings.resume, answered=header) as file:
        if file.overwritten:
            report(overwritten_note(file.overwritten))
        watch(answer_new(predictor, record_requested(images(), requested), file, settings.labels))
    summary = summarise(settings.lines, groupings, requested)
    if unmatched := unmatched_rows(groupings):
        report(unmatched)
    title = ", ".join(map(shorten, names[:TITLE_NAMES])) + " …" * (len(names) > TITLE_NAMES)
    write_survey_page(summary, f"Survey of {title}", settings.out)
    return summary
