"""How often the embedded model is right on other data, how sure it is, and how often its likely sets hold the truth.

Run: python -m recipes.coverage fi:../shared/data/fi abstract:../shared/data/abstract emotion6:../shared/data/emotion6

Of a data set with splits its part val. Where the data have other labels than Mikels' eight, the model's are mapped to
them, and images whose label nothing becomes are left out. Prints a line of a table for docs for each.
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
        label_of = {s.key: names[place] for s, place in zip(data.samples, truths, strict=True) if place is not None}
        samples = [sample for sample in data.samples if sample.key in label_of]
        answers = list(predictor.predict_each((s.image.read() for s in samples), coverage=COVERAGE))
        pairs = [(label_of[s.key], a) for s, a in zip(samples, answers, strict=True) if isinstance(a, Prediction)]
        commonest = max(Counter(label for label, _ in pairs).values()) / len(pairs)
        right = np.mean([theirs[a.top(1)[0][0]] == label for label, a in pairs])
        sure = np.mean([a.top(1)[0][1] for _, a in pairs])
        held = np.mean([label in {theirs[one] for one in a.likely or ()} for label, a in pairs])
        size = np.mean([len(a.likely or ()) for _, a in pairs])
        odd = np.mean([a.is_unfamiliar for _, a in pairs])
        shown = f"{right:.1%} | {commonest:.1%} | {sure:.1%} | {odd:.1%} | {held:.1%} | {size:.1f}"
        print(f"| {source} | {len(pairs)} | {shown} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
