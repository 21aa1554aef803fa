"""`uniemox survey`: what a collection evokes, on one page that opens from a disk."""

import base64
import json
import os
import re
import sys
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

import uniemox
from tests.drawn import draw_image, jpeg_of
from tests.insight.photos import FLAGS_BLANK_ONLY, few_images_model
from tests.insight.survey.lines import Everything, line
from tests.runs import uniemox_here
from uniemox.errors import DataError
from uniemox.insight.features import pack
from uniemox.insight.survey.charts import group_charts
from uniemox.insight.survey.groupings import TableRows, groupings_of, unmatched_rows
from uniemox.insight.survey.lines import date_taken
from uniemox.insight.survey.page import write_survey_page
from uniemox.insight.survey.summary import IMAGES_PER_LABEL, Tally, half_width, summarise
from uniemox.predict.opening import load
from uniemox.views.alterations import grey

SMALL = ("--model", "small", "--no-persons")
DATES = ("2019:05:03 10:00:00", "2020:11:30 10:00:00", None)


def photographs(folder: Path, count: int) -> Path:
    """Write photographs in two folders, with three dates."""
    for i in range(count):
        path = folder / ("summer", "winter <b>")[i % 2] / f"{i:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if date := DATES[i % 3]:
            exif[306] = date
        draw_image(i).save(path, exif=exif)
    return folder


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("survey")
    photos = photographs(folder / "photos", 14)
    (photos / "table.csv").write_text("path,city\n" + "".join(f"summer/{i:02d}.jpg,Köln\n" for i in range(0, 14, 2)))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    by = ("--by", "folder", "date", "city", "--table", photos / "table.csv")
    done = uniemox_here("survey", photos, *SMALL, "--out", folder / "s.html", *by)
    assert done.returncode == 3, done.stderr
    assert "14 images" in done.stderr
    assert "1 of 15 images could not be read" in done.stderr
    assert "rows match no image" not in done.stderr
    return folder


def test_the_page_says_if_many_images_have_no_colour(tmp_path: Path) -> None:
    for i in range(8):
        image = draw_image(i, (60, 40))
        (grey(image) if i < 2 else image).save(tmp_path / f"{i}.png")
    # "many" has two of eight images without colour, "few" none of six.
    for name, first in (("many", 0), ("few", 2)):
        (tmp_path / name).mkdir()
        for i in range(first, 8):
            (tmp_path / name / f"{i}.png").write_bytes((tmp_path / f"{i}.png").read_bytes())
    uniemox_here("survey", tmp_path / "many", *SMALL, "--out", tmp_path / "many.html")
    assert "25 % of the images have no colour" in " ".join((tmp_path / "many.html").read_text().split())
    done = uniemox_here("survey", tmp_path / "few", *SMALL, "--out", tmp_path / "few.html")
    # Groupings with one group are named.
    for note in ("not compared by folder: all images have the same", "not compared by date: no image has a date"):
        assert note in done.stderr
        assert note in (tmp_path / "few.html").read_text()
    assert "have no colour" not in (tmp_path / "few.html").read_text()


