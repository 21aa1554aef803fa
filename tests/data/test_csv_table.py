"""Tables of one's own: every column, every way in which tables are written, and what is said of wrong ones."""

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tree import put, write
from uniemox.data.readers.csv_table import read_csv
from uniemox.data.readers.rows import read_rows, top_vote
from uniemox.data.source import open_data
from uniemox.data.text_files import read_text
from uniemox.errors import DataError, LabelError, UniemoxError
from uniemox.io.text_encodings import wide_encoding
from uniemox.labels import EKMAN, MIKELS
from uniemox.persons.box import Box


def table_of(folder: Path, text: str | bytes, *images: str) -> Path:
    """A table beside these images."""
    put(folder, *images)
    return write(folder / "data.csv", text)


def test_every_optional_column_is_read(tmp_path: Path) -> None:
    text = (
        "path,label,split,text,domain,group,valence,arousal,x1,y1,x2,y2\n"
        'a.jpg,Awe,Training,"A photo, of ""a"" dog.",cartoon,g1,2.5,9,-4,1,10,20.5\n'
        "sub/b.jpg,sad,,,,,,,,,,\n"
    )
    data = read_csv(table_of(tmp_path, text, "a.jpg", "sub/b.jpg"), labels="mikels")
    first, second = data.samples
    assert data.labels is MIKELS
    assert (first.key, data.label_of(first), first.split) == ("a.jpg", "awe", "train")
    assert first.text == 'A photo, of "a" dog.'
    assert (first.domain, first.group, first.valence, first.arousal) == ("cartoon", "g1", 2.5, 9.0)
    assert first.target_box == Box(0, 1, 10, 20.5)
    assert first.image.path == tmp_path / "a.jpg"
    assert (second.key, data.label_of(second)) == ("sub/b.jpg", "sadness")
    optional_values = (
        second.split,
        second.text,
        second.domain,
        second.group,
        second.valence,
        second.arousal,
        second.target_box,
    )
    assert optional_values == (None,) * 7


@pytest.mark.parametrize(
    "text",
    [
        "path,awe,fear\na.jpg,3,1\nb.jpg,0,2\n",
        "path,awe,fear\na.jpg,75%,25 %\nb.jpg,0%,100%\n",
        # pandas' pivot_table leaves the cells of missing votes empty.
        "path,awe,fear\na.jpg,3.0,1.0\nb.jpg,,2.0\n",
        # Excel in most of Europe.
        "path;awe;fear\na.jpg;0,75;0,25\nb.jpg;0;1,0\n",
        "path\tawe\tfear\na.jpg\t3\t1\nb.jpg\t\t2\n",
    ],
)
def test_votes_are_read_as_pandas_and_spreadsheets_write_them(text: str, tmp_path: Path) -> None:
    data = read_csv(table_of(tmp_path, text, "a.jpg", "b.jpg"))
    assert [sample.distribution for sample in data.samples] == [
        pytest.approx({"awe": 0.75, "fear": 0.25}),
        {"awe": 0.0, "fear": 1.0},
    ]


def test_time_for_a_header_grows_with_its_length(tmp_path: Path) -> None:
    """It grew with the square: 21 s for 500,000 commas. Comparisons of names are counted."""
    calls = []

    class Name(str):
        def __eq__(self, other: object) -> bool:
            calls.append(1)
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    def count(columns: int) -> int:
        calls.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("uniemox.data.readers.rows.spelled", Name)
            list(read_rows(table_of(tmp_path, "path,label" + "," * columns + "\n")))
        return len(calls)

    assert count(2000) < 2.5 * count(1000)


def test_a_note_names_the_first_columns_that_are_left_out(tmp_path: Path) -> None:
    text = "path,label" + "," * 50 + "\na.jpg,awe" + ",word" * 50 + "\n"
    [note] = [note for note in read_csv(table_of(tmp_path, text, "a.jpg")).notes if "left out" in note]
    assert note.startswith("columns left out: (without a name), Unnamed: 3, ")
    assert note.endswith("Unnamed: 21 and 30 more")


def test_marks_may_be_true_and_false(tmp_path: Path) -> None:
    text = "path,awe,fear,joy\na.jpg,True,False,False\nb.jpg,FALSE,TRUE,true\n"
    data = read_csv(table_of(tmp_path, text, "a.jpg", "b.jpg"))
    assert [data.words_of(sample) for sample in data.samples] == [("awe",), ("fear", "joy")]


