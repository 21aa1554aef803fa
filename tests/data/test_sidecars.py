"""Sidecars: files of boxes and texts that grow line by line, and survive a stop at any byte."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tree import HEADER, sidecar, write
from uniemox.data.sidecar import Sidecar, read_sidecar
from uniemox.errors import DataError


def test_existing_sidecar_is_appended_to(tmp_path: Path) -> None:
    path = sidecar(tmp_path / "p.jsonl", {"é\u2028.jpg": {"boxes": []}, 'b"\n.jpg': {"boxes": [[1, 2]]}})
    with Sidecar(path, HEADER) as file:
        assert file.done == {"é\u2028.jpg", 'b"\n.jpg'}
        file.append("c.jpg", {"boxes": None})
    header, lines = read_sidecar(path)
    assert header == HEADER
    assert lines == {
        "é\u2028.jpg": {"key": "é\u2028.jpg", "boxes": []},
        'b"\n.jpg': {"key": 'b"\n.jpg', "boxes": [[1, 2]]},
        "c.jpg": {"key": "c.jpg", "boxes": None},
    }


def test_sidecar_cut_off_at_any_byte_can_be_resumed(tmp_path: Path) -> None:
    """Also inside a character of two bytes, and inside the first line."""
    content = sidecar(tmp_path / "w.jsonl", {"é.jpg": {"n": 1}, "ü.jpg": {"n": 2}, "ñ.jpg": {"n": 3}}).read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    path = tmp_path / "p.jsonl"
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        # A line counts when its end is written; the first line is the header.
        done = {key for key, end in zip(("é.jpg", "ü.jpg", "ñ.jpg"), ends[1:], strict=True) if cut >= end}
        assert set(read_sidecar(path)[1]) == done
        with Sidecar(path, HEADER) as file:
            assert file.done == done
            for key, n in (("é.jpg", 1), ("ü.jpg", 2), ("ñ.jpg", 3)):
                if key not in file.done:
                    file.append(key, {"n": n})
        assert path.read_bytes() == content


def test_sidecar_with_other_settings_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = sidecar(tmp_path / "p.jsonl", {"a.jpg": {"boxes": []}})
    before = path.read_bytes()
    with pytest.raises(
        DataError, match=r"p\.jsonl was made with other settings \(detector drawn by hand, threshold 0\.3\)"
    ):
        Sidecar(path, {**HEADER, "threshold": 0.4})
    assert path.read_bytes() == before
    mine = write(tmp_path / "mine.txt", "a text of mine without a line end")
    with pytest.raises(DataError, match=r"mine\.txt was made with other settings \(no header\)"):
        Sidecar(mine, HEADER)
    assert mine.read_text() == "a text of mine without a line end"


def test_names_that_are_not_utf_8_survive(tmp_path: Path) -> None:
    """As os.scandir gives them for files named in another encoding."""
    path = sidecar(tmp_path / "p.jsonl", {"caf\udce9.jpg": {"boxes": []}})
    assert list(read_sidecar(path)[1]) == ["caf\udce9.jpg"]
    with Sidecar(path, HEADER) as file:
        assert file.done == {"caf\udce9.jpg"}


def test_a_sidecar_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"p\.jsonl can't be written \(\w+"):
        Sidecar(tmp_path / "file" / "p.jsonl", HEADER)
    assert Sidecar(tmp_path / "new" / "p.jsonl", HEADER).path.exists()
    with pytest.raises(DataError, match="can't be read"):
        Sidecar(tmp_path, HEADER)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "expected an object, got a list; remove the line"),
        (b'{"boxes": []}', "field key is missing; remove the line"),
        (b'{"key": 3}', "field key: expected a text, got 3; remove the line"),
        (b'{"key": "\xff"}', "not JSON"),
        (b'{"key": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(tmp_path: Path, line: bytes, message: str) -> None:
    path = sidecar(tmp_path / "p.jsonl", {"a.jpg": {"boxes": []}})
    path.write_bytes(path.read_bytes() + line + b'\n{"key": "b.jpg"}\n')
    with pytest.raises(DataError, match=re.escape(f"{path}:3: {message}")):
        read_sidecar(path)


def test_a_sidecar_with_a_byte_order_mark_and_other_line_ends(tmp_path: Path) -> None:
    path = sidecar(tmp_path / "p.jsonl", {"a.jpg": {"boxes": []}})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_sidecar(path) == (HEADER, {"a.jpg": {"key": "a.jpg", "boxes": []}})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_any_json_value_survives_in_a_sidecar(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("side") / "s.jsonl"
    sidecar(path, {key: {"value": value} for key, value in values.items()}, {"made": list(values)})
    header, lines = read_sidecar(path)
    assert header == {"made": list(values)}
    assert lines == {key: {"key": key, "value": value} for key, value in values.items()}
