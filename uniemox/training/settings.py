"""Settings as a file beside the run that used them, and back, strictly."""

import difflib
import json
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from uniemox.errors import ConfigError
from uniemox.io.files import read_limited

Config = TypeVar("Config")
OLD_NAMES = {
    "base_rate": "base_lr",
    "min_rate": "min_lr",
    "head_rate": "head_lr_scale",
    "checkpointing": "grad_checkpointing",
    "most_broken": "max_unreadable",
}
"""What settings were called before version 0.2, by their name of then."""


def to_dict(config: Any) -> dict[str, Any]:
    """JSON-serialisable form of a config: tuples become lists, paths become text."""
    return json.loads(json.dumps(asdict(config), default=str))


def from_dict(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """The config that `to_dict` wrote. Missing fields take their defaults.

    where: of what file, for errors.  Raises ConfigError for a name or value that the config does not take.
    Settings are also read under their old names.
    """
    values = with_new_names(values)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type] # a dataclass
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ConfigError(f"{where}: unknown setting {name!r}{f'; did you mean {near[0]!r}?' if near else ''}")
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in values.items()})


def with_new_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings under today's names, those inside of settings as well.

    >>> with_new_names({"optimizer": {"base_rate": 0.001}, "seed": 0})
    {'optimizer': {'base_lr': 0.001}, 'seed': 0}
    """
    return {
        OLD_NAMES.get(name, name): with_new_names(value) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def differences(ours: Any, theirs: Any) -> list[str]:
    """Where two configs of one kind differ: "model.fusion: 'gated' instead of 'attention'"."""
    return _differences(to_dict(ours), to_dict(theirs), "")


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file. Raises ConfigError, with the file's name, if there is none."""
    try:
        values = json.loads(read_limited(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected an object, got {type(values).__name__}")
    return values


def _value(hint: Any, value: Any, where: str) -> Any:
    """A value as a field's type has it."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for kind in kinds:
        if is_dataclass(kind) and isinstance(value, dict):
            return from_dict(kind, value, where)  # type: ignore[arg-type]
        if get_origin(kind) is tuple and isinstance(value, list):
            return _tuple(kind, value, where)
        if get_origin(kind) is Literal and value in get_args(kind):
            return value
        if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if kind is type(None) and value is None:
            return None
        if kind is Path and isinstance(value, str):
            return Path(value)
        if kind in (int, str, bool) and type(value) is kind:
            return value
    raise ConfigError(f"{where}: {value!r} is not of type {hint}")


def _tuple(hint: Any, values: list[Any], where: str) -> tuple[Any, ...]:
    kinds = get_args(hint)
    kinds = kinds[:1] * len(values) if kinds[1:] == (...,) else kinds
    if len(kinds) != len(values):
        raise ConfigError(f"{where}: expected {len(kinds)} values, got {values!r}")
    return tuple(_value(kind, value, where) for kind, value in zip(kinds, values, strict=True))


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str) -> list[str]:
    found = []
    for name, value in ours.items():
        other = theirs.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            found += _differences(value, other, f"{prefix}{name}.")
        elif value != other:
            found.append(f"{prefix}{name}: {value!r} instead of {other!r}")
    return found
