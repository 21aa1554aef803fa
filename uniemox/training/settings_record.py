"""Settings as JSON, and their differences."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from uniemox.errors import ConfigError
from uniemox.io import typed
from uniemox.spelling import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


Config = TypeVar("Config", bound="DataclassInstance")


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """Convert a config to JSON-serialisable form: tuples become lists, paths become text."""
    return json.loads(json.dumps(asdict(config), default=str))


def from_dict(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Build the config that `to_dict` wrote. Missing fields take their defaults.

    Args:
        kind: Class of the config.
        values: JSON values by field.
        where: Name of the file, for errors.

    Raises:
        ConfigError: If a name is unknown, or a value is wrong.
    """
    config = typed.check_json(values, kind, where, remedy="correct the setting", error_class=ConfigError)
    known = by_dotted_name(to_dict(config))
    for name in by_dotted_name(values):
        if name not in known:
            raise ConfigError(f"{where}: unknown setting {name!r}{did_you_mean(name, known)}")
    return config


def differences(ours: Any, theirs: Any) -> list[str]:
    """Describe how a config differs from an earlier one of its class: "seed: 1 now, 0 at first"."""
    now = by_dotted_name(to_dict(ours))
    first = by_dotted_name(to_dict(theirs))
    return [
        f"{name}: {value!r} now, {first.get(name)!r} at first"
        for name, value in now.items()
        if value != first.get(name)
    ]


def by_dotted_name(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names, such as optimizer.base_lr."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= by_dotted_name(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
