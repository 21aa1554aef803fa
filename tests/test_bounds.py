"""Limits of settings."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from uniemox.bounds import check_numbers
from uniemox.errors import ConfigError


@pytest.mark.parametrize("value", [None, 1, 2.5, 10**400, True, np.float32(1.5), np.int64(2)])
def test_numbers_in_range(value: float | None) -> None:
    check_numbers(SimpleNamespace(one=value), at_least={"one": 1}, above={"one": 0})


@pytest.mark.parametrize("value", [0, -1, -(10**400), math.nan, math.inf])
def test_numbers_out_of_range_and_not_finite_ones(value: float) -> None:
    with pytest.raises(ConfigError, match=r"^part\.one must be at least 1, got "):
        check_numbers(SimpleNamespace(one=value), "part.", at_least={"one": 1})


@pytest.mark.parametrize(
    ("limits", "words"), [({"below": {"one": 1}}, "below 1"), ({"at_most": {"one": 0}}, "at most 0")]
)
def test_numbers_beyond_an_upper_limit_are_refused(limits: dict[str, dict[str, float]], words: str) -> None:
    with pytest.raises(ConfigError, match=f"must be {words}, got 1"):
        check_numbers(SimpleNamespace(one=1), **limits)


@pytest.mark.parametrize("value", ["3", [1], (2,), 1j])
def test_values_that_are_no_numbers_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^part\.one must be a number, got "):
        check_numbers(SimpleNamespace(one=value), "part.", at_least={"one": 1})
