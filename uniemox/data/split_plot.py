"""The image of a choice among splits (figure 6 of arXiv 2409.18877)."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

from uniemox.data.sample import DataSet
from uniemox.data.splits import Choice
from uniemox.errors import DataError


def plot_choice(choice: Choice, data: DataSet, path: Path) -> None:
    """Colours of the splits in two principal components, a colour for each label, and the distances of all schemes.

    Raises DataError if the file can't be written.
    """
    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of how to draw

    splits = [name for name in ("train", "val", "test") if name in set(choice.scheme.values())]
    figure, axes = plt.subplots(1, len(splits) + 1, figsize=(4 * (len(splits) + 1), 4), layout="constrained")
    assigned = np.array([choice.scheme[sample.key] for sample in data.samples])
    labels = np.array([-1 if sample.label is None else sample.label for sample in data.samples])
    low, high = choice.projected.min(axis=0), choice.projected.max(axis=0)
    for axis, split in zip(axes, splits, strict=False):
        for i, label in enumerate(data.labels.labels):
            points = choice.projected[(assigned == split) & (labels == i)]
            axis.scatter(*points.T, s=8, alpha=0.6, label=label, color=mpl.colormaps["tab10"](i % 10))
        axis.set(title=f"{split} ({(assigned == split).sum()})", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes[0].legend(fontsize="x-small")
    ordered = sorted(choice.distances.values())
    axes[-1].plot(ordered, marker=".")
    axes[-1].set(
        title=f"{len(ordered)} schemes; seed {choice.seed} chosen",
        xlabel="rank",
        ylabel="Fréchet distance of train and val",
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be written ({error})") from error
    finally:
        plt.close(figure)
