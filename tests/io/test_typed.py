"""JSON of any content becomes a value of the declared type, or one error that names file, field and remedy."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tree import says
from uniemox.errors import CheckpointError, ConfigError, DataError
from uniemox.io.typed import MAX_LINE_BYTES, Count, Share, check_json, parse_json, read_json, read_json_lines


@dataclass(frozen=True, slots=True)
class Region:
    name: str
    share: Share = 1.0
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Album:
    title: str
    images: Count = 0
    kind: Literal["photos", "drawings"] = "photos"
    size: tuple[float, float] = (1, 1)
    regions: list[Region] = field(default_factory=list)
    by_name: dict[str, list[Region]] = field(default_factory=dict)
    note: int | str | None = None

    def __post_init__(self) -> None:
        if self.kind == "drawings" and self.images > 3:
            raise ConfigError("images and kind: there are at most 3 drawings")


TEXTS = st.text(st.characters(codec=None))
"""Texts with surrogates, too."""
REGIONS = st.builds(Region, TEXTS, st.floats(0, 1))
ALBUMS = st.builds(
    Album,
    TEXTS,
    st.integers(0, 3),
    st.sampled_from(["photos", "drawings"]),
    st.tuples(st.floats(), st.floats()),
    st.lists(REGIONS, max_size=3),
    st.dictionaries(TEXTS, st.lists(REGIONS, max_size=2), max_size=3),
    st.none() | TEXTS | st.integers(),
)


def album(data: str | bytes) -> Album:
    return parse_json(data, Album, "a.json", remedy="write it again")


@given(ALBUMS, st.booleans())
def test_every_value_comes_back_from_its_json(value: Album, ensure_ascii: bool) -> None:
    """NaN, infinity and names of files that are not UTF-8 included."""
    text = json.dumps(asdict(value), ensure_ascii=ensure_ascii)
    expected = repr(value)
    assert repr(album(text)) == expected
    assert repr(album(text.encode("utf-8", "backslashreplace"))) == expected


@given(
    st.binary()
    | TEXTS
    | st.from_regex(r'\A\{"title":"a","(size|regions|by_name|note|images)":[-\[\]{}",:0-9a-eN]*\}\Z')
)
def test_any_text_gives_an_album_or_one_error(data: str | bytes) -> None:
    try:
        assert isinstance(album(data), Album)
    except DataError as error:
        assert str(error).startswith("a.json: ")
        assert str(error).endswith("; write it again")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["title", "images", "regions", "share", "name"]) | TEXTS, inner, max_size=3)
    ),
)


@given(VALUES)
def test_any_parsed_value_gives_an_album_or_one_error(value: Any) -> None:
    try:
        assert isinstance(check_json(value, Album, "a.json", remedy="write it again"), Album)
    except DataError as error:
        assert str(error).startswith("a.json: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[]", "a.json: expected an object, got a list"),
        ("{}", "a.json: field title is missing"),
        ('{"title": 3}', "a.json: field title: expected a text, got 3"),
        ('{"title": null}', "a.json: field title: expected a text, got null"),
        ('{"title": "a", "images": -1}', "a.json: field images: expected a whole number >= 0, got -1"),
        ('{"title": "a", "images": 1.5}', "a.json: field images: expected a whole number, got 1.5"),
        ('{"title": "a", "images": true}', "a.json: field images: expected a whole number, got true"),
        ('{"title": "a", "kind": "films"}', 'a.json: field kind: expected a known value, got "films"'),
        ('{"title": "a", "size": [1]}', "a.json: field size: expected a list of length 2"),
        ('{"title": "a", "size": [1, "b"]}', 'a.json: field size[1]: expected a number, got "b"'),
        ('{"title": "a", "note": []}', "a.json: field note: expected a whole number or a text or null, got a list"),
        ('{"title": "a", "regions": [{"share": 1}]}', "a.json: field regions[0].name is missing"),
        (
            '{"title": "a", "regions": [{"name": "b"}, {"name": "c", "share": 2}]}',
            "a.json: field regions[1].share: expected a number <= 1.0, got 2",
        ),
        (
            '{"title": "a", "regions": [{"name": "b", "share": NaN}]}',
            "a.json: field regions[0].share: expected a number >= 0.0, got NaN",
        ),
        ('{"title": "a", "regions": [{"name": "b", "file": 3}]}', "a.json: field regions[0].file: expected a text"),
        ('{"title": "a", "by_name": {"b": [3]}}', "a.json: field by_name[...][0]: expected an object, got a whole"),
        ('{"title": "a", "kind": "\\udcff"}', "a.json: 'utf-8' codec can't encode"),
        ('{"title": "a", "images": 9, "kind": "drawings"}', "a.json: images and kind: there are at most 3 drawings"),
        ('{"title": "a" "b"}', "a.json: not JSON (Expecting ',' delimiter: line 1 column 15 (char 14))"),
        ("", "a.json: not JSON (Expecting value"),
        ("[" * 100_000, "a.json: not JSON (maximum recursion depth"),
        ('{"title":' * 100_000, "a.json: not JSON (maximum recursion depth"),
        (f'{{"title": "a", "images": {"1" * 5000}}}', "a.json: not JSON (Exceeds the limit"),
        (f'{{"title": "a", "size": [0, {"1" * 400}]}}', "a.json: field size[1]: number out of range, got 111"),
    ],
)
def test_errors_name_the_field_and_what_it_holds(text: str, problem: str) -> None:
    with pytest.raises(DataError, match=says(problem)):
        album(text)
    with pytest.raises(DataError, match=says(problem)):
        album(text.encode())


def test_long_wrong_values_are_shortened() -> None:
    with pytest.raises(DataError) as caught:
        album(json.dumps({"title": "a", "images": "x" * 10_000}))
    assert len(str(caught.value)) < 200


def test_what_python_writes_is_read_although_it_is_not_strict_json() -> None:
    """A byte-order mark, NaN, surrogates of file names, and two values of one field."""
    assert album(b'\xef\xbb\xbf{"title": "a"}') == Album("a")
    assert math.isnan(album('{"title": "a", "size": [0, NaN]}').size[1])
    assert album('{"title": "\\udcff.jpg"}').title == "\udcff.jpg"
    assert album(b'{"title": "\\udcff.jpg"}').title == "\udcff.jpg"
    assert album('{"title": "a", "title": "b"}').title == "b"


def test_unknown_fields_are_ignored_and_whole_numbers_are_floats() -> None:
    value = album('{"title": "a", "size": [1, 2], "further": [1, {}]}')
    assert value == Album("a", size=(1.0, 2.0))
    assert type(value.size[0]) is float


def test_errors_have_the_requested_class() -> None:
    with pytest.raises(CheckpointError, match=r"^header: field title is missing; fetch it again$"):
        parse_json("{}", Album, "header", remedy="fetch it again", error_class=CheckpointError)
    text = '{"title": "a", "images": 4, "kind": "drawings"}'
    with pytest.raises(CheckpointError, match="at most 3 drawings"):
        parse_json(text, Album, "header", remedy="fetch it again", error_class=CheckpointError)


def test_files_are_read_whole_or_refused_with_their_name(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match=says(f"{path} can't be read (No such file or directory); write it again")):
        read_json(path, Album, remedy="write it again")
    path.write_text('{"title": "a"}')
    assert read_json(path, Album, remedy="write it again") == Album("a")
    with pytest.raises(DataError, match=r"a\.json can't be read \(.*MiB that are read\); write it again"):
        read_json(path, Album, remedy="write it again", max_bytes=3)


def test_lines_are_read_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"name": "a"}\n{"name": "b"}\n')
    lines = list(read_json_lines(path, Region, remedy="write it again"))
    assert lines == [(f"{path}:1", Region("a")), (f"{path}:2", Region("b"))]
    with path.open("a") as file:
        file.write('{"name":')
    assert list(read_json_lines(path, Region, remedy="write it again", may_be_cut=True)) == lines
    with pytest.raises(DataError, match=says(f"{path}:3: not JSON")):
        list(read_json_lines(path, Region, remedy="write it again"))


def test_endless_lines_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with pytest.raises(DataError, match=says(f"{path} can't be read (No such file or directory); write it again")):
        list(read_json_lines(path, Region, remedy="write it again"))
    path.write_bytes(b" " * (MAX_LINE_BYTES + 1))
    with pytest.raises(DataError, match=says(f"{path}:1: longer than 16 MiB; write it again")):
        list(read_json_lines(path, Region, remedy="write it again"))
