"""EMOTIC's published form, on drawn releases: persons, categories, ratings, boxes, notes and errors."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.data.tree import says
from tests.drawn import draw_image
from tests.emotic import SIZE, convert_to_tables, image, person, write_annotations, write_release
from uniemox.data.readers.shards import read_shards
from uniemox.data.sample import DataSet
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.source import open_data
from uniemox.errors import DataError
from uniemox.labels import EMOTIC
from uniemox.persons.box import Box


def put(root: Path, *names: str) -> Path:
    for name in names:
        path = root / "emotic" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_image(0, SIZE).save(path)
    return root


def words(data: DataSet) -> dict[str, tuple[str, ...]]:
    return {sample.key: data.words_of(sample) for sample in data.samples}


def test_every_person_is_a_sample_in_the_group_of_its_image(tmp_path: Path) -> None:
    both = image(
        "a.jpg",
        person(["Peace", "Affection"], box=(1, 1, 20, 30), ratings=[(10, 1, 5.5)]),
        person(["Doubt/Confusion"], box=(30, 5, 200, 60)),
    )
    alone = image("b.jpg", person(["Fear"]), folder="framesdb/images")
    write_annotations(put(tmp_path, "mscoco/images/a.jpg", "framesdb/images/b.jpg"), train=[both], test=[alone])
    data = open_data(f"emotic:{tmp_path}")
    assert data.labels is EMOTIC
    assert words(data) == {
        "mscoco/images/a.jpg": ("affection", "peace"),
        "mscoco/images/a.jpg#2": ("doubt/confusion",),
        "framesdb/images/b.jpg": ("fear",),
    }
    first, second, third = data.samples
    assert first.group == second.group == "mscoco/images/a.jpg"
    assert first.label is None
    assert (first.valence, first.arousal, first.dominance) == (9, 1, 5)
    assert (first.domain, third.domain) == ("mscoco", "framesdb")
    assert (first.split, third.split) == ("train", "test")
    # MATLAB counts from 1 and includes the last pixel.
    assert first.target_box == Box(0, 0, 20, 30)
    assert data.has_labels
    assert data.notes == ()


def test_annotators_of_val_and_test_are_combined_as_in_the_release(tmp_path: Path) -> None:
    several = (["Anger", "Pain"], ["Anger"], ["Suffering"])
    ratings = [(2, 8, 4), (3, 9, 4), (4, 10, 4)]
    images = [
        image("a.jpg", person(*several, ratings=ratings)),
        image("b.jpg", person(*several, ratings=ratings, combined=False)),
    ]
    for each in images:
        write_annotations(put(tmp_path, "mscoco/images/a.jpg", "mscoco/images/b.jpg"), val=[each])
        data = open_data(f"emotic:{tmp_path}")
        assert list(words(data).values()) == [("anger", "pain", "suffering")]
        [sample] = data.samples
        # 3, 9 and 4 of 10.
        assert (sample.valence, sample.arousal, sample.dominance) == pytest.approx((25 / 9, 73 / 9, 33 / 9))


def test_people_that_are_left_out_are_counted_with_their_place(tmp_path: Path) -> None:
    nan = float("nan")
    train = [
        image("gone.jpg", person(["Fear"])),
        image(
            "a.jpg",
            person(["Fear"], box=(20, 20, 19, 40)),
            person([], ratings=[(nan, nan, nan)]),
            person(["Fear"], ratings=[(nan, 3, 4)]),
            person([], ratings=[(2, 3, 4)]),
        ),
    ]
    data = open_data(f"emotic:{write_annotations(put(tmp_path, 'mscoco/images/a.jpg'), train=train)}")
    table = tmp_path / "Annotations" / "Annotations.mat"
    assert data.notes == (
        "people left out because their image is missing: 1, such as "
        f"{table}, train(1).person(1), mscoco/images/gone.jpg",
        f"people left out because their box is empty: 1, such as {table}, train(2).person(1), body_bbox",
        f"people left out because they have no category and no complete rating: 1, such as {table}, train(2).person(2)",
        f"people without a complete rating: 1, such as {table}, train(2).person(3)",
        f"people without a category: 1, such as {table}, train(2).person(4)",
    )
    frightened, rated = data.samples
    assert data.words_of(frightened) == ("fear",)
    assert frightened.valence is None
    assert rated.categories is None
    assert rated.valence == pytest.approx(17 / 9)


NOBODY = person(["Fear"])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (person(["Joyful"]), "a category is none of the 26: 1, such as {}, annotations_categories 'Joyful'"),
        (person(["Fear"], ratings=[(0, 1, 1)]), "a rating is not from 1 to 10: 1, such as {}, annotations_continuous."),
        (
            person(["Fear"], ratings=[(1, 1, 11)]),
            "a rating is not from 1 to 10: 1, such as {}, annotations_continuous.",
        ),
        (person(["Fear"], box=(1, 2, 3)), "their box is not four numbers: 1, such as {}, body_bbox"),
        (NOBODY | {"body_bbox": "no"}, "their box is not four numbers: 1, such as {}, body_bbox"),
        (NOBODY | {"body_bbox": np.zeros((0, 0))}, "their box is not four numbers: 1, such as {}, body_bbox"),
    ],
)
def test_person_with_a_wrong_value_is_left_out_and_named(tmp_path: Path, wrong: dict[str, object], reason: str) -> None:
    others = image("b.jpg", person(["Peace"]))
    put(tmp_path, "mscoco/images/a.jpg", "mscoco/images/b.jpg")
    data = open_data(f"emotic:{write_annotations(tmp_path, train=[image('a.jpg', wrong), others])}")
    assert list(words(data).values()) == [("peace",)]
    place = tmp_path / "Annotations" / "Annotations.mat"
    [note] = data.notes
    assert note.startswith(f"people left out because {reason.format(f'{place}, train(1).person(1)')}")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (NOBODY | {"annotations_categories": 3.0}, "person(1), annotations_categories: expected a structure"),
        ({"body_bbox": np.ones((1, 4))}, "train(1).person(1): there is no field annotations_categories"),
    ],
)
def test_annotations_of_another_form_are_reported_with_file_row_and_field(
    tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    write_annotations(put(tmp_path, "mscoco/images/a.jpg"), train=[image("a.jpg", wrong)])
    with pytest.raises(DataError, match=says(message)):
        open_data(f"emotic:{tmp_path}")


def test_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_annotations(tmp_path, train=[image("../../a.jpg", person(["Fear"]))])
    with pytest.raises(
        DataError, match=says("train(1).person(1), folder and filename: 'mscoco/images/../../a.jpg' must be")
    ):
        open_data(f"emotic:{tmp_path}")


def test_missing_damaged_or_empty_annotations_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says("there is none of Annotations.mat, Annotations/Annotations.mat")):
        open_data(f"emotic:{tmp_path}")
    write_annotations(tmp_path)
    with pytest.raises(DataError, match="no annotated person has an image: it lists nobody"):
        open_data(f"emotic:{tmp_path}")
    write_annotations(tmp_path, train=[image("a.jpg", person(["Fear"]))])
    with pytest.raises(DataError, match=says("no annotated person has an image: people left out because their image")):
        open_data(f"emotic:{tmp_path}")
    file = tmp_path / "Annotations" / "Annotations.mat"
    whole = file.read_bytes()
    for damaged in (b"", b"no table", whole[: len(whole) // 2], whole[:200] + b"\xff" * 300 + whole[500:]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"Annotations\.mat: not a MATLAB file"):
            open_data(f"emotic:{tmp_path}")


def test_tables_of_the_usual_conversion_give_the_same_samples(tmp_path: Path) -> None:
    release = write_release(tmp_path / "release", train=8, val=6, test=5)
    published = open_data(f"emotic:{release}")
    convert_to_tables(release)
    converted = open_data(f"emotic:{release}")
    assert len(converted) == 19
    assert list(converted.samples) == list(published.samples)
    assert converted.notes == published.notes == ()
    assert converted.labels is EMOTIC


def test_tables_leave_out_half_annotated_people_and_clip_boxes(tmp_path: Path) -> None:
    """The conversion does so, and the reader can't undo it."""
    nan = float("nan")
    people = [
        person(["Peace"], box=(-3, 0, 200, 70)),
        person([], ratings=[(2, 3, 4)]),
        person(["Doubt/Confusion", "Fear"], ratings=[(10, 1, 5.5)]),
        person(["Fear"], ratings=[(nan, 3, 4)]),
    ]
    write_annotations(put(tmp_path, "mscoco/images/a.jpg"), train=[image("a.jpg", *people)])
    published = open_data(f"emotic:{tmp_path}")
    convert_to_tables(tmp_path)
    first, second = open_data(f"emotic:{tmp_path}").samples
    assert published.samples[0].target_box == Box(0, 0, 200, 70)
    assert first.target_box == Box(0, 0, *SIZE)
    assert (first.key, second.key) == ("mscoco/images/a.jpg", "mscoco/images/a.jpg#2")
    assert second.categories == published.samples[2].categories
    assert (second.valence, second.arousal, second.dominance) == (9, 1, 5)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"BBox": "1 2 3 4"}, "train.csv:2, BBox: expected a list of numbers, such as [5.0, 3.0, 6.0], got '1 2 3 4'"),
        ({"Categorical_Labels": "Peace"}, "train.csv:2, Categorical_Labels: expected a list of texts, such as"),
        ({"Continuous_Labels": "[5.0, 3.0]"}, "train.csv:2, Continuous_Labels: expected valence, arousal, dominance"),
        ({"Continuous_Labels": "[x, 3.0, 1.0]"}, "train.csv:2, Continuous_Labels: expected a list of numbers"),
        ({"Categorical_Labels": "['Joyful']"}, "a category is none of the 26: 1, such as {}:2, Categorical_Labels"),
        ({"Continuous_Labels": "[11, 3, 1]"}, "is not from 1 to 10: 1, such as {}:2, Continuous_Labels.valence 11"),
        ({"Folder": "../.."}, "train.csv:2, folder and filename: '../../a.jpg' must be a path inside"),
        ({"Filename": "b.jpg"}, "left out because their image is missing: 1, such as {}:2, mscoco/images/b.jpg"),
    ],
)
def test_faults_of_tables_are_reported_with_line_and_column(
    tmp_path: Path, cells: dict[str, str], message: str
) -> None:
    row = {
        "Folder": "mscoco/images",
        "Filename": "a.jpg",
        "BBox": "[1, 1, 9, 9]",
        "Categorical_Labels": "['Peace']",
        "Continuous_Labels": "[5.0, 3.0, 6.0]",
    }
    table = put(tmp_path, "mscoco/images/a.jpg") / "train.csv"
    values = (f'"{value}"' for value in (row | cells).values())
    table.write_text(f"{','.join(row)}\n{','.join(values)}\n")
    with pytest.raises(DataError, match=says(message.format(table))):
        open_data(f"emotic:{tmp_path}")


