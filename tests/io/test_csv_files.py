"""Texts that a spreadsheet would run are written with an apostrophe, and read again as they were."""

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_architecture import MODULES
from uniemox.data.readers.csv_table import read_csv
from uniemox.io.files import plain_cell, safe_cell, write_rows

FIRST = ("=", "+", "-", "@", "\t", "\r", "\n", "\x1b", "＝", "＋", "－", "＠")


@pytest.mark.parametrize("sign", FIRST)
def test_each_sign_of_a_formula_is_made_harmless(sign: str) -> None:
    assert safe_cell(f"{sign}cmd|' /C calc'!A0") == f"'{sign}cmd|' /C calc'!A0"


@pytest.mark.parametrize("value", [-0.5, -3, 1e-9, float("-inf"), None, True, "joy", "a=b", "", "'tis", "a-b.jpg"])
def test_numbers_and_other_texts_are_unchanged(value: object) -> None:
    assert safe_cell(value) is value


@given(st.text() | st.text(alphabet="'=-+@\t\x1b a"))
def test_every_text_is_read_as_it_was_written(text: str) -> None:
    written = safe_cell(text)
    assert plain_cell(written) == text
    assert not written.startswith(FIRST)


@given(st.lists(st.lists(st.text(alphabet="'=-\x1b\",;\n a"), min_size=2, max_size=2), min_size=1))
def test_rows_come_back_from_any_csv_reader(rows: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    write_rows(file, rows)
    file.seek(0)
    assert [[plain_cell(cell) for cell in row] for row in csv.reader(file)] == rows


def test_only_one_module_writes_csv() -> None:
    writing = re.compile(r"csv\.(writer|DictWriter)\(")
    assert [path.name for path in MODULES if writing.search(path.read_text("utf-8"))] == ["files.py"]


def test_a_table_written_by_us_is_read_back(tmp_path: Path) -> None:
    """Paths, labels, texts and the names of classes."""
    names = ["=1+1.jpg", "-a.jpg", "@b.jpg", "'=c.jpg", "\x1b[31md.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with (tmp_path / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [["path", "label", "text"], *([name, "=joy", f"-{name}"] for name in names)])
    data = read_csv(tmp_path / "labels.csv")
    assert [sample.key for sample in data.samples] == names
    assert {data.label_of(sample) for sample in data.samples} == {"=joy"}
    assert [sample.text for sample in data.samples] == [f"-{name}" for name in names]
    with (tmp_path / "shares.csv").open("w", encoding="utf-8", newline="") as file:
        write_rows(file, [["path", "=joy", "-fear"], *([name, 0.25, 0.75] for name in names)])
    assert read_csv(tmp_path / "shares.csv").samples[0].distribution == {"=joy": 0.25, "-fear": 0.75}
