"""Measure how a model's answers change when photographs are altered: the table of the model card.

Run: python -m recipes.robustness --model embedded fi:../shared/data/fi --exclude check.json

Options: --split val (default) or holdout, the images that calibrate the embedded model; --limit N for fewer images.
For data without labels, such as folder:flickr8k/images, the columns of accuracy are empty. Prints a line of a table for
each alteration; the columns compare with the answers for the plain images.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox import load
from uniemox.data.sample import Sample, decode_sample
from uniemox.data.source import open_data
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.parts import split_for_training
from uniemox.predict.prediction import Prediction
from uniemox.predict.predictor import Predictor
from uniemox.views import alterations
from uniemox.views.alterations import Alteration

ALTERATIONS: dict[str, Alteration | None] = {
    "plain": None,
    "grey": alterations.grey,
    "sepia": alterations.sepia,
    "faded": alterations.faded,
    "tinted": alterations.tinted,
    "dark": alterations.dark,
    "64 px": alterations.small,
    "JPEG quality 10": alterations.compressed,
    "white border": alterations.framed,
    "caption bar": alterations.captioned,
    "mirrored": alterations.mirrored,
    "turned by 90°": alterations.turned,
    "upside down": partial(alterations.turned, quarters=2),
}
COLUMNS = ("images", "accuracy", "keep their label", "sadness", "unfamiliar", "valence", "in the likely set", "ECE")


@dataclass(frozen=True, slots=True)
class Answers:
    """A predictor's answers for N images."""

    probabilities: NDArray[np.float64]
    """(N, E)."""
    valence: NDArray[np.float64]
    """(N,), 1 to 9; nan without a head."""
    is_unfamiliar: NDArray[np.bool_]
    """(N,)."""
    likely: tuple[tuple[str, ...], ...]
    """N sets of likely labels at 90 %."""


def altered(samples: Sequence[Sample], alteration: Alteration | None) -> Iterator[bytes]:
    """Yield the images, altered, as the bytes of PNG files."""
    for sample in samples:
        image = decode_sample(sample)[0]
        if alteration is not None:
            image = alteration(image)
        file = BytesIO()
        image.save(file, "PNG", compress_level=1)
        yield file.getvalue()


def answers_for(predictor: Predictor, images: Iterator[bytes]) -> Answers:
    """Predict images.

    Raises:
        RuntimeError: If an image can't be read.
    """
    rows = []
    valences = []
    flags = []
    sets = []
    for answer in predictor.predict_each(images, coverage=0.9):
        if not isinstance(answer, Prediction):
            raise RuntimeError(answer.error)
        rows.append([answer.scene[label] for label in predictor.labels])
        valences.append(np.nan if answer.valence is None else answer.valence)
        flags.append(bool(answer.is_unfamiliar))
        sets.append(tuple(answer.likely or ()))
    return Answers(np.array(rows), np.array(valences), np.array(flags), tuple(sets))


def row_of(name: str, answers: Answers, plain: Answers, truth: NDArray[np.int64], labels: Sequence[str]) -> str:
    """Return a line of the table.

    Args:
        name: Name of the alteration.
        answers: Answers for the altered images.
        plain: Answers for the plain images.
        truth: Indices of the true labels, (N,); -1: unknown.
        labels: Labels of the model.
    """
    best = answers.probabilities.argmax(axis=1)
    is_labelled = truth >= 0
    accuracy = coverage = error = ""
    if is_labelled.any():
        recalls = [np.mean(best[truth == label] == label) for label in np.unique(truth[is_labelled])]
        accuracy = f"{np.mean(recalls):.1%}"
        has_truth = [labels[label] in likely for label, likely in zip(truth, answers.likely, strict=True) if label >= 0]
        coverage = f"{np.mean(has_truth):.1%}"
        from uniemox.evaluate.calibration import expected_calibration_error

        error = f"{expected_calibration_error(answers.probabilities[is_labelled], truth[is_labelled]):.3f}"
    agreement = np.mean(best == plain.probabilities.argmax(axis=1))
    sadness = np.mean(best == labels.index("sadness")) if "sadness" in labels else np.nan
    valence_change = np.mean(answers.valence - plain.valence)
    unfamiliar = answers.is_unfamiliar.mean()
    return (
        f"| {name} | {len(best)} | {accuracy} | {agreement:.1%} | {sadness:.1%} | {unfamiliar:.1%} | "
        f"{valence_change:+.2f} | {coverage} | {error} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="KIND:PATH")
    parser.add_argument("--model", default="embedded", help="embedded, small, an ONNX file or a run")
    parser.add_argument("--exclude", type=Path, help="output of uniemox data check --json")
    parser.add_argument("--split", default="val", help="val, train, test, holdout or all")
    parser.add_argument("--limit", type=int, help="number of images, drawn at random")
    args = parser.parse_args()
    predictor = load(args.model, finder=None)
    data = open_data(args.data, with_texts=False, exclude=args.exclude)
    if args.split == "holdout":
        config = FinetuneConfig(init="embedded", select="last", monitor="holdout")
        samples = split_for_training(data, config, None).calibration
    else:
        samples = [sample for sample in data.samples if args.split in ("all", sample.split)]
    if args.limit is not None:
        drawn = np.random.default_rng(0).permutation(len(samples))[: args.limit]
        samples = [samples[i] for i in sorted(drawn)]
    labels = list(predictor.labels)
    names = [None if sample.label is None else data.label_of(sample) for sample in samples]
    truth = np.array([labels.index(name) if name in labels else -1 for name in names])
    print(f"| alteration | {' | '.join(COLUMNS)} |\n|{' --- |' * (1 + len(COLUMNS))}")
    plain = None
    for name, alteration in ALTERATIONS.items():
        answers = answers_for(predictor, altered(samples, alteration))
        plain = plain or answers
        print(row_of(name, answers, plain, truth, labels), flush=True)


if __name__ == "__main__":
    main()