def test_a_model_that_flags_only_blank_images_says_so_in_place_of_numbers(tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos", 6)
    Image.new("RGB", (60, 40), "white").save(photos / "summer" / "blank.png")
    model = few_images_model(tmp_path)
    done = uniemox_here("survey", photos, "--model", model, "--no-persons", "--out", tmp_path / "s.html")
    assert done.stderr.startswith(FLAGS_BLANK_ONLY)
    words = " ".join(re.sub("<[^>]*>", " ", (tmp_path / "s.html").read_text()).split())
    assert FLAGS_BLANK_ONLY in words
    assert "unlike the training images not checked (1 blank)" in words
    with pytest.warns(UserWarning, match=FLAGS_BLANK_ONLY):
        summary = uniemox.survey(photos, out=tmp_path / "t.html", predictor=load(model, finder=None))
    assert repr(summary).endswith("unfamiliar not checked (1 blank)>")
    assert [row[-1] for row in group_charts(summary, {})[0].rows] == ["not checked (1 blank)", "not checked"]


def test_the_page_is_complete_and_self_contained(surveyed: Path) -> None:
    html = (surveyed / "s.html").read_text()
    for words in (
        "By folder",
        "By date",
        "By city",
        "with the highest and lowest value",
        "Map of moods",
        "Positive: valence of 5 or more; excited: arousal of 5 or more.",
        "Köln",
        "no date",
    ):
        assert words in html
    assert "not in the table" in html
    assert "winter &lt;b&gt;" in html
    assert "winter <b>" not in html
    assert not re.search(r'src="(?!data:)', html)
    links = re.findall(r'<a href="((?!data:|#)[^"]*)"', html)
    assert links
    # Thumbnails link to the images.
    assert all((surveyed / unquote(link)).is_file() for link in links)
    gallery = html[html.index('id="tiles"') :]
    assert gallery.count("<img ") == 14
    answers = [json.loads(line) for line in (surveyed / "s.html.jsonl").read_text().splitlines()]
    assert gallery.count("a guess") == sum(bool(answer.get("is_unfamiliar")) for answer in answers) > 0


def test_labels_without_a_counterpart_are_none_in_means_lists_and_gallery(tmp_path: Path) -> None:
    """Awe has no counterpart in Ekman's labels, so an image of awe must not raise the mean of joy."""
    answers = [
        line(0, scene={"joy": 0.9, "fear": 0.1}, unmapped=0.7, label_set="ekman"),
        line(1, scene={"joy": 0.5, "fear": 0.5}, unmapped=0.0, label_set="ekman"),
    ]
    (tmp_path / "l.jsonl").write_text("".join(answers))
    summary = summarise(tmp_path / "l.jsonl", groupings_of(("folder",), None), Everything())
    assert summary.columns[:3] == ("joy", "fear", "none")
    np.testing.assert_allclose(summary.whole.means[:3], [(0.27 + 0.5) / 2, (0.03 + 0.5) / 2, 0.35])
    assert [image.value for image in summary.most["joy"]] == pytest.approx([0.5, 0.27])
    assert [image.top for image in summary.most["none"]] == ["none", "joy"]
    first, _ = summary.gallery.images
    assert (first.top, first.values["joy"]) == ("none", pytest.approx(0.27))
    assert first.top_value == pytest.approx(0.7)
    write_survey_page(summary, "page", tmp_path / "s.html")
    assert "is the share of its labels that have no counterpart among ekman" in (tmp_path / "s.html").read_text()


def test_the_gallery_shows_values_on_the_scale_by_which_it_filters(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text(line(0, scene={"joy": 0.9, "fear": 0.1}, unmapped=0.4, label_set="ekman"))
    [image] = summarise(tmp_path / "l.jsonl", {}, Everything()).gallery.images
    assert (image.top, image.top_value) == ("joy", pytest.approx(0.54))
    assert image.top_value == image.values["joy"]


def test_labels_that_all_have_a_counterpart_leave_no_row_of_none(tmp_path: Path) -> None:
    answers = [line(i, scene={"positive": 0.9, "negative": 0.1}, unmapped=0.0, label_set="polarity") for i in range(2)]
    (tmp_path / "l.jsonl").write_text("".join(answers))
    summary = summarise(tmp_path / "l.jsonl", groupings_of(("folder",), None), Everything())
    assert "none" not in (*summary.columns, *summary.most, *summary.least)
    np.testing.assert_allclose(summary.whole.means[:2], [0.9, 0.1])
    write_survey_page(summary, "page", tmp_path / "s.html")
    assert "no counterpart" not in (tmp_path / "s.html").read_text()


def test_missing_cells_are_no_group_of_their_own_name(tmp_path: Path) -> None:
    """R's NA, an empty cell, and one city in two Unicode forms."""
    cities = {"a": "K\u00f6ln", "b": "Ko\u0308ln", "c": "NA", "d": "", "e": "N/A", "f": "Natal"}
    table = tmp_path / "table.csv"
    table.write_text("path,city\n" + "".join(f"{name}.jpg,{city}\n" for name, city in cities.items()))
    city = groupings_of(("city",), table)["city"]
    groups = [city({"path": str(tmp_path / f"{name}.jpg")}) for name in (*cities, "g")]
    assert groups == ["K\u00f6ln", "K\u00f6ln", *["no value"] * 3, "Natal", "not in the table"]


def test_groups_are_those_of_the_images(surveyed: Path) -> None:
    table = surveyed / "photos" / "table.csv"
    summary = summarise(surveyed / "s.html.jsonl", groupings_of(("folder", "date", "city"), table), Everything())
    counts = {name: {key: tally.images for key, tally in group.items()} for name, group in summary.groups.items()}
    assert counts["folder"] == {"summer": 7, "winter <b>": 7}
    assert counts["date"] == {"2019-05": 5, "2020-11": 5, "no date": 4}
    assert counts["city"] == {"Köln": 7, "not in the table": 7}
    assert (summary.whole.images, summary.failures) == (14, 1)
    lines = [json.loads(line) for line in (surveyed / "s.html.jsonl").read_text().splitlines()]
    answers = [line["scene"] for line in lines if "scene" in line]
    for column, label in enumerate(summary.columns[:8]):
        values = sorted(answer[label] for answer in answers)
        assert summary.whole.means[column] == pytest.approx(np.mean(values))
        assert [image.value for image in summary.most[label]] == values[::-1][:IMAGES_PER_LABEL]
        assert [image.value for image in summary.least[label]] == values[:IMAGES_PER_LABEL]


@pytest.mark.parametrize(
    ("paths", "groups"),
    [
        (("p/1.jpg", "p/inner/2.jpg"), ["p", "inner"]),
        # A folder in p of the same name stays apart, at any depth.
        (("p/1.jpg", "p/p/2.jpg", "p/p/p/3.jpg", "p/q/4.jpg"), ["p", "p/p", "p/p/p", "p/q"]),
        (("p/1.jpg", "p/p/q/2.jpg"), ["p", "p/p/q"]),
        (("p/1.jpg", "p/q/p/2.jpg"), ["p", "q/p"]),
        (("p/1.jpg", "q/2.jpg", "q/inner/3.jpg"), ["p", "q", "q/inner"]),
        (("p/1.jpg", "./p/2.jpg"), ["p"]),
        (("1.jpg", "inner/2.jpg"), ["here", "inner"]),
        (("1.jpg",), ["here"]),
        (("/1.jpg", "/a/2.jpg"), ["/", "a"]),
    ],
)
def test_images_directly_in_the_common_folder_have_its_name_as_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: tuple[str, ...], groups: list[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("l.jsonl").write_text("".join(line(i, path=path) for i, path in enumerate(paths)))
    summary = summarise(Path("l.jsonl"), groupings_of(("folder",), None), Everything())
    assert sorted(summary.groups["folder"]) == sorted(groups)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_table_of_another_system_matches_and_idle_rows_are_counted(tmp_path: Path, form: str) -> None:
    """macOS writes names as NFD, Windows with backslashes."""
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    names = [unicodedata.normalize(form, name) for name in ("été/été.jpg", "été/grün/b.jpg")]
    rows = [unicodedata.normalize(other, name).replace("/", "\\") for name in names]
    (tmp_path / "t.csv").write_text(
        "\n".join(["path,city", f"{rows[0]},Köln", f"{rows[1]},Bonn", "gone.jpg,Ulm"]), "utf-8"
    )
    groupings = groupings_of(("city",), tmp_path / "t.csv")
    groups = [groupings["city"]({"path": str(tmp_path / name)}) for name in (*names, "c.jpg")]
    assert groups == ["Köln", "Bonn", "not in the table"]
    assert unmatched_rows(groupings).startswith(
        f"{tmp_path / 't.csv'}: 1 of 3 rows match no image, the first is gone.jpg"
    )
    groupings["city"]({"path": str(tmp_path / "gone.jpg")})
    assert unmatched_rows(groupings) == ""


def test_names_that_our_tables_mark_for_spreadsheets_match(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path,city\n'-1.jpg,Rio\n'tis.jpg,Ulm\n")
    groupings = groupings_of(("city",), tmp_path / "t.csv")
    groups = [groupings["city"]({"path": str(tmp_path / name)}) for name in ("-1.jpg", "'tis.jpg")]
    assert groups == ["Rio", "Ulm"]


@pytest.mark.parametrize(
    ("row", "count", "notes"),
    [
        ("elsewhere.jpg,Rio", 2, ["not compared by city: no image is in the table"]),
        ("a/0.jpg,NA\na/1.jpg,", 2, ["not compared by city: no image has a value in the table"]),
        ("a/0.jpg,Rio\na/1.jpg,Rio", 2, ["not compared by city: all images have the same"]),
        ("a/0.jpg,Rio", 2, []),
        ("a/0.jpg,Rio", 1, []),
    ],
)
def test_the_reason_for_one_group_is_told(tmp_path: Path, row: str, count: int, notes: list[str]) -> None:
    (tmp_path / "t.csv").write_text(f"path,city\n{row}\n")
    lines = [line(i, path=str(tmp_path / f"a/{i}.jpg")) for i in range(count)]
    (tmp_path / "l.jsonl").write_text("".join(lines))
    summary = summarise(tmp_path / "l.jsonl", groupings_of(("city",), tmp_path / "t.csv"), Everything())
    assert summary.notes_on_groups == notes


def test_resume_answers_only_new_images(surveyed: Path) -> None:
    arguments = ("survey", surveyed / "photos", *SMALL, "--out", surveyed / "s.html")
    refused = " ".join(uniemox_here(*arguments).stderr.split())
    assert re.search(r"\.html and .*\.html\.jsonl are there already; continue them \(--resume\)", refused)
    before = (surveyed / "s.html.jsonl").read_text().splitlines()
    draw_image(99).save(surveyed / "photos" / "summer" / "new.jpg")
    done = uniemox_here(*arguments, "--resume")
    assert done.returncode == 3
    assert "1 of 16 images could not be read" in done.stderr
    after = (surveyed / "s.html.jsonl").read_text().splitlines()
    assert len(after) == 16
    assert [line for line in before if '"scene"' in line] == after[:14]
    (surveyed / "photos" / "summer" / "new.jpg").unlink()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--out", "s.png"), 2, "ends in .html"),
        (("--out", "t.html", "--by", "city"), 1, "--by city: neither folder nor date; for a column give"),
        (("--out", "t.html", "--by", "month"), 1, "neither folder nor date (date groups by month, or by year if"),
        (("--out", "t.html", "--by", "town", "--table", "photos/table.csv"), 1, "no column 'town'; it has path, city"),
        (("--out", "t.html", "--by", "city", "--table", "none.csv"), 1, "none.csv: can't be read"),
        (("--out", "t.html", "--table", "photos/table.csv"), 1, "no column of --table is used"),
    ],
)
def test_unsuitable_survey_options_are_refused(
    surveyed: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, message: str
) -> None:
    monkeypatch.chdir(surveyed)
    done = uniemox_here("survey", "photos", *SMALL, *words)
    assert (done.returncode, message in " ".join(done.stderr.split())) == (code, True), done.stderr
    assert not (surveyed / "t.html").exists()


def test_a_survey_without_readable_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    done = uniemox_here("survey", tmp_path / "a.jpg", *SMALL, "--out", tmp_path / "s.html")
    assert done.returncode == 1
    message = f"error: no image could be read (1 tried); {tmp_path}/s.html.jsonl has the reasons"
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2019:05:03 1", "2019-05-03"),
        ("2015/06/01", "2015-06-01"),
        ("2015-06-01T10:00:00Z", "2015-06-01"),
        ("2015 06 01 12:00:00", "2015-06-01"),
        ("2015: 6: 1 12:00:00", "2015-06-01"),
        ("  2015:06:01", "2015-06-01"),
        ("2015.06.01", "2015-06-01"),
        ("20150601", "2015-06-01"),
        ("2019:13:03", None),
        ("2019:02:30 10:00:00", None),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2015:06:011", None),
        ("yesterday", None),
    ],
)
def test_exif_dates_in_common_spellings_are_read(tmp_path: Path, text: str, date: str | None) -> None:
    exif = Image.Exif()
    exif[306] = text
    draw_image(1).save(tmp_path / "a.jpg", exif=exif)
    assert date_taken(tmp_path / "a.jpg") == date
    for odd in (b"", b"Exif\0\0II*\0", b"Exif\0\0" + bytes(range(200))):
        draw_image(1).save(tmp_path / "b.jpg", exif=odd)
        assert date_taken(tmp_path / "b.jpg") is None


