"""Summary of many predictions for the screen: labels with counts, ratings, people, and flagged images."""

from collections import Counter

from rich.table import Table

from uniemox.labels import AFFECT
from uniemox.plurals import counted
from uniemox.predict.prediction import Prediction
from uniemox.predict.schema import NO_LABEL, top_word


class PredictionSummary:
    """Numbers of predictions; `add` counts them, and memory does not grow with their number."""

    def __init__(self) -> None:
        self.images = 0
        self.with_people = 0
        self.unfamiliar = 0
        self._likely_labels = 0
        self._first: Prediction | None = None
        self._labels: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()
        self._rated: Counter[str] = Counter()

    def add(self, prediction: Prediction) -> None:
        """Count a prediction."""
        self._first = self._first or prediction
        self.images += 1
        self.with_people += bool(prediction.persons)
        self.unfamiliar += prediction.is_unfamiliar
        self._likely_labels += len(prediction.likely or ())
        self._labels.update(_labels_of(prediction))
        for name in AFFECT:
            value = getattr(prediction, name)
            if value is not None:
                self._sums[name] += value
                self._rated[name] += 1

    def parts(self) -> list[Table | str]:
        """Return the table and the lines of the summary, after the first prediction."""
        assert self._first is not None
        parts: list[Table | str] = []
        # A model of ratings alone has no labels to count.
        if AFFECT[0] not in self._first.scene:
            parts.append(self._table(self._first))
        means = [f"{name} {self._sums[name] / self._rated[name]:.1f}" for name in AFFECT if self._rated[name]]
        if means:
            parts.append(f"mean {', '.join(means)} (scale 1 to 9)")
        if self._first.persons is not None:
            parts.append(f"people found in {self.with_people:,} of {counted(self.images, 'image')}")
        if self.unfamiliar:
            parts.append(f"guesses, because unlike the training images: {counted(self.unfamiliar, 'image')}")
        if self._first.likely is not None:
            parts.append(
                "likely sets (labels that hold the true one in the requested share of images like the held-out ones): "
                f"{self._likely_labels / self.images:.1f} labels on average; --out and --json list them (likely)"
            )
        parts.append("For one line per image, add --out answers.csv or --json.")
        return parts

    def _table(self, first: Prediction) -> Table:
        """Return the number of images of each most probable label, or of each label of several."""
        choice = "most probable" if first.assigned_labels is None else "above the threshold"
        table = Table(f"{first.kind} ({first.label_set}), {choice}", "images", "share")
        for label, count in self._labels.most_common():
            table.add_row(label, f"{count:,}", f"{count / self.images:.0%}")
        return table


def _labels_of(prediction: Prediction) -> tuple[str, ...]:
    """Return the labels that count for an image: the most probable, or all that are above their thresholds."""
    if prediction.has_no_counterpart or prediction.assigned_labels == ():
        return (NO_LABEL,)
    return prediction.assigned_labels or (top_word(prediction.scene),)