def test_absent_tables_are_noted_and_absent_columns_are_an_error(tmp_path: Path) -> None:
    table = put(tmp_path, "mscoco/images/a.jpg") / "emotic_pre" / "test.csv"
    table.parent.mkdir()
    table.write_text(
        "Folder,Filename,BBox,Categorical_Labels,Continuous_Labels\n"
        'mscoco/images,a.jpg,"[1, 1, 9, 9]","[\'Peace\', \'Fear\']","[5.0, 3.0, 6.0]"\n'
    )
    data = open_data(f"emotic:{tmp_path}")
    assert data.notes == ("there is no train.csv", "there is no val.csv")
    assert words(data) == {"mscoco/images/a.jpg": ("fear", "peace")}
    table.write_text("Folder,Filename,BBox\n")
    with pytest.raises(DataError, match=says("test.csv:1: there is no column Categorical_Labels, Continuous_Labels")):
        open_data(f"emotic:{tmp_path}")


def test_shards_keep_categories_and_dominance(tmp_path: Path) -> None:
    data = open_data(f"emotic:{write_release(tmp_path / 'release', train=4, val=2, test=2)}")
    write_shards(data, tmp_path / "shards", ShardConfig())
    packed = read_shards(str(tmp_path / "shards"))
    assert words(packed) == words(data)
    dominance = {sample.key: sample.dominance for sample in data.samples}
    assert {sample.key: sample.dominance for sample in packed.samples} == dominance


def matlab_element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def matlab_cell(name: bytes, inner: bytes) -> bytes:
    """A cell array with one cell, in MATLAB's format of version 5."""
    flags = matlab_element(6, struct.pack("<II", 1, 0))
    return matlab_element(14, flags + matlab_element(5, struct.pack("<2i", 1, 1)) + matlab_element(1, name) + inner)


@pytest.mark.parametrize("is_compressed", [False, True])
def test_nested_cells_of_a_matlab_file_are_refused(is_compressed: bool, tmp_path: Path) -> None:
    """scipy would read them by recursion, until the process ends."""
    content = matlab_element(
        14, matlab_element(6, struct.pack("<II", 6, 0)) + matlab_element(5, struct.pack("<2i", 0, 0))
    )
    for _ in range(20_000):
        content = matlab_cell(b"", content)
    variable = matlab_cell(b"train", content)
    if is_compressed:
        packed = zlib.compress(variable)
        variable = struct.pack("<II", 15, len(packed)) + packed
    (tmp_path / "Annotations.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\0\1IM" + variable)
    with pytest.raises(DataError, match=r"Annotations\.mat: cells or structures in more than 32 levels"):
        open_data(f"emotic:{tmp_path}")
