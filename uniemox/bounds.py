"""Checks of numbers in settings."""

import math
import operator
from collections.abc import Mapping
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
    """Raise ConfigError with the field's name if a number is not finite or out of range. None is accepted."""
    for words, fits, limits in (
        ("above", operator.gt, above),
        ("at least", operator.ge, at_least),
        ("below", operator.lt, below),
        ("at most", operator.le, at_most),
    ):
        for name, limit in limits.items():
            value = getattr(config, name)
            if value is not None and not (-math.inf < value < math.inf and fits(value, limit)):
                raise ConfigError(f"{section}{name} must be {words} {limit}, got {value}")
