"""The paper's seven data sets in their published layouts, as small as they can be."""

from pathlib import Path

from tests.data.tree import EMOTIONS, emoset, emotion6, put, write
from uniemox.labels import CAER, EKMAN, HECO, MIKELS, UBE

SPLITS = {"train": 4, "val": 1, "test": 1}  # of each class, where a data set brings its splits
EACH = 8  # of a class elsewhere


def seven(root: Path) -> tuple[str, ...]:
    """What --data takes for all of them."""
    for split, count in SPLITS.items():
        rows = {f"{word}/{split}{i}": {"emotion": word, "scene": "beach"} for word in EMOTIONS for i in range(count)}
        emoset(root / "emoset", rows, split=split)
    emotion6(
        root / "emotion6",
        {f"{word}/{i}.jpg": [float(word == other) for other in (*EKMAN.labels, "neutral")]
         for word in EKMAN.labels for i in range(EACH)},
    )  # fmt: skip
    put(root / "ube", *(f"{word}/{place}/{i}.jpg" for word in UBE.labels for place in "ab" for i in range(EACH // 2)))
    for kind, labels in (("fi", MIKELS), ("emo8", MIKELS), ("heco", HECO)):
        put(root / kind, *(f"{word}/{i}.jpg" for word in labels.labels for i in range(EACH)))
    rows = [f"{word}/{i}.jpg,2,3,20,15" for word in HECO.labels for i in range(EACH)]
    write(root / "heco" / "boxes.csv", "\n".join(["path,x1,y1,x2,y2", *rows]) + "\n")
    for split in ("train", "test"):
        put(root / "caer-s", *(f"{split}/{word}/{i}.jpg" for word in CAER.labels for i in range(EACH)))
    return tuple(f"{kind}:{root / kind}" for kind in ("ube", "fi", "emotion6", "emoset", "emo8", "caer-s", "heco"))
