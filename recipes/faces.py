"""How well faces are found and read: the figures of the model card.

    python -m recipes.faces --faces ferplus:ferplus --photos coco_persons/images --labels yunet_n.onnx
    python -m recipes.faces --photos coco_persons/images
    python -m recipes.faces --held-out fi:fi --persons faces-0.jsonl --exclude faces-check.json --labels yunet_n.onnx

Expressions: FER+'s validation part, faces with a majority that are not in the training part too, as they are and
changed. Faces: photographs that the finder was not trained on, against what another detector finds there with a
confidence of 0.8 and over 1 % of the image. Thresholds: the same at several confidences, on the images that training
held out; --held-out, --persons and --exclude are what `recipes.finder fit` was given.
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
from recipes.finder.run import divided
from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.evaluate.calibration import expected_calibration_error
from uniemox.intervals import percentile_interval, resampled_means
from uniemox.labels import FERPLUS
from uniemox.persons.box import Box, Detection, overlap
from uniemox.persons.detector import Detector, DetectorConfig, load_detector
from uniemox.persons.mirrored import MirrorDetector
from uniemox.predict.faces import FaceReader
from uniemox.predict.images import walk
from uniemox.predict.opening import FACE_FINDER, embedded_file, load, open_embedded_faces, open_faces
from uniemox.predict.prediction import Prediction
from uniemox.views.loader import BrokenCount

# of the boxes that are to be found: confidence, part of the image
SURE = 0.8
SHARE = 0.01
OVERLAP = 0.5
LABELS = DetectorConfig(confidence=0.3)
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55)
MANY = 4  # faces
Change = Callable[[Image.Image], Image.Image]


def smaller(side: int) -> Change:
    """A face of so many px, as from afar."""
    return lambda image: image.resize((side, side), Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)


def covered(image: Image.Image) -> Image.Image:
    """The lower third hidden, as by a mask."""
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


def read(reader: FaceReader, faces: Sequence[Sample], change: Change) -> NDArray[np.float64]:
    """Probabilities, (N, 8)."""
    images = (change(decode_sample(face)[0]) for face in faces)
    pairs = [reader.look(image, image.size, Box(0, 0, *image.size)) for image in images]
    answers = reader.network.answer([view for pair in pairs for view in pair]).values  # (2 N, 8)
    return answers.reshape(len(pairs), 2, -1).mean(axis=1)


def expressions(source: str, model: str | None) -> None:
    """Print the table of expressions."""
    data = open_data(source)
    seen = {sha256(one.image.read()).digest() for one in data.samples if one.split == "train"}
    scored = [one for one in data.samples if one.split == "val" and one.label is not None]
    samples = [one for one in scored if sha256(one.image.read()).digest() not in seen]
    truth = np.array([one.label for one in samples])
    votes = np.array([[(one.distribution or {})[label] for label in FERPLUS.labels] for one in samples])
    reader = open_faces("whole", model)
    assert reader is not None, "it was asked for"
    print(
        f"{len(samples)} faces with a majority; {len(scored) - len(samples)} more are in train too\n\n"
        "| faces | accuracy | balanced | KL | ECE | mean confidence |\n" + "| --- " * 6 + "|"
    )
    for name, change in CHANGES.items():
        shares = read(reader, samples, change)
        hits = (shares.argmax(axis=1) == truth).astype(float)
        recalls = np.array([hits[truth == k].mean() for k in range(len(FERPLUS))])
        divergence = np.where(votes > 0, votes * np.log(np.maximum(votes, 1e-12) / np.maximum(shares, 1e-12)), 0)
        low, high = percentile_interval(resampled_means(hits[:, None], None)[:, 0])
        ece = expected_calibration_error(shares, truth)
        print(
            f"| {name} | {hits.mean():.1%} ({low:.1%} to {high:.1%}) | {recalls.mean():.1%} | "
            f"{divergence.sum(axis=1).mean():.3f} | {ece:.3f} | {shares.max(axis=1).mean():.1%} |"
        )
        if name == "as it is":
            by_class = ", ".join(
                f"{label} {recall:.0%} of {int((truth == k).sum())}"
                for k, (label, recall) in enumerate(zip(FERPLUS.labels, recalls, strict=True))
            )
    print(f"\nrecall: {by_class}")


def matched(boxes: Sequence[Detection], others: Sequence[Detection]) -> int:
    """Count the boxes that overlap one of the others."""
    if not boxes or not others:
        return 0
    shared = overlap(np.array([one.box for one in boxes]), np.array([one.box for one in others]))
    return int((shared.max(axis=1) >= OVERLAP).sum())


def compared(ours: Detector, images: Iterable[Image.Image], labels: Iterable[Sequence[Detection]]) -> str:
    """Recall, precision and F1 of a face finder, as text.  labels: what another detector finds in each image."""
    wanted = found = given = right = 0
    for image, known in zip(images, labels, strict=True):
        [mine] = ours.detect([image])
        area = image.width * image.height
        must = [one for one in known if one.confidence >= SURE and one.box.area > SHARE * area]
        mine = tuple(one for one in mine if one.box.area > SHARE * area)
        wanted = wanted + len(must)
        given = given + len(mine)
        found = found + matched(must, mine)
        right = right + matched(mine, known)
    recall = found / max(wanted, 1)
    precision = right / max(given, 1)
    f1 = 2 * recall * precision / max(recall + precision, 1e-9)
    return f"recall {recall:.3f} of {wanted}, precision {precision:.3f} of {given}, F1 {f1:.3f}"


def finding(photos: Path, labels: Path, finder: Path | None) -> None:
    """Print recall and precision of the face finder."""
    if finder is None:
        ours = open_embedded_faces()
    else:
        ours = load_detector(finder)
    images = [Image.open(path).convert("RGB") for path in walk(photos)]
    print(f"\n{compared(ours, images, load_detector(labels, LABELS).detect(images))}")


def thresholds(sources: list[str], persons: list[Path], exclude: Path | None, labels: Path) -> None:
    """Print how well the package's face finder does at several confidences on the images that training held out."""
    held_out, _ = divided(samples_of(sources, persons, exclude), FinderConfig(start=""), BrokenCount(0))
    images = [decode_sample(sample)[0] for sample in held_out]
    known = load_detector(labels, LABELS).detect(images)
    print(f"\n{len(images)} images held out")
    for confidence in THRESHOLDS:
        ours = load_detector(embedded_file(FACE_FINDER), DetectorConfig(confidence=confidence))
        print(f"{confidence}: {compared(MirrorDetector(ours), images, known)}", flush=True)


def speed(photos: Path) -> None:
    """Print what faces add to the first photograph with four of them or more: the best of 50 turns each."""
    without = load()
    with_faces = load(faces="find")
    for path in walk(photos):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        found = with_faces.predict(image)
        assert isinstance(found, Prediction)
        if len(found.faces or []) >= MANY:
            break
    times: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(50):
        for name, predictor in (("without", without), ("with", with_faces)):
            started = time.perf_counter()
            predictor.predict(image)
            times[name].append(1000 * (time.perf_counter() - started))
    best = {name: min(several) for name, several in times.items()}
    print(f"\n{path.name}, {len(found.faces or [])} faces: {best['without']:.1f} ms, with faces {best['with']:.1f} ms")


def main() -> None:
    """Print what is asked for."""
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
    given = parser.parse_args()
    if given.faces:
        expressions(given.faces, given.model)
    if given.held_out and given.persons and given.labels:
        thresholds(given.held_out, given.persons, given.exclude, given.labels)
    if given.photos and given.labels:
        finding(given.photos, given.labels, given.finder)
    elif given.photos:
        speed(given.photos)


if __name__ == "__main__":
    main()
