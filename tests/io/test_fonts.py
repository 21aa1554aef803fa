"""Words in drawings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageDraw

from uniemox.io import fonts
from uniemox.io.fonts import NO_LETTER, fitted


def drawn(text: str) -> Image.Image:
    line, font = fitted(text, 20, 400)
    image = Image.new("L", (400, 40))
    ImageDraw.Draw(image).text((2, 2), line, fill=255, font=font)
    return image


def test_letters_that_pillow_s_font_lacks_come_from_the_system() -> None:
    line, font = fitted("grüße Ω ж", 20, 400)
    if font.getname()[0] == "Aileron":
        pytest.skip("needs a font of the system, such as DejaVu Sans")
    assert line == "grüße Ω ж"
    missing = bytes(font.getmask(NO_LETTER))
    assert all(bytes(font.getmask(letter)) != missing for letter in "üßΩж")


def test_without_a_font_accents_are_left_out_and_letters_spelt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "SYSTEM", ("there is none.ttf",))
    assert fitted("é日.jpg", 20, 400)[0] == r"e\u65e5.jpg"


def test_characters_that_turn_the_direction_of_words_are_spelt() -> None:
    assert fitted("a\u202egpj", 20, 400)[0] == r"a\u202egpj"


def test_different_names_look_different() -> None:
    assert ImageChops.difference(drawn("日.jpg"), drawn("本.jpg")).getbbox() is not None


@given(st.text(max_size=40), st.integers(8, 40), st.integers(20, 300), st.booleans())
def test_any_text_fits(text: str, size: int, width: int, keep_end: bool) -> None:
    line, font = fitted(text, size, width, keep_end=keep_end)
    assert font.getlength(line) <= max(width, font.getlength("…"))
    assert "\n" not in line


def test_a_long_text_is_cut_at_its_end_or_start() -> None:
    assert fitted("photos/of/a/holiday.jpg", 14, 90, keep_end=True)[0].endswith("day.jpg")
    assert fitted("photos/of/a/holiday.jpg", 14, 90)[0].startswith("photos/")
