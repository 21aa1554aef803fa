"""The command that compares training settings over several seeds."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from uniemox.cli.console import JsonFlag, need

if TYPE_CHECKING:
    from uniemox.intervals import PairedDifference

Runs = Annotated[list[Path], Parameter(consume_multiple=True, negative="")]


def compare(*, ours: Runs, theirs: Runs, baseline: Runs | None = None, as_json: JsonFlag = False) -> None:
    """Compare two training settings by runs of several seeds each, scored on the same images.

    The 95 % interval is a paired bootstrap over images; the predictions of all seeds for an image are resampled
    together. It says how the difference would vary with other images, not with other seeds. Two chance levels are
    given: the share of the most common class among the scored images, and 1 / number of classes.

    Example: uniemox compare --ours runs/pre-s0 runs/pre-s1 --theirs runs/scratch-s0 --baseline runs/histogram

    Args:
        ours: Fine-tuning runs that uniemox evaluate has scored.
        theirs: Fine-tuning runs to compare with.
        baseline: Trivial baseline, such as a run of finetune --method histogram; runs that do not beat it are marked.
        as_json: Print one JSON object per evaluation that all runs have.
    """
    need("scipy", extra="data")
    from uniemox.evaluate.compare import compare as run

    for comparison in run(ours, theirs, baseline or ()):
        if as_json:
            print(json.dumps(asdict(comparison)))
            continue
        print(f"{comparison.title}, {comparison.pictures:,} images")
        for name, values, interval in (
            ("ours", comparison.ours, comparison.ours_interval),
            ("theirs", comparison.theirs, comparison.theirs_interval),
            ("baseline", comparison.baseline, comparison.baseline_interval),
        ):
            if interval is not None:
                low, high, mean = *interval, sum(values) / len(values)
                seeds = ", ".join(f"{value:.1%}" for value in values)
                print(f"{name:>10} {mean:.1%} ({low:.1%} to {high:.1%}); runs: {seeds}")
        print(f"    chance {comparison.commonest:.1%} (most common class), {comparison.uniform:.1%} (1 / classes)")
        print(f"difference {_words(comparison.difference)}")
        for name, margin in (("ours", comparison.ours_over_baseline), ("theirs", comparison.theirs_over_baseline)):
            if margin is not None:
                sign = "" if margin.low > 0 else "; it does not beat the baseline"
                print(f"{name} over baseline {_words(margin)}{sign}")


def _words(difference: "PairedDifference") -> str:
    return f"{difference.difference:+.1%} ({difference.low:+.1%} to {difference.high:+.1%})"