def test_ratings_and_boxes_may_have_decimal_commas_between_semicolons(tmp_path: Path) -> None:
    text = "path;label;valence;arousal;x1;y1;x2;y2\na.jpg;awe;6,25;1,5;0,5;1;10;20,25\n"
    [sample] = read_csv(table_of(tmp_path, text, "a.jpg")).samples
    assert (sample.valence, sample.arousal, sample.target_box) == (6.25, 1.5, Box(0.5, 1, 10, 20.25))


@pytest.mark.parametrize(
    ("header", "cells", "votes"),
    [
        ("path,awe,fear,joy", ("T,F,F", "F,T,T"), [(1, 0, 0), (0, 0.5, 0.5)]),
        ("path;awe;fear;joy", ("WAHR;FALSCH;FALSCH", "FALSCH;WAHR;WAHR"), [(1, 0, 0), (0, 0.5, 0.5)]),
        ("path,awe,fear,joy", ("NA,1,3", "2,NaN,"), [(0, 0.25, 0.75), (1, 0, 0)]),
        ("path;awe;fear;joy", ("25,0%;75,0 %;0", "0,5;2,5e-1;,25"), [(0.25, 0.75, 0), (0.5, 0.25, 0.25)]),
    ],
)
def test_votes_as_programs_write_them(header: str, cells: Sequence[str], votes: object, tmp_path: Path) -> None:
    rows = [f"{name}{header[4]}{row}" for name, row in zip(("a.jpg", "b.jpg"), cells, strict=True)]
    data = read_csv(table_of(tmp_path, "\n".join([header, *rows]) + "\n", "a.jpg", "b.jpg"))
    assert [tuple((sample.distribution or {}).values()) for sample in data.samples] == votes
    missing = [note for note in data.notes if "missing" in note]
    assert [note.partition(" ")[0] for note in missing] == (["1", "1"] if "NA" in cells[0] else [])


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [("#NV", "mend its formula"), ("1e400", "too large"), ("#DIV/0!", "mend its formula"), ("many", "called label")],
)
def test_votes_that_are_no_numbers_are_refused_with_a_remedy(cell: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"data\.csv:2: awe must be a number, got '{cell}'.*{remedy}"):
        read_csv(table_of(tmp_path, f"path,awe,fear,joy\na.jpg,{cell},1,2\n", "a.jpg"))
    with pytest.raises(DataError, match="infinite sum"):
        read_csv(table_of(tmp_path, "path,awe,fear,joy\na.jpg,1e308,1e308,2\n", "a.jpg"))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_tables_of_windows_programs_are_read(encoding: str, tmp_path: Path) -> None:
    """Excel saves "Unicode text" so."""
    text = "path\tlabel\r\na.jpg\tawe\r\n"
    table = table_of(tmp_path, text, "a.jpg")
    table.write_bytes(text.encode(encoding))
    data = read_csv(table)
    assert [data.label_of(sample) for sample in data.samples] == ["awe"]
    assert not data.notes
    table.write_bytes(text.encode(encoding)[:-1])
    with pytest.raises(DataError, match="not complete UTF-"):
        read_csv(table)


def test_commas_in_words_stay_between_semicolons(tmp_path: Path) -> None:
    text = "path;label;text;group\n1,5.jpg;2,5;1,25;3,75\n"
    [sample] = read_csv(table_of(tmp_path, text, "1,5.jpg")).samples
    assert (sample.key, sample.text, sample.group) == ("1,5.jpg", "1,25", "3,75")


def test_emotions_of_a_small_table_are_classes_whatever_their_sums(tmp_path: Path) -> None:
    """Without fear, the marks of each row add up to 1."""
    text = "path,awe,fear,joy\na.jpg,False,False,True\nb.jpg,True,False,False\nc.jpg,True,True,False\n"
    data = read_csv(table_of(tmp_path, text, "a.jpg", "b.jpg", "c.jpg"))
    assert [data.words_of(sample) for sample in data.samples] == [("joy",), ("awe",), ("awe", "fear")]


