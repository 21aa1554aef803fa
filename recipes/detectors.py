"""Print the table of person detectors for docs. Run: python -m recipes.detectors

Each detector in ../shared/models, and the one that comes with the package (alone, and as it is used, with the mirror
image), on the 128 COCO photographs with their 350 people in ../shared/data/coco_persons. A second table says how often
the number of people changes if the photographs are mirrored, or lose 4 px on the left and at the top.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from recipes.finder.scores import Known, read_labelled, score
from tests.conftest import SHARED
from uniemox.io.weight_names import EMBEDDED
from uniemox.persons.detector import Detector, DetectorConfig, load_detector
from uniemox.predict.opening import open_finder

CUT_PX = 4


def main() -> None:
    """Print both tables."""
    models = sorted((SHARED / "models").glob("*.onnx"))
    if not models:
        sys.exit(f"no detectors in {SHARED / 'models'}")
    images, known = zip(*read_labelled(SHARED / "data" / "coco_persons"), strict=True)
    print("| detector | confidence | recall | recall over 2 % of the image | precision | images/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in (*models, EMBEDDED / "finder.onnx"):
        for confidence in (0.35, None):
            if confidence is None:
                shown = "its own"
            else:
                shown = f"{confidence:.2f}"
            print_row(
                f"{path.name} | {shown}", load_detector(path, DetectorConfig(confidence=confidence)), images, known
            )
    print_row("embedded, with the mirror image | its own", open_finder("embedded"), images, known)
    print("\n| detector | another number of people: mirrored | cut by 4 px |\n| --- | --- | --- |")
    mirrored = [ImageOps.mirror(image) for image in images]
    cut = [image.crop((CUT_PX, CUT_PX, *image.size)) for image in images]
    detectors = {"alone": load_detector(EMBEDDED / "finder.onnx"), "with the mirror image": open_finder("embedded")}
    for name, detector in detectors.items():
        plain = [len(found) for found in detector.detect(images)]
        shares = []
        for changed in (mirrored, cut):
            counts = [len(found) for found in detector.detect(changed)]
            shares.append(np.mean([first != second for first, second in zip(plain, counts, strict=True)]))
        print(f"| embedded, {name} | {' | '.join(f'{share:.0%}' for share in shares)} |")


def print_row(name: str, detector: Detector, images: Sequence[Image.Image], known: Sequence[Known]) -> None:
    """Print a detector's line of the first table."""
    detector.detect(images[:4])  # warm
    start = time.perf_counter()
    detections = detector.detect(images)
    rate = len(images) / (time.perf_counter() - start)
    s = score(known, detections)
    print(
        f"| {name} | {s.recall:.4f} ({s.found}/{s.people}) | {s.large_recall:.4f} ({s.large_found}/{s.large}) "
        f"| {s.precision:.4f} ({s.found}/{s.boxes}) | {rate:.0f} |"
    )


if __name__ == "__main__":
    main()
