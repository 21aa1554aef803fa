"""Checks of numbers in settings."""

import math
import operator
from collections.abc import Mapping
from numbers import Real
from typing import Any

from uniemox.errors import ConfigError


def check_numbers(
    config: Any,
    section: str = "",
    *,
    above: Mapping[str, float] = {},
    at_least: Mapping[str, float] = {},
    below: Mapping[str, float] = {},
    at_most: Mapping[str, float] = {},
) -> None:
    """Check numbers of a config: finite and in range. None is accepted.

    Args:
        config: Object with the fields.
        section: Name of the config with a point, for messages; empty for a config without sections.
        above: Limit by field; the value must be larger.
        at_least: Minimum by field.
        below: Limit by field; the value must be smaller.
        at_most: Maximum by field.

    Raises:
        ConfigError: With the field's name, if a value is no number, not finite or out of range.
    """
    for relation, fits, limits in (
        ("above", operator.gt, above),
        ("at least", operator.ge, at_least),
        ("below", operator.lt, below),
        ("at most", operator.le, at_most),
    ):
        for name, limit in limits.items():
            value = getattr(config, name)
            if value is None:
                continue
            is_number = isinstance(value, Real)
            if not is_number:
                raise ConfigError(f"{section}{name} must be a number, got {value!r}")
            if not (-math.inf < value < math.inf and fits(value, limit)):
                raise ConfigError(f"{section}{name} must be {relation} {limit}, got {value}")
