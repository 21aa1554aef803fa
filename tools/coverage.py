"""How often the embedded model is right on other data, how sure it is, and how often its likely sets hold the truth.

Run: python -m tools.coverage fi:../shared/data/fi abstract:../shared/data/abstract artphoto:PATH

Data with Mikels' labels; of a data set with splits its part val. Prints a line of a table for docs for each.
"""

import sys

import numpy as np

from uniemox import load
from uniemox.data.source import open_data
from uniemox.predict.prediction import Prediction

COVERAGE = 0.9


def main(sources: list[str]) -> None:
    """Print the table."""
    predictor = load(finder=None)
    print("| data | n | accuracy | mean confidence | true label in the likely set | labels in it |")
    print("| --- | --- | --- | --- | --- | --- |")
    for source in sources:
        data = open_data(source, with_texts=False)
        if any(sample.split == "val" for sample in data.samples):
            data = data.only("val")
        samples = [sample for sample in data.samples if sample.label is not None]
        answers = list(predictor.predict_each((s.picture.read() for s in samples), coverage=COVERAGE))
        pairs = [(data.label_of(s), a) for s, a in zip(samples, answers, strict=True) if isinstance(a, Prediction)]
        right = np.mean([max(a.scene, key=a.scene.__getitem__) == label for label, a in pairs])
        sure = np.mean([max(a.scene.values()) for _, a in pairs])
        held = np.mean([label in (a.likely or ()) for label, a in pairs])
        size = np.mean([len(a.likely or ()) for _, a in pairs])
        print(f"| {source} | {len(pairs)} | {right:.1%} | {sure:.1%} | {held:.1%} | {size:.1f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
