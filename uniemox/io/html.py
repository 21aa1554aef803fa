"""Pieces of a page that stands alone: elements, tables, bars with intervals, images, and how it all looks.

A plain text that is put into an element is escaped; only what these functions return is taken as HTML.
"""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from typing import TypeGuard

from PIL import Image

Bounds = Sequence[float] | None
UNKNOWN = "–"
STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5b6470; --line: #d9dde3; --back: #fff; --card: #f6f7f9;
  --accent: #3b6fd4; --good: #2e8b57; --bad: #c2542d; font: 16px/1.5 system-ui, sans-serif }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa4b1; --line: #363c45; --back: #15181c;
  --card: #1d2127; --accent: #6f9bea; --good: #58b884; --bad: #e5855c } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem; background: var(--back); color: var(--ink) }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem } h2 { font-size: 1.35rem; margin: 0 0 .3rem }
h3 { font-size: 1.1rem; margin: 2.2rem 0 .4rem } h4 { font-size: .95rem; margin: 1.6rem 0 .5rem }
h1, h2, h3, h4, figcaption, p, li { overflow-wrap: anywhere } th { overflow-wrap: break-word; max-width: 16rem }
section.run, section.comparison { margin-top: 2.5rem; padding-top: 1.5rem; border-top: 2px solid var(--line) }
a { color: var(--accent) } p { margin: .4rem 0; max-width: 48rem }
.note, figcaption, caption, th { color: var(--soft) } .note, figcaption, caption { font-size: .85rem }
.missing { border-left: 3px solid var(--bad); padding: .3rem .8rem; margin: .8rem 0; background: var(--card) }
.scroll { overflow-x: auto; margin: .6rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; padding-bottom: .3rem }
th { font-weight: 500; text-align: left } td, th { padding: .25rem .9rem .25rem 0; vertical-align: middle }
tbody th { min-width: 9rem } td, thead th { white-space: nowrap } thead th { border-bottom: 1px solid var(--line) }
figure { margin: 0 } img { display: block; max-width: 100%; height: auto }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1.2rem }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0 2rem }
.pair > * { min-width: 0 }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(12rem, 100%), 1fr)); gap: .6rem 1.2rem }
dt { color: var(--soft); font-size: .8rem } dd { margin: 0; overflow-wrap: anywhere }
.reliability { max-width: 23rem } .reliability img { width: 100% }
.small { grid-template-columns: repeat(auto-fill, minmax(min(13rem, 100%), 1fr)) } .plots img { width: 100% }
.sheets { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1.2rem }
.track { display: block; position: relative; width: clamp(5rem, 18vw, 11rem); height: 1.1rem;
  background: linear-gradient(var(--line), var(--line)) center / 100% 1px no-repeat }
.pair .track { width: clamp(5rem, 18vw, 8rem) } .track i { position: absolute; top: 50%; transform: translateY(-50%) }
.track .bar { left: 0; height: .8rem; background: var(--accent); opacity: .4; border-radius: 0 .2rem .2rem 0 }
.track .range { height: 2px; background: var(--ink) }
.track .dot { width: .6rem; height: .6rem; margin-left: -.3rem; border-radius: 50%; background: var(--accent) }
.confusion td { text-align: center; padding: .25rem .3rem; min-width: 2.4rem; border: 1px solid var(--back) }
.confusion thead th { writing-mode: vertical-rl; transform: rotate(180deg); padding: .3rem .2rem; border: 0 }
.confusion tbody th { padding-right: .6rem; text-align: right; white-space: nowrap }
.confusion thead th:first-child { writing-mode: horizontal-tb; transform: none; vertical-align: bottom }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(10rem, 100%), 1fr)); gap: .9rem;
  list-style: none; padding: 0; margin: 0 }
.examples figure { background: var(--card); border-radius: .5rem; overflow: hidden; height: 100% }
.examples img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #8882 }
.examples figcaption { padding: .5rem .6rem .6rem; line-height: 1.35 } .examples b { color: var(--ink) }
.shares { list-style: none; margin: .4rem 0; padding: 0 } .shares li { position: relative; padding: .1rem .3rem;
  margin-top: 2px; display: flex; justify-content: space-between; gap: .4rem; color: var(--ink); font-size: .78rem }