@pytest.mark.parametrize("invalid", ["0000:00:00 00:00:00", "    :  :     :  :  ", "2019:02:30", "", None])
@pytest.mark.parametrize("fmt", ["jpg", "png", "tif", "webp"])
def test_the_first_valid_date_counts(tmp_path: Path, fmt: str, invalid: str | None) -> None:
    """DateTimeOriginal (36867), then DateTimeDigitized (36868), then DateTime (306), which editors change."""
    tags = (36867, 36868, 306)
    path = tmp_path / f"a.{fmt}"
    for first in range(3):
        exif = Image.Exif()
        for index, tag in enumerate(tags):
            value = invalid if index < first else f"201{index}:01:02 10:00:00"
            if value is not None:
                (exif if tag == 306 else exif.get_ifd(34665))[tag] = value
        # Given an object, Pillow writes no inner EXIF block into a TIFF.
        draw_image(1).save(path, exif=exif.tobytes())
        assert date_taken(path) == f"201{first}-01-02"


def test_no_date_is_read_from_a_large_block(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[306] = "2019:05:03 1"
    exif[700] = bytes(2**20)
    draw_image(1).save(tmp_path / "a.png", exif=exif)
    assert date_taken(tmp_path / "a.png") is None


def test_of_nearly_identical_images_the_highest_is_shown(tmp_path: Path) -> None:
    same = pack(np.ones(64, np.float32))
    burst = [line(i, scene={"awe": 0.9 + i / 1000, "fear": 0.1 - i / 1000}, features=same) for i in range(8)]
    (tmp_path / "l.jsonl").write_text("".join(burst) + line(108) + line(107))
    summary = summarise(tmp_path / "l.jsonl", groupings_of(("folder",), None), Everything())
    assert [image.path for image in summary.most["awe"]] == ["a/7.jpg", "a/108.jpg", "a/107.jpg"]
    assert [image.path for image in summary.least["awe"]] == ["a/107.jpg", "a/108.jpg", "a/0.jpg"]


def test_many_months_become_years(tmp_path: Path) -> None:
    days = [f"{2000 + i // 12}-{i % 12 + 1:02d}-01" for i in range(36)]
    (tmp_path / "l.jsonl").write_text("".join(line(i, taken=day) for i, day in enumerate(days)))
    summary = summarise(tmp_path / "l.jsonl", groupings_of(("date",), None), Everything())
    assert {key: tally.images for key, tally in summary.groups["date"].items()} == {"2000": 12, "2001": 12, "2002": 12}


@pytest.mark.parametrize("degrees_of_freedom", [1, 2, 5, 8, 9, 10, 30, 1000])
def test_the_interval_of_few_images_is_students(degrees_of_freedom: int) -> None:
    """With the normal distribution's width, that of two images held the mean of 70 %."""
    assert half_width(degrees_of_freedom) == pytest.approx(stats.t.ppf(0.975, degrees_of_freedom), rel=2e-3)


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=2, max_size=30), st.integers(0, 30))
def test_merged_tallies_equal_the_tally_of_all(values: list[list[float]], cut: int) -> None:
    complete = Tally(2)
    first = Tally(2)
    second = Tally(2)
    for index, row in enumerate(values):
        for tally in (complete, first if index < cut else second):
            tally.add(np.array(row), is_unfamiliar=index % 2 == 0)
    first.merge(second)
    np.testing.assert_allclose(first.means, complete.means, atol=1e-12)
    np.testing.assert_allclose(
        complete.margins, half_width(len(values) - 1) * np.std(values, axis=0, ddof=1) / np.sqrt(len(values)), atol=1e-6
    )
    assert (first.images, first.unfamiliar) == (complete.images, complete.unfamiliar)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_a_file_name_that_is_no_utf8_is_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    draw_image(0).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "a.png").rename(tmp_path / "photos" / os.fsdecode(b"caf\xe9.png"))
    done = uniemox_here("survey", tmp_path / "photos", *SMALL, "--out", tmp_path / "s.html")
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9.png" in (tmp_path / "s.html").read_text("utf-8")


