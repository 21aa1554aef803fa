"""The page of a survey: charts, map of moods and gallery, as data and in Chromium."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright import sync_api

from tests.axe import needs_axe, violations_of
from tests.drawn import draw_image
from tests.insight.survey.lines import Everything, line
from tests.serve.visits import Visit
from uniemox.insight.search import Hit, Query, SearchResults, write_page
from uniemox.insight.survey.charts import group_charts
from uniemox.insight.survey.gallery import MAX_IMAGES, GallerySample, csv_lines
from uniemox.insight.survey.groupings import groupings_of
from uniemox.insight.survey.moods import Moods
from uniemox.insight.survey.page import write_survey_page
from uniemox.insight.survey.summary import Summary, half_width, summarise

DESK = {"width": 1366, "height": 768}
PHONE = {"width": 390, "height": 844}
PERSON = {"emotions": None}
expect = sync_api.expect


def summary_of(lines: list[str], folder: Path, by: tuple[str, ...] = ("folder",)) -> Summary:
    (folder / "l.jsonl").write_text("".join(lines))
    return summarise(folder / "l.jsonl", groupings_of(by, None), Everything())


def test_the_gallery_is_an_even_sample_of_many_images(tmp_path: Path) -> None:
    summary = summary_of([line(number) for number in range(5000)], tmp_path)
    numbers = [image.number for image in summary.gallery.images]
    assert [image.path for image in summary.gallery.images] == [f"a/{number}.jpg" for number in numbers]
    assert (len(numbers), len(set(numbers)), summary.gallery.total) == (MAX_IMAGES, MAX_IMAGES, 5000)
    assert numbers == sorted(numbers)
    assert abs(np.mean(numbers) - 2500) < 4 * 5000 / np.sqrt(12 * MAX_IMAGES)
    assert summary.whole.images == 5000


def test_the_list_has_the_columns_of_predictions_and_the_date() -> None:
    sample = GallerySample(("awe", "fear"))
    sample.add(json.loads(line(3, path='=a,"b".jpg', taken="2019-05-03", persons=[PERSON, PERSON], valence=6.5)))
    sample.add(json.loads(line(4, path="c.jpg")))
    lines = csv_lines(sample.columns, [image.cells for image in sample.images])
    rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["path", "top", "top_value", "awe", "fear", "valence", "people", "taken"]
    # A spreadsheet must not run a path as a formula.
    assert rows[0] == {
        "path": '\'=a,"b".jpg',
        "top": "fear",
        "top_value": "0.7",
        "awe": "0.3",
        "fear": "0.7",
        "valence": "6.5",
        "people": "2",
        "taken": "2019-05-03",
    }
    assert (rows[1]["path"], rows[1]["valence"], rows[1]["taken"]) == ("c.jpg", "", "")


def test_the_map_shows_the_image_nearest_to_the_centre_of_each_cell() -> None:
    moods = Moods()
    for valence, path in ((5.01, "edge"), (5.12, "centre"), (5.24, "other edge")):
        moods.add(valence, 4.1, path, "awe")
    assert moods.map() is None
    for _ in range(9):
        moods.add(3.6, 6.1, "alone", "fear")
    drawn = moods.map()
    assert drawn is not None
    # Columns from 3.5 to 5.25 and rows from 4.0 to 6.25, in steps of 0.25.
    assert (drawn.step, drawn.lowest, drawn.columns, drawn.rows) == (0.25, (3.5, 4.0), 7, 9)
    cells = {cell.example.path: cell for cell in drawn.cells}
    assert set(cells) == {"centre", "alone"}
    assert (cells["centre"].column, cells["centre"].row, cells["centre"].images) == (6, 8, 3)
    assert (cells["alone"].column, cells["alone"].row, cells["alone"].images) == (0, 0, 9)
    assert cells["alone"].side == 1 > cells["centre"].side
    assert dict(drawn.quadrants) == {
        "positive and excited": 0,
        "positive and calm": 3,
        "negative and excited": 9,
        "negative and calm": 0,
    }


def test_a_wide_map_has_larger_cells_and_values_beyond_the_scale_are_at_its_ends() -> None:
    moods = Moods()
    for index in range(20):
        moods.add(0.5 + index / 2, 5.0, f"{index}", "awe")
    drawn = moods.map()
    assert drawn is not None
    assert (drawn.step, drawn.columns) == (0.5, 16)
    # All images are in one row; three more on each side make room for the words beside the axis.
    assert (drawn.lowest, drawn.rows) == ((1.0, 3.5), 7)
    assert {cell.row for cell in drawn.cells} == {3}
    assert sum(cell.images for cell in drawn.cells) == 20


def test_months_are_a_line_by_the_calendar_and_folders_are_bars(tmp_path: Path) -> None:
    """A date that a stranger's file has instead of one of ours is a group, but no place on the line."""
    months = ("2019-01", "2019-02", "2019-05", None)
    days = [*(month and f"{month}-03" for month in months * 12), "yesterday"]
    lines = [line(i, path=f"{'ab'[i % 2]}/{i}.jpg", taken=day) for i, day in enumerate(days)]
    summary = summary_of(lines, tmp_path, ("folder", "date"))
    folders, dates = group_charts(summary, {"awe": "red", "fear": "blue"})
    assert (folders.is_over_time, dates.is_over_time) == (False, True)
    assert [point.name for point in folders.panels[0].points] == ["a", "b"]
    # January, February and May: after 0, 1 and 4 of 4 months.
    assert [point.x for point in dates.panels[0].points] == [0, 25, 100]
    assert dates.ends == ("2019-01", "2019-05")
    assert [row[0] for row in dates.rows] == ["2019-01", "2019-02", "2019-05", "no date", "yesterd"]
    awe = [json.loads(text)["scene"]["awe"] for text in lines]
    first = awe[0:48:4]
    point = dates.panels[0].points[0]
    margin = half_width(len(first) - 1) * np.std(first, ddof=1) / np.sqrt(len(first))
    assert point.value == pytest.approx(np.mean(first))
    assert point.bounds == pytest.approx((np.mean(first) - margin, np.mean(first) + margin))
    assert dates.panels[0].scale == dates.panels[1].scale
    assert dates.panels[0].middle == pytest.approx(np.mean(awe))


