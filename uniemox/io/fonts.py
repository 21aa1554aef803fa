"""Fonts for drawings: Pillow's own, or the system's if that lacks a letter; escapes for letters that no font has."""

import unicodedata
from bisect import bisect_left
from functools import lru_cache

from PIL import ImageFont

from uniemox.errors import ImageError

SYSTEM = (
    *("DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Arial Unicode.ttf"),
    *("NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "SourceHanSans.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc"),
    *("DroidSansFallbackFull.ttf", "msyh.ttc", "PingFang.ttc", "Hiragino Sans GB.ttc", "malgun.ttf", "YuGothM.ttc"),
)
"""Font files of Linux, macOS and Windows; Pillow searches the system's font folders."""
# Fonts draw this as a missing letter.
NO_LETTER = "\uffff"


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Return Pillow's own font, which has ASCII only.

    Args:
        size: Size of the letters, px.

    Raises:
        ImageError: If Pillow was built without FreeType.
    """
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImageError("this Pillow was built without FreeType, so it can't draw words; install another build")
    return font


def fitted(text: str, size: int, width: float, *, keep_end: bool = False) -> tuple[str, ImageFont.FreeTypeFont]:
    """Cut a text to one line, and return it with its font.

    Accents are left out and other letters spelt as \\u65e5 where no font has them.

    Args:
        text: The text; line breaks become spaces.
        size: Size of the letters, px.
        width: Maximum width of the line, px.
        keep_end: True to cut the start of a long text, where names of files are alike.

    Raises:
        ImageError: If Pillow was built without FreeType.
    """
    text = " ".join(text.split())
    font = _font_for(text, size)
    text = "".join(_written(letter, font) for letter in text)
    if font.getlength(text) <= width:
        return text, font

    def without(count: int) -> str:
        return f"…{text[count:]}" if keep_end else f"{text[: len(text) - count]}…"

    letters = range(1, len(text) + 1)
    shortest = bisect_left(letters, True, key=lambda count: font.getlength(without(count)) <= width)
    return without(letters[min(shortest, len(text) - 1)]), font


def _font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """Return the first font that has most of the letters."""
    letters = {letter for letter in text if letter.isprintable()}
    best = font_of(size)
    fewest = len(letters) + 1
    for name in (None, *SYSTEM):
        font = _open(name, size)
        if font is None:
            continue
        missing = sum(not _has(name, size, letter) for letter in letters)
        if missing < fewest:
            best = font
            fewest = missing
        if fewest == 0:
            break
    return best


def _written(letter: str, font: ImageFont.FreeTypeFont) -> str:
    """Return a letter in a form that the font can draw."""
    if letter.isprintable() and _draws(font, letter):
        return letter
    decomposed = unicodedata.normalize("NFKD", letter)
    plain = "".join(character for character in decomposed if not unicodedata.combining(character))
    if plain.isprintable() and plain and all(_draws(font, character) for character in plain):
        return plain
    return letter.encode("ascii", "backslashreplace").decode()


@lru_cache
def _open(name: str | None, size: int) -> ImageFont.FreeTypeFont | None:
    """Open a font by its file's name, Pillow's own for None; returns None if the system lacks it."""
    if name is None:
        return font_of(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _has(name: str | None, size: int, letter: str) -> bool:
    font = _open(name, size)
    return font is not None and _draws(font, letter)


def _draws(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    return letter == " " or bytes(font.getmask(letter)) != bytes(font.getmask(NO_LETTER))
