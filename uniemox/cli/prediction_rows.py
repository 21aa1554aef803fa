"""Predictions on the screen: a table with a row per image, or a summary of many images."""

from collections.abc import Callable

from uniemox.cli.console import one_line, show_all, show_paths
from uniemox.cli.predict_summary import PredictionSummary
from uniemox.predict.faces import summarise_faces
from uniemox.predict.prediction import Person, Prediction
from uniemox.predict.schema import NO_LABEL, top_word

# Images whose predictions are printed one by one; of more images, a summary is printed.
MAX_SHOWN = 20
# Frames of videos per printed table; more become several tables, to limit memory.
MAX_ROWS = 200
# Probability without a counterpart from which a table shows it.
MIN_UNMAPPED = 0.1
UNFAMILIAR_NOTE = "(a guess: unlike the training images)"


class PredictionRows:
    """Rows of predictions.

    Args:
        is_film: The predictions are of frames of videos, whose rows appear while the video is read.
    """

    def __init__(self, *, is_film: bool = False) -> None:
        self.is_film = is_film
        self._rows: list[Prediction] = []
        self._summary = PredictionSummary()

    def add(self, prediction: Prediction) -> None:
        """Add a prediction."""
        self._summary.add(prediction)
        if self.is_film or len(self._rows) < MAX_SHOWN:
            self._rows.append(prediction)
        if len(self._rows) == MAX_ROWS:
            self._print_rows()

    def print_rest(self, image_count: int) -> None:
        """Print the rows that are not yet printed, or the summary of many images.

        Args:
            image_count: Number of all images, with the unreadable ones.
        """
        if self._summary.images and image_count > MAX_SHOWN and not self.is_film:
            show_all(self._summary.parts())
        else:
            self._print_rows()

    def _print_rows(self) -> None:
        if self._rows:
            columns = _columns(self._rows[0])
            show_paths(list(columns), [[cell(result) for cell in columns.values()] for result in self._rows])
        self._rows = []


def _columns(first: Prediction) -> dict[str, Callable[[Prediction], str]]:
    """Return the columns of the table of predictions, by heading: most probable labels, likely set, people.

    Args:
        first: First prediction; the others have the same fields.
    """
    columns: dict[str, Callable[[Prediction], str]] = {
        "image": lambda prediction: one_line(prediction.path or ""),
        f"{first.kind} ({first.label_set})": _top_labels,
    }
    if first.affect_from in ("ratings", "norms"):
        heading = "valence" if first.arousal is None else "valence, arousal"
        columns[heading] = lambda prediction: ", ".join(
            f"{value:.1f}" for value in (prediction.valence, prediction.arousal) if value is not None
        )
    if first.likely is not None:
        columns["likely"] = lambda prediction: ", ".join(prediction.likely or ())
    if first.persons is not None:
        columns["people"] = _people
    if first.faces is not None:
        columns["faces show"] = lambda prediction: summarise_faces(
            [face.expressions for face in prediction.faces or ()]
        )
    return columns


def _top_labels(result: Prediction) -> str:
    if result.has_no_counterpart:
        return f"{NO_LABEL} ({result.unmapped:.0%} has no counterpart)"
    if result.assigned_labels is not None:
        return "  ".join([_assigned(result)] + [UNFAMILIAR_NOTE] * result.is_unfamiliar)
    form = "{} {:.1f}" if "valence" in result.scene else "{} {:.0%}"
    parts = [form.format(*pair) for pair in result.top(3)]
    # The probabilities are shares of the rest.
    if result.unmapped is not None and result.unmapped >= MIN_UNMAPPED:
        parts.append(f"({result.unmapped:.0%} has no counterpart)")
    if result.is_unfamiliar:
        parts.append(UNFAMILIAR_NOTE)
    return "  ".join(parts)


def _assigned(result: Prediction) -> str:
    """Return the labels above their thresholds, with probabilities, of a model that gives several."""
    labels = result.assigned_labels or ()
    return "  ".join(f"{label} {result.scene[label]:.0%}" for label in labels) or f"{NO_LABEL} above its threshold"


def _people(result: Prediction) -> str:
    """Return the number of people and their felt emotions as text."""
    persons = result.persons or []
    felt = [_felt(person) for person in persons if person.emotions]
    if felt:
        return f"{len(persons)}: {', '.join(felt)}"
    return str(len(persons))


def _felt(person: Person) -> str:
    """Return a person's most probable emotion, or all that are above their thresholds."""
    if person.assigned_labels is None:
        return top_word(person.emotions)
    return "+".join(person.assigned_labels) or NO_LABEL
