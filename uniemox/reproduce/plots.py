"""Simple drawings of a table: a dot and a line per score, or a line of scores over shares of the data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

from uniemox.io.html import Html, position, render, scale_of

LEFT_PX, WIDTH_PX = 330, 840  # left: names of 50 letters
TOP_PX, BOTTOM_PX = 26, 346  # of a drawing of lines
TICKS = 5
COLOURS = ("#4a80d9", "#d9773f", "#2e8b57", "#a05fc4", "#b8902c", "#c2466b", "#3f9c9c", "#7a7f87")


@dataclass(frozen=True, slots=True)
class Dot:
    """Score with its interval, and the paper's figure; all are shares, 0 to 1."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    is_faint: bool = False
    """True if near chance."""


def dots(title: str, rows: Mapping[str, Dot], *, chance: float | None) -> Html:
    """Draw one row per method: our score as a dot with its interval, the paper's as a hollow square, chance dashed.

    rows: at least one with a value.
    """
    shown = {name: dot for name, dot in rows.items() if dot.value is not None or dot.paper is not None}
    scale = _scale(shown.values(), chance)
    return render(
        "reproduce/dots.svg",
        title=title,
        rows=shown,
        chance=chance,
        ticks=_ticks(scale),
        x=lambda share: LEFT_PX + position(share, scale) / 100 * (WIDTH_PX - LEFT_PX - 16),
        left=LEFT_PX,
        width=WIDTH_PX,
        colour=COLOURS[0],
    )


def curves(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Dot]], *, chance: float | None) -> Html:
    """Draw one line per method over the columns, placed by their numeric value.

    columns: such as 10%, rising.  rows: one Dot per column.
    """
    scale = _scale([dot for line in rows.values() for dot in line], chance)
    shares = [float(column.rstrip("%")) for column in columns]
    span = (shares[-1] - shares[0]) or 1.0
    places = [LEFT_PX + 30 + (share - shares[0]) / span * (WIDTH_PX - LEFT_PX - 60) for share in shares]
    return render(
        "reproduce/curves.svg",
        title=title,
        columns=dict(zip(columns, places, strict=True)),
        rows=[
            (name, colour, [(x, dot) for x, dot in zip(places, line, strict=True) if dot.value is not None])
            for (name, line), colour in zip(rows.items(), cycle(COLOURS), strict=False)
        ],
        chance=chance,
        ticks=_ticks(scale),
        y=lambda share: BOTTOM_PX - position(share, scale) / 100 * (BOTTOM_PX - TOP_PX),
        left=LEFT_PX,
        width=WIDTH_PX,
        top=TOP_PX,
        bottom=BOTTOM_PX,
    )


def _scale(points: Iterable[Dot], chance: float | None) -> tuple[float, float]:
    return scale_of([chance, *(end for dot in points for end in (dot.value, dot.low, dot.high, dot.paper))])


def _ticks(scale: tuple[float, float]) -> list[float]:
    low, high = scale
    return [low + (high - low) * tick / TICKS for tick in range(TICKS + 1)]