def test_a_stranger_s_lines_put_no_other_image_on_the_page(tmp_path: Path) -> None:
    photos = photographs(tmp_path / "photos", 2)
    private = tmp_path / "private.jpg"
    draw_image(9).save(private)
    assert uniemox_here("survey", photos, *SMALL, "--out", tmp_path / "s.html").returncode == 0
    lines = tmp_path / "s.html.jsonl"
    first = json.loads(lines.read_text().splitlines()[0])
    with lines.open("a") as file:
        file.write(json.dumps(first | {"path": str(private)}) + "\n")
    done = uniemox_here("survey", photos, *SMALL, "--out", tmp_path / "s.html", "--resume")
    assert (done.returncode, "2 images" in done.stderr) == (0, True), done.stderr
    assert "private.jpg" not in (tmp_path / "s.html").read_text()


@pytest.mark.parametrize("wrong", [{"features": 5}, {"features": "AHw=" * 32}, {"taken": 5}, {"persons": 7}])
def test_a_field_of_another_type_is_an_error(tmp_path: Path, surveyed: Path, wrong: dict[str, object]) -> None:
    value = next(
        answer for answer in map(json.loads, (surveyed / "s.html.jsonl").read_text().splitlines()) if "scene" in answer
    )
    (tmp_path / "a.jsonl").write_text(json.dumps(value | wrong) + "\n")
    with pytest.raises(DataError, match="of another type"):
        summarise(tmp_path / "a.jsonl", groupings_of(("folder", "date"), None), [value["path"]])


