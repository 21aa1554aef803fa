"""Missing values, numbers as labels, and columns that are no classes: as R, pandas and spreadsheets write them."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.tree import put, says, write
from uniemox.data.readers.csv_table import read_csv
from uniemox.data.readers.missing import is_missing
from uniemox.data.sample import DataSet
from uniemox.data.source import open_data
from uniemox.errors import DataError

PANDAS = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)


def test_words_are_those_of_pandas() -> None:
    read = pd.read_csv(io.StringIO("\n".join(["a", *PANDAS, "none"])))
    assert read["a"].isna().tolist() == [True] * len(PANDAS) + [False]
    assert list(map(is_missing, [*PANDAS, "none"])) == [True] * len(PANDAS) + [False]
    assert not any(map(is_missing, ("no", "nap", "", "nane", "!", "+", "-1")))
    assert all(map(is_missing, ("?", "-", "--", "\u2014", "NaT")))
    assert is_missing("#NAME?")


def test_a_minus_beside_a_plus_is_a_label(tmp_path: Path) -> None:
    data = open_data(table(tmp_path, "path,label,split\n0.jpg,+,train\n1.jpg,-,train\n2.jpg,+,-\n"))
    assert data.labels.labels == ("+", "-")
    assert data.notes[0] == "1 value of column split is missing (-)"


@pytest.mark.parametrize("labels", [("+", "\u2013"), ("++", "--"), ("'+'", "'-'")])
def test_other_signs_of_polarity_are_labels(tmp_path: Path, labels: tuple[str, str]) -> None:
    data = open_data(table(tmp_path, f"path,label\n0.jpg,{labels[0]}\n1.jpg,{labels[1]}\n"))
    assert [sample.label is None for sample in data.samples] == [False, False]


def table(folder: Path, text: str) -> str:
    put(folder, *(f"{i}.jpg" for i in range(9)))
    return f"csv:{write(folder / 't.csv', text)}"


def labels_of(data: DataSet) -> list[str | None]:
    return [data.label_of(sample) for sample in data.samples]


OTHERS = ("#REF!", "#DIV/0!", "\\N", "(null)", ".", "N.A.")


@pytest.mark.parametrize("word", ["NA", "N/A", "NaN", "<NA>", "null", "None", "nan", "NULL", *OTHERS])
def test_a_missing_label_is_no_class(tmp_path: Path, word: str) -> None:
    source = table(tmp_path, f"path,label\n0.jpg,awe\n1.jpg,{word}\n2.jpg,fear\n3.jpg,{word}\n")
    data = open_data(source)
    assert (data.labels.labels, labels_of(data)) == (("awe", "fear"), ["awe", None, "fear", None])
    [note] = data.notes
    assert note.startswith(f"2 values of column label are missing ({word}): no label; if this is a class, list all")
    with_class = open_data(f"{source}?labels=awe,fear,{word}")
    assert labels_of(with_class) == ["awe", word.lower(), "fear", word.lower()]
    assert with_class.notes == ()


@pytest.mark.parametrize("word", ["\u200bNA", "NA\u00a0", "'NA'", '"""NA"""', "\ufeffNaN", "'None'", " \u200bnull'"])
def test_missing_values_in_quotes_or_with_invisible_characters(tmp_path: Path, word: str) -> None:
    data = open_data(table(tmp_path, f"path,label,group\n0.jpg,awe,{word}\n1.jpg,{word},a\n2.jpg,fear,\n"))
    assert (data.labels.labels, labels_of(data)) == (("awe", "fear"), ["awe", None, "fear"])
    assert [sample.group for sample in data.samples] == [None, "a", None]
    plain = word.strip("'\" \u200b\u00a0\ufeff")
    assert sorted(data.notes)[1].startswith(f"1 value of column label is missing ({plain}): no label")
    assert not is_missing("'none'")


def test_numbers_that_are_requested_labels_stay(tmp_path: Path) -> None:
    text = "path,label\n" + "".join(f"{i}.jpg,{number}\n" for i, number in enumerate([-1, 0, 1, 2, -1]))
    source = table(tmp_path, text)
    data = open_data(f"{source}?labels=-1,0,1,2")
    assert (labels_of(data), data.notes) == (["-1", "0", "1", "2", "-1"], ())
    halves = table(tmp_path, "path,label\n0.jpg,0.0\n1.jpg,1.0\n")
    assert labels_of(open_data(f"{halves}?labels=0.0,1.0")) == ["0.0", "1.0"]
    assert labels_of(open_data(f"{halves}?labels=0,1")) == ["0", "1"]


@pytest.mark.parametrize("groups", [[-1, -1, 3], ["-1.0", "-1.0", "3.0"]])
def test_the_group_minus_one_is_reported(tmp_path: Path, groups: list[object]) -> None:
    rows = [f"{i}.jpg,awe,{group}\n" for i, group in enumerate(groups)]
    data = open_data(table(tmp_path, "path,label,group\n" + "".join(rows)))
    assert [sample.group for sample in data.samples] == ["-1", "-1", "3"]
    assert data.notes == ("2 images have the group -1, so one split; if it means no group, empty these cells",)


def test_every_column_may_have_missing_values(tmp_path: Path) -> None:
    names = ["split", "text", "domain", "group", "valence", "arousal", "x1", "y1", "x2", "y2"]
    rows = [f"0.jpg,{','.join(['NA'] * len(names))}", "1.jpg,val,a text,art,g,2,3,1,2,3,4"]
    data = open_data(table(tmp_path, "\n".join([f"path,{','.join(names)}", *rows])))
    first, second = data.samples
    fields = ("split", "text", "domain", "group", "valence", "arousal", "target_box")
    assert [getattr(first, name) for name in fields] == [None] * 7
    assert None not in [getattr(second, name) for name in fields]
    *notes, split_note = data.notes
    assert [note.split(" is missing")[0] for note in notes] == [f"1 value of column {name}" for name in names]
    assert split_note.startswith("1 sample is in no split: training leaves them out")


def test_images_without_a_group_are_not_one_group(tmp_path: Path) -> None:
    text = "path,label,group\n" + "".join(f"{i}.jpg,awe,{'NA' if i < 7 else 'a'}\n" for i in range(9))
    groups = [sample.group for sample in open_data(table(tmp_path, text)).samples]
    assert groups == [None] * 7 + ["a"] * 2


def test_numbers_of_a_column_with_missing_values_are_the_same_classes(tmp_path: Path) -> None:
    """Pandas writes 0, 1, 2 and a missing value as 0.0, 1.0, 2.0 and an empty cell."""
    columns = {"label": [0, 1, 2, None, 0], "group": [7, 7, 8, None, 9]}
    frame = pd.DataFrame({"path": [f"{i}.jpg" for i in range(5)], **columns})
    data = open_data(table(tmp_path, frame.to_csv(index=False)))
    assert (data.labels.labels, labels_of(data)) == (("0", "1", "2"), ["0", "1", "2", None, "0"])
    assert [sample.group for sample in data.samples] == ["7", "7", "8", None, "9"]
    ids = open_data(table(tmp_path, "path,label\n0.jpg,0\n1.jpg,-1\n2.jpg,1\n3.jpg,2\n"))
    assert labels_of(ids) == ["0", None, "1", "2"]
    assert ids.notes == ("1 image has the label -1: no label",)
    signs = open_data(table(tmp_path, "path,label\n0.jpg,0\n1.jpg,-1\n2.jpg,1\n"))
    assert labels_of(signs) == ["0", "-1", "1"]
    halves = open_data(table(tmp_path, "path,label\n0.jpg,0.0\n1.jpg,0.5\n"))
    assert labels_of(halves) == ["0.0", "0.5"]


def test_json_lines_have_missing_values_too(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    rows = [
        {"file_name": "a.jpg", "label": "awe", "group": float("nan")},
        {"file_name": "b.jpg", "label": float("nan"), "group": None},
        {"file_name": "c.jpg", "label": None, "group": "NA"},
    ]
    write(tmp_path / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    data = open_data(f"hf:{tmp_path}")
    assert (data.labels.labels, labels_of(data)) == (("awe",), ["awe", None, None])
    assert [sample.group for sample in data.samples] == [None] * 3
    assert data.notes[0].startswith("2 values of column group are missing (NA, nan)")


def test_a_missing_split_is_that_of_the_folder(tmp_path: Path) -> None:
    put(tmp_path, "test/a.jpg")
    write(tmp_path / "test" / "metadata.csv", "file_name,label,split\na.jpg,awe,NA\n")
    assert [sample.split for sample in open_data(f"hf:{tmp_path}").samples] == ["test"]


def test_float_ids_of_arrow_are_class_numbers(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    names = ["awe", "None", "fear"]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    columns = {
        "image": pa.array([{"bytes": image.getvalue(), "path": None}] * 5),
        "label": pa.array([0.0, 2.0, -1.0, float("nan"), 1.0]),
    }
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(pa.table(columns).replace_schema_metadata(about), tmp_path / "train.parquet")
    assert labels_of(open_data(f"hf:{tmp_path}")) == ["awe", "fear", None, None, "none"]


# Columns that are no classes


VOTES = np.array([[3, 1, 0], [0, 2, 2], [1, 1, 2], [4, 0, 0]])


def votes(folder: Path, values: np.ndarray, name: str, column: np.ndarray | list[int] | list[float]) -> str:
    rows = [
        f"{i}.jpg,{','.join(map(str, row))},{more}" for i, (row, more) in enumerate(zip(values, column, strict=True))
    ]
    return table(folder, "\n".join([f"path,awe,fear,joy,{name}", *rows]))


@pytest.mark.parametrize(
    ("values", "name", "column", "message"),
    [
        (VOTES, "total", [4] * 4, "column 'total' is not a class"),
        (VOTES * [[1], [2], [3], [1]], "alles", [4, 8, 12, 4], "column 'alles' is the sum of the others"),
        (VOTES / 4, "alles", [1.0] * 4, "column 'alles' is the sum of the others"),
        (VOTES, "sicher", [1, 0, 1, 1], "'sicher' is not among the votes, which add up to 4"),
        (VOTES, "alter", [40, 31, 22, 76], "'alter' is not among the votes, which add up to 4"),
        (np.tile(VOTES * [[1], [2], [3], [1]], (2, 1)), "zeile", list(range(8)), "column 'zeile' numbers the rows"),
        (VOTES, "is_valid", [1] * 4, "column 'is_valid' is not a class"),
    ],
)
def test_a_column_that_is_no_class_is_refused(
    tmp_path: Path, values: np.ndarray, name: str, column: list[int], message: str
) -> None:
    source = votes(tmp_path, values, name, column)
    with pytest.raises(
        DataError, match=says("t.csv:1: ", message, "remove it, or name the classes, as in ?labels=a,b")
    ):
        open_data(source)
    data = open_data(f"{source}?labels=awe,fear,joy")
    assert data.labels.labels == ("awe", "fear", "joy")
    assert data.notes[0] == f"columns left out: {name}"
    shares = np.array([list((sample.distribution or {}).values()) for sample in data.samples])
    np.testing.assert_allclose(shares, values / values.sum(axis=1, keepdims=True))


COUNTS = np.array([[1, 2, 0], [2, 2, 1], [0, 1, 1], [3, 3, 1], [2, 1, 1], [1, 1, 1], [3, 2, 1], [4, 4, 2], [5, 3, 2]])
"""Votes whose number differs from image to image."""


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([90, 80, 70, 60, 90, 80, 95, 90, 80], "is the largest in 9 of 9 rows"),
        (COUNTS.sum(axis=1) + [0, 1, 2] * 3, "is the largest in 9 of 9 rows"),
        ([5] * 9, "is 5 in every row"),
        ([1] * 9, "is 1 in every row"),
        ([1, 0, 1, 1, 0, 1, 1, 0, 1], "is 0 or 1 beside columns of larger counts"),
        ([0.9, 0.8, 0.7, 0.6, 0.9, 1, 1, 0, 1], "has fractions beside columns of whole numbers"),
        ([5, 3, 9, 1, 2, 8, 7, 6, 4], "numbers the rows"),
        (COUNTS.max(axis=1), "is the largest of the others"),
    ],
)
def test_a_column_that_measures_something_else_is_refused(
    tmp_path: Path, column: list[float] | np.ndarray, message: str
) -> None:
    source = votes(tmp_path, COUNTS, "messung", column)
    with pytest.raises(
        DataError, match=says("t.csv:1: column 'messung' ", message, "name the classes, as in ?labels=a,b")
    ):
        open_data(source)
    assert open_data(f"{source}?labels=awe,fear,joy").labels.labels == ("awe", "fear", "joy")
    assert len(open_data(f"{source}?labels=awe,fear,joy,messung").labels) == 4


@pytest.mark.parametrize(
    "column",
    [
        [0, 0, 1, 0, 0, 0, 1, 0, 0],  # a rare class
        [0, 2, 0, 1, 5, 0, 0, 7, 1],
        [0] * 9,
        9 + COUNTS.max() * 3 - COUNTS.sum(axis=1),  # most votes, of the same number in each row
    ],
)
def test_a_class_of_ones_own_is_listed_in_a_note(tmp_path: Path, column: list[int] | np.ndarray) -> None:
    data = open_data(votes(tmp_path, COUNTS, "ruhe", column))
    assert data.notes[0].startswith("classes: awe, fear, joy, ruhe; to leave some columns out, name the classes")


def test_a_published_emotion_may_win_everywhere(tmp_path: Path) -> None:
    assert len(open_data(votes(tmp_path, COUNTS, "sadness", [20, 30, 20, 25, 31, 9, 9, 9, 22])).labels) == 4


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (VOTES, 4 - VOTES.sum(axis=1) + [1, 0, 2, 3]),  # any number of votes
        (np.eye(3, dtype=int), [0, 0, 0]),
        (np.array([[1, 0, 0]] * 9), [0] * 9),  # one class in all rows
        (np.array([[1, 1, 1]] * 4), [1] * 4),
        (np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0]]), [1, 1, 0]),
    ],
)
def test_votes_of_few_images_stay_votes(tmp_path: Path, values: np.ndarray, column: list[int]) -> None:
    if (values.sum(axis=1) == values.sum(axis=1)[0]).all() and len(set(map(int, column))) > 1:
        values = values.copy()
        values[0, 0] += 2
    assert len(open_data(votes(tmp_path, values, "sadness", column)).labels) == 4


def test_ratings_of_a_release_have_no_classes(tmp_path: Path) -> None:
    data = open_data(table(tmp_path, "path,answers,intensity,valence,arousal\n0.jpg,2,4.5,3,\n1.jpg,2,5,8,2\n"))
    assert data.labels.labels == ()
    assert [sample.valence for sample in data.samples] == [3, 8]
    assert data.notes == ()


def test_one_hot_columns_with_a_prefix_are_classes(tmp_path: Path) -> None:
    data = open_data(table(tmp_path, "path,is_glad,is_sad\n0.jpg,1,0\n1.jpg,0,1\n"))
    assert labels_of(data) == ["is_glad", "is_sad"]


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_an_index_column_without_a_name_is_left_out(tmp_path: Path, name: str) -> None:
    data = open_data(table(tmp_path, f"{name},path,label\n1,0.jpg,awe\n2,1.jpg,fear\n"))
    assert labels_of(data) == ["awe", "fear"]
    assert data.notes == (f"columns left out: {name or '(without a name)'}",)
    counts = open_data(table(tmp_path, f"{name},path,awe,fear\n9,0.jpg,1,0\n8,1.jpg,0,1\n"))
    assert labels_of(counts) == ["awe", "fear"]


@pytest.mark.parametrize("header", [",,path,label", ",path,,label", "path,label,,"])
def test_several_columns_without_a_name_are_left_out(tmp_path: Path, header: str) -> None:
    rows = []
    for i, label in enumerate(["awe", "fear"]):
        values = {"path": f"{i}.jpg", "label": label}
        rows.append(",".join(values.get(name, str(i)) for name in header.split(",")))
    data = open_data(table(tmp_path, "\n".join([header, *rows])))
    assert labels_of(data) == ["awe", "fear"]
    second = [i for i, name in enumerate(header.split(",")) if not name][1]
    assert data.notes == (f"columns left out: (without a name), Unnamed: {second}",)


def test_the_encoding_of_a_table_is_reported(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.jpg")
    path = write(tmp_path / "t.csv", "path,label\na.jpg,愤怒\nb.jpg,恐惧\n".encode("gbk"))
    [note] = read_csv(path).notes
    assert note.startswith("t.csv is not UTF-8 and was read as Latin-1; if it is of another encoding, such as GBK")
    write(path, "path,label\n愤怒.jpg,awe\n".encode("gbk"))
    with pytest.raises(DataError, match=says("does not exist", "read as Latin-1")):
        read_csv(path)
    assert read_csv(write(path, "path,label\na.jpg,愤怒\n")).notes == ()
