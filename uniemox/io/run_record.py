"""Record of a run, config.json, as other parts of the program read it; imports no torch."""

from pathlib import Path
from typing import Any

from uniemox.errors import ConfigError
from uniemox.io import typed
from uniemox.io.run_files import CONFIG


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ConfigError: If the file can't be read, or holds no JSON object; names the file.
    """
    return typed.read_json(path, dict[str, Any], remedy="copy the folder again", error_class=ConfigError)


def find_field(run: Path, *names: str) -> Any:
    """Return a field of the record of a run, which may come from somebody else; None if the record lacks it.

    Args:
        run: Folder of the run.
        names: Names of the field and of the fields around it, from the outside.

    Raises:
        ConfigError: If there is no record, or if it can't be read.
    """
    record = read_json_object(run / CONFIG)
    try:
        return _field_of(record, names)
    except LookupError:
        return None


def required_field(run: Path, *names: str) -> Any:
    """Return a field of the record of a run; see `find_field`.

    Raises:
        ConfigError: If there is no record, if it can't be read, or if it lacks the field.
    """
    record = read_json_object(run / CONFIG)
    try:
        return _field_of(record, names)
    except LookupError as error:
        raise ConfigError(
            f"{run / CONFIG}: there is no field {'.'.join(names)}; copy the run's folder again"
        ) from error


def _field_of(value: Any, names: tuple[str, ...]) -> Any:
    """Return the value that the names lead to; raise LookupError if there is none."""
    for name in names:
        if not isinstance(value, dict):
            raise LookupError(name)
        value = value[name]
    return value
