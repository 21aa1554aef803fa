"""Print the table of person detectors for docs. Run: python -m tests.detectors

Each detector in ../shared/models, and the one that comes with the package, on the 128 COCO photographs with their 350
people in ../shared/data/coco_persons.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.conftest import SHARED
from uniemox.images import read_picture
from uniemox.persons.box import Box, Detection, overlap
from uniemox.persons.detector import DetectorConfig, load_detector
from uniemox.predict.opening import EMBEDDED

LARGE = 0.02  # of the picture's area
LEAST_OVERLAP = 0.5


class Scores(NamedTuple):
    """Counts over pictures."""

    people: int
    found: int
    large: int
    large_found: int
    boxes: int

    @property
    def recall(self) -> float:
        return self.found / self.people

    @property
    def large_recall(self) -> float:
        return self.large_found / self.large

    @property
    def precision(self) -> float:
        return self.found / max(self.boxes, 1)


def labelled(folder: Path, most: int | None = None) -> list[tuple[Image.Image, list[Box]]]:
    """Pictures and their people's boxes in px: labels are `class cx cy w h`, relative, class 0 a person."""
    samples = []
    for path in sorted((folder / "images").iterdir())[:most]:
        image = read_picture(path)
        boxes = []
        for line in (folder / "labels" / f"{path.stem}.txt").read_text().splitlines():
            label, cx, cy, w, h = map(float, line.split())
            if label == 0:
                x1, x2 = (cx - w / 2) * image.width, (cx + w / 2) * image.width
                boxes.append(Box(x1, (cy - h / 2) * image.height, x2, (cy + h / 2) * image.height))
        samples.append((image, boxes))
    return samples


def matched(people: Sequence[Box], detections: Sequence[Detection]) -> set[int]:
    """Which people were found: each detection, most confident first, takes the free person that it overlaps most."""
    found: set[int] = set()
    if not people or not detections:
        return found
    table = overlap(np.array([one.box for one in detections]), np.array(people))  # (detections, people)
    for row in table:
        free = [i for i in range(len(people)) if i not in found]
        best = max(free, key=lambda i: row[i], default=None)
        if best is not None and row[best] >= LEAST_OVERLAP:
            found.add(best)
    return found


def score(samples: Sequence[tuple[Image.Image, list[Box]]], detections: Sequence[Sequence[Detection]]) -> Scores:
    """Recall and precision at an overlap of 0.5, one to one."""
    rows = []
    for (image, people), found in zip(samples, detections, strict=True):
        large = {i for i, box in enumerate(people) if box.area > LARGE * image.width * image.height}
        hits = matched(people, found)
        rows.append((len(people), len(hits), len(large), len(hits & large), len(found)))
    return Scores(*(sum(column) for column in zip(*rows, strict=True)))


def main() -> None:
    """Print the table."""
    models = [*sorted((SHARED / "models").glob("*.onnx")), EMBEDDED / "finder.onnx"]
    if len(models) == 1:
        sys.exit(f"no detectors in {SHARED / 'models'}")
    samples = labelled(SHARED / "data" / "coco_persons")
    images = [image for image, _ in samples]
    print("| detector | confidence | recall | recall over 2 % of the picture | precision | images/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in models:
        for confidence in (0.35, None):
            detector = load_detector(path, DetectorConfig(confidence=confidence))
            detector.detect(images[:4])  # warm
            start = time.perf_counter()
            detections = detector.detect(images)
            rate = len(images) / (time.perf_counter() - start)
            s = score(samples, detections)
            shown = "its own" if confidence is None else f"{confidence:.2f}"
            large = f"{s.large_recall:.4f} ({s.large_found}/{s.large})"
            print(
                f"| {path.name} | {shown} | {s.recall:.4f} ({s.found}/{s.people}) "
                f"| {large} | {s.precision:.4f} ({s.found}/{s.boxes}) | {rate:.0f} |"
            )


if __name__ == "__main__":
    main()
