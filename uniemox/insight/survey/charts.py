"""Charts of a survey as data for its template: bars with intervals, and lines over time."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from uniemox.insight.survey.groupings import DATE, FOLDER
from uniemox.insight.survey.summary import Summary, Tally
from uniemox.io.html import is_known, number, percent
from uniemox.labels import AXES

# Rows of a table of groups; all further groups share one row.
MAX_ROWS = 40
# Groups of a chart; the table behind it has the others.
MAX_BARS = 12
# Number of dated groups that a line needs; fewer are shown as bars.
MIN_ON_LINE = 3
# Groups below this number of images are marked, because their means say little.
FEW = 10
AFFECT_SCALE = (1.0, 9.0)
AFFECT_MIDDLE = 5.0
_MONTH_OR_YEAR = re.compile(r"\d{4}(-\d\d)?", re.ASCII)
Scale = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """Bar of `ui.bars`, or point of `ui.lines`."""

    name: str
    value: float
    words: str
    """The value in words."""
    small: str = ""
    """Half of its 95 % interval, or another less important value, in words."""
    bounds: tuple[float, float] | None = None
    """Ends of its 95 % interval; None if unknown."""
    colour: str = ""
    """CSS colour; "" for that of the page."""
    x: float = 0.0
    """Place on a line, in percent of its width."""

    @property
    def high(self) -> float:
        """Upper end of the interval, or the value."""
        if self.bounds is None:
            return self.value
        return self.bounds[1]


@dataclass(frozen=True, slots=True)
class Panel:
    """Chart of one emotion, or of valence or arousal, by group."""

    name: str
    points: list[Mark]
    """A bar or a point of the line for each group."""
    scale: Scale
    ticks: list[tuple[float, str]]
    """Grid lines: value and words."""
    middle: float
    """Mean over all images."""
    summary: str
    """The chart in a sentence, for those who have the page read aloud."""
    colour: str
    """Colour of the emotion; "" for valence and arousal."""
    is_share: bool
    """True for a probability, False for valence and arousal."""


@dataclass(frozen=True, slots=True)
class GroupCharts:
    """Charts of one grouping, and the table behind them."""

    title: str
    panels: list[Panel]
    is_over_time: bool
    """True for lines, False for bars."""
    ends: tuple[str, str]
    """First and last group of the lines."""
    groups: int
    shown: int
    """Number of groups in the charts."""
    headings: list[str]
    rows: list[list[str]]


def emotion_rows(summary: Summary, colours: Mapping[str, str]) -> tuple[list[Mark], Scale]:
    """Return a bar for the mean of each label, highest first, and the scale of the bars."""
    tally = summary.whole
    rows = [
        _mean_mark(name, mean, margin, colour=colours[name])
        for name, mean, margin in zip(summary.columns, tally.means, tally.margins, strict=True)
        if name not in AXES
    ]
    rows.sort(key=lambda row: -row.value)
    return rows, _share_scale(rows)


def affect_rows(summary: Summary) -> list[Mark]:
    """Return a dot for the mean valence and the mean arousal, as far as they were predicted."""
    tally = summary.whole
    return [
        _mean_mark(name, mean, margin, is_share=False)
        for name, mean, margin in zip(summary.columns, tally.means, tally.margins, strict=True)
        if name in AXES
    ]


def count_rows(counts: Iterable[tuple[str, int]], total: int) -> list[Mark]:
    """Return a bar for each count, as a share of a total."""
    return [Mark(name, count / total, words=f"{count:,}", small=percent(count / total)) for name, count in counts]


def group_charts(summary: Summary, colours: Mapping[str, str]) -> list[GroupCharts]:
    """Return the charts of each grouping with more than one group.

    Args:
        summary: Numbers of the survey.
        colours: Colours of the labels.
    """
    return [_charts_of(name, tallies, summary, colours) for name, tallies in summary.groups.items() if len(tallies) > 1]


def _charts_of(name: str, tallies: Mapping[str, Tally], summary: Summary, colours: Mapping[str, str]) -> GroupCharts:
    """Return the charts and the table of one grouping."""
    dated = {group: tally for group, tally in tallies.items() if _MONTH_OR_YEAR.fullmatch(group)}
    is_over_time = name == DATE and len(dated) >= MIN_ON_LINE
    in_table = tallies if name == DATE else _largest_groups(tallies)
    if is_over_time:
        shown = dict(sorted(dated.items()))
    else:
        shown = dict(list(in_table.items())[:MAX_BARS])
    panels = _panels(shown, summary, colours, is_over_time=is_over_time)
    groups = list(shown)
    return GroupCharts(
        title={FOLDER: "By folder", DATE: "By date of the photograph"}.get(name, f"By {name}"),
        panels=panels,
        is_over_time=is_over_time,
        ends=(groups[0], groups[-1]),
        groups=len(tallies),
        shown=len(shown),
        headings=[name, "images", *summary.columns, "unfamiliar"],
        rows=[_table_row(group, tally, summary) for group, tally in in_table.items()],
    )


def _panels(
    shown: Mapping[str, Tally], summary: Summary, colours: Mapping[str, str], *, is_over_time: bool
) -> list[Panel]:
    """Return a chart for each column; those of labels share one scale."""
    points_by_column = {
        label: [
            _mean_mark(
                group,
                tally.means[column],
                tally.margins[column],
                is_share=label not in AXES,
                colour=colours.get(label, ""),
            )
            for group, tally in shown.items()
        ]
        for column, label in enumerate(summary.columns)
    }
    # The mean of a few images may be anywhere, so it does not set the scale of a line.
    is_counted = [tally.images >= FEW or not is_over_time for tally in shown.values()]
    share_scale = _share_scale(
        [
            point
            for label, points in points_by_column.items()
            if label not in AXES
            for point in compress(points, is_counted)
        ]
    )
    panels = []
    for (label, points), mean in zip(points_by_column.items(), summary.whole.means, strict=True):
        is_share = label not in AXES
        scale = share_scale
        if not is_share:
            scale = _affect_scale(points)
        panels.append(
            Panel(
                name=label,
                points=_in_time(points) if is_over_time else points,
                scale=scale,
                ticks=_ticks(scale, is_share),
                middle=float(mean),
                summary=_sentence(points),
                colour=colours.get(label, ""),
                is_share=is_share,
            )
        )
    return panels


def _largest_groups(tallies: Mapping[str, Tally]) -> dict[str, Tally]:
    """Sort groups by number of images; those after the 40th share one row."""
    ordered = sorted(tallies.items(), key=lambda pair: -pair[1].images)
    rows = dict(ordered[:MAX_ROWS])
    if len(ordered) > MAX_ROWS:
        others = Tally(ordered[0][1].columns)
        for _, tally in ordered[MAX_ROWS:]:
            others.merge(tally)
        rows[f"{len(ordered) - MAX_ROWS} more"] = others
    return rows


def _mean_mark(name: str, mean: float, margin: float, *, is_share: bool = True, colour: str = "") -> Mark:
    """Return the bar or point of a mean.  margin: half of its 95 % interval; nan if unknown."""
    words = _in_words(mean, is_share)
    if not is_known(margin):
        return Mark(name, float(mean), words, colour=colour)
    bounds = float(mean - margin), float(mean + margin)
    return Mark(name, float(mean), words, f"± {_margin_digits(margin, is_share)}", bounds, colour)


def _in_words(value: float, is_share: bool) -> str:
    """Return a share in whole percent, valence and arousal with one decimal."""
    if is_share:
        return percent(value)
    return number(value, 1)


def _margin_digits(margin: float, is_share: bool) -> str:
    """Return a margin with enough decimals that it is not zero: of a share in points of percent."""
    if is_share:
        points = 100 * margin
        return f"{points:.0f}" if points >= 0.95 else f"{points:.1f}"
    return f"{margin:.1f}" if margin >= 0.05 else f"{margin:.2f}"


def _table_row(group: str, tally: Tally, summary: Summary) -> list[str]:
    """Return a group's row: name, number of images, mean and margin of each column, share of unfamiliar images."""
    cells = []
    for name, mean, margin in zip(summary.columns, tally.means, tally.margins, strict=True):
        mark = _mean_mark(name, mean, margin, is_share=name not in AXES)
        cells.append(f"{mark.words} {mark.small}".strip())
    count = f"{tally.images:,}"
    if tally.images < FEW:
        count += " (few)"
    return [group, count, *cells, summary.unfamiliar_text(tally)]


