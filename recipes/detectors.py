"""Print the table of person detectors for docs. Run: python -m recipes.detectors

The first table has each detector in ../shared/models, and the one that comes with the package: alone, and with the
mirror image, as it is used. The 128 COCO photographs with 350 people are in ../shared/data/coco_persons. A second table
gives how often the number of people changes if the photographs are mirrored, or lose 4 px on the left and at the top.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from recipes.finder.scores import LabelledImage, read_labelled, score
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
    images, labelled = zip(*read_labelled(SHARED / "data" / "coco_persons"), strict=True)
    print("| detector | confidence | recall | recall over 2 % of the image | precision | images/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in (*models, EMBEDDED / "finder.onnx"):
        for confidence in (0.35, None):
            threshold = "its own" if confidence is None else f"{confidence:.2f}"
            detector = load_detector(path, DetectorConfig(confidence=confidence))
            print_row(f"{path.name} | {threshold}", detector, images, labelled)
    print_row("embedded, with the mirror image | its own", open_finder("embedded"), images, labelled)
    print("\n| detector | another number of people: mirrored | cut by 4 px |\n| --- | --- | --- |")
    mirrored = [ImageOps.mirror(image) for image in images]
    cut = [image.crop((CUT_PX, CUT_PX, *image.size)) for image in images]
    detectors = {"alone": load_detector(EMBEDDED / "finder.onnx"), "with the mirror image": open_finder("embedded")}
    for name, detector in detectors.items():
        plain = [len(detections) for detections in detector.detect(images)]
        shares = []
        for changed in (mirrored, cut):
            counts = [len(detections) for detections in detector.detect(changed)]
            shares.append(np.mean([first != second for first, second in zip(plain, counts, strict=True)]))
        print(f"| embedded, {name} | {' | '.join(f'{share:.0%}' for share in shares)} |")


def print_row(name: str, detector: Detector, images: Sequence[Image.Image], labelled: Sequence[LabelledImage]) -> None:
    """Print a detector's line of the first table."""
    # The first call allocates memory, so it is not timed.
    detector.detect(images[:4])
    start = time.perf_counter()
    detections = detector.detect(images)
    images_per_s = len(images) / (time.perf_counter() - start)
    scores = score(labelled, detections)
    cells = (
        name,
        f"{scores.recall:.4f} ({scores.found}/{scores.people})",
        f"{scores.large_recall:.4f} ({scores.large_found}/{scores.large})",
        f"{scores.precision:.4f} ({scores.found}/{scores.boxes})",
        f"{images_per_s:.0f}",
    )
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
