"""Measure how well faces are detected and their expressions predicted: the figures of the model card.

    python -m recipes.faces --faces ferplus:ferplus --photos coco_persons/images --labels yunet_n.onnx
    python -m recipes.faces --photos coco_persons/images
    python -m recipes.faces --held-out fi:fi --persons faces-0.jsonl --exclude faces-check.json --labels yunet_n.onnx

Expressions: faces of FER+'s validation part with a majority label that are not in the training part too, unchanged and
altered. Faces: photographs that the finder was not trained on, compared with the boxes of another detector that have a
confidence of 0.8 and cover over 1 % of the image. Thresholds: the same at several confidences, on the images that
training held out; --held-out, --persons and --exclude take the values that `recipes.finder fit` was called with.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from recipes.finder.command import samples_of
from recipes.finder.config import FinderConfig
from recipes.finder.run import split_images
from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.evaluate.calibration import expected_calibration_error
from uniemox.intervals import percentile_interval
from uniemox.io.sized_image import SizedImage
from uniemox.labels import FERPLUS
from uniemox.persons.box import Box, Detection, overlap
from uniemox.persons.detector import Detector, DetectorConfig, load_detector
from uniemox.persons.mirrored import MirrorDetector
from uniemox.predict.faces import FaceReader
from uniemox.predict.images import walk
from uniemox.predict.opening import FACE_FINDER, embedded_file, load, open_embedded_faces, open_faces
from uniemox.predict.prediction import Prediction
from uniemox.resampling import resampled_means
from uniemox.views.loader import BrokenCount

# Boxes of the other detector count as faces to be found from this confidence and this share of the image.
MIN_LABEL_CONFIDENCE = 0.8
MIN_AREA_FRACTION = 0.01
MIN_OVERLAP = 0.5
LABELS = DetectorConfig(confidence=0.3)
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
# The speed is measured on a photograph with this number of faces or more.
MIN_FACES = 4
Change = Callable[[Image.Image], Image.Image]


def smaller(side: int) -> Change:
    """Return a change that reduces a face to a number of pixels, as if seen from a distance."""
    return lambda image: image.resize((side, side), Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)


def covered(image: Image.Image) -> Image.Image:
    """Return the image with its lower third hidden, as by a mask."""
    image = image.copy()
    image.paste((90, 90, 90), (0, image.height * 2 // 3, image.width, image.height))
    return image


CHANGES: dict[str, Change] = {
    "as it is": lambda image: image,
    "mirrored": ImageOps.mirror,
    "tinted": lambda image: ImageOps.colorize(image.convert("L"), "#200a05", "#ffe6d0"),
    "dark (a third)": lambda image: ImageEnhance.Brightness(image).enhance(0.33),
    "blurred (1.5 px of 48)": lambda image: image.filter(ImageFilter.GaussianBlur(1.5 * image.width / 48)),
    "turned by 20°": lambda image: image.rotate(20, Image.Resampling.BICUBIC),
    "32 px": smaller(32),
    "24 px": smaller(24),
    "16 px": smaller(16),
    "lower third hidden": covered,
}


def predict_faces(reader: FaceReader, faces: Sequence[Sample], change: Change) -> NDArray[np.float64]:
    """Return probabilities of the expressions, (N, 8): the mean over each face and its mirror image."""
    images = (change(decode_sample(face)[0]) for face in faces)
    pairs = [reader.views_of(SizedImage.of(image), Box(0, 0, *image.size)) for image in images]
    answers = reader.network.answer([view for pair in pairs for view in pair]).values  # (2 N, 8)
    return answers.reshape(len(pairs), 2, -1).mean(axis=1)


def print_expressions(source: str, model: str | None) -> None:
    """Print the table of expressions."""
    data = open_data(source)
    training = [sample for sample in data.samples if sample.split == "train"]
    training_hashes = {sha256(sample.image.read()).digest() for sample in training}
    scored = [sample for sample in data.samples if sample.split == "val" and sample.label is not None]
    samples = [sample for sample in scored if sha256(sample.image.read()).digest() not in training_hashes]
    truth = np.array([sample.label for sample in samples])
    votes = np.array([[(sample.distribution or {})[label] for label in FERPLUS.labels] for sample in samples])
    reader = open_faces("whole", model)
    assert reader is not None, "the expression model was asked for"
    print(
        f"{len(samples)} faces with a majority; {len(scored) - len(samples)} more are in train too\n\n"
        "| faces | accuracy | balanced | KL | ECE | mean confidence |\n" + "| --- " * 6 + "|"
    )
    for name, change in CHANGES.items():
        shares = predict_faces(reader, samples, change)
        hits = (shares.argmax(axis=1) == truth).astype(float)
        recalls = np.array([hits[truth == k].mean() for k in range(len(FERPLUS))])
        divergence = np.where(votes > 0, votes * np.log(np.maximum(votes, 1e-12) / np.maximum(shares, 1e-12)), 0)
        low, high = percentile_interval(resampled_means(hits[:, None], None)[:, 0])
        ece = expected_calibration_error(shares, truth)
        print(
            f"| {name} | {hits.mean():.1%} ({low:.1%} to {high:.1%}) | {recalls.mean():.1%} | "
            f"{divergence.sum(axis=1).mean():.3f} | {ece:.3f} | {shares.max(axis=1).mean():.1%} |"
        )
        # Recalls are printed for the unaltered faces.
        if name == "as it is":
            by_class = ", ".join(
                f"{label} {recall:.0%} of {int((truth == k).sum())}"
                for k, (label, recall) in enumerate(zip(FERPLUS.labels, recalls, strict=True))
            )
    print(f"\nrecall: {by_class}")


def count_matches(boxes: Sequence[Detection], others: Sequence[Detection]) -> int:
    """Count the boxes that overlap one of the others."""
    if not boxes or not others:
        return 0
    overlaps = overlap(np.array([box.box for box in boxes]), np.array([other.box for other in others]))
    return int((overlaps.max(axis=1) >= MIN_OVERLAP).sum())


def compare(finder: Detector, images: Iterable[Image.Image], labels: Iterable[Sequence[Detection]]) -> str:
    """Return recall, precision and F1 of a face finder, as text.

    Args:
        finder: The face finder.
        images: Photographs.
        labels: Boxes of another detector in each image.
    """
    label_count = found_count = box_count = right_count = 0
    for image, label_boxes in zip(images, labels, strict=True):
        [detections] = finder.detect([image])
        area = image.width * image.height
        targets = [
            detection
            for detection in label_boxes
            if detection.confidence >= MIN_LABEL_CONFIDENCE and detection.box.area > MIN_AREA_FRACTION * area
        ]
        boxes = tuple(detection for detection in detections if detection.box.area > MIN_AREA_FRACTION * area)
        label_count += len(targets)
        box_count += len(boxes)
        found_count += count_matches(targets, boxes)
        # A box is also right if the label is too unsure or too small to be missed.
        right_count += count_matches(boxes, label_boxes)
    recall = found_count / max(label_count, 1)
    precision = right_count / max(box_count, 1)
    f1 = 2 * recall * precision / max(recall + precision, 1e-9)
    return f"recall {recall:.3f} of {label_count}, precision {precision:.3f} of {box_count}, F1 {f1:.3f}"


def print_detection_scores(photos: Path, labels: Path, finder: Path | None) -> None:
    """Print recall and precision of the face finder."""
    face_finder = open_embedded_faces() if finder is None else load_detector(finder)
    images = [Image.open(path).convert("RGB") for path in walk(photos)]
    print(f"\n{compare(face_finder, images, load_detector(labels, LABELS).detect(images))}")


def print_thresholds(sources: list[str], persons: list[Path], exclude: Path | None, labels: Path) -> None:
    """Print how well the package's face finder does at several confidences on the images that training held out."""
    held_out, _ = split_images(samples_of(sources, persons, exclude), FinderConfig(start=""), BrokenCount(0))
    images = [decode_sample(sample)[0] for sample in held_out]
    label_boxes = load_detector(labels, LABELS).detect(images)
    print(f"\n{len(images)} images held out")
    for confidence in THRESHOLDS:
        face_finder = load_detector(embedded_file(FACE_FINDER), DetectorConfig(confidence=confidence))
        print(f"{confidence}: {compare(MirrorDetector(face_finder), images, label_boxes)}", flush=True)