def test_pages_of_one_image_and_of_models_of_valence_and_arousal(tmp_path: Path) -> None:
    """One image has no intervals, no groups and no map; such a model has no emotions."""
    draw_image(1, (90, 60)).save(tmp_path / "1.jpg")
    alone = line(1, path=str(tmp_path / "1.jpg"))
    write_survey_page(summary_of([alone], tmp_path), "Survey of one", tmp_path / "one.html")
    html = (tmp_path / "one.html").read_text()
    assert "The map needs at least 12 images" in html
    assert not re.search(r"\bnan\b", re.sub(r'data:[^"]*', "", html))
    rated = [
        line(i, path=str(tmp_path / "1.jpg"), scene={"valence": 3 + i / 4, "arousal": 4.6}, kind="evoked")
        for i in range(12)
    ]
    write_survey_page(summary_of(rated, tmp_path), "Survey of moods", tmp_path / "rated.html")
    html = (tmp_path / "rated.html").read_text()
    assert "Mean of each emotion" not in html
    assert "<b>valence 5.0, arousal 4.6</b>" in html
    assert 'data-valence="4.5"' in html


def test_the_page_counts_the_unfamiliar_images_that_it_leaves_out(tmp_path: Path) -> None:
    lines = []
    for i in range(14):
        path = tmp_path / f"{i}.jpg"
        draw_image(i, (90, 60)).save(path)
        lines.append(line(i, path=str(path), familiarity=i / 1000, is_unfamiliar=True))
    for count, text in ((12, "Least familiar first."), (14, "Least familiar first: 12 of 14.")):
        write_survey_page(summary_of(lines[:count], tmp_path), "Survey", tmp_path / "s.html")
        assert text in (tmp_path / "s.html").read_text()


