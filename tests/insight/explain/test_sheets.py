"""Sheets: a row an image, a column a model."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.insight.explain.spots import predictor, spotted
from uniemox.insight.explain import sheets
from uniemox.insight.explain.maps import heat_map, unique_names
from uniemox.insight.explain.sheets import CELL_PX, GAP_PX, KEY, LINE_PX, caption, draw_sheet, sheet_html
from uniemox.io.fonts import fitted
from uniemox.predict.plot import drawing_path

HOSTILE = '<script>alert("x")</script>&.jpg'


def rows(count: int = 2, models: int = 2) -> list:
    labels = ("awe", "fear", "sadness")
    return [[heat_map(predictor(), spotted(labels[i % 3])) for _ in range(models)] for i in range(count)]


def test_a_sheet_has_a_cell_for_each_image_and_map() -> None:
    sheet = draw_sheet(rows(3, 3), ["a", "b", "c"], ["1", "2", "3"])
    # square images, their captions right below
    step = CELL_PX + GAP_PX
    height = CELL_PX + LINE_PX + GAP_PX
    assert sheet.size == (4 * step + GAP_PX, LINE_PX + GAP_PX + 3 * height + LINE_PX + GAP_PX)
    middle = LINE_PX + GAP_PX + CELL_PX // 2
    # The first column shows the unchanged image.
    assert sheet.getpixel((GAP_PX + CELL_PX // 2, middle)) == (60, 60, 60)
    assert sheet.getpixel((GAP_PX + step + CELL_PX // 2, middle)) != (60, 60, 60)


def test_images_share_a_line_where_there_is_room() -> None:
    sheet_of_one, sheet_of_two, sheet_of_three = (
        draw_sheet(rows(count, 1), ["a"], ["x"] * count) for count in (1, 2, 3)
    )
    assert sheet_of_one.height == sheet_of_two.height < sheet_of_three.height
    assert sheet_of_one.width < sheet_of_two.width == sheet_of_three.width
    step = CELL_PX + GAP_PX
    height = CELL_PX + LINE_PX + GAP_PX
    assert sheet_of_two.getpixel((GAP_PX + 2 * step + CELL_PX // 2, LINE_PX + GAP_PX + CELL_PX // 2)) == (60, 60, 60)
    assert sheet_of_three.getpixel((GAP_PX + CELL_PX // 2, LINE_PX + GAP_PX + height + CELL_PX // 2)) == (60, 60, 60)


def test_a_low_image_has_its_caption_at_its_edge() -> None:
    explanation = heat_map(predictor(), spotted("awe").crop((0, 0, 64, 16)))
    sheet = draw_sheet([[explanation]], ["a"], ["name"])
    low = round(CELL_PX * 16 / 64)
    assert sheet.height == LINE_PX + GAP_PX + low + LINE_PX + GAP_PX + LINE_PX + GAP_PX


def test_the_key_of_colours_is_at_the_foot() -> None:
    plain = draw_sheet(rows(2, 1), ["a"], ["1", "2"])
    foot = plain.crop((0, plain.height - LINE_PX - GAP_PX, *plain.size))
    assert {(0, 0, 4), (252, 255, 164)} <= {colour for _, colour in foot.getcolors(1 << 16)}


def test_the_key_is_whole_for_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []

    def recording(*arguments: Any, **options: Any) -> Any:
        text, font = fitted(*arguments, **options)
        texts.append(text)
        return text, font

    monkeypatch.setattr(sheets, "fitted", recording)
    sheet = draw_sheet(rows(1, 1), ["a"], ["1"])
    assert {KEY[0], f"{KEY[1]}; {KEY[2]}"} <= set(texts)
    foot = sheet.crop((0, sheet.height - LINE_PX - GAP_PX, *sheet.size))
    # The scale and the words end before the edge.
    assert set(foot.crop((foot.width - 4, 0, *foot.size)).getcolors()) == {(4 * foot.height, (255, 255, 255))}
    assert {(0, 0, 4), (252, 255, 164)} <= {colour for _, colour in foot.getcolors(1 << 16)}


def test_long_and_non_latin_names_are_drawn() -> None:
    plain = draw_sheet(rows(1, 1), [""], [""])
    for models, names in ((["model " * 100], [""]), ([""], ["日本語\n" * 100])):
        sheet = draw_sheet(rows(1, 1), models, names)
        assert sheet.size == plain.size
        assert sheet.tobytes() != plain.tobytes()


def test_the_html_sheet_is_complete_and_escaped() -> None:
    text = sheet_html(rows(), [HOSTILE, "b"], [HOSTILE, "2"])
    assert "<script" not in text
    # The image's name occurs once, the model's at both images.
    assert text.count("&lt;script&gt;") == 3
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(text)
    # Two images with two maps each, and the key.
    assert tags.count("img") == 7
    sources = re.findall(r'src="([^"]*)"', text)
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "http" not in text
    assert Image.open(io.BytesIO(base64.b64decode(sources[1].split(",")[1]))).size == (512, 512)


def test_drawings_of_faces_fill_the_first_column() -> None:
    drawn = [Image.new("RGB", (512, 400), "green")] * 2
    sheet = draw_sheet(rows(2, 1), ["a"], ["1", "2"], drawn)
    assert sheet.getpixel((GAP_PX + CELL_PX // 2, LINE_PX + GAP_PX + CELL_PX // 2)) == (0, 128, 0)
    assert "<figcaption>2: what faces show</figcaption>" in sheet_html(rows(2, 1), ["a"], ["1", "2"], drawn)


def test_a_caption_is_a_share_or_a_value() -> None:
    explanation = heat_map(predictor(), spotted("awe"))
    assert re.fullmatch(r"awe \d+%", caption(explanation))
    assert caption(replace(explanation, label="valence", probability=0.8)) == "valence 0.8"
    assert caption(replace(explanation, agreement=0.5)) == caption(explanation)
    assert caption(replace(explanation, agreement=0.1)) == f"{caption(explanation)}, methods disagree"
    guess = replace(explanation, is_unfamiliar=True)
    assert caption(guess) == f"{caption(explanation)} (a guess)"


def test_names_are_unique_and_drawings_stay_in_their_folder() -> None:
    assert unique_names([]) == []
    assert unique_names(["a", "a"]) == ["a (1)", "a (2)"]
    assert drawing_path(Path("maps"), Path("/x/y.jpg"), ".../../etc.png") == Path("maps/x/y.jpg...-..-etc.png")


def test_different_images_have_different_drawings() -> None:
    images = ["p/a.jpg", "../p/a.jpg", "p/../a.jpg", "a.jpg", "%2E%2E/p/a.jpg", "%252E%252E/p/a.jpg"]
    drawings = {drawing_path(Path("maps"), Path(image), ".png").as_posix() for image in images}
    assert len(drawings) == len(images)
    assert not any(".." in Path(drawing).parts for drawing in drawings)
