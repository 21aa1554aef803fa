"""Drawing and page of curves over few labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from uniemox.finetune.few_labels_config import FewLabelsConfig
from uniemox.io.files import write_file
from uniemox.io.html import UNKNOWN, Html, percent, render, write_html

PAGE = "index.html"
DRAWING = "curve.svg"
# Colours that differ also for colour-blind readers (Okabe and Ito), dark enough for a white page.
COLOURS = ("#0072b2", "#d55e00", "#007d5a", "#aa4499", "#737373")
LEFT_PX = 48
TOP_PX = 12
BOTTOM_PX = 252
COLUMN_PX = 84
LEGEND_PX = 130
# Distance of grid lines.
TICK = 0.1


@dataclass(frozen=True, slots=True)
class MethodAccuracy:
    """Accuracy of a method, or of a trivial baseline."""

    method: str
    images_per_class: int | None
    """None for a trivial baseline, which sees no image; 0 for zero-shot."""
    seeds: int
    accuracy: float
    low: float | None
    """Lower end of the 95 % interval; None without an interval."""
    high: float | None

    @property
    def interval_text(self) -> str:
        """Both ends in percent; a dash without an interval."""
        if self.low is None or self.high is None:
            return UNKNOWN
        return f"{self.low:.1%} to {self.high:.1%}"


@dataclass(frozen=True, slots=True)
class _Dot:
    """Point of a drawing, px."""

    x: float
    y: float
    low_y: float | None
    high_y: float | None
    words: str


@dataclass(frozen=True, slots=True)
class _Curve:
    """Line of a drawing."""

    name: str
    colour: str
    dots: list[_Dot]


def write_page(points: Sequence[MethodAccuracy], config: FewLabelsConfig, data: str, scored: int, out: Path) -> None:
    """Write the page and the drawing on it.

    Args:
        points: Points of all curves, and trivial baselines.
        config: Settings of the curves.
        data: Name of the data set.
        scored: Number of scored images.
        out: Folder of both.

    Raises:
        DataError: If they can't be written.
    """
    title = f"Few labelled images of {data}"
    drawing = draw(points, title)
    write_file(out / DRAWING, drawing)
    numbers = _numbers_of(points)
    cells = {(point.method, point.images_per_class): point for point in points}
    methods = list(dict.fromkeys(point.method for point in points if point.images_per_class is not None))
    rows = [[number, *(_cell(cells.get((method, number))) for method in methods)] for number in numbers]
    write_html(
        out / PAGE,
        "uniemox/finetune/few_labels.html",
        title=title,
        drawing=drawing,
        config=config,
        scored=scored,
        methods=methods,
        rows=rows,
        baselines=[point for point in points if point.images_per_class is None],
    )


def _numbers_of(points: Sequence[MethodAccuracy]) -> list[int]:
    """Return the different numbers of images of a class, in ascending order."""
    return sorted({point.images_per_class for point in points if point.images_per_class is not None})


def _cell(point: MethodAccuracy | None) -> str:
    """Return accuracy and interval in percent; a dash without a point."""
    if point is None:
        return UNKNOWN
    value = f"{point.accuracy:.1%}"
    if point.low is None:
        return value
    return f"{value} ({point.interval_text})"


def draw(points: Sequence[MethodAccuracy], title: str) -> Html:
    """Return an SVG: a line with intervals for each method over the images of a class; baselines are dashed.

    Args:
        points: Points of all curves, and trivial baselines.
        title: Name of the drawing for readers that hear it.
    """
    shown = [point for point in points if point.images_per_class is not None]
    baselines = [point for point in points if point.images_per_class is None]
    numbers = _numbers_of(points)
    highest = max(value for point in points for value in (point.accuracy, point.high or 0.0))
    # At least one, for a curve at 0.
    steps = max(1, ceil(highest / TICK))
    top_value = TICK * steps

    def x_of(point: MethodAccuracy) -> float:
        assert point.images_per_class is not None, "baselines are lines"
        return LEFT_PX + COLUMN_PX * (numbers.index(point.images_per_class) + 0.5)

    def y_of(value: float) -> float:
        return BOTTOM_PX - (BOTTOM_PX - TOP_PX) * value / top_value

    curves = []
    methods = list(dict.fromkeys(point.method for point in shown))
    for index, method in enumerate(methods):
        dots = [
            _Dot(
                x=x_of(point),
                y=y_of(point.accuracy),
                low_y=None if point.low is None else y_of(point.low),
                high_y=None if point.high is None else y_of(point.high),
                words=f"{method}, {point.images_per_class} of a class: {_cell(point)}",
            )
            for point in shown
            if point.method == method
        ]
        curves.append(_Curve(method, COLOURS[index % len(COLOURS)], dots))
    right = LEFT_PX + COLUMN_PX * len(numbers)
    return render(
        "uniemox/finetune/few_labels.svg",
        title=title,
        width=right + LEGEND_PX,
        right=right,
        left=LEFT_PX,
        bottom=BOTTOM_PX,
        columns=[(LEFT_PX + COLUMN_PX * (i + 0.5), number) for i, number in enumerate(numbers)],
        ticks=[(y_of(TICK * i), percent(TICK * i)) for i in range(steps + 1)],
        curves=curves,
        baselines=[(point.method, y_of(point.accuracy)) for point in baselines],
    )
