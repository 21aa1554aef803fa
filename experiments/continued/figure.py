"""Figure of docs/experiments.md: the contrasts of the experiment, by start and over seeds."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.continued.plan import CONTRASTS, SMALLEST_EFFECT, Profile
from experiments.continued.tables import contrast, contrast_given_starts, read


def draw_contrasts(outcomes: Path, profile: Profile, file: Path) -> None:
    """Draw the primary outcome of every contrast as an SVG: each start, and intervals that hold for these starts."""
    results = read(outcomes, profile)
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(-SMALLEST_EFFECT, SMALLEST_EFFECT, color="grey", alpha=0.15, linewidth=0, label="less than ±1 point")
    axes.axvline(0, color="grey", linewidth=0.8)
    names: list[str] = []
    for name, (first, second) in CONTRASTS.items():
        over_starts = contrast(results, name, "tenth")
        given_starts = contrast_given_starts(results, name, "tenth")
        if over_starts is None or given_starts is None:
            continue
        low, high = given_starts.interval
        y = len(names)
        label = "95 % interval over seeds, given these starts" if not names else None
        axes.plot([low, high], [y, y], color="C0", label=label)
        label = "mean of each start" if not names else None
        axes.plot(over_starts.values, [y] * len(over_starts.values), "o", color="C1", markersize=5, label=label)
        names.append(f"{name}: {first} − {second}")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("difference of recall with a tenth of the labels, points")
    figure.legend(frameon=False, loc="outside lower center", ncols=3, fontsize="small")
    with mpl.rc_context({"svg.hashsalt": "contrasts"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
