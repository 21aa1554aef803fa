"""Multipart bodies that cost more to read than to send are refused early; the parser's calls are counted."""

import re
import tomllib
from pathlib import Path

import pytest

from uniemox_serve import bodies
from uniemox_serve.answers import RefusedError

HEAD = b'--B\r\nContent-Disposition: form-data; name="pictures"; filename="a.jpg"\r\n'
END = b"\r\n--B--\r\n"


class Counting(bodies._Form):
    """Form that counts the parser's calls."""

    calls = 0

    def callbacks(self) -> dict[str, object]:
        """Return the base class's callbacks, counted."""

        def counted(function: object) -> object:
            def call(*arguments: object) -> None:
                Counting.calls += 1
                function(*arguments)  # type: ignore[operator]

            return call

        return {name: counted(function) for name, function in super().callbacks().items()}


def calls_until_refused(body: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the number of the parser's calls before a body was refused as malformed."""
    monkeypatch.setattr(bodies, "_Form", Counting)
    monkeypatch.setattr(Counting, "calls", 0)
    with pytest.raises(RefusedError) as refused:
        bodies.uploads_of(body, b"B", 16)
    assert (refused.value.status, refused.value.code) == (400, "malformed_body")
    return Counting.calls


def test_a_part_with_thousands_of_headers_is_refused_after_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    # 80 kB; python-multipart 0.0.18 reads all of them.
    body = HEAD + b"a:\r\n" * 20_000 + b"\r\nx" + END
    assert calls_until_refused(body, monkeypatch) < 100


def test_a_header_of_a_megabyte_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert calls_until_refused(HEAD + b"a: " + b"y" * 2**20 + b"\r\n\r\nx" + END, monkeypatch) < 100


def test_content_full_of_false_boundaries_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    body = HEAD + b"\r\n" + b"\r\n--Bx" * 20_000 + END
    assert calls_until_refused(body, monkeypatch) < 100


def test_content_with_some_false_boundaries_is_read() -> None:
    content = b"\r\n--Bx" * 100
    assert [upload.data for upload in bodies.uploads_of(HEAD + b"\r\n" + content + END, b"B", 16)] == [content]


def test_the_oldest_allowed_python_multipart_limits_headers() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    requirements = project["project"]["optional-dependencies"]["serve"]
    floor = re.search(r"python-multipart>=([\d.]+)", " ".join(requirements))
    assert floor is not None
    assert tuple(int(part) for part in floor.group(1).split(".")) >= (0, 0, 34)
