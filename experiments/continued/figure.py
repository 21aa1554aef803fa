"""Figure of docs/experiments.md: the contrasts of the experiment with their intervals."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.continued.plan import CONTRASTS, SMALLEST_EFFECT, Profile
from experiments.continued.tables import contrast, read


def draw_contrasts(outcomes: Path, profile: Profile, file: Path) -> None:
    """Draw the primary outcome of every contrast as an SVG, with 95 % intervals and the region of no interest."""
    results = read(outcomes, profile)
    found = {name: contrast(results, name, "tenth") for name in CONTRASTS}
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(-SMALLEST_EFFECT, SMALLEST_EFFECT, color="grey", alpha=0.15, linewidth=0, label="less than ±1 point")
    axes.axvline(0, color="grey", linewidth=0.8)
    names: list[str] = []
    for name, difference in found.items():
        if difference is None:
            continue
        low, high = difference.interval
        below = difference.mean - low
        above = high - difference.mean
        y = len(names)
        axes.errorbar([difference.mean], [y], xerr=([below], [above]), fmt="o", capsize=3, color="C0")
        first, second = CONTRASTS[name]
        names.append(f"{name}: {first} − {second}")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("difference of recall with a tenth of the labels, points")
    axes.legend(frameon=False, loc="lower right")
    with mpl.rc_context({"svg.hashsalt": "contrasts"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
