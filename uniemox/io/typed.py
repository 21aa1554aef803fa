"""The one reader of JSON: text that may come from a stranger becomes values of declared types, or one clear error.

A dataclass beside the reader of a format declares the fields of a file and their limits:

    @dataclass(frozen=True, slots=True)
    class Exclusion:
        key: str
        share: Share = 1.0

Fields without a default are required, others take it, and unknown fields are ignored. Whole numbers are accepted for
floats, but no number is accepted for text, and no truth value for a number.
"""

import json
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from uniemox.errors import DataError, UniemoxError
from uniemox.io.files import MAX_TEXT_BYTES, open_regular, read_limited

Value = TypeVar("Value")

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
"""A probability or a fraction, 0 to 1. Limits also exclude NaN and infinity."""
Count = Annotated[int, msgspec.Meta(ge=0)]
"""A number of things, from 0 on."""

# Maximum bytes of a line in a file of lines.
MAX_LINE_BYTES = 2**24
# Maximum characters of a wrong value in a message.
MAX_SHOWN = 80
# Names of types in msgspec's messages, and in ours.
TYPES = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "null",
    "object": "an object",
    "str": "a text",
}
# msgspec's messages end with the place of the fault: " - at `$.a[1].b`", or " - at `key` in `$.a`" for a key.
_PLACE = re.compile(r" - at (?P<key>`key` in )?`\$\.?(?P<field>.*)`\Z")
_STEP = re.compile(r"\[(?P<index>\d+)\]|(?P<name>[^.\[]+)")
_ABSENT = re.compile("Object missing required field `(?P<name>.*)`")
# In the place of a key of a mapping.
UNKNOWN_KEY = "[...]"


def parse_json(
    data: str | bytes, kind: type[Value], where: str, *, remedy: str, error_class: type[UniemoxError] = DataError
) -> Value:
    """Parse JSON text as a value of a type.

    Of a field that occurs twice, the last value counts.

    Args:
        data: The text; bytes are UTF-8.
        kind: A dataclass, a named tuple, or a type such as dict[str, int].
        where: File, and line if it has several, which begins the message.
        remedy: What to do about the fault, which ends the message.
        error_class: Class of the error.

    Raises:
        UniemoxError: Of `error_class`, if the text is not JSON or not of this type; the message names the field.
    """
    try:
        return _decoder(kind).decode(data)  # type: ignore[arg-type] # types can be hashed
    except (msgspec.MsgspecError, UnicodeError, RecursionError, UniemoxError):
        # msgspec refuses NaN, a byte-order mark, and the halves of surrogate pairs by which Python stands for the bytes
        # of file names that are not UTF-8. Files of this package contain them. The standard library reads them; its
        # errors also name line and column.
        pass
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise error_class(f"{where}: not JSON ({error}); {remedy}") from error
    return check_json(value, kind, where, remedy=remedy, error_class=error_class)


def check_json(
    value: Any, kind: type[Value], where: str, *, remedy: str, error_class: type[UniemoxError] = DataError
) -> Value:
    """Convert parsed JSON, of dictionaries and lists, to a value of a type; see `parse_json`."""
    try:
        return msgspec.convert(value, kind, str_keys=True, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise error_class(f"{where}: {_fault(str(error), value)}; {remedy}") from error
    # Half of a surrogate pair in a name of a field or in one of several allowed words.
    except UnicodeError as error:
        raise error_class(f"{where}: {error}; {remedy}") from error
    # The dataclass itself refuses a combination of values.
    except UniemoxError as error:
        raise error_class(f"{where}: {error}") from error


def read_json(
    path: Path,
    kind: type[Value],
    *,
    remedy: str,
    error_class: type[UniemoxError] = DataError,
    max_bytes: int = MAX_TEXT_BYTES,
) -> Value:
    """Read a JSON file as a value of a type; see `parse_json`.

    Raises:
        UniemoxError: Of `error_class`, also if the file can't be read, is no regular file, or is larger than max_bytes.
    """
    try:
        data = read_limited(path, max_bytes)
    except OSError as error:
        raise error_class(f"{path} can't be read ({error.strerror or error}); {remedy}") from error
    return parse_json(data, kind, str(path), remedy=remedy, error_class=error_class)


def read_json_lines(
    path: Path, kind: type[Value], *, remedy: str, error_class: type[UniemoxError] = DataError, may_be_cut: bool = False
) -> Iterator[tuple[str, Value]]:
    """Yield place, such as `file.jsonl:3`, and value of each line of a file; see `parse_json`.

    Args:
        may_be_cut: Leave out a last line that has no end, because a process was killed while it wrote the line.

    Raises:
        UniemoxError: Of `error_class`, also if the file can't be read, or a line is longer than 16 MiB.
    """
    name = str(path)
    try:
        with open_regular(path) as file:
            for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES), b""), start=1):
                where = f"{name}:{number}"
                if len(line) == MAX_LINE_BYTES:
                    raise error_class(f"{where}: longer than {MAX_LINE_BYTES >> 20} MiB; {remedy}")
                if may_be_cut and not line.endswith(b"\n"):
                    return
                yield where, parse_json(line, kind, where, remedy=remedy, error_class=error_class)
    except OSError as error:
        raise error_class(f"{path} can't be read ({error.strerror or error}); {remedy}") from error


@cache
def _decoder(kind: Any) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(kind, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    """Convert text to a path, the only type of settings that msgspec does not know."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected a text, got {type(value).__name__}")


def _fault(message: str, value: Any) -> str:
    """Return a fault in plain words: field, expected type and limits, actual value.

    Args:
        message: msgspec's message.
        value: The whole value that was refused.

    >>> _fault("Expected `float` >= 0.0 - at `$.a[1]`", {"a": [1, -3]})
    'field a[1]: expected a number >= 0.0, got -3'
    """
    problem = message
    field = ""
    if position := _PLACE.search(message):
        problem = message[: position.start()]
        field = position["field"]
    if absent := _ABSENT.fullmatch(problem):
        name = absent["name"]
        return f"field {field}.{name} is missing" if field else f"field {name} is missing"
    if problem.startswith("Invalid enum value"):
        problem = "Expected a known value"
    actual = None if position and position["key"] else _scalar_at(value, field)
    if actual is not None:
        problem = f"{problem.partition(', got ')[0]}, got {actual}"
    problem = re.sub("`([^`]*)`", _in_words, problem)
    problem = problem[:1].lower() + problem[1:]
    return f"field {field}: {problem}" if field else problem


def _in_words(types: re.Match[str]) -> str:
    """Return the names of types, such as `int | null`, in plain words."""
    return " or ".join(TYPES.get(name, name) for name in types[1].split(" | "))


def _scalar_at(value: Any, field: str) -> str | None:
    """Return the value of a field as JSON text; None for lists, objects, and below keys that are not known."""
    if UNKNOWN_KEY in field:
        return None
    for index, name in _STEP.findall(field):
        value = value[name or int(index)]
    if isinstance(value, dict | list):
        return None
    return json.dumps(value)[:MAX_SHOWN]
