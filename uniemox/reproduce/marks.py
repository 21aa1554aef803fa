"""How figures are shown on a page: ours, the paper's, what stands for chance, and what does not beat the histogram."""

from collections.abc import Collection

from uniemox.evaluate.report.comparison import BELOW
from uniemox.intervals import PairedDifference
from uniemox.io.html import UNKNOWN, Html, element, join
from uniemox.reproduce.baseline import HISTOGRAM, Margin
from uniemox.reproduce.results import Score

BELOW_NOTE = (
    f"{BELOW}: does not beat the {HISTOGRAM}: the 95 % interval of the difference on the same images, over images, is "
    "not above 0. Where the two were scored on different images, the row's own interval is not above the histogram's "
    "accuracy."
)
CLASSES = {"UBE": 6, "FI": 8, "Emotion6": 6, "EmoSet": 8, "Emo8": 8, "CAER-S": 7, "HECO": 8}
PAPER_NEAR_PERCENT = 1.0  # so close to 1 / classes a figure of the paper is flagged


def mark_label(word: str) -> Html:
    """Where a figure comes from."""
    return element("span", word, class_=f"mark {word.split(maxsplit=1)[0]}")


def our_score(score: Score) -> Html:
    """Accuracy with its interval; near chance it is said first."""
    shown = f"{100 * score.accuracy:.1f} % ({100 * score.low:.1f} to {100 * score.high:.1f})"
    words = f"{score.seeds} seeds, {score.pictures} images, chance {100 * score.chance:.1f} %"
    if score.near_chance:
        return element(
            "span", f"near chance ({100 * score.accuracy:.1f} %)", class_="chance", title=f"{shown}; {words}"
        )
    return element("span", shown, title=words)


def paper_figure(value: float, name: str) -> Html:
    """A figure of the paper, percent."""
    classes = CLASSES.get(name)
    if classes is not None and value <= 100 / classes + PAPER_NEAR_PERCENT:
        return element("span", f"{value:.2f}, near chance", class_="chance", title=f"1 of {classes} classes")
    return element("span", f"{value:.2f}")


def points(found: PairedDifference) -> str:
    """A difference in percentage points."""
    return f"{100 * found.difference:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def over_histogram(margin: Margin) -> Html:
    """The difference to the histogram, with a sign where it is not beaten."""
    words = f"{100 * margin.difference:+.1f}"
    if margin.low is not None and margin.high is not None:
        words += f" ({100 * margin.low:+.1f} to {100 * margin.high:+.1f})"
    else:
        words += " (different images)"
    if margin.beats:
        return element("small", f"{words} over the {HISTOGRAM}")
    return element("small", f"{BELOW} {words} over the {HISTOGRAM}", class_="below")


def chance_cell(scores: Collection[Score]) -> Html:
    """What needs no image: the commonest class of the scored images, and one class of all; ranges where they differ."""
    if not scores:
        return Html(UNKNOWN)
    commonest = _percents({score.chance for score in scores})
    uniform = _percents({score.uniform for score in scores})
    return join([f"{commonest} the commonest class", Html("<br>"), f"{uniform} 1 / classes"])


def _percents(shares: Collection[float]) -> str:
    low, high = min(shares), max(shares)
    return f"{100 * low:.1f} %" if low == high else f"{100 * low:.1f} to {100 * high:.1f} %"
