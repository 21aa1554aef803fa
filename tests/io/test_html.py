"""Pages that stand alone: texts come back as they were, numbers that are not known are said so."""

import base64
import html
import io
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import uniemox
from uniemox.errors import DataError
from uniemox.io.html import Html, environment, interval, jpeg_url, number, render, scale_of, write_html

MACROS = environment().get_template("uniemox/io/macros.html").module


@given(st.text(st.sampled_from("ab<>&\"'; #x0{}%")), st.text(st.sampled_from("ab<>&\"'=/ {}%")))
def test_a_text_comes_back_as_it_was(text: str, attribute: str) -> None:
    tags: list[tuple[str, list[str]]] = []

    class TagParser(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, [name for name, _ in attrs]))

    page = render("uniemox/predict/prediction.html", url=attribute, alt=text, text="") if attribute else ""
    TagParser().feed(page)
    assert tags == [("img", ["alt", "src"])] * bool(attribute)
    inside = render("uniemox/predict/prediction.html", url="", alt="", text=text).strip()
    inside = inside.removeprefix("<pre>").removesuffix("</pre>")
    assert "<" not in inside
    assert html.unescape(inside) == text


def test_only_html_is_not_escaped_again() -> None:
    assert "<td>a &lt; b</td><td><i>c</i></td>" in MACROS.table("t", ("x",), [("head", "a < b", Html("<i>c</i>"))])


def test_every_template_compiles_and_escapes_its_values() -> None:
    """`safe` is allowed for markup that is written in the template itself."""
    root = Path(uniemox.__file__).parents[1]
    files = [path for package in root.glob("uniemox*") for path in package.rglob("*")]
    templates = [path for path in files if path.suffix in (".html", ".svg") and path.parent.name != "page"]
    assert len(templates) > 15
    for path in templates:
        text = path.read_text("utf-8")
        assert set(re.findall(r"([^ (]+) \| safe", text)) <= {'"<br>"'}, path
        assert "autoescape" not in text, path
        environment().get_template(path.relative_to(root).as_posix())


def test_unknown_numbers_are_dashes() -> None:
    assert [number(value) for value in (None, float("nan"), 0.12345, 0.0)] == ["–", "–", "0.123", "0.000"]
    assert [interval(bounds) for bounds in (None, (float("nan"),) * 2, [0.1, 0.25])] == ["–", "–", "0.100 to 0.250"]
    assert MACROS.track(None, None) == ""
    assert "left:20.0%;width:20.0%" in MACROS.track(0.3, (0.2, 0.4))
    assert 'style="left:50.0%"' in MACROS.track(0.3, None, scale=(0.2, 0.4), is_bar=False)


def test_headings_without_words_are_no_headings() -> None:
    table = MACROS.table("t", ("name", ""), [("a", "b")])
    assert '<thead><tr><th scope="col">name</th><td></td></tr></thead>' in table


def test_bars_have_their_words_beside_them() -> None:
    rows = [{"name": "awe", "value": 0.2, "words": "20 %", "small": "± 3", "bounds": (0.17, 0.23), "colour": "red"}]
    bars = MACROS.bars("means", ("emotion", "mean"), rows, (0, 0.4))
    assert '<i class="bar" style="width:50.0%;background:red"></i>' in bars
    assert 'style="left:42.5%;width:15.0%"' in bars
    assert '<th scope="row">awe</th>' in bars
    assert '<td class="number">20 % <small>± 3</small></td>' in bars


def test_lines_are_at_their_values_and_have_a_band_where_intervals_are_known() -> None:
    points = [
        {"x": 0, "value": 0.0, "bounds": (0.0, 0.5), "words": "May: 0 %"},
        {"x": 50, "value": 0.5, "bounds": None, "words": "June: 50 %"},
        {"x": 75, "value": math.nan, "bounds": None, "words": "July"},
        {"x": 100, "value": 1.0, "bounds": (0.5, 1.0), "words": "August: 100 %"},
    ]
    drawn = MACROS.lines("awe", points, (0, 1), ("May", "August"), [(0, "0 %")], "it rises")
    # x from 40 to 310, y from 112 up to 8.
    assert '<polyline class="line" points="40.0,112.0 175.0,60.0 310.0,8.0 "/>' in drawn
    assert '<polygon class="band" points="40.0,60.0 310.0,8.0 310.0,60.0 40.0,112.0 "/>' in drawn
    assert drawn.count("<circle") == 3
    assert "<title>June: 50 %</title>" in drawn
    assert 'role="img" aria-label="awe: it rises"' in drawn


def test_scale_contains_all_values_in_steps_of_0_05() -> None:
    assert scale_of([]) == (0.0, 1.0)
    assert scale_of([0.52, 0.68, None, 0.6, float("nan")]) == pytest.approx((0.5, 0.7))
    assert scale_of([0.5]) == pytest.approx((0.5, 0.55))


def test_jpeg_urls_are_scaled_down() -> None:
    url = jpeg_url(Image.new("RGBA", (2000, 1000), "red"), max_side_px=100)
    with Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,")))) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (100, 50), "RGB")


def test_a_page_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path} can't be written")):
        write_html(tmp_path, "uniemox/predict/prediction.html", url="", alt="", text="")


def test_templates_are_imported_when_a_page_is_made() -> None:
    code = "import sys, uniemox.io.html, uniemox.insight.survey.page; print('jinja2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
