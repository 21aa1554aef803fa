"""Numbers of images by what people answered and decided, counted image by image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from uniemox_curate.annotate.kept_sets import term_of
from uniemox_curate.annotate.verdicts import WITHOUT_AGREEMENT, decide_image
from uniemox_curate.plan import Rule
from uniemox_curate.project import SKIP


@dataclass(slots=True)
class ImageNumbers:
    """Numbers of images, as `Counts` has them. Those of a difference may be negative."""

    answered_twice: int = 0
    answered_or_skipped: int = 0
    disputed: int = 0
    labelled: int = 0
    """Number of images that the rule keeps."""
    fingerprint: int = 0
    """Sum of their terms, see `term_of`."""
    passed_screen: int = 0
    taken_down: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    styles: Counter[str] = field(default_factory=Counter)

    def minus(self, other: "ImageNumbers") -> "ImageNumbers":
        """Return the difference."""
        dropped = Counter(self.dropped)
        dropped.subtract(other.dropped)
        styles = Counter(self.styles)
        styles.subtract(other.styles)
        return ImageNumbers(
            answered_twice=self.answered_twice - other.answered_twice,
            answered_or_skipped=self.answered_or_skipped - other.answered_or_skipped,
            disputed=self.disputed - other.disputed,
            labelled=self.labelled - other.labelled,
            fingerprint=self.fingerprint - other.fingerprint,
            passed_screen=self.passed_screen - other.passed_screen,
            taken_down=self.taken_down - other.taken_down,
            dropped=dropped,
            styles=styles,
        )


class ImageTally:
    """Counts answered images.

    Args:
        rule: Rule for keeping images.
        searched: Labels whose keywords found each image.
    """

    def __init__(self, rule: Rule, searched: Mapping[int, frozenset[str]]) -> None:
        self.numbers = ImageNumbers()
        self.searched = searched
        # Most images have the same few combinations of answers.
        self._decide = cache(partial(decide_image, rule=rule))

    def add(self, image: int, labels: Sequence[str], judged: str | None) -> None:
        """Count an image of the pool.

        Args:
            image: Number of the image.
            labels: Last answers of the people whose answers count, also the skipped ones.
            judged: The owner's decision; None: there is no decision.
        """
        numbers = self.numbers
        answers = tuple(sorted(label for label in labels if label != SKIP))
        numbers.answered_or_skipped += len(labels) >= 2
        if not answers:
            return
        numbers.answered_twice += len(answers) >= 2
        searched = self.searched.get(image, frozenset())
        label, reason = self._decide(answers, searched, judged)
        numbers.disputed += reason in WITHOUT_AGREEMENT
        if label is not None:
            numbers.labelled += 1
            numbers.fingerprint += term_of(image, label)
