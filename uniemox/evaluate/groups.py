"""Scores by group of images (domain, style, who is in it), and the group that a network serves worst."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, DataError
from uniemox.evaluate.scores import Scores, json_ready
from uniemox.intervals import Interval

UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScores:
    """Scores by group. The lowest of many groups is low by chance too: read its interval."""

    groups: Mapping[str, Scores]
    """Every group, by name; each knows its n."""
    measure: str
    """What groups are ranked by: accuracy, kl or ccc."""
    min_samples: int
    """Groups with less samples are listed and not ranked."""
    worst: str | None
    """None if less than two groups can be ranked."""
    worst_value: float | None
    worst_interval: Interval | None
    best: str | None
    gap: float | None
    """From the worst to the best, at least 0."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        scores = {name: group.as_dict() for name, group in self.groups.items()}
        names = ("measure", "min_samples", "worst", "worst_value", "worst_interval", "best", "gap")
        return {"groups": scores} | json_ready({name: getattr(self, name) for name in names})


def score_groups(
    values: Sequence[str | None], score: Callable[[NDArray[np.intp]], Scores], *, min_samples: int = 20
) -> GroupScores:
    """Scores by the values of one column.

    values: one a sample; None becomes "unknown", a group like any other.  score: from the places of a group's samples,
    (M,), to their scores.  min_samples: samples that a group must have to be ranked; its score must also be defined.
    The worst group has the lowest accuracy or mean concordance, or the highest divergence; of equals, the first name.
    Raises DataError without samples, ConfigError for min_samples below 1.
    """
    if min_samples < 1:
        raise ConfigError(f"min_samples must be at least 1, got {min_samples}")
    if not len(values):
        raise DataError("there is no sample to group; was the split empty?")
    members: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        members.setdefault(UNKNOWN if value is None else value, []).append(place)
    groups = {name: score(np.array(members[name], dtype=np.intp)) for name in sorted(members)}
    headlines = {name: group.headline for name, group in groups.items()}
    measure, is_error = next((line.measure, line.is_error) for line in headlines.values())
    value_of = {
        name: line.value for name, line in headlines.items() if groups[name].n >= min_samples and line.value is not None
    }
    if len(value_of) < 2:
        return GroupScores(
            groups=groups,
            measure=measure,
            min_samples=min_samples,
            worst=None,
            worst_value=None,
            worst_interval=None,
            best=None,
            gap=None,
        )
    ranked = sorted(value_of, key=lambda name: -value_of[name] if is_error else value_of[name])  # the worst first
    worst, best = ranked[0], ranked[-1]
    return GroupScores(
        groups=groups,
        measure=measure,
        min_samples=min_samples,
        worst=worst,
        worst_value=value_of[worst],
        worst_interval=headlines[worst].interval,
        best=best,
        gap=abs(value_of[best] - value_of[worst]),
    )
