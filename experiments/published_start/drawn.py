"""Drawn images for rehearsals and tests: the class is the colour."""

import numpy as np

from experiments.continued import drawn
from experiments.published_start.pack import NO_LABEL, Pack, parts_of
from experiments.published_start.plan import UNLABELLED

PACKS = 5
"""Drawn packs of the earlier experiment: the last one is held out and, without its labels, unlabelled."""


def drawn_pack() -> Pack:
    """Return a pack of small images whose class is their hue, with features that depend on the class."""
    packs = [drawn.drawn_pack(seed) for seed in range(PACKS)]
    packs.append(packs[-1])
    labels = np.concatenate([pack.labels for pack in packs])
    count = len(packs[-1].labels)
    is_train = np.arange(len(labels) - count) < len(labels) - 2 * count
    part = np.concatenate([parts_of(labels[:-count], is_train), np.full(count, UNLABELLED)])
    labels[-count:] = NO_LABEL
    omega, text_features, _ = zip(*(pack.features() for pack in packs), strict=True)
    return Pack(
        pixels=np.concatenate([pack.pixels().numpy() for pack in packs]),
        keys=np.array([f"{row}.png" for row in range(len(labels))]),
        labels=labels,
        classes=packs[0].classes,
        part=part,
        persons=np.concatenate([pack.persons for pack in packs]),
        image_features=np.concatenate([features.numpy() for features in omega]),
        text_features=np.concatenate([features.numpy() for features in text_features]),
    )