@pytest.mark.parametrize(("guesses", "warns"), [(2, False), (3, True)])
def test_the_page_warns_of_groups_whose_predictions_are_guesses(guesses: int, warns: bool, tmp_path: Path) -> None:
    lines = []
    for i in range(20):
        path = tmp_path / "ab"[i // 10] / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        draw_image(i, (90, 60)).save(path)
        lines.append(line(i, path=str(path), familiarity=0.01, is_unfamiliar=i < guesses))
    warning = "In some groups many images are unlike the training images"
    for chosen, is_warned in ((lines, warns), (lines[:10], False)):
        write_survey_page(summary_of(chosen, tmp_path), "Survey", tmp_path / "s.html")
        assert (warning in (tmp_path / "s.html").read_text()) == is_warned


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve images: awe in every third one, no to three people, one unfamiliar image, dates in May and June."""
    folder = tmp_path_factory.mktemp("page")
    lines = []
    for i in range(12):
        path = folder / "photos" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(i, (90, 60)).save(path)
        awe = 0.9 - i / 100 if i % 3 == 0 else 0.2
        lines.append(
            line(
                i,
                path=str(path),
                scene={"awe": awe, "fear": 1 - awe},
                persons=[PERSON] * (i % 4),
                valence=3 + i / 4,
                arousal=4.6,
                familiarity=0.5,
                is_unfamiliar=i == 5,
                taken=None if i == 11 else f"2019-0{5 + i % 2}-03",
            )
        )
    write_survey_page(summary_of(lines, folder, ("folder", "date")), "Survey of photos", folder / "s.html")
    return (folder / "s.html").as_uri()


@pytest.fixture
def visit(browser: object, page_url: str) -> Iterator[Visit]:
    visit = Visit(browser, page_url, viewport=DESK, accept_downloads=True)
    yield visit
    assert visit.wrong == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in visit.requested)
    visit.context.close()


def shown(page: sync_api.Page) -> list[int]:
    """Numbers of the images that the gallery shows, in its order."""
    names = page.locator("#tiles li:not([hidden]) .name").all_text_contents()
    return [int(name.removesuffix(".jpg")) for name in names]


@pytest.mark.thorough
@pytest.mark.browser
def test_each_filter_narrows_the_gallery(visit: Visit) -> None:
    page = visit.page
    everything = list(range(12))
    assert shown(page) == everything
    for label, option, expected in (
        ("Emotion", "awe", [0, 3, 6, 9]),
        ("People", "nobody", [0, 4, 8]),
        ("People", "3 or more", [3, 7, 11]),
        ("Unfamiliar", "only these", [5]),
        ("Unfamiliar", "hidden", [i for i in everything if i != 5]),
    ):
        page.get_by_role("combobox", name=label).select_option(label=option)
        assert shown(page) == expected, (label, option)
        page.get_by_role("button", name="Show all").click()
        expect(visit.status).to_have_text("12 of 12 images shown, 0 selected")
    for label, value, expected in (
        ("valence from", "5.5", [10, 11]),
        ("valence to", "3.25", [0, 1]),
        ("arousal from", "4.7", []),
        ("date from", "2019-06-01", [1, 3, 5, 7, 9]),
        ("date to", "2019-05-31", [0, 2, 4, 6, 8, 10]),
    ):
        page.get_by_label(label).fill(value)
        assert shown(page) == expected, (label, value)
        expect(page.get_by_text("No image fits all filters.")).to_be_visible(visible=not expected)
        page.get_by_role("button", name="Show all").click()
        expect(visit.status).to_have_text("12 of 12 images shown, 0 selected")
    page.get_by_role("combobox", name="Emotion").select_option("awe")
    page.get_by_role("combobox", name="People").select_option("3")
    assert shown(page) == [3]


@pytest.mark.browser
def test_the_selection_is_downloaded_in_the_order_of_the_survey(visit: Visit) -> None:
    page = visit.page
    # Valence grows with the number.
    for order, expected in (
        ("highest valence", list(range(12))[::-1]),
        ("lowest valence", list(range(12))),
        ("most awe", [0, 3, 6, 9]),
    ):
        page.get_by_role("combobox", name="Order").select_option(label=order)
        assert shown(page)[: len(expected)] == expected, order
    page.get_by_label("select 9.jpg").check()
    page.get_by_role("combobox", name="People").select_option("nobody")
    page.get_by_role("button", name="Select these").click()
    expect(visit.status).to_have_text("3 of 12 images shown, 4 selected")
    rows = list(csv.DictReader(downloaded(page, "Save CSV (4)").read_text().splitlines()))
    assert [Path(row["path"]).name for row in rows] == ["0.jpg", "4.jpg", "8.jpg", "9.jpg"]
    assert [row["people"] for row in rows] == ["0", "0", "0", "1"]
    paths = downloaded(page, "Save paths (4)").read_text().splitlines()
    assert paths == [row["path"] for row in rows]
    assert all(Path(path).is_file() for path in paths)
    page.get_by_role("button", name="Clear selection").click()
    # Without a selection, the list is of the images that are shown.
    assert len(downloaded(page, "Save paths (3)").read_text().splitlines()) == 3


def downloaded(page: sync_api.Page, button: str) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    return Path(download.value.path())


@pytest.mark.browser
def test_a_click_on_the_map_shows_the_images_of_that_mood(visit: Visit) -> None:
    cell = visit.page.locator('.moods g[data-valence="4.5"]')
    expect(cell.locator("title")).to_contain_text("1 image with valence from 4.5")
    cell.click()
    expect(visit.status).to_contain_text("2 of 12 images shown")
    assert shown(visit.page) == [6, 7]


@pytest.mark.browser
def test_wide_tables_scroll_on_a_phone_with_a_cue(browser: object, page_url: str) -> None:
    visit = Visit(browser, page_url, viewport=PHONE, is_mobile=True, has_touch=True)
    assert not visit.has_sideways_scroll()
    # A heading without words is read aloud as an empty heading.
    expect(visit.page.locator("th:empty")).to_have_count(0)
    visit.page.get_by_text("All numbers by folder").click()
    table = visit.page.get_by_role("region", name="All numbers by folder")
    cue = "element => { const { height, opacity } = getComputedStyle(element, '::after'); return [height, opacity] }"
    height, opacity = table.evaluate(cue)
    assert (height != "0px", opacity) == (True, "1")
    table.evaluate("element => element.scrollTo(element.scrollWidth, 0)")
    # The headings of the rows stay.
    assert table.get_by_role("rowheader").first.bounding_box()["x"] >= 0
    # At the end there is nothing more to scroll to.
    visit.page.wait_for_function(
        "element => getComputedStyle(element, '::after').opacity === '0'", arg=table.element_handle()
    )
    assert visit.wrong == []
    visit.context.close()


@pytest.mark.browser
def test_without_a_script_all_images_and_their_list_are_there(browser: object, page_url: str) -> None:
    visit = Visit(browser, page_url, viewport=DESK, java_script_enabled=False)
    assert shown(visit.page) == list(range(12))
    expect(visit.page.locator("#filters")).to_be_hidden()
    expect(visit.page.get_by_label("select 0.jpg")).to_be_hidden()
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name="Download the list").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 13
    visit.context.close()


@pytest.mark.thorough
@needs_axe
@pytest.mark.browser
def test_axe_finds_nothing_on_the_pages_of_survey_and_search(visit: Visit, page_url: str, tmp_path: Path) -> None:
    visit.page.get_by_role("combobox", name="Emotion").select_option("awe")
    visit.page.get_by_label("select 0.jpg").check()
    assert violations_of(visit.page) == []
    images = Path(page_url.removeprefix("file://")).parent / "photos" / "a"
    paths = sorted(map(str, images.iterdir()))
    hits = [Hit(path, 0.5, {"valence": 6.5}, is_unfamiliar=path == paths[1]) for path in paths]
    query = Query(like=paths[0], mood="valence>5")
    write_page(SearchResults(hits, len(hits), len(hits), len(hits)), query, "small", images, tmp_path / "found.html")
    visit.page.goto((tmp_path / "found.html").as_uri())
    assert violations_of(visit.page) == []
