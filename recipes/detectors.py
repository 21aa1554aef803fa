"""Print the table of person detectors for docs. Run: python -m recipes.detectors

Each detector in ../shared/models, and the one that comes with the package, on the 128 COCO photographs with their 350
people in ../shared/data/coco_persons.
"""

import sys
import time

from recipes.finder.scores import read_labelled, score
from tests.conftest import SHARED
from uniemox.io.weight_names import EMBEDDED
from uniemox.persons.detector import DetectorConfig, load_detector


def main() -> None:
    """Print the table."""
    models = [*sorted((SHARED / "models").glob("*.onnx")), EMBEDDED / "finder.onnx"]
    if len(models) == 1:
        sys.exit(f"no detectors in {SHARED / 'models'}")
    images, known = zip(*read_labelled(SHARED / "data" / "coco_persons"), strict=True)
    print("| detector | confidence | recall | recall over 2 % of the image | precision | images/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in models:
        for confidence in (0.35, None):
            detector = load_detector(path, DetectorConfig(confidence=confidence))
            detector.detect(images[:4])  # warm
            start = time.perf_counter()
            detections = detector.detect(images)
            rate = len(images) / (time.perf_counter() - start)
            s = score(known, detections)
            shown = "its own" if confidence is None else f"{confidence:.2f}"
            large = f"{s.large_recall:.4f} ({s.large_found}/{s.large})"
            print(
                f"| {path.name} | {shown} | {s.recall:.4f} ({s.found}/{s.people}) "
                f"| {large} | {s.precision:.4f} ({s.found}/{s.boxes}) | {rate:.0f} |"
            )


if __name__ == "__main__":
    main()
