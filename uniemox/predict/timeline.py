"""Predictions of a video over time, drawn with Pillow: probability of each label, cuts, valence."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from uniemox.io.fonts import fitted, font_of
from uniemox.labels import AXES
from uniemox.labels.rating_scale import share_of_scale
from uniemox.predict.plot import INK, LABEL_COLOURS, PAPER, QUIET, stacked
from uniemox.predict.tables import checking_fields, read_lines

WIDTH_PX = 1200
HEIGHT_PX = 220
EDGE_PX = 16
ROW_PX = 22
TOP = ROW_PX
BOTTOM = ROW_PX + HEIGHT_PX
MAX_FILMS = 40
# Seconds between two marks of the time axis: the smallest that gives at most MAX_TICKS marks is used.
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
MAX_TICKS = 12
Answer = Mapping[str, Any]


def draw_timelines(lines: Path) -> Image.Image | None:
    """Draw the timelines of up to 40 videos, in the file's order.

    The height of each label is its probability. White lines are cuts. The dark line is valence, from 1 at the bottom to
    9 at the top.

    Args:
        lines: File that `uniemox predict --every` wrote.

    Returns:
        Drawing; None if no frame could be read.

    Raises:
        DataError: For a line that is no prediction.
    """
    answers = [value for value in read_lines(lines) if "time_s" in value]
    films: dict[str, list[Answer]] = {}
    for answer in answers:
        # The path of a frame is VIDEO#t=SECONDS.
        films.setdefault(answer["path"].rpartition("#t=")[0], []).append(answer)
    if not films:
        return None
    with checking_fields(lines):
        colours = dict(zip(answers[0]["scene"], cycle(LABEL_COLOURS), strict=False))
        return stacked([_draw_key(colours), *(_draw_panel(*film, colours) for film in list(films.items())[:MAX_FILMS])])


def _draw_panel(film: str, answers: Sequence[Answer], colours: Mapping[str, str]) -> Image.Image:
    """Draw the timeline of one video."""
    answers = sorted(answers, key=lambda answer: answer["time_s"])
    panel = Image.new("RGB", (WIDTH_PX, BOTTOM + ROW_PX + EDGE_PX), PAPER)
    draw = ImageDraw.Draw(panel)
    title, font = fitted(film, 14, WIDTH_PX - 2 * EDGE_PX, keep_end=True)
    draw.text((EDGE_PX, 2), title, fill=INK, font=font)
    times = [float(answer["time_s"]) for answer in answers]
    step = min((b - a for a, b in pairwise(times)), default=1.0)
    end = times[-1] + step

    def across(time_s: float) -> float:
        return EDGE_PX + (WIDTH_PX - 2 * EDGE_PX) * time_s / end

    # An answer reaches at most two steps, so that a missing part of the video stays blank.
    for answer, (start, stop) in zip(answers, pairwise([*times, end]), strict=True):
        _draw_shares(draw, answer, colours, across(start), across(min(stop, start + 2 * step)))
    for before, after in pairwise(answers):
        if before["shot"] != after["shot"]:
            x = across(after["time_s"])
            draw.line((x, TOP, x, BOTTOM), fill=PAPER, width=2)
    values = [answer.get("valence", answer["scene"].get("valence")) for answer in answers]
    valences = [(time, value) for time, value in zip(times, values, strict=True) if value is not None]
    points = [(across(time + step / 2), BOTTOM - HEIGHT_PX * share_of_scale(value)) for time, value in valences]
    if len(points) > 1:
        draw.line(points, fill=PAPER, width=5)
        draw.line(points, fill=INK, width=2)
    _draw_ticks(draw, end, across)
    return panel


def _draw_shares(draw: ImageDraw.ImageDraw, answer: Answer, colours: Mapping[str, str], x1: float, x2: float) -> None:
    """Draw the labels' shares at a time, one above the other; nothing for valence and arousal."""
    y = float(BOTTOM)
    # The probabilities of a model that gives several labels may have a sum above 1.
    total = max(1.0, sum(share for label, share in answer["scene"].items() if label not in AXES))
    for label, share in answer["scene"].items():
        height = 0 if label in AXES else share / total * HEIGHT_PX
        if height:
            draw.rectangle((x1, y - height, max(x2 - 1, x1), y), fill=colours[label])
        y -= height


def _draw_ticks(draw: ImageDraw.ImageDraw, end: float, across: Callable[[float], float]) -> None:
    """Draw the marks of the time axis; `across` converts seconds to px."""
    step = next((tick for tick in TICKS if end / tick <= MAX_TICKS), end / MAX_TICKS)
    font = font_of(13)
    time_s = 0.0
    while time_s < end:
        draw.line((across(time_s), BOTTOM, across(time_s), BOTTOM + 4), fill=INK)
        draw.text((across(time_s), BOTTOM + 5), clock(time_s), fill=INK, font=font)
        time_s += step


def clock(time_s: float) -> str:
    """Format a time as video players do.

    >>> clock(2.5), clock(75), clock(3725)
    ('0:02.5', '1:15', '1:02:05')
    """
    hours, seconds = divmod(time_s, 3600)
    minutes, seconds = divmod(seconds, 60)
    digits = f"{seconds:04.1f}" if seconds % 1 else f"{seconds:02.0f}"
    if hours:
        return f"{hours:.0f}:{minutes:02.0f}:{digits}"
    return f"{minutes:.0f}:{digits}"


def _draw_key(colours: Mapping[str, str]) -> Image.Image:
    """Draw the key of the colours."""
    key = Image.new("RGB", (WIDTH_PX, 2 * ROW_PX), PAPER)
    draw = ImageDraw.Draw(key)
    x = float(EDGE_PX)
    entries = {**{label: colour for label, colour in colours.items() if label not in AXES}, "valence, 1 to 9": INK}
    for label, colour in entries.items():
        draw.rectangle((x, 12, x + 12, 24), fill=colour)
        name, font = fitted(label, 14, WIDTH_PX / 4)
        draw.text((x + 18, 9), name, fill=INK, font=font)
        x += 18 + font.getlength(name) + 16
    draw.line((EDGE_PX, 2 * ROW_PX - 4, WIDTH_PX - EDGE_PX, 2 * ROW_PX - 4), fill=QUIET)
    return key
