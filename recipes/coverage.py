"""Measure accuracy, confidence and coverage of the embedded model on other data.

Run: python -m recipes.coverage fi:../shared/data/fi abstract:../shared/data/abstract emotion6:../shared/data/emotion6

If a data set has splits, its split val is scored. If its labels are not Mikels' eight, the model's labels are mapped to
them, and images whose label the model can't predict are left out. Prints one line of a table for the docs per data set.
"""

import sys
from collections import Counter

import numpy as np

from uniemox import load
from uniemox.data.source import open_data
from uniemox.labels import scored_labels
from uniemox.predict.prediction import Prediction

COVERAGE = 0.9
COLUMNS = (
    "data",
    "n",
    "accuracy",
    "most frequent label",
    "mean confidence",
    "unfamiliar",
    "true label in the likely set",
    "labels in it",
)


def main(sources: list[str]) -> None:
    """Print the table."""
    predictor = load(finder=None)
    ours = predictor.network.info.find_labels()
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for source in sources:
        data = open_data(source, with_texts=False)
        if any(sample.split == "val" for sample in data.samples):
            data = data.only("val")
        scored = scored_labels(ours, data.labels)
        theirs = dict(scored.of_model.pairs)
        names = scored.labels.labels
        truths = [scored.truth(sample.label) for sample in data.samples]
        label_of = {
            sample.key: names[label] for sample, label in zip(data.samples, truths, strict=True) if label is not None
        }
        samples = [sample for sample in data.samples if sample.key in label_of]
        answers = list(predictor.predict_each((sample.image.read() for sample in samples), coverage=COVERAGE))
        pairs = [
            (label_of[sample.key], answer)
            for sample, answer in zip(samples, answers, strict=True)
            if isinstance(answer, Prediction)
        ]
        commonest = max(Counter(label for label, _ in pairs).values()) / len(pairs)
        accuracy = np.mean([theirs[answer.top(1)[0][0]] == label for label, answer in pairs])
        confidence = np.mean([answer.top(1)[0][1] for _, answer in pairs])
        coverage = np.mean([label in {theirs[name] for name in answer.likely or ()} for label, answer in pairs])
        set_size = np.mean([len(answer.likely or ()) for _, answer in pairs])
        unfamiliar = np.mean([answer.is_unfamiliar for _, answer in pairs])
        figures = (
            f"{accuracy:.1%} | {commonest:.1%} | {confidence:.1%} | {unfamiliar:.1%} | {coverage:.1%} | {set_size:.1f}"
        )
        print(f"| {source} | {len(pairs)} | {figures} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