def _share_scale(points: Sequence[Mark]) -> Scale:
    """Return a scale from 0 to the next tenth above all values and intervals, at most to 1."""
    highest = max((point.high for point in points), default=1.0)
    return 0.0, min(max(math.ceil(highest * 10) / 10, 0.1), 1.0)


def _affect_scale(points: Sequence[Mark]) -> Scale:
    """Return the smallest scale between whole numbers from 1 to 9 that contains all values, and the middle."""
    low, high = AFFECT_SCALE
    values = [point.value for point in points]
    lowest = math.floor(min(*values, AFFECT_MIDDLE - 1))
    highest = math.ceil(max(*values, AFFECT_MIDDLE + 1))
    return max(lowest, low), min(highest, high)


def _ticks(scale: Scale, is_share: bool) -> list[tuple[float, str]]:
    """Return the ends and the middle of a scale with their words."""
    low, high = scale
    values = (low, (low + high) / 2, high)
    if is_share:
        return [(value, percent(value)) for value in values]
    return [(value, f"{value:g}") for value in values]


def _in_time(points: Sequence[Mark]) -> list[Mark]:
    """Return the points at the places of their months or years, which their words name."""
    months = [_months_of(point.name) for point in points]
    span = months[-1] - months[0]
    return [
        replace(point, x=100 * (month - months[0]) / span, words=f"{point.name}: {point.words} {point.small}".strip())
        for point, month in zip(points, months, strict=True)
    ]


def _months_of(date: str) -> int:
    """Return the months from year 0 to a date, YYYY or YYYY-MM.

    >>> _months_of("2019") - _months_of("2018-11")
    2
    """
    year, _, month = date.partition("-")
    return 12 * int(year) + int(month or 1)


def _sentence(points: Sequence[Mark]) -> str:
    """Describe a line: its ends, and its lowest and highest point."""
    lowest = min(points, key=lambda point: point.value)
    highest = max(points, key=lambda point: point.value)
    return f"first {points[0].words}, last {points[-1].words}; lowest {lowest.words}, highest {highest.words}"
