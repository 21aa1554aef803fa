"""Targets and scales of reproduction."""

from typing import Literal, get_args

Scale = Literal["demo", "paper"]
Name = Literal[
    "table1",
    "table2",
    "table3",
    "table4",
    "table5",
    "table6",
    "table7",
    "table8",
    "table9",
    "fig4",
    "fig6",
    "fig7",
    "fig8",
    "fig9",
    "cross",
]
NAMES: tuple[Name, ...] = get_args(Name)
