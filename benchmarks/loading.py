"""Compare loading with torchvision: `python -m benchmarks.loading emotion6:PATH --rounds 9`.

Prints the processor time of a sample, and its ratio to torchvision's, with and without simplejpeg, from files and from
shards of 256 px. All variants run in turns, because other processes may share the cores.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from PIL import Image
from torchvision import transforms

from uniemox.bench.data import SHORT_SIDE_PX, load_views, with_person
from uniemox.data.readers.shards import read_shards
from uniemox.data.sample import Sample
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.source import open_data
from uniemox.training.hardware import keep_freed_memory
from uniemox.views import decoding
from uniemox.views.patches import IMAGENET, normalise

SIZE = 224
NORMALISE = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*IMAGENET)])
SCENE = transforms.Compose(
    [
        transforms.RandomResizedCrop(SIZE, (0.2, 1), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        NORMALISE,
    ]
)


def load_with_torchvision(samples: Sequence[Sample]) -> None:
    """Decode in full, and make a scene view and the view of the middle, as the plain baseline does."""
    for sample in samples:
        image = Image.open(str(sample.image)).convert("RGB")
        SCENE(image)
        width, height = image.size
        middle = image.crop((width // 4, height // 8, 3 * width // 4, height))
        NORMALISE(middle.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


def load(samples: Sequence[Sample]) -> None:
    """Load the samples in this process, as training does."""
    for batch in load_views(samples, 0, lambda _: None):
        for views in (batch.scene, batch.person):
            normalise(views, torch.device("cpu"))


def load_with_pillow(samples: Sequence[Sample]) -> None:
    """Load the samples without simplejpeg."""
    with mock.patch.object(decoding, "jpeg_decoder", return_value=None):
        load(samples)


def measure_us(task: Callable[[Sequence[Sample]], None], samples: Sequence[Sample]) -> float:
    """Return the processor time of a sample in µs."""
    start = time.process_time()
    task(samples)
    return (time.process_time() - start) / len(samples) * 1e6


def main(source: str, rounds: int) -> None:
    """Print times and ratios, medians of the rounds."""
    keep_freed_memory()
    torch.set_num_threads(1)
    data = open_data(source)
    samples = [with_person(sample) for sample in data.samples]
    with tempfile.TemporaryDirectory() as folder:
        write_shards(replace(data, samples=samples), Path(folder), ShardConfig(short_side_px=SHORT_SIDE_PX))
        shards = read_shards(folder).samples
        variants = {
            "torchvision, files": (load_with_torchvision, samples),
            "Pillow, files": (load_with_pillow, samples),
            "simplejpeg, files": (load, samples),
            "Pillow, shards": (load_with_pillow, shards),
            "simplejpeg, shards": (load, shards),
        }
        times = [{name: measure_us(*variant) for name, variant in variants.items()} for _ in range(rounds)]
    for name in variants:
        time_us = statistics.median(row[name] for row in times)
        ratio = statistics.median(row["torchvision, files"] / row[name] for row in times)
        print(f"{name}: {time_us:.0f} µs, {ratio:.2f} times torchvision's speed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="KIND:PATH of photographs")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    main(args.data, args.rounds)
