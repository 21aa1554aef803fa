"""Lists of paths on the standard input: byte-order marks, UTF-16, NUL, and names that are not UTF-8."""

import io
import os
from pathlib import Path

import pytest

from uniemox.io.path_lists import listed_paths

PATHS = ["a b.jpg", "ü/c.jpg"]


def stream(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), "utf-8", errors="surrogateescape")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(PATHS).encode(),
        "\r\n".join([*PATHS, "", " "]).encode(),
        "\r\n".join(PATHS).encode("utf-8-sig"),
        "\r\n".join(PATHS).encode("utf-16"),
        b"\xfe\xff" + "\n".join([*PATHS, ""]).encode("utf-16-be"),
        "\r\n".join(PATHS).encode("utf-16-le"),
        "\r\n".join(PATHS).encode("utf-16-be"),
        "\r\n".join(PATHS).encode("utf-32"),
        "\0".join(PATHS).encode() + b"\0",
        "\r\n".join(f'"{path}"' for path in PATHS).encode(),
        "\n".join(f"'{path}'" for path in PATHS).encode(),
    ],
)
def test_lists_of_all_systems_name_the_same_paths(content: bytes) -> None:
    assert list(listed_paths(stream(content))) == PATHS


def test_other_streams_and_names() -> None:
    assert list(listed_paths(stream(b""))) == []
    assert list(listed_paths(stream(b"\xff.jpg\n"))) == [os.fsdecode(b"\xff.jpg")]
    assert list(listed_paths(["\ufeffa.jpg\n", "\n", "b.jpg"])) == ["a.jpg", "b.jpg"]
    # A mark in the middle is part of a name.
    assert list(listed_paths(stream("a\n\ufeffb\n".encode()))) == ["a", "\ufeffb"]


def test_names_that_nul_separates_may_have_line_feeds() -> None:
    names = ["a\nb.jpg", "\n.jpg", "c.jpg"]
    assert list(listed_paths(stream("\0".join(names).encode()))) == names
    # Longer than what is read at a time.
    names = [f"{'x' * 200}{number}\n.jpg" for number in range(1_000)]
    assert list(listed_paths(stream("\0".join(names).encode() + b"\0"))) == names


def test_a_list_that_is_cut_off_names_the_others() -> None:
    cut = "a.jpg\nb.jpg".encode("utf-16")[:-1]
    assert list(listed_paths(stream(cut))) == ["a.jpg", "b.jp\ufffd"]


def test_quotes_of_a_file_name_stay(tmp_path: Path) -> None:
    name = tmp_path / '"a"'
    name.write_bytes(b"")
    chdir = f'"{tmp_path}"'
    assert list(listed_paths([str(name), chdir, '"', "\"a'"])) == [str(name), str(tmp_path), '"', "\"a'"]


def test_addresses_of_files_are_paths() -> None:
    """As file managers copy them; a relative path, or another machine's, is a name like any other."""
    lines = ["file:///a%20b/%C3%BC.jpg\r\n", "file://localhost/c.jpg\n", "FILE:/d.jpg\n", "file:///%FF.jpg\n"]
    assert list(listed_paths(lines)) == ["/a b/ü.jpg", "/c.jpg", "/d.jpg", os.fsdecode(b"/\xff.jpg")]
    others = ["file:a.jpg", "file://server/a.jpg", "profile:///a%20b.jpg", "a%20b.jpg"]
    assert list(listed_paths(others)) == others


def test_paths_are_yielded_as_they_arrive() -> None:
    """`find ... | uniemox predict -` begins before find has ended."""

    class Endless(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:
            buffer[:6] = b"a.jpg\n"
            return 6

    paths = listed_paths(io.TextIOWrapper(io.BufferedReader(Endless(), 6)))
    assert [next(paths) for _ in range(3)] == ["a.jpg"] * 3
