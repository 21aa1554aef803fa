"""Measure how many training images of the embedded model are recognised in another file, and how many others are.

Run: python -m recipes.copies fi:../shared/data/fi,fi:../shared/data/fi_more --exclude check.json \
    --others ../shared/data/flickr8k/images ../shared/data/coco_persons/images ... \
    --halves ferplus:../shared/data/ferplus

Prints the tables of docs/results.md: the share of altered training images that are recognised, and the number of other
photographs that are taken for training images. Half of the training images count as other photographs, too, and are
compared with the other half; so is half of the data of --halves.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from uniemox.data.hashes import fingerprints
from uniemox.data.perceptual import PerceptualIndex, Thumbs, perceptual_hashes, small_grey
from uniemox.data.sample import ImageFile, Sample, decode_sample
from uniemox.data.seen import read_seen
from uniemox.data.source import open_data
from uniemox.io.weight_names import file_in_package
from uniemox.views import alterations

COUNT = 1500
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def encoded(image: Image.Image, quality: int) -> Image.Image:
    """Return an image after JPEG compression."""
    return alterations.compressed(image, quality)


def resized(width: int, height: int) -> Change:
    """Return a change of size and shape, saved with quality 90."""
    return lambda image, _: encoded(image.resize((width, height), Image.Resampling.BICUBIC), 90)


def cropped(share: float) -> Change:
    """Return a crop that removes up to a share of the side at each of the four edges."""

    def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = image.size
        left, right = rng.uniform(0, share, 2) * width
        top, bottom = rng.uniform(0, share, 2) * height
        return encoded(image.crop((int(left), int(top), int(width - right), int(height - bottom))), 90)

    return crop


def watermarked(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return an image with half-transparent words across its middle, and others in a corner."""
    marked = image.copy()
    draw = ImageDraw.Draw(marked, "RGBA")
    width, height = image.size
    draw.text((0.1 * width, 0.45 * height), "WATERMARK SAMPLE", fill=(255, 255, 255, 140), font_size=width // 10)
    draw.text((0.6 * width, 0.9 * height), "(c) photo", fill=(255, 255, 255, 220), font_size=width // 14)
    return encoded(marked, 90)


CHANGES: dict[str, Change] = {
    "saved again, quality 92, 320 x 320 px": lambda image, _: encoded(
        image.resize((320, 320), Image.Resampling.BICUBIC), 92
    ),
    "saved again, quality 50": lambda image, _: encoded(image, 50),
    "another shape, 320 x 240 px": resized(320, 240),
    "another shape, 240 x 320 px": resized(240, 320),
    "another shape, 500 x 281 px": resized(500, 281),
    "96 x 96 px": resized(96, 96),
    "grey": lambda image, _: encoded(image.convert("L").convert("RGB"), 90),
    "half the light": lambda image, _: encoded(image.point(lambda level: level // 2), 90),
    "mirrored": lambda image, _: encoded(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 90),
    "cropped by up to 2 % at each edge": cropped(0.02),
    "cropped by up to 5 % at each edge": cropped(0.05),
    "cropped by up to 10 % at each edge": cropped(0.10),
    "watermark": watermarked,
}


def rgb_of(sample: Sample) -> Image.Image:
    """Return the image of a sample in RGB."""
    return decode_sample(sample).image.convert("RGB")


def thumbs_of(samples: list[Sample]) -> Thumbs:
    """Return the small grey copies of all readable samples, (N, 32, 32)."""
    found, _ = fingerprints(samples)
    return np.stack([fingerprint.thumb for fingerprint in found if fingerprint.thumb is not None])


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="training images of the model, KIND:PATH")
    parser.add_argument("--exclude", type=Path, help="result of uniemox data check")
    parser.add_argument("--others", nargs="+", type=Path, default=[], help="folders with other photographs")
    parser.add_argument("--halves", nargs="+", default=[], help="other data, KIND:PATH, half of which is looked up")
    args = parser.parse_args()
    training = open_data(args.data, exclude=args.exclude).only("train").samples
    rng = np.random.default_rng(0)
    index = PerceptualIndex.of(read_seen(file_in_package(Path("embedded"))))
    drawn = [training[row] for row in rng.permutation(len(training))[:COUNT]]
    print(f"| {len(drawn):,} of {len(training):,} training images | recognised |\n| --- | --- |")
    for name, change in CHANGES.items():
        thumbs = np.stack([small_grey(change(rgb_of(sample), rng)) for sample in drawn])
        print(f"| {name} | {len(index.found(thumbs)) / len(drawn):.1%} |", flush=True)
    print("\n| other photographs | images | taken for training images |\n| --- | --- | --- |")
    for folder in args.others:
        paths = sorted(path for path in folder.rglob("*.jpg"))
        thumbs = thumbs_of([Sample(key=str(path), image=ImageFile(path)) for path in paths])
        print(f"| {folder.parts[-2]}/{folder.parts[-1]} | {len(thumbs):,} | {len(index.found(thumbs))} |", flush=True)
    print_half("the training images", training, rng)
    for source in args.halves:
        print_half(source, open_data(source).samples, rng)


def print_half(name: str, samples: Sequence[Sample], rng: np.random.Generator) -> None:
    """Print how many images of one random half show an image of the other half."""
    thumbs = thumbs_of([samples[row] for row in rng.permutation(len(samples))])
    half = len(thumbs) // 2
    index = PerceptualIndex.of(perceptual_hashes(thumbs[:half]))
    matches = len(index.found(thumbs[half:]))
    print(f"| one half of {name} in the other | {len(thumbs) - half:,} | {matches} |", flush=True)


if __name__ == "__main__":
    main()
