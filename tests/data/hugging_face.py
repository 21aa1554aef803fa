"""Write the folders of tests/reference/hugging_face: python -m tests.data.hugging_face FOLDER. Needs `datasets`."""

import sys
from pathlib import Path

from PIL import Image

COLOURS = {"awe": (30, 200, 40), "fear": (20, 20, 60), "sadness": (90, 90, 120)}
PARTS = {"train": 4, "validation": 1, "test": 1}
"""Images of each label by split."""


def write_all(folder: Path) -> None:
    """A DatasetDict as Arrow files (`saved`), one split (`one`), and the same as Parquet in two pieces (`parquet`)."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
    from datasets import Image as ImageFeature

    features = Features(
        {
            "image": ImageFeature(),
            "label": ClassLabel(names=list(COLOURS)),
            "caption": Value("string"),
            "valence": Value("float32"),
        }
    )
    parts = {}
    for split, each in PARTS.items():
        rows: dict[str, list] = {name: [] for name in features}
        for i in range(each):
            for label, colour in COLOURS.items():
                rows["image"].append(Image.new("RGB", (8, 6), tuple(value + i for value in colour)))
                rows["label"].append(-1 if split == "test" and label == "fear" else list(COLOURS).index(label))
                rows["caption"].append(f"{label} {i}" if i else None)
                rows["valence"].append(2.5)
        parts[split] = Dataset.from_dict(rows, features=features)
    DatasetDict(parts).save_to_disk(folder / "saved", num_shards={"train": 2, "validation": 1, "test": 1})
    parts["validation"].save_to_disk(folder / "one")
    for split, part in parts.items():
        count = 2 if split == "train" else 1
        for i in range(count):
            name = f"data/{split}-{i:05d}-of-{count:05d}.parquet"
            (folder / "parquet" / "data").mkdir(parents=True, exist_ok=True)
            part.shard(count, i, contiguous=True).to_parquet(folder / "parquet" / name, batch_size=4)


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
