"""A small release of EMOTIC that tests draw: Annotations.mat and images, in the form of the published one."""

import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.io import loadmat, savemat

# Colour of a person by the category that the person has.
SHIRTS = {"Happiness": (230, 190, 40), "Sadness": (40, 60, 160), "Anger": (200, 30, 30), "Fear": (60, 20, 80)}
# Colour of a scene in which a person is engaged, and of another one.
GREEN = (60, 160, 60)
GREY = (128, 128, 128)
# Valence, arousal and dominance, 1 to 10, of the categories.
RATINGS = {"Happiness": (9, 6, 7), "Sadness": (2, 3, 3), "Anger": (3, 8, 8), "Fear": (2, 7, 2)}
SIZE = (96, 64)
BOX = (30, 5, 60, 60)


def structure(*rows: Mapping[str, object]) -> NDArray[np.void]:
    """A MATLAB structure array, (1, N)."""
    array = np.zeros((1, len(rows)), dtype=[(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        for name, value in row.items():
            array[name][0, i] = value
    return array


def cells(words: Sequence[str]) -> NDArray[np.object_]:
    """A cell array of texts, (1, N)."""
    array = np.empty((1, len(words)), dtype=object)
    array[0] = words
    return array


def ratings_of(values: Sequence[float]) -> dict[str, object]:
    """The fields of a rating."""
    return dict(zip(("valence", "arousal", "dominance"), map(float, values), strict=True))


def person(
    *categories: Sequence[str],
    box: Sequence[float] = BOX,
    ratings: Sequence[Sequence[float]] = ((5, 5, 5),),
    combined: bool = True,
) -> dict[str, object]:
    """A person, as one annotator (train) or several (val, test) saw it.

    categories, ratings: of each annotator. combined: the release combines those of several.
    """
    fields: dict[str, object] = {"body_bbox": np.array([box], dtype=float)}
    fields["annotations_categories"] = structure(*({"categories": cells(words)} for words in categories))
    if len(categories) > 1 and combined:
        fields["combined_categories"] = cells(sorted({word for words in categories for word in words}))
    fields["annotations_continuous"] = structure(*map(ratings_of, ratings))
    if len(ratings) > 1 and combined:
        fields["combined_continuous"] = structure(ratings_of(np.mean(ratings, axis=0).tolist()))
    return {**fields, "gender": "Female", "age": "Adult"}


def image(filename: str, *persons: Mapping[str, object], folder: str = "mscoco/images") -> dict[str, object]:
    """An image with its persons."""
    return {
        "filename": filename,
        "folder": folder,
        "image_size": structure({"n_row": float(SIZE[1]), "n_col": float(SIZE[0])}),
        "original_database": structure({"name": folder.partition("/")[0], "info": "drawn"}),
        "person": structure(*persons),
    }


def write_annotations(root: Path, **splits: Sequence[Mapping[str, object]]) -> Path:
    """Write Annotations/Annotations.mat with images of these splits; a split that is not named has none."""
    empty = np.zeros((1, 0), dtype=object)
    values = {name: structure(*splits[name]) if splits.get(name) else empty for name in ("train", "val", "test")}
    file = root / "Annotations" / "Annotations.mat"
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, values, do_compression=True)
    return root


def draw_scene(root: Path, name: str, scene: tuple[int, int, int], shirt: tuple[int, int, int], seed: int) -> None:
    """Draw one person in front of a scene, with noise, and shadows by which images do not pass for copies."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(-12, 13, (SIZE[1], SIZE[0], 3))
    shadows = Image.fromarray(rng.integers(0, 256, (6, 9), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    light = shadows.point(lambda level: 127 + level // 2)
    drawn = Image.composite(Image.new("RGB", SIZE, scene), Image.new("RGB", SIZE), light)
    ImageDraw.Draw(drawn).rectangle(BOX, fill=shirt)
    pixels = np.clip(np.asarray(drawn, dtype=int) + noise, 0, 255).astype(np.uint8)
    path = root / "emotic" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_release(root: Path, *, train: int = 40, val: int = 24, test: int = 24) -> Path:
    """Write a whole release: the shirt shows one category of a person, and a green scene shows Engagement."""
    draw = random.Random(0)
    splits: dict[str, list[dict[str, object]]] = {}
    seed = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        images = []
        for i in range(count):
            category = list(SHIRTS)[i % len(SHIRTS)]
            is_engaged = draw.random() < 0.5
            words = [category, "Engagement"] if is_engaged else [category]
            values = RATINGS[category]
            folder = draw.choice(("mscoco", "framesdb", "emodb_small", "ade20k")) + "/images"
            name = f"{split}{i}.jpg"
            seed += 1
            draw_scene(root, f"{folder}/{name}", GREEN if is_engaged else GREY, SHIRTS[category], seed)
            if split == "train":
                seen = person(words, ratings=[values])
            else:
                seen = person(words[:1], words, ratings=[values, [min(value + 1, 10) for value in values]])
            images.append(image(name, seen, folder=folder))
        splits[split] = images
    return write_annotations(root, **splits)


def convert_to_tables(root: Path) -> None:
    """Write emotic_pre/train.csv, val.csv and test.csv as mat2py.py of Tandon-A/emotic does, and delete the .mat file.

    Boxes are whole numbers inside the image, val and test have the combined annotations, and people without a category
    or with a rating that is missing are left out.
    """
    file = root / "Annotations" / "Annotations.mat"
    content = loadmat(file, simplify_cells=False)
    file.unlink()
    (root / "emotic_pre").mkdir()
    for split in ("train", "val", "test"):
        form = "annotations" if split == "train" else "combined"
        rows = []
        for shown in content[split].ravel():
            width, height = (int(shown["image_size"][name].item().item()) for name in ("n_col", "n_row"))
            for seen in shown["person"].ravel():
                corners = seen["body_bbox"].ravel().tolist()
                box = [int(min(max(corners[i], 0), (width, height)[i % 2])) for i in range(4)]
                words = seen[f"{form}_categories"]
                if split == "train":
                    words = words["categories"].item()
                categories = [word.item() for word in words.ravel()]
                scores = seen[f"{form}_continuous"]
                ratings = [scores[axis].item().item() for axis in ("valence", "arousal", "dominance")]
                if categories and not np.isnan(ratings).any():
                    names = [shown[name].item() for name in ("folder", "filename")]
                    rows.append([len(rows), *names, [height, width], box, categories, ratings, "Female", "Adult"])
        with (root / "emotic_pre" / f"{split}.csv").open("w", newline="") as table:
            header = "Index,Folder,Filename,Image Size,BBox,Categorical_Labels,Continuous_Labels,Gender,Age"
            csv.writer(table).writerows([header.split(","), *rows])