def print_speed(photos: Path) -> None:
    """Print the time that faces add on the first photograph with four of them or more: the best of 50 turns each."""
    without = load()
    with_faces = load(faces="find")
    for path in walk(photos):
        with Image.open(path) as file:
            image = file.convert("RGB")
        prediction = with_faces.predict(image)
        assert isinstance(prediction, Prediction)
        if len(prediction.faces or []) >= MIN_FACES:
            break
    times: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(50):
        for name, predictor in (("without", without), ("with", with_faces)):
            started = time.perf_counter()
            predictor.predict(image)
            times[name].append(1000 * (time.perf_counter() - started))
    best = {name: min(durations) for name, durations in times.items()}
    count = len(prediction.faces or [])
    print(f"\n{path.name}, {count} faces: {best['without']:.1f} ms, with faces {best['with']:.1f} ms")


def main() -> None:
    """Print the tables that the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", help="KIND:PATH of FER+")
    parser.add_argument("--model", help="of expressions; the one that comes with the package if not given")
    parser.add_argument("--photos", type=Path, help="a folder of photographs")
    parser.add_argument(
        "--labels", type=Path, help="the detector whose boxes are the truth; without it the speed is shown"
    )
    parser.add_argument("--finder", type=Path, help="of faces; the one that comes with the package if not given")
    parser.add_argument("--held-out", nargs="+", help="KIND:PATH of the images that it was trained on: try thresholds")
    parser.add_argument("--persons", nargs="+", type=Path, help="faces in these images, a file for each KIND:PATH")
    parser.add_argument("--exclude", type=Path, help="output of `data check --json`")
    args = parser.parse_args()
    if args.faces:
        print_expressions(args.faces, args.model)
    if args.held_out and args.persons and args.labels:
        print_thresholds(args.held_out, args.persons, args.exclude, args.labels)
    if args.photos and args.labels:
        print_detection_scores(args.photos, args.labels, args.finder)
    elif args.photos:
        print_speed(args.photos)


if __name__ == "__main__":
    main()
