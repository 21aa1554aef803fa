"""Drawn images for rehearsals and tests: the class is the colour."""

import colorsys

import numpy as np
import torch
from PIL import Image

from experiments.continued.pack import Pack, encode_images, halves_of, quantised

CLASSES = 4
IMAGES_PER_CLASS = 24
CHANNELS = 16


def drawn_pack(seed: int = 0) -> Pack:
    """Return a pack of small images whose class is their hue, with features that depend on the class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), IMAGES_PER_CLASS)
    images = []
    for label in labels:
        hue = (label + rng.uniform(-0.3, 0.3)) / CLASSES
        colour = np.array(colorsys.hsv_to_rgb(hue % 1, 0.8, 0.8)) * 255
        pixels = (colour + rng.normal(0, 20, (32, 32, 3))).clip(0, 255).astype(np.uint8)
        images.append(Image.fromarray(pixels))
    files, ends = encode_images(images)
    centres = rng.normal(size=(CLASSES, CHANNELS))
    features, step = quantised(torch.from_numpy(centres[labels] + rng.normal(0, 0.5, (len(labels), CHANNELS))))
    return Pack(
        images=files,
        ends=ends,
        keys=np.array([f"{i}.png" for i in range(len(labels))]),
        labels=labels,
        classes=np.array(["joy", "anger", "fear", "awe"]),
        half=halves_of(labels),
        persons=np.tile(np.array([0.2, 0.2, 0.6, 0.9], np.float32), (len(labels), 1)),
        image_features=features,
        text_features=features[::-1].copy(),
        emotion_features=features,
        steps=np.full(3, step, np.float32),
    )
