"""HTML of pages and notebooks, from jinja2 templates.

Each template lies next to the module that fills it, and is named by its package and path: "uniemox_ask/page.html".
`uniemox/io/base.html` and `uniemox/io/macros.html` are shared by all pages. Templates escape every value; only `Html`
is taken as markup.
"""

import base64
import math
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from markupsafe import Markup as Html
from PIL import Image

from uniemox.io.files import write_file
from uniemox.io.images import encode_image
from uniemox.labels import quoted
from uniemox.plurals import counted

if TYPE_CHECKING:
    from jinja2 import Environment

Bounds = Sequence[float] | None
UNKNOWN = "–"
STYLE_SHEET = files("uniemox.io") / "style.css"
"""Style sheet of all pages, for servers of pages that are no templates."""


def render(template: str, /, **values: Any) -> Html:
    """Fill a template of any package: "uniemox_ask/page.html"."""
    return Html(environment().get_template(template).render(values))


def write_html(path: Path, template: str, /, **values: Any) -> None:
    """Fill a template and write the page.

    Raises:
        DataError: If the file can't be written.
    """
    write_file(path, render(template, **values))


@cache
def environment(*, is_html: bool = True) -> "Environment":
    """Return the package's template environment, with the functions below as filters.

    Args:
        is_html: True to escape values.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415 - most commands write no page

    env = Environment(
        loader=FunctionLoader(_template),
        autoescape=is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not is_html,
    )
    env.filters |= {"number": number, "percent": percent, "interval": interval, "position": position, "quoted": quoted}
    env.tests |= {"known": is_known, "interval": are_known}
    env.globals |= {"zip": zip, "counted": counted}
    return env


def _template(name: str) -> str:
    package, _, path = name.partition("/")
    return files(package).joinpath(path).read_text("utf-8")


def jpeg_url(image: Image.Image, *, max_side_px: int, quality: int = 78) -> str:
    """Return an image as a data URL for `img`, as a JPEG.

    Args:
        image: Image of any size; a larger one is scaled down.
        max_side_px: Maximum length of its longer side.
        quality: JPEG quality, 1 to 95.
    """
    image = image.convert("RGB")
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    return data_url(encode_image(image, "JPEG", quality=quality), "image/jpeg")


def data_url(data: bytes, kind: str) -> str:
    """Return a data URL with the bytes."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def number(value: float | None, digits: int = 3) -> str:
    """Format a number; a dash if unknown."""
    return f"{value:.{digits}f}" if is_known(value) else UNKNOWN


def percent(share: float) -> str:
    """Format a share of 1 in whole percent."""
    return f"{100 * share:.0f} %"


def interval(bounds: Bounds) -> str:
    """Format both ends of an interval; a dash if unknown."""
    if are_known(bounds):
        return f"{bounds[0]:.3f} to {bounds[1]:.3f}"
    return UNKNOWN


def is_known(value: float | None) -> TypeGuard[float]:
    """Return True if a score is a number; an undefined one is None or nan."""
    return value is not None and math.isfinite(value)


def are_known(bounds: Bounds) -> TypeGuard[Sequence[float]]:
    """Return True if an interval has both ends."""
    return bounds is not None and len(bounds) == 2 and all(is_known(bound) for bound in bounds)


def position(value: float, scale: tuple[float, float] = (0, 1)) -> float:
    """Return the position of a value on a scale, in percent from its lowest to its highest."""
    low, high = scale
    return 100 * min(max((value - low) / (high - low), 0.0), 1.0)


def scale_of(values: Iterable[float | None]) -> tuple[float, float]:
    """Return the smallest scale in steps of 0.05 that contains all values."""
    numbers = [value for value in values if is_known(value)]
    if not numbers:
        return 0.0, 1.0
    low = math.floor(min(numbers) * 20) / 20
    high = math.ceil(max(numbers) * 20) / 20
    return low, high if high > low else low + 0.05