def test_a_data_url_is_refused_because_it_has_no_path(tmp_path: Path) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg_of(draw_image(1))).decode()
    done = uniemox_here("survey", url, *SMALL, "--out", tmp_path / "s.html")
    assert done.returncode == 1
    assert "save the image of the data URL" in done.stderr
    assert len(done.stderr) < 500


def test_of_several_rows_for_an_image_the_first_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is that of a file beside the table before that of one in the current folder, in whatever order."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meta" / "meta").mkdir(parents=True)
    for name in ("meta/1.jpg", "meta/meta/1.jpg", "1.jpg", "2.jpg", "3.jpg", "meta/3.jpg"):
        (tmp_path / name).touch()
    table = tmp_path / "meta" / "t.csv"
    table.write_text(f"path,city\nmeta/1.jpg,Oslo\n1.jpg,Rome\n1.jpg,Berlin\n{'x' * 5_000},Bonn\n2.jpg,Bern\n")
    rows = TableRows(table, ["city"])
    # The row of 1.jpg is that of a file beside the table, and of no other.
    places = {"meta/1.jpg": "Rome", "meta/meta/1.jpg": "Oslo", "1.jpg": None, "2.jpg": "Bern"}
    assert {path: (rows.find(path) or {}).get("city") for path in places} == places
    sentences = rows.unmatched()
    assert "1 of 5 rows match no image, the first is xxx" in sentences
    assert "1 row repeats an image, the first is 1.jpg: one row of each image counts" in sentences
    table.write_text("path,city\nmeta/3.jpg,Oslo\n3.jpg,Rome\n")
    rows = TableRows(table, ["city"])
    assert rows.find("meta/3.jpg") == {"path": "3.jpg", "city": "Rome"}
    assert rows.unmatched() == f"{table}: 1 row repeats an image, the first is meta/3.jpg: one row of each image counts"
