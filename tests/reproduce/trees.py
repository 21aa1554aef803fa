"""The paper's seven data sets in their published layouts, in minimal size."""

from pathlib import Path

from tests.data.tree import EMOTIONS, emoset, emotion6, put, write
from uniemox.labels import CAER, EKMAN, HECO, MIKELS, UBE

# Images of each class by split, for data sets with published splits.
SPLITS = {"train": 4, "val": 1, "test": 1}
# Images of each class of other data sets.
EACH = 8


def seven(root: Path) -> tuple[str, ...]:
    """Write all data sets, and return their values for --data."""
    for split, count in SPLITS.items():
        rows = {f"{word}/{split}{i}": {"emotion": word, "scene": "beach"} for word in EMOTIONS for i in range(count)}
        emoset(root / "emoset", rows, split=split)
    emotion6(
        root / "emotion6",
        {f"{word}/{i}.jpg": [float(word == other) for other in (*EKMAN.labels, "neutral")]
         for word in EKMAN.labels for i in range(EACH)},
    )  # fmt: skip
    put(
        root / "ube",
        *(f"{word}/{folder_name}/{i}.jpg" for word in UBE.labels for folder_name in "ab" for i in range(EACH // 2)),
    )
    for kind, labels in (("fi", MIKELS), ("emo8", MIKELS), ("heco", HECO)):
        put(root / kind, *(f"{word}/{i}.jpg" for word in labels.labels for i in range(EACH)))
    rows = [f"{word}/{i}.jpg,2,3,20,15" for word in HECO.labels for i in range(EACH)]
    write(root / "heco" / "boxes.csv", "\n".join(["path,x1,y1,x2,y2", *rows]) + "\n")
    for split in ("train", "test"):
        put(root / "caer-s", *(f"{split}/{word}/{i}.jpg" for word in CAER.labels for i in range(EACH)))
    return tuple(f"{kind}:{root / kind}" for kind in ("ube", "fi", "emotion6", "emoset", "emo8", "caer-s", "heco"))