@pytest.mark.parametrize(
    ("cell", "remedy"),
    [('"6,25"', "a point before the decimals"), ("62%", "without a percent sign"), ('"1,000.5"', "a separator of")],
)
def test_other_forms_of_numbers_are_refused_with_a_remedy(cell: str, remedy: str, tmp_path: Path) -> None:
    text = f"path,label,valence,arousal\na.jpg,awe,{cell},5\n"
    with pytest.raises(DataError, match=rf"data\.csv:2: valence must be a number.*{remedy}"):
        read_csv(table_of(tmp_path, text, "a.jpg"))


def test_marks_under_several_classes_are_categories(tmp_path: Path) -> None:
    """They were a tie of votes, so that task multilabel left all images with two labels out, without a word."""
    text = "path,anger,awe,fear\na.jpg,1,1,0\nb.jpg,0,1,0\nc.jpg,1,1,1\n"
    data = read_csv(table_of(tmp_path, text, "a.jpg", "b.jpg", "c.jpg"))
    assert [data.words_of(sample) for sample in data.samples] == [("anger", "awe"), ("awe",), ("anger", "awe", "fear")]
    assert [sample.label is None for sample in data.samples] == [True, False, True]
    assert data.samples[0].distribution == {"anger": 0.5, "awe": 0.5, "fear": 0}
    assert (
        "2 rows have 1 under several classes: several labels for task multilabel, and no single one for task label"
        in data.notes
    )
    data.check_categories()


def test_votes_are_no_categories(tmp_path: Path) -> None:
    data = read_csv(table_of(tmp_path, "path,anger,awe\na.jpg,1,1\nb.jpg,3,1\n", "a.jpg", "b.jpg"))
    assert [sample.categories for sample in data.samples] == [None, None]
    with pytest.raises(DataError, match=r"2 images have votes for several labels, such as a\.jpg"):
        data.check_categories()


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.jpg,awe\nb.jpg,fear\n",
        "path;label\na.jpg;awe\nb.jpg;fear",
        "sep=;\r\npath;label\r\na.jpg;awe\r\nb.jpg;fear",
        "path\tlabel\r\na.jpg\tawe\r\nb.jpg\tfear\r\n",
        "path,label\ra.jpg,awe\rb.jpg,fear\r",
        '"path","label"\n"a.jpg","awe"\n"b.jpg","fear"\n',
        "\ufeffpath,label\na.jpg,awe\nb.jpg,fear\n",
        " \n\npath , label\n\n a.jpg , awe \n , \nb.jpg,  fear\n\n",
        'label,path\n"awe", a.jpg\n"fear", "b.jpg"\n',
    ],
)
def test_delimiters_line_ends_and_blanks_of_common_programs(tmp_path: Path, text: str) -> None:
    path = table_of(tmp_path, text.encode(), "a.jpg", "b.jpg")
    data = read_csv(path, labels="mikels")
    assert [(s.key, data.label_of(s)) for s in data.samples] == [("a.jpg", "awe"), ("b.jpg", "fear")]


def test_latin_1_and_names_with_accents(tmp_path: Path) -> None:
    path = table_of(tmp_path, "path,label,text\né.jpg,awe,Ein Café\n".encode("latin-1"), "é.jpg")
    sample = read_csv(path).samples[0]
    assert (sample.key, sample.text) == ("é.jpg", "Ein Café")
    assert read_csv(write(path, path.read_bytes().decode("latin-1"))).samples[0].text == "Ein Café"


def test_a_text_may_have_several_lines(tmp_path: Path) -> None:
    table = 'path,label,text\na.jpg,awe,"one\ntwo"\nb.jpg,fear,x\nc.jpg,anger\n'
    path = table_of(tmp_path, table, "a.jpg", "b.jpg", "c.jpg")
    with pytest.raises(DataError, match=r"data\.csv:5: 2 values under 3 columns"):
        read_csv(path)
    write(path, table.replace("anger", "anger,"))
    assert [sample.text for sample in read_csv(path).samples] == ["one\ntwo", "x", None]


