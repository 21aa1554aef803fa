"""Pages that stand alone: texts come back as they were, numbers that are not known are said so."""

import base64
import html
import io
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from uniemox.evaluate.report.scores import scale_of
from uniemox.io.html import element, interval, number, scaled_image, track


@given(st.text(st.sampled_from("ab<>&\"'; #x0")), st.text(st.sampled_from("ab<>&\"'=/ ")))
def test_a_text_comes_back_as_it_was(text: str, attribute: str) -> None:
    seen: list[tuple[str, list[str]]] = []

    class One(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, [name for name, _ in attrs]))

    One().feed(element("p", text, title=attribute))
    assert seen == [("p", ["title"])]
    inside = element("p", text).removeprefix("<p>").removesuffix("</p>")
    assert "<" not in inside
    assert html.unescape(inside) == text


def test_numbers_that_are_not_known() -> None:
    assert [number(value) for value in (None, float("nan"), 0.12345, 0.0)] == ["–", "–", "0.123", "0.000"]
    assert [interval(bounds) for bounds in (None, (float("nan"),) * 2, [0.1, 0.25])] == ["–", "–", "0.100 to 0.250"]
    assert track(None, None) == ""
    assert "left:20.0%;width:20.0%" in track(0.3, (0.2, 0.4))
    assert 'style="left:50.0%"' in track(0.3, None, scale=(0.2, 0.4), is_bar=False)


def test_scales() -> None:
    assert scale_of([], []) == (0.0, 1.0)
    assert scale_of([(0.52, 0.68), None], [0.6, None]) == pytest.approx((0.5, 0.7))
    assert scale_of([(0.5, 0.5)], [0.5]) == pytest.approx((0.5, 0.55))


def test_images_are_small() -> None:
    found = scaled_image(Image.new("RGBA", (2000, 1000), "red"), "red", max_side_px=100)
    with Image.open(io.BytesIO(base64.b64decode(found.split("base64,")[1].removesuffix('">')))) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (100, 50), "RGB")
