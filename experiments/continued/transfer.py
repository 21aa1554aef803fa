"""Scores the trained encoders on data of other sources.

    python -m experiments.continued.transfer --classes Emotion6=emotion6:PATH Abstract=abstract:PATH \
        --ratings 'OASIS=csv:RATINGS?scale=1-7' --runs FOLDER --outcomes FOLDER

FOLDER of --runs has the weights, as `experiments.continued --out` writes them. The figures go to transfer.json in the
folder of the outcomes, and `experiments.continued --tables` prints them.
"""

import argparse
import copy
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from torch import nn

from experiments.continued.outcomes import read_transfer, write_transfer
from experiments.continued.pack import STORED_PX
from experiments.continued.plan import CPU, START, Job, Profile, jobs_of
from experiments.continued.probe import FOLDS, cross_fitted_recall, features_of, standardised
from experiments.continued.tensors import Images
from experiments.continued.training import new_encoder
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.source import open_data

RIDGE_PENALTIES = np.logspace(0, 6, 13)


@dataclass(frozen=True, slots=True)
class OtherData:
    """Images of another source with what an encoder is scored by."""

    name: str
    images: Images
    targets: NDArray[np.float64]
    """Class of each image, or its rating, (N,)."""
    groups: NDArray[np.str_] | None = None
    """Groups of images that no fold divides, (N,); None for classes."""

    def score(self, encoder: nn.Module, side: int) -> float:
        """Return recall in percent by five cross-fitted folds, or 100 times Pearson's correlation with the ratings."""
        features = features_of(encoder, self.images, side)
        if self.groups is None:
            return cross_fitted_recall(features, self.targets.astype(np.int64))
        predicted = np.zeros(len(self.targets))
        for fit_rows, held_out in GroupKFold(FOLDS).split(features, groups=self.groups):
            scale = standardised(features[fit_rows])
            # Images of a theme stay together in the search for the penalty too, else it is too weak.
            model = GridSearchCV(Ridge(), {"alpha": RIDGE_PENALTIES}, cv=GroupKFold(FOLDS))
            model.fit(scale(features[fit_rows]), self.targets[fit_rows], groups=self.groups[fit_rows])
            predicted[held_out] = model.predict(scale(features[held_out]))
        return 100 * float(np.corrcoef(predicted, self.targets)[0, 1])


def squares(samples: Sequence[Sample]) -> Images:
    """Return the images of samples, squashed to squares like those of the pack."""
    pixels = []
    for sample in samples:
        image = Image.fromarray(np.asarray(decode_sample(sample).image)).convert("RGB")
        square = image.resize((STORED_PX, STORED_PX), Image.Resampling.BICUBIC)
        pixels.append(torch.from_numpy(np.asarray(square).copy()))
    empty = torch.zeros(len(samples), 0)
    return Images(torch.stack(pixels).permute(0, 3, 1, 2).contiguous(), empty, empty, empty, empty, empty)


def with_classes(data: DataSet, name: str) -> OtherData:
    """Return the images with one label whose class has an image for each fold, under the name of the data."""
    counts = Counter(sample.label for sample in data.samples)
    samples = [sample for sample in data.samples if sample.label is not None and counts[sample.label] >= FOLDS]
    _, classes = np.unique([str(sample.label) for sample in samples], return_inverse=True)
    return OtherData(f"{name}, recall", squares(samples), classes.astype(np.float64))


def with_ratings(data: DataSet, name: str) -> list[OtherData]:
    """Return the images for valence and for arousal, under the name of the data; images of a theme stay together."""
    samples = [sample for sample in data.samples if sample.valence is not None and sample.arousal is not None]
    images = squares(samples)
    groups = np.array([sample.group or sample.key for sample in samples])
    return [
        OtherData(f"{name}, {axis}, correlation x 100", images, np.array(values, np.float64), groups)
        for axis, values in (
            ("valence", [sample.valence for sample in samples]),
            ("arousal", [sample.arousal for sample in samples]),
        )
    ]


def weights_of(job: Job, runs: Path) -> Path | None:
    """Return the file of a job's trained weights; None if there is none. The start is that of its last stage."""
    if job.arm == START:
        stages = sorted(runs.glob(f"start.{job.half}.*.pt"))
        return stages[-1] if stages else None
    path = runs / job.path(Path()).with_suffix(".pt").name
    return path if path.exists() else None


def load_encoder(path: Path, encoder: nn.Module) -> nn.Module:
    """Return a copy of an encoder with the weights of a trained model's encoder."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    part = "encoder."
    loaded = copy.deepcopy(encoder)
    loaded.load_state_dict({name.removeprefix(part): value for name, value in weights.items() if name.startswith(part)})
    return loaded


def score_all(data: Sequence[OtherData], runs: Path, outcomes: Path, profile: Profile) -> None:
    """Score every encoder without figures, and write transfer.json after each."""
    figures = read_transfer(outcomes)
    encoder = new_encoder(profile)
    for job in jobs_of(profile):
        name = job.path(Path()).stem
        path = weights_of(job, runs)
        if path is None or name in figures:
            continue
        loaded = load_encoder(path, encoder)
        figures[name] = {part.name: round(part.score(loaded, profile.side_px), 3) for part in data}
        write_transfer(outcomes, figures)
        print(name, figures[name], file=sys.stderr)


def named(text: str) -> tuple[str, str]:
    """Return name and source of NAME=KIND:PATH."""
    name, _, source = text.partition("=")
    return name, source


def main() -> None:
    """Parse the command line and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", required=True, help="NAME=KIND:PATH of data with one label per image")
    parser.add_argument("--ratings", required=True, help="NAME=KIND:PATH of data with valence, arousal and groups")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trained weights")
    parser.add_argument("--outcomes", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    data = [with_classes(open_data(source), name) for name, source in map(named, args.classes)]
    name, source = named(args.ratings)
    data += with_ratings(open_data(source), name)
    score_all(data, args.runs, args.outcomes, CPU)


if __name__ == "__main__":
    main()
