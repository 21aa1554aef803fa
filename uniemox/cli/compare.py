"""The command that compares recipes over seeds."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from uniemox.cli.console import JsonFlag, need

Runs = Annotated[list[Path], Parameter(consume_multiple=True, negative="")]


def compare(*, ours: Runs, theirs: Runs, as_json: JsonFlag = False) -> None:
    """Say by how much one recipe is better than another: runs of several seeds of each, scored on the same pictures.

    The interval is a paired bootstrap over pictures, 95 %, all seeds of a picture drawn together: it holds for other
    pictures, not for other seeds.

    Example: uniemox compare --ours runs/pre-s0 runs/pre-s1 runs/pre-s2 --theirs runs/scratch-s0 runs/scratch-s1

    Parameters
    ----------
    ours
        Fine-tuning runs that uniemox evaluate has scored.
    theirs
        Those that they are compared with.
    as_json
        Print one JSON object for every evaluation that all of them have.
    """
    need("scipy", extra="train")
    from uniemox.evaluate.compare import compare as run

    for found in run(ours, theirs):
        if as_json:
            print(json.dumps(found.as_dict()))
            continue
        gain = found.difference
        print(f"{found.title}, {found.pictures:,} pictures")
        for name, values, interval in (
            ("ours", found.ours, found.ours_interval),
            ("theirs", found.theirs, found.theirs_interval),
        ):
            seeds = ", ".join(f"{value:.1%}" for value in values)
            mean = sum(values) / len(values)
            print(f"{name:>10} {mean:.1%} ({interval[0]:.1%} to {interval[1]:.1%}); runs: {seeds}")
        print(f"difference {gain.difference:+.1%} ({gain.low:+.1%} to {gain.high:+.1%})")
