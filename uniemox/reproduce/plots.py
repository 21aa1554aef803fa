"""Plain drawings of a table: a dot and a line for each score, or a line of scores over parts of the data."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uniemox.io.html import Html

LEFT_PX, WIDTH_PX, ROW_PX, TOP_PX, BOTTOM_PX = 330, 840, 22, 26, 34  # left: names of 50 letters
CURVE_PX = 320  # height of a drawing of lines
TICKS = 5
COLOURS = ("#4a80d9", "#d9773f", "#2e8b57", "#a05fc4", "#b8902c", "#c2466b", "#3f9c9c", "#7a7f87")


@dataclass(frozen=True, slots=True)
class Dot:
    """A score with its interval, and the paper's figure; all are shares, 0 to 1."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    paper: float | None = None
    is_faint: bool = False
    """Near chance."""


def dots(title: str, rows: Mapping[str, Dot], *, chance: float | None) -> Html:
    """A row for each method: ours as a dot with its interval, the paper's as a hollow square, chance as a dashed line.

    rows: at least one that has something to draw.
    """
    shown = {name: dot for name, dot in rows.items() if dot.value is not None or dot.paper is not None}
    low, high = _scale(list(shown.values()), chance)
    height = TOP_PX + ROW_PX * len(shown) + BOTTOM_PX
    parts = _ticks(low, high, TOP_PX, height - BOTTOM_PX)
    if chance is not None:
        x = _across(chance, low, high)
        parts.append(_line(x, TOP_PX, x, height - BOTTOM_PX, 'stroke-dasharray="4 3" opacity=".6"'))
    for place, (name, dot) in enumerate(shown.items()):
        y = TOP_PX + ROW_PX * (place + 0.5)
        parts.append(_text(LEFT_PX - 10, y + 4, name, "end"))
        if dot.paper is not None:
            x = _across(dot.paper, low, high)
            parts.append(
                f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="none" stroke="currentColor"/>'
            )
        if dot.value is not None:
            parts += _point(dot, (_across(dot.value, low, high), y), (low, high), COLOURS[0])
    return _drawing(title, height, parts)


def curves(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Dot]], *, chance: float | None) -> Html:
    """A line for each method over the columns, which stand as far apart as they are in number.

    columns: such as 10%, rising.  rows: a Dot for each column.
    """
    low, high = _scale([dot for line in rows.values() for dot in line], chance)
    top, bottom = TOP_PX, TOP_PX + CURVE_PX
    legend = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(rows)}
    values = [float(column.rstrip("%")) for column in columns]
    span = (values[-1] - values[0]) or 1.0
    places = [LEFT_PX + 30 + (value - values[0]) / span * (WIDTH_PX - LEFT_PX - 60) for value in values]

    def up(share: float) -> float:
        return bottom - (share - low) / (high - low) * (bottom - top)

    parts = [_text(place, bottom + 18, column, "middle") for place, column in zip(places, columns, strict=True)]
    for tick in range(TICKS + 1):
        share = low + (high - low) * tick / TICKS
        parts.append(_line(LEFT_PX, up(share), WIDTH_PX, up(share), 'opacity=".15"'))
        parts.append(_text(LEFT_PX - 6, up(share) + 4, f"{share:.0%}", "end"))
    if chance is not None:
        parts.append(_line(LEFT_PX, up(chance), WIDTH_PX, up(chance), 'stroke-dasharray="4 3" opacity=".6"'))
    for number, (name, line) in enumerate(rows.items()):
        colour = legend[name]
        known = [(x, dot) for x, dot in zip(places, line, strict=True) if dot.value is not None]
        points = " ".join(f"{x:.1f},{up(dot.value):.1f}" for x, dot in known if dot.value is not None)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, dot in known:
            if dot.low is not None and dot.high is not None:
                parts.append(_line(x, up(dot.low), x, up(dot.high), f'style="stroke:{colour}"'))
            if dot.value is not None:
                parts.append(f'<circle cx="{x:.1f}" cy="{up(dot.value):.1f}" r="4" fill="{colour}"/>')
        parts.append(f'<rect x="4" y="{top + 20 * number:.0f}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(20, top + 9 + 20 * number, name, "start"))
    return _drawing(title, max(bottom + BOTTOM_PX, top + 20 * len(rows)), parts)


def _scale(found: Sequence[Dot], chance: float | None) -> tuple[float, float]:
    """The least scale in steps of 0.05 on which all can be drawn."""
    ends = [end for dot in found for end in (dot.value, dot.low, dot.high, dot.paper) if end is not None]
    ends += [] if chance is None else [chance]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    low, high = max(0.0, low // 0.05 * 0.05), min(1.0, -(-high // 0.05) * 0.05)
    return low, high if high > low else low + 0.05


def _across(share: float, low: float, high: float) -> float:
    return LEFT_PX + (share - low) / (high - low) * (WIDTH_PX - LEFT_PX - 16)


def _ticks(low: float, high: float, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in range(TICKS + 1):
        share = low + (high - low) * tick / TICKS
        x = _across(share, low, high)
        parts += [_line(x, top, x, bottom, 'opacity=".15"'), _text(x, bottom + 18, f"{share:.0%}", "middle")]
    return parts


def _point(dot: Dot, at: tuple[float, float], scale: tuple[float, float], colour: str) -> list[str]:
    x, y = at
    faint = ' opacity=".35"' if dot.is_faint else ""
    parts = []
    if dot.low is not None and dot.high is not None:
        parts.append(_line(_across(dot.low, *scale), y, _across(dot.high, *scale), y, f'stroke-width="2"{faint}'))
    return [*parts, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"{faint}/>']


def _line(x1: float, y1: float, x2: float, y2: float, how: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" {how}/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="currentColor">'
        f"{html.escape(words)}</text>"
    )


def _drawing(title: str, height: float, parts: Sequence[str]) -> Html:
    words = html.escape(title)
    return Html(
        f'<svg viewBox="0 0 {WIDTH_PX} {height:.0f}" role="img" aria-label="{words}" width="100%" '
        f'style="max-width:{WIDTH_PX}px" font-family="system-ui, sans-serif"><title>{words}</title>'
        f"{''.join(parts)}</svg>"
    )