def test_a_column_for_each_class(tmp_path: Path) -> None:
    table = "path,Joy,Anger,Fear,Sadness,valence\na.jpg,3,1,0,0,7\nb.jpg,2,2,0,0,5\nc.jpg,0,0.25,0,0.75,1\n"
    path = table_of(tmp_path, table, "a.jpg", "b.jpg", "c.jpg")
    assert read_csv(path).labels.labels == ("anger", "fear", "joy", "sadness")
    data = read_csv(path, labels="ekman")
    assert data.labels is EKMAN
    assert [data.label_of(sample) for sample in data.samples] == ["joy", None, "sadness"]
    assert data.samples[0].distribution == {**dict.fromkeys(EKMAN.labels, 0.0), "joy": 0.75, "anger": 0.25}
    assert data.samples[2].distribution == {**dict.fromkeys(EKMAN.labels, 0.0), "sadness": 0.75, "anger": 0.25}
    assert [sample.valence for sample in data.samples] == [7, 5, 1]


def test_custom_classes_and_kind(tmp_path: Path) -> None:
    path = table_of(tmp_path, "path,label\na.jpg,eerie\nb.jpg,Cosy\nc.jpg,\n", "a.jpg", "b.jpg", "c.jpg")
    data = read_csv(path)
    assert (data.labels.name, data.labels.labels, data.labels.kind) == ("custom", ("cosy", "eerie"), "evoked")
    assert [sample.label for sample in data.samples] == [1, 0, None]
    assert read_csv(path, kind="felt").labels.kind == "felt"
    with pytest.raises(DataError, match=r"data\.csv:2, label: 'eerie' is none of the 8 labels of mikels"):
        read_csv(path, labels="mikels")
    with pytest.raises(LabelError, match="there is no label set 'plutchik'"):
        read_csv(path, labels="plutchik")


