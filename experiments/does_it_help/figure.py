"""Figure of docs/experiments.md: recall of distillation alone by its epochs."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from experiments.does_it_help.plan import HISTOGRAM, outcome_path
from experiments.does_it_help.statistics import balanced_mean
from experiments.does_it_help.tables import Outcomes, doses


def draw_doses(outcomes: Path, file: Path) -> None:
    """Draw the positive control as an SVG, with 95 % intervals and the colour histogram as a baseline."""
    stored = Outcomes(outcomes)
    curve = {epochs: balanced_mean(values[0], stored.labels) for epochs, values in doses(stored).items()}
    figure = Figure(figsize=(5.4, 3.0), layout="constrained")
    axes = figure.add_subplot()
    recalls = [100 * point.value for point in curve.values()]
    # One seed each, so there is an interval over images.
    below = [100 * (point.value - point.low) for point in curve.values() if point.low is not None]
    above = [100 * (point.high - point.value) for point in curve.values() if point.high is not None]
    axes.errorbar([*curve], recalls, yerr=(below, above), fmt="o-", capsize=3, label="distillation alone")
    histogram = stored.values(outcome_path("baseline", HISTOGRAM))
    if histogram is not None:
        level = 100 * balanced_mean(histogram[0], stored.labels).value
        axes.axhline(level, linestyle="--", color="grey", label="colour histogram")
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xticks([*curve], [f"{epochs:g}" for epochs in curve])
    axes.set(xlabel="epochs of distillation (0: untrained)", ylabel="mean recall, %")
    axes.minorticks_off()
    axes.legend(frameon=False)
    with mpl.rc_context({"svg.hashsalt": "doses"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
