"""Options of readers: from text to the types of the reader's arguments."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from uniemox.data.reader_options import typed_options
from uniemox.errors import ConfigError


def read(
    _root: Path,
    *,
    count: int = 1,
    share: float | None = None,
    flag: bool = False,
    folder: Path | None = None,
    either: int | str = 1,
    anywhere: str | list[str] | None = None,
    level: Literal[1, 2] = 1,
    quoted: "int" = 1,
    unknown: "Elsewhere" = None,  # type: ignore[name-defined] # noqa: F821
    several: list[int] | None = None,
    free=None,  # type: ignore[no-untyped-def]
) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        *(("count", "3", 3), ("share", "0.5", 0.5), ("folder", "a/b", Path("a/b")), ("free", "3", "3")),
        *(("flag", "no", False), ("flag", "0", False), ("flag", "True", True), ("flag", "yes", True)),
        *(("either", "3", 3), ("either", "x", "x"), ("anywhere", "x", "x"), ("level", "2", 2), ("quoted", "3", 3)),
    ],
)
def test_text_becomes_the_type_of_the_argument(name: str, text: str, value: object) -> None:
    assert typed_options("k", read, {name: text}) == {name: value}
    assert type(typed_options("k", read, {name: text})[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("count", "x", r"k\?count must be a whole number, got 'x'"),
        ("share", "x", r"k\?share must be a number, got 'x'"),
        ("flag", "maybe", r"k\?flag must be true or false, got 'maybe'"),
        ("level", "3", r"k\?level must be one of 1, 2, got '3'"),
        ("several", "1", r"k\?several: its type list\[int\] can't be given as text; use str, int, float, bool or Path"),
        ("unknown", "1", r"k\?unknown: its type Elsewhere can't be read; import it for the program, too"),
        ("other", "1", r"k has no option 'other'; it has count, share, flag"),
    ],
)
def test_other_options_are_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        typed_options("k", read, {name: text})


READERS = [lambda: None, partial(read, Path("a")), lambda *_: None, lambda _root, _n=1, /: None]


@pytest.mark.parametrize("reader", READERS)
def test_readers_of_other_forms_are_refused_or_read(reader: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="has no option 'seeds'"):
        typed_options("k", reader, {"seeds": "1"})
