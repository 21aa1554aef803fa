"""Scores trivial baselines and the teacher by the probe of the experiment.

    python -m experiments.continued.baselines --pack pack.npz --outcomes FOLDER

The figures go to baselines.json in the folder of the outcomes, and `experiments.continued --tables` prints them.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.continued.outcomes import write_baselines
from experiments.continued.pack import Pack
from experiments.continued.plan import CPU, HALVES, Profile
from experiments.continued.probe import BATCH, balanced, features_of, score
from experiments.continued.tensors import Images, resize_whole
from experiments.continued.training import new_encoder
from uniemox.io.parallel import usable_cores
from uniemox.model.colour_histogram import ColourHistogram
from uniemox.views.patches import normalise


def baselines_of(images: Images, profile: Profile) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield names and features (N, D): of colours, of a network with random weights, and of the teacher."""
    histogram = ColourHistogram()
    rows = [
        histogram(normalise(resize_whole(pixels, profile.side_px), pixels.device))
        for pixels in images.pixels.split(BATCH)
    ]
    yield "colour histogram", torch.cat(rows).double().numpy()
    torch.manual_seed(0)
    yield "random weights", features_of(new_encoder(profile), images, profile.side_px)
    yield "teacher", images.image_features.double().numpy()


def score_baselines(images: Images, half: torch.Tensor, outcomes: Path, profile: Profile, jobs: int) -> None:
    """Score every baseline on both halves, and write recall in percent and log-likelihood by budget."""
    figures: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    for name, features in baselines_of(images, profile):
        figures[name] = {}
        for number, trained_on in enumerate(HALVES):
            # The half that is scored is the other one.
            rows = (half != number).numpy()
            labels = images.labels.numpy()[rows]
            figures[name][trained_on] = {}
            for budget, tenths in (("tenth", True), ("all", False)):
                scores = score(features[rows], labels, tenths=tenths, jobs=jobs)
                recall = 100 * balanced(scores.hit, labels)
                figures[name][trained_on][budget] = (
                    round(recall, 3),
                    round(balanced(scores.log_likelihood, labels), 4),
                )
        print(name, figures[name], file=sys.stderr)
    write_baselines(outcomes, figures)


def main() -> None:
    """Parse the command line and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True, help="file of experiments.continued.pack")
    parser.add_argument("--outcomes", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    pack = Pack.read(args.pack)
    images = Images.of(pack, torch.device("cpu"))
    score_baselines(images, torch.from_numpy(pack.half), args.outcomes, CPU, usable_cores())


if __name__ == "__main__":
    main()
