"""Time of the search for near duplicates by number of images: `python -m benchmarks.near_growth 25000 50000 100000`.

The images are mixtures of two photographs of ../shared/data, so that nearly all are different.
"""

import sys
import time
from contextlib import suppress

import numpy as np
from PIL import Image

from tests.conftest import SHARED
from uniemox.data.near import near_groups

SIDE = 32
FOLDERS = ("fi", "fi_more", "flickr8k", "flickr8k_more")  # 13,553 photographs that can be read


def main(counts: list[int]) -> None:
    """Print seconds, nanoseconds for each pair, and hours for three million images."""
    thumbs = []
    for path in sorted(path for name in FOLDERS for path in (SHARED / "data" / name).rglob("*.jpg")):
        with suppress(OSError), Image.open(path) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            thumbs.append(np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32))
    rng = np.random.default_rng(0)
    for count in counts:
        mixed = np.empty((count, SIDE, SIDE, 3), np.uint8)
        for i in range(count):
            one, other = rng.integers(len(thumbs), size=2)
            share = rng.uniform(0.3, 0.7)
            mixed[i] = share * thumbs[one] + (1 - share) * thumbs[other]
        began = time.perf_counter()
        groups = len(np.unique(near_groups(mixed)))
        seconds = time.perf_counter() - began
        pair_ns = 2e9 * seconds / count**2
        hours = pair_ns * 4.5e12 / 3.6e12
        print(
            f"{count:,} images: {seconds:.1f} s, {pair_ns:.1f} ns a pair, {groups:,} groups; 3 million: {hours:.1f} h"
        )


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [25_000])
