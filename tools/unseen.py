"""Draw images of a data set's split train that a run did not train on, and print a file for --exclude.

    python -m tools.unseen runs/probe fi:fi,fi:fi_more 1500 --exclude check.json > unseen.json
    uniemox evaluate --model runs/probe --data fi:fi,fi:fi_more --split train --exclude unseen.json

Runs with --fraction leave such images: an evaluation set of any size for a data set that has no other.
"""

import argparse
import hashlib
import json
import random
import sys
from pathlib import Path

from uniemox.data.seen import read_seen
from uniemox.data.source import open_data


def main() -> None:
    """Print the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("count", type=int)
    parser.add_argument("--exclude", type=Path)
    options = parser.parse_args()
    data = open_data(options.data, exclude=options.exclude, with_texts=False)
    training_hashes = read_seen(options.run)
    unseen = [
        sample
        for sample in data.samples
        if sample.split == "train" and hashlib.sha256(sample.image.read()).hexdigest() not in training_hashes
    ]
    if len(unseen) < options.count:
        sys.exit(f"{options.run} has not seen {len(unseen)} images of train, fewer than {options.count}")
    random.Random(0).shuffle(unseen)
    chosen = {sample.key for sample in unseen[: options.count]}
    report = json.loads(options.exclude.read_bytes()) if options.exclude else {"exclude": []}
    others = [sample for sample in data.samples if sample.key not in chosen]
    report["exclude"] += [{"key": sample.key, "path": str(sample.image), "reason": "not chosen"} for sample in others]
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