def test_twitters_signs_are_polarity(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,label\na.jpg,1\nb.jpg,0\n", "a.jpg", "b.jpg")
    assert read_csv(table).labels.labels == ("0", "1")  # numbers alone say nothing
    data = read_csv(table, labels="polarity")
    assert [data.label_of(sample) for sample in data.samples] == ["positive", "negative"]


def test_several_people_of_one_image_are_one_group(tmp_path: Path) -> None:
    rows = ["a.jpg,awe,1,2,3,4,", "b.jpg,awe,1,2,3,4,x", "a.jpg,fear,5,6,7,8,", "b.jpg,awe,5,6,7,8,x", "c.jpg,awe,,,,,"]
    table = "path,label,x1,y1,x2,y2,group\n" + "\n".join(rows)
    data = read_csv(table_of(tmp_path, table, "a.jpg", "b.jpg", "c.jpg"))
    assert [(s.key, s.group) for s in data.samples] == [
        ("a.jpg", "a.jpg"),
        ("b.jpg", "x"),
        ("a.jpg#2", "a.jpg"),
        ("b.jpg#2", "x"),
        ("c.jpg", None),
    ]
    assert data.samples[2].target_box == Box(5, 6, 7, 8)
    assert data.samples[2].image == data.samples[0].image


def test_one_image_under_two_spellings_of_its_path_is_one_group(tmp_path: Path) -> None:
    data = read_csv(table_of(tmp_path, "path,label\nb/a.jpg,awe\n./b//a.jpg,awe\nb\\a.jpg,fear\n", "b/a.jpg"))
    assert [(s.key, s.group) for s in data.samples] == [
        ("b/a.jpg", "b/a.jpg"),
        ("b/a.jpg#2", "b/a.jpg"),
        ("b/a.jpg#3", "b/a.jpg"),
    ]


def test_rows_without_an_image(tmp_path: Path) -> None:
    path = table_of(tmp_path, f"path,label\na.jpg,awe\ngone.jpg,fear\n{'x' * 300}.jpg,fear\n", "a.jpg")
    with pytest.raises(DataError, match=r"data\.csv:3, path: .*gone\.jpg does not exist; \?missing=skip"):
        read_csv(path)
    data = read_csv(path, missing="skip")
    assert [sample.key for sample in data.samples] == ["a.jpg"]
    assert data.notes == ("2 rows were left out: no image",)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(DataError, match="none of its 3 images exists"):
        read_csv(path, missing="skip")


def test_the_folder_of_missing_images_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no image exists, leaving rows out would help nobody."""
    path = table_of(tmp_path, "path,label\na.jpg,awe\nb.jpg,fear\n", "images/a.jpg", "images/b.jpg")
    for missing in ("fail", "skip"):
        for root, remedy in ((".", "root=images"), (f"{tmp_path.name}/images", "root=images")):
            monkeypatch.chdir(tmp_path.parent)
            with pytest.raises(DataError, match=rf"none of its 2 images exists; .* \?{remedy}$"):
                read_csv(path, root=root, missing=missing)  # type: ignore[arg-type]
    assert len(read_csv(path, root="images")) == 2
    below = table_of(tmp_path, "path,label\nimages/a.jpg,awe\nimages/b.jpg,fear\n")
    with pytest.raises(DataError, match=r"leave out \?root$"):
        read_csv(below, root="images")
    with pytest.raises(DataError, match=r"give the folder of the images relative to the table's: \?root=FOLDER$"):
        read_csv(table_of(tmp_path, "path,label\nc.jpg,awe\nd.jpg,fear\n"))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "data.csv: the table is empty; expected a header and rows"),
        (" \n\n", "data.csv: the table is empty"),
        ("path,label\n", "data.csv: no rows under the header"),
        ("picture,label\na.jpg,awe\n", "data.csv:1: there is no column path (or image, file, filename); found"),
        ("path,emotion\na.jpg,awe\n", "emotion must be a number, got 'awe'; the column of the images' labels must be"),
        ("path,domain\na.jpg,x\n", "data.csv:1: expected a column label or one column for each class"),
        ("path,label,fear\na.jpg,awe,1\n", "not both; beside the known columns"),
        ("path,label,label\na.jpg,awe,awe\n", "data.csv:1: column 'label' appears twice"),
        ("path,label,x1,y1\na.jpg,awe,1,2\n", "data.csv:1: a box needs all of the columns x1, y1, x2, y2"),
        ("path,label\na.jpg\n", "data.csv:2: 1 values under 2 columns"),
        ("path,label\na.jpg,awe,1\n", "data.csv:2: 3 values under 2 columns"),
        ("path,label\n../a.jpg,awe\n", "data.csv:2, path: '../a.jpg' must be a path inside"),
        ("path,label\n/a.jpg,awe\n", "data.csv:2, path: '/a.jpg' must be a path inside"),
        ("path,label\n/a.jpg,awe\n", "; for images elsewhere, give ?root=/"),
        ("path,label\n,awe\n", "data.csv:2, path: '' must be a path inside"),
        ("path,label\n.,awe\n", "data.csv:2, path: '.' must be a path inside"),
        ("path,label,split\na.jpg,awe,best\n", "data.csv:2, split: 'best' is none of train, val, test"),
        (
            "path,label,valence\na.jpg,awe,10\n",
            "valence must lie between 1 and 9, got '10'; give another scale with ?scale",
        ),
        ("path,label,arousal\na.jpg,awe,high\n", "data.csv:2: arousal must be a number, got 'high'"),
        ("path,label,arousal\na.jpg,awe,1_0\n", "data.csv:2: arousal must be a number, got '1_0'"),
        ("path,label,x1,y1,x2,y2\na.jpg,awe,1,2,,4\n", "data.csv:2: a box needs all of x1, y1, x2, y2"),
        ("path,label,x1,y1,x2,y2\na.jpg,awe,9,2,3,4\n", "data.csv:2: the box must have x1 < x2 and y1 < y2"),
        (
            "path,label,x1,y1,x2,y2\na.jpg,awe,0.1,0.2,0.5,1.003\n",
            "data.csv:2: the box 0.1, 0.2, 0.5, 1.003 lies in the first two",
        ),
        ("path,label,x1,y1,x2,y2\na.jpg,awe,1,2,inf,4\n", "data.csv:2: x2 must be a number, got 'inf'"),
        ("path,joy,fear\na.jpg,1,-1\n", "data.csv:2: fear must lie between 0 and inf, got '-1'"),
        ("path,joy,fear\na.jpg,0,0\n", "data.csv:2: no votes at all for joy, fear"),
        ("path,Joy,joy\na.jpg,1,2\n", "data.csv:2, header: two of the columns Joy, joy are one class"),
        ('path,label,text\na.jpg,awe,"cut off\na.jpg,fear,x\n', "data.csv:3: not a table (unexpected end of data)"),
        ('path,label\n"a.jpg"x,awe\n', "data.csv:2: not a table"),
        ("path,label\na.jpg,awe\0\n", "data.csv:2: not a text file, it has a null character"),
        ("path,label\na.jpg," + "x" * (2**20 + 1), "data.csv:2: not a table (field larger than field limit"),
        ("path," + "x" * (2**20 + 1), "data.csv:1: not a table (field larger than field limit"),
    ],
)
def test_wrong_tables_are_named_with_line_and_column(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        read_csv(table_of(tmp_path, table, "a.jpg"))


def test_absolute_paths_are_read_inside_the_root(tmp_path: Path) -> None:
    table = table_of(tmp_path, f"path,label\n{tmp_path}/a.jpg,awe\nb.jpg,fear\n", "a.jpg", "b.jpg")
    assert [sample.key for sample in read_csv(table).samples] == ["a.jpg", "b.jpg"]
    elsewhere = write(tmp_path / "lists" / "data.csv", f"path,label\n{tmp_path}/a.jpg,awe\n{tmp_path}/b.jpg,fear\n")
    assert [sample.image.path for sample in read_csv(elsewhere, root="/").samples] == [
        tmp_path / "a.jpg",
        tmp_path / "b.jpg",
    ]
    with pytest.raises(DataError, match="must be a path inside"):
        read_csv(table_of(tmp_path, f"path,label\n{tmp_path}/../a.jpg,awe\n"))


def test_ratings_may_have_a_negative_end(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path,valence,arousal\na.jpg,-1,0.5\n", "a.jpg")
    [sample] = open_data(f"csv:{table}?scale=-1-1").samples
    assert (sample.valence, sample.arousal) == (1.0, 7.0)
    with pytest.raises(DataError, match="scale must be LOW-HIGH, such as 1-7 or -1-1, got '1--1'"):
        read_csv(table, scale="1--1")


def test_labels_that_are_lists_are_named(tmp_path: Path) -> None:
    lists = table_of(tmp_path, "path,label\na.jpg,Awe; fear\nb.jpg,fear;awe\nc.jpg,sad\n", "a.jpg", "b.jpg", "c.jpg")
    [note] = read_csv(lists).notes
    assert note.startswith("labels such as Awe; fear look like lists: each list counts as a class of its own")
    words = table_of(tmp_path, 'path,label\na.jpg,"joy, love"\nb.jpg,fear/anger\nc.jpg,sad\n')
    assert read_csv(words).notes == ()


def test_repeated_images_are_counted_in_a_note(tmp_path: Path) -> None:
    """Rows with different boxes are different people."""
    table = table_of(tmp_path, "path,label\na.jpg,awe\nb.jpg,fear\n./a.jpg,fear\n", "a.jpg", "b.jpg")
    assert read_csv(table).notes == ("1 row repeats an image of another row: it counts more than once",)
    boxes = table_of(tmp_path, "path,label,x1,y1,x2,y2\na.jpg,awe,1,1,2,2\na.jpg,fear,3,3,4,4\n", "a.jpg")
    assert read_csv(boxes).notes == ()


def test_two_columns_of_one_class_are_refused_under_a_published_set_too(tmp_path: Path) -> None:
    path = table_of(tmp_path, "path,Sad,sadness\na.jpg,1,2\n", "a.jpg")
    with pytest.raises(DataError, match="two of the columns Sad, sadness are one class"):
        read_csv(path, labels="mikels")


def test_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: can't be read \(No such file"):
        read_csv(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="can't be read"):
        read_csv(tmp_path)
    with pytest.raises(DataError, match="can't be read"):
        read_csv(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("votes", "word"),
    [
        ({"a": 1.0}, "a"),
        ({"a": 0.5, "b": 0.5}, None),
        ({"a": 0.3333333, "b": 0.3333334, "c": 0.3333333}, None),  # a rounded tie
        ({"a": 0.4, "b": 0.6}, "b"),
        ({"a": 0.35, "b": 0.3, "c": 0.35}, None),
    ],
)
def test_top_votes_and_ties(votes: dict[str, float], word: str | None) -> None:
    assert top_vote(votes) == word


FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(FIELDS, FIELDS, FIELDS), min_size=1, max_size=8), st.sampled_from([",", ";", "\t"]))
def test_rows_survive_pythons_csv_writer(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], delimiter: str
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows([("first", "second", "third"), *rows])
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(buffer.getvalue().encode())
    expected = [tuple(field.strip() for field in row) for row in rows]
    read = [tuple(row.values()) for _, row in read_rows(path)]
    assert read == [row for row in expected if any(row)]


@given(st.binary(max_size=300))
def test_any_bytes_are_text_or_raise_data_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_bytes(data)
    try:
        text = read_text(path)
    except DataError as error:
        assert b"\0" in data or data.startswith(b"PK\x03\x04")
        assert str(error).startswith(f"{path}:")
    else:
        if encoding := wide_encoding(data):
            data = data.decode(encoding).encode()
        assert text.encode("utf-8") == data.removeprefix(b"\xef\xbb\xbf") or text.encode("latin-1") == data


GOOD = b'path,label,split,text,x1,y1,x2,y2,valence\na.jpg,awe,train,"a, b",1,2,3,4,5\nb.jpg,fear,,,,,,,\n'


@given(st.data())
def test_damaged_tables_are_read_or_raise_data_error_with_their_path(
    tmp_path_factory: pytest.TempPathFactory, draws: st.DataObject
) -> None:
    data = bytearray(GOOD)
    for _ in range(draws.draw(st.integers(1, 4))):
        at = draws.draw(st.integers(0, len(data)))
        if draws.draw(st.booleans()):
            del data[at : at + draws.draw(st.integers(1, 12))]
        else:
            pieces = [b'"', b",", b"\n", b"\r", b";", b"\t", b"nan", b"1e999", b"\xff", b"../", b"\xef\xbb\xbf", b"'"]
            data[at:at] = draws.draw(st.one_of(st.sampled_from(pieces), st.binary(max_size=4)))
    folder = tmp_path_factory.mktemp("table")
    path = table_of(folder, bytes(data), "a.jpg", "b.jpg")
    try:
        read = read_csv(path, missing="skip")
    except UniemoxError as error:
        assert isinstance(error, DataError)
        assert str(error).startswith(str(path))
    else:
        for sample in read.samples:
            assert sample.image.path.is_relative_to(folder)
            assert sample.split in (None, "train", "val", "test")
            assert sample.label is None or 0 <= sample.label < len(read.labels)
            assert sample.target_box is None or sample.target_box.area > 0
            if sample.distribution is not None:
                assert math.isclose(sum(sample.distribution.values()), 1)


def test_captions_of_flickr8k_are_read(tmp_path: Path) -> None:
    """Names without a folder, commas inside the texts, several texts of one image, no labels."""
    rows = "image,caption\na.jpg,A dog , a cat .\na.jpg,Two animals\nb.jpg,Nobody\n"
    table = table_of(tmp_path, rows, "pictures/a.jpg", "pictures/b.jpg")
    data = read_csv(table, root="pictures")
    assert [(sample.key, sample.text, sample.label) for sample in data.samples] == [
        ("a.jpg", "A dog, a cat .", None),
        ("a.jpg#2", "Two animals", None),
        ("b.jpg", "Nobody", None),
    ]


def test_columns_in_any_case_and_more_than_the_classes(tmp_path: Path) -> None:
    data = read_csv(table_of(tmp_path, "Path,Label,Split\na.jpg,awe,Dev\n", "a.jpg"))
    assert (data.samples[0].split, data.label_of(data.samples[0])) == ("val", "awe")
    votes = "path,anger,disgust,fear,joy,sadness,surprise,foo\na.jpg,1,0,0,0,0,0,9\n"
    with pytest.raises(DataError, match=r"csv:1: foo are not classes of ekman; remove these columns"):
        read_csv(table_of(tmp_path / "more", votes, "a.jpg"))


def test_a_spreadsheet_is_no_table(tmp_path: Path) -> None:
    table = table_of(tmp_path, "", "a.jpg")
    table.write_bytes(b"PK\x03\x04\x14\x00\x06\x00")
    with pytest.raises(DataError, match="a spreadsheet or an archive, not a text file; save it as CSV in UTF-8"):
        read_csv(table)


def test_many_columns_are_counted_in_a_short_message(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(100_000)]
    text = f"path,{','.join(names)}\na.jpg{',1' * len(names)}\n"
    with pytest.raises(DataError, match="100,000 columns would be classes, at most 1,000 can be: c0, c1") as caught:
        read_csv(table_of(tmp_path, text, "a.jpg"))
    assert len(str(caught.value)) < 1_000
