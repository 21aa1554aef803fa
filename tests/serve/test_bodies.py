"""Multipart bodies that cost more to read than to send are refused after little work, which is counted, not timed."""

import re
import tomllib
from pathlib import Path

import pytest

from uniemox.serve import bodies
from uniemox.serve.answers import RefusedError

HEAD = b'--B\r\nContent-Disposition: form-data; name="pictures"; filename="a.jpg"\r\n'
END = b"\r\n--B--\r\n"


class Counting(bodies._Form):
    """Counts how often the parser calls."""

    calls = 0

    def callbacks(self) -> dict[str, object]:
        """As the base class's, counted."""

        def counted(function: object) -> object:
            def call(*arguments: object) -> None:
                Counting.calls += 1
                function(*arguments)  # type: ignore[operator]

            return call

        return {name: counted(function) for name, function in super().callbacks().items()}


def calls_until_refused(body: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the parser called before a body was refused as malformed."""
    monkeypatch.setattr(bodies, "_Form", Counting)
    monkeypatch.setattr(Counting, "calls", 0)
    with pytest.raises(RefusedError) as refused:
        bodies.uploads_of(body, b"B", 16)
    assert (refused.value.status, refused.value.code) == (400, "malformed_body")
    return Counting.calls


def test_a_part_with_thousands_of_headers_is_refused_at_the_first_few(monkeypatch: pytest.MonkeyPatch) -> None:
    body = HEAD + b"a:\r\n" * 20_000 + b"\r\nx" + END  # 80 kB; python-multipart 0.0.18 reads all of them
    assert calls_until_refused(body, monkeypatch) < 100


def test_a_header_of_a_megabyte_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls_until_refused(HEAD + b"a: " + b"y" * 2**20 + b"\r\n\r\nx" + END, monkeypatch) < 100


def test_content_full_of_what_looks_like_the_boundary_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    body = HEAD + b"\r\n" + b"\r\n--Bx" * 20_000 + END
    assert calls_until_refused(body, monkeypatch) < 100


def test_content_with_some_of_it_is_whole() -> None:
    content = b"\r\n--Bx" * 100
    assert [one.data for one in bodies.uploads_of(HEAD + b"\r\n" + content + END, b"B", 16)] == [content]


def test_the_oldest_multipart_parser_that_may_be_installed_limits_headers() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    asked = project["project"]["optional-dependencies"]["serve"]
    floor = re.search(r"python-multipart>=([\d.]+)", " ".join(asked))
    assert floor is not None
    assert tuple(int(part) for part in floor.group(1).split(".")) >= (0, 0, 34)