.shares i { position: absolute; inset: 0 auto 0 0; background: var(--accent); opacity: .28; border-radius: .2rem }
.shares .true i { background: var(--good); opacity: .4 }
details { margin: 1rem 0 } summary { cursor: pointer; color: var(--soft) }
pre { overflow-x: auto; background: var(--card); padding: .8rem; border-radius: .5rem; font-size: .8rem }
@media (max-width: 40rem) { dl, .examples, .small { grid-template-columns: 1fr 1fr } .examples { gap: .6rem } }
@media print { details, .scroll { overflow: visible } section.run { break-before: page } }
"""


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *content: str, **attributes: str) -> Html:
    """An element. Content that is no Html is escaped, and so is every attribute.

    attributes: by name; `class_` becomes class, `aria_hidden` becomes aria-hidden.

    >>> element("td", "a < b", class_="words")
    '<td class="words">a &lt; b</td>'
    """
    names = {key: key.rstrip("_").replace("_", "-") for key in attributes}
    given = "".join(f' {names[key]}="{html.escape(value)}"' for key, value in attributes.items())
    end = "" if name in ("img", "meta") else f"</{name}>"
    return Html(f"<{name}{given}>{join(content)}{end}")


def join(parts: Iterable[str]) -> Html:
    """Parts one after the other; those that are no Html are escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def page(title: str, parts: Iterable[Html]) -> Html:
    """A whole page."""
    head = join(
        [
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", title),
            element("style", Html(STYLE)),
        ]
    )
    body = element("body", element("main", *parts))
    return Html(f"<!doctype html>\n{element('html', element('head', head), body, lang='en')}\n")


def table(name: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table; the first cell of a row is its heading.

    name: what those hear who have the page read aloud.
    """
    head = element("thead", element("tr", *(element("th", heading, scope="col") for heading in headings)))
    body = element("tbody", *(_row(row) for row in rows))
    return scrolling(name, element("table", head, body))


def scrolling(name: str, wide: Html) -> Html:
    """Wrap content that scrolls where it is too wide, also with keys."""
    return element("div", wide, class_="scroll", role="region", aria_label=name, tabindex="0")


def track(value: float | None, bounds: Bounds, *, scale: tuple[float, float] = (0, 1), is_bar: bool = True) -> Html:
    """A value as a bar or a dot, with its interval as a line, on a scale from its lowest to its highest.

    The numbers stand beside it in words, so that it is hidden from what reads a page aloud.
    """
    if not is_known(value):
        return Html("")
    at = _percent(value, scale)
    parts = [element("i", class_="bar", style=f"width:{at:.1f}%")] if is_bar else []
    if are_known(bounds):
        low, high = (_percent(bound, scale) for bound in bounds)
        parts.append(element("i", class_="range", style=f"left:{low:.1f}%;width:{high - low:.1f}%"))
    if not is_bar:
        parts.append(element("i", class_="dot", style=f"left:{at:.1f}%"))
    return element("span", *parts, class_="track", aria_hidden="true")


def scaled_image(image: Image.Image, alt: str, *, max_side_px: int, quality: int = 78) -> Html:
    """An image inside the page, as a JPEG that is scaled down to its longest side."""
    image = image.convert("RGB")
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return inline_image(buffer.getvalue(), "image/jpeg", alt)


def inline_image(data: bytes, kind: str, alt: str) -> Html:
    """An image whose bytes are inside the page."""
    return element("img", alt=alt, src=f"data:{kind};base64,{base64.b64encode(data).decode()}")


def number(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where it is not known."""
    return f"{value:.{digits}f}" if is_known(value) else UNKNOWN


def percent(share: float) -> str:
    """A share of 1 in whole percent."""
    return f"{100 * share:.0f} %"


def interval(bounds: Bounds) -> str:
    """Both ends, or a dash."""
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}" if are_known(bounds) else UNKNOWN


def is_known(value: float | None) -> TypeGuard[float]:
    """Return whether a score is a number; one that is undefined is None, or nan."""
    return value is not None and math.isfinite(value)


def are_known(bounds: Bounds) -> TypeGuard[Sequence[float]]:
    """Return whether an interval has both ends."""
    return bounds is not None and len(bounds) == 2 and all(is_known(bound) for bound in bounds)


def _percent(value: float, scale: tuple[float, float]) -> float:
    low, high = scale
    return 100 * min(max((value - low) / (high - low), 0.0), 1.0)


def _row(cells: Sequence[str]) -> Html:
    head, *others = cells
    return element("tr", element("th", head, scope="row"), *(element("td", cell) for cell in others))
