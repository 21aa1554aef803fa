"""Data sets in Hugging Face's layouts: files that `datasets` 5.2.0 wrote, and files with its metadata."""

import csv
import importlib.util
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import REFERENCE
from tests.data.hugging_face import COLOURS, PARTS, write_all
from tests.data.tree import put, says, write
from uniemox.data.hashes import image_hashes
from uniemox.data.readers import arrow_tables
from uniemox.data.sample import decode_sample
from uniemox.data.source import open_data
from uniemox.errors import DataError, ImageError

STORED = REFERENCE / "hugging_face"


@pytest.fixture(scope="module", params=["stored", "written now"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "stored":
        return STORED
    if importlib.util.find_spec("datasets") is None:
        pytest.skip("needs the package datasets; its files of version 5.2.0 are in tests/reference/hugging_face")
    out = tmp_path_factory.mktemp("hugging_face")
    write_all(out)
    return out


@pytest.mark.parametrize("layout", ["saved", "parquet"])
def test_rows_of_datasets_become_samples(layout: str, folder: Path) -> None:
    data = open_data(f"hf:{folder / layout}")
    assert data.labels.labels == tuple(COLOURS)
    splits = {"train": "train", "validation": "val", "test": "test"}
    rows = [(splits[part], i, label) for part, each in PARTS.items() for i in range(each) for label in COLOURS]
    by_key = {sample.key: sample for sample in data.samples}
    assert len(by_key) == len(rows) == 18
    counts = dict.fromkeys(splits.values(), 0)
    for split, i, label in rows:
        sample = by_key[f"{split}/{counts[split]}"]
        counts[split] += 1
        hidden = split == "test" and label == "fear"  # saved as -1
        assert data.label_of(sample) == (None if hidden else label)
        assert (sample.split, sample.text, sample.valence) == (split, f"{label} {i}" if i else None, 2.5)
        image, size = decode_sample(sample)
        assert (size, image.getpixel((0, 0))) == ((8, 6), tuple(value + i for value in COLOURS[label]))


def test_one_saved_split_has_no_split(folder: Path) -> None:
    data = open_data(f"hf:{folder / 'one'}")
    assert [(sample.key, sample.split) for sample in data.samples] == [("0", None), ("1", None), ("2", None)]


def test_worker_processes_read_the_images() -> None:
    saved = open_data(f"hf:{STORED / 'saved'}").samples
    parquet = open_data(f"hf:{STORED / 'parquet'}").samples
    saved_hashes = dict(zip((sample.key for sample in saved), image_hashes(saved), strict=True))
    parquet_hashes = dict(zip((sample.key for sample in parquet), image_hashes(parquet), strict=True))
    assert all(saved_hashes.values())
    assert saved_hashes == parquet_hashes


METADATA = (
    {"file_name": "a.png", "label": "awe", "text": "A hill, far away", "camera": "x"},
    {"file_name": "sub/b.png", "label": "fear", "text": None, "camera": "y"},
)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("split", [None, "train"])
def test_metadata_names_images_from_its_folder(ending: str, split: str | None, tmp_path: Path) -> None:
    folder = tmp_path / split if split else tmp_path
    put(folder, "a.png", "sub/b.png", "not listed.png")
    if ending == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, METADATA[0].keys())
        writer.writeheader()
        writer.writerows(METADATA)
        (folder / "metadata.csv").write_text(text.getvalue())
    else:
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METADATA))
    data = open_data(f"hf:{tmp_path}")
    prefix = f"{split}/" if split else ""
    rows = [(sample.key, data.label_of(sample), sample.text, sample.split) for sample in data.samples]
    assert rows == [(f"{prefix}a.png", "awe", "A hill, far away", split), (f"{prefix}sub/b.png", "fear", None, split)]
    assert data.notes == (
        "1 image without a row in metadata.csv or metadata.jsonl left out",
        "columns not read: camera",
    )


def test_images_without_a_row_are_counted_beside_files_without_an_ending(tmp_path: Path) -> None:
    """Listed files that are no images by their name were subtracted from the images."""
    put(tmp_path, "a.png", "not listed.png")
    (tmp_path / "a.png").rename(tmp_path / "4f2a")
    (tmp_path / "metadata.csv").write_text("file_name,label\n4f2a,awe\n")
    assert open_data(f"hf:{tmp_path}").notes == ("1 image without a row in metadata.csv or metadata.jsonl left out",)


def test_rows_that_repeat_an_image_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,awe\n")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "label": "fear"}\n')
    assert open_data(f"hf:{tmp_path}").notes == ("1 row repeats an image of another row: it counts more than once",)


def test_label_column_of_texts_and_a_kind(tmp_path: Path) -> None:
    """Parquet without `datasets`' description: the image's type is known by its fields."""
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    rows = {"image": [{"bytes": png.getvalue(), "path": "x.png"}] * 3, "emotion": ["calm", "tense", None]}
    pq.write_table(pa.table(rows), tmp_path / "all.parquet", row_group_size=2)
    data = open_data(f"hf:{tmp_path}?kind=felt")
    assert [data.label_of(sample) for sample in data.samples] == ["calm", "tense", None]
    assert data.labels.kind == "felt"
    assert [decode_sample(sample)[1] for sample in data.samples] == [(4, 4)] * 3


def test_wrong_folders_are_refused_with_a_remedy(tmp_path: Path) -> None:
    empty = {"bytes": None, "path": "elsewhere.png"}
    tables = {
        "numbers": ({"image": [empty], "label": [3]}, "row 0, label: expected a name"),
        "none": ({"label": ["awe"]}, "expected one column of embedded images"),
        "two": ({"left": [empty], "right": [empty]}, "found left, right among left, right"),
    }
    for name, (rows, message) in tables.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(rows), tmp_path / name / "x.parquet")
        with pytest.raises(DataError, match=says(message)):
            open_data(f"hf:{tmp_path / name}")
    (tmp_path / "cut").mkdir()
    parquet = (STORED / "parquet" / "data" / "test-00000-of-00001.parquet").read_bytes()
    (tmp_path / "cut" / "x.parquet").write_bytes(parquet[:-20])
    with pytest.raises(DataError, match=r"x\.parquet: can't be read as a table"):
        open_data(f"hf:{tmp_path / 'cut'}")
    with pytest.raises(DataError, match=says("no rows; expected a folder of Dataset.save_to_disk")):
        open_data(f"hf:{put(tmp_path / 'images', 'a.png')}")
    (tmp_path / "images" / "metadata.jsonl").write_text('{"file_name": "../x.png"}\n')
    with pytest.raises(DataError, match=r"metadata\.jsonl:1, file_name: .* must be a path inside"):
        open_data(f"hf:{tmp_path / 'images'}")
    shutil.copytree(STORED / "one", tmp_path / "gone")
    (tmp_path / "gone" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match="arrow does not exist; copy the data set again"):
        open_data(f"hf:{tmp_path / 'gone'}")


def test_rows_with_a_path_but_no_bytes_are_broken_images(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": None, "path": "a.png"}, None], "label": ["awe", "fear"]}
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows["image"], image), "label": rows["label"]}), tmp_path / "x.parquet")
    for sample in open_data(f"hf:{tmp_path}").samples:
        with pytest.raises(ImageError, match=r"x\.parquet, group 0, row \d: can't be read \(the row"):
            decode_sample(sample)


BYTES = pa.struct({"bytes": pa.binary(), "path": pa.string()})
NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe")]
)


def stranger(features: object = None, image: object = b"x", kind: object = BYTES, **columns: object) -> pa.Table:
    table = pa.table({"image": pa.array([{"bytes": image}], kind), "label": ["awe"], **columns})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        *((stranger(features), "") for features in (5, [1, 2], "ab", "[" * 1000, {"label": 5})),
        (stranger({"label": {"_type": "ClassLabel", "names": 5}}, label=[0]), "can't be read as a table"),
        *((stranger(image=image, kind=pa.struct({"bytes": kind})), "path without bytes|has no image") for image, kind in
          ((10**12, pa.int64()), ([1, 300], pa.list_(pa.int64())))),
        (stranger(text=NOT_UTF8), "can't be read as a table"),
        *((stranger(text=values), "") for values in (pa.array([2**62], pa.timestamp("us")), pa.array([b"a"]))),
        *((stranger(text=pa.array(["a" * 2**21], kind)), "has more than 1,048,576 letters") for kind in
          (pa.string(), pa.large_string())),
        (stranger().append_column("label", [["b"]]), "can't be read as a table"),
        (pa.table({"image": pa.nulls(100_000, BYTES), "label": pa.nulls(100_000)}), "bytes can't hold images"),
    ],
)  # fmt: skip
def test_unusual_tables_are_read_or_refused(table: pa.Table, expected: str, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "train.parquet")
    try:
        open_data(f"hf:{tmp_path}").samples[0].image.read()
    except (DataError, OSError) as error:
        assert expected, error
        assert re.search(expected, str(error)), error
    else:
        assert not expected


@pytest.mark.parametrize("offsets", [(50_000_000, 60_000_000), (-5, 9), (9, 0)])
def test_offsets_that_lead_out_of_an_arrow_file_are_refused(offsets: tuple[int, int], tmp_path: Path) -> None:
    """In a process of its own: before, they ended it, or told of its memory."""
    path = tmp_path / "data.arrow"
    table = stranger(image=b"nine bytes"[:9])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    write(tmp_path / "state.json", {"_data_files": [{"filename": path.name}]})
    path.write_bytes(path.read_bytes().replace(struct.pack("<ii", 0, 9), struct.pack("<ii", *offsets), 1))
    code = "import sys; from uniemox.data.source import open_data; open_data(sys.argv[1]).samples[0].image.read()"
    done = subprocess.run([sys.executable, "-c", code, f"hf:{tmp_path}"], capture_output=True, text=True, check=False)
    assert (done.returncode, "DataError" in done.stderr) == (1, True), done.stderr[-500:]


needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory")


def save_arrow(folder: Path, table: pa.Table, names: Sequence[str] = ("data.arrow",), **options: object) -> None:
    """As `Dataset.save_to_disk` does."""
    written = pa.ipc.IpcWriteOptions(**options)
    with (
        pa.OSFile(str(folder / "data.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema, options=written) as stream,
    ):
        stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def rows_of(count: int, text: str = "", image: bytes = b"x") -> pa.Table:
    images = pa.array([{"bytes": image, "path": None}] * count, BYTES)
    return pa.table({"image": images, "label": pa.array(["awe"] * count), "text": pa.array([text] * count)})


@pytest.mark.parametrize("names", [["data.arrow"], ["data.arrow"] * 2, ["data.arrow", "./data.arrow"]])
def test_a_file_that_occurs_twice_is_refused(tmp_path: Path, names: list[str]) -> None:
    save_arrow(tmp_path, stranger(), names)
    if len(names) == 1:
        assert len(open_data(f"hf:{tmp_path}")) == 1
        return
    with pytest.raises(DataError, match="the same name occurs twice"):
        open_data(f"hf:{tmp_path}")


@needs_limits
@pytest.mark.parametrize(
    "write",
    [
        lambda folder: pq.write_table(rows_of(100, "a" * 2**22), folder / "a.parquet", compression="zstd"),
        lambda folder: pq.write_table(rows_of(40, "\N{GRINNING FACE}" + "a" * 2**22), folder / "a.parquet"),
        lambda folder: [pq.write_table(rows_of(20, "a" * 2**22), folder / f"{i}.parquet") for i in range(6)],
        lambda folder: save_arrow(folder, rows_of(100, "a" * 2**22), compression="zstd"),
    ],
    ids=["equal texts", "wide letters", "several tables", "compressed buffers"],
)
def test_small_files_that_fill_the_memory_are_refused(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path)
    settings = "hugging_face.MAX_MEMORY, hugging_face.MEMORY_A_BYTE = 2**27, 0"  # files of a test are not small enough
    done = open_in_new_process(tmp_path, settings)
    assert re.search(r"DataError: .*(of memory|can't be read as a table)", done.stderr), done


def open_in_new_process(folder: Path, settings: str) -> subprocess.CompletedProcess[str]:
    """This one may have freed memory that it could use again, within any limit."""
    code = (
        "import sys; from uniemox.data.readers import arrow_tables, hugging_face; "
        "from uniemox.data.source import open_data; "
        f"{settings}; print(len(open_data(sys.argv[1]).samples[1].image.read()))"
    )
    return subprocess.run([sys.executable, "-c", code, f"hf:{folder}"], capture_output=True, text=True, check=False)


@pytest.mark.thorough
@needs_limits
@pytest.mark.parametrize(("image", "ending"), [(bytes(2**26), "has no image"), (os.urandom(2**20), "1048576")])
def test_a_row_group_that_fills_the_memory_is_refused(tmp_path: Path, image: bytes, ending: str) -> None:
    pq.write_table(rows_of(12, image=image), tmp_path / "a.parquet")
    done = open_in_new_process(tmp_path, "arrow_tables.MAX_GROUP_MEMORY = 2**27")
    assert ending in done.stdout + done.stderr


@needs_limits
def test_image_that_is_a_list_of_nulls_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take no bytes in the file."""
    monkeypatch.setattr(arrow_tables, "MAX_GROUP_MEMORY", 2**26)
    kind = pa.struct({"bytes": pa.list_(pa.null())})
    lists = pa.ListArray.from_arrays(pa.array([0, 2 * 10**7], pa.int32()), pa.nulls(2 * 10**7))
    save_arrow(tmp_path, pa.table({"image": pa.StructArray.from_arrays([lists], fields=list(kind)), "label": ["awe"]}))
    with pytest.raises(OSError, match="the row has no image"):
        open_data(f"hf:{tmp_path}").samples[0].image.read()


def test_arrow_has_no_more_rows_than_bytes(tmp_path: Path) -> None:
    kind = pa.struct({"bytes": pa.null(), "path": pa.null()})
    table = pa.table({"image": pa.nulls(5_000_000, kind)})
    with pa.OSFile(str(tmp_path / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}], "_split": null}')
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(DataError, match="can't hold images"):
        open_data(f"hf:{tmp_path}")


def with_indices(root: Path, split: str, field: str | None, indices: Sequence[object]) -> Path:
    """Write indices as `datasets` 1.3 to 2.9 did after select, filter or shuffle."""
    folder = root / split
    table = pa.table({"indices": pa.array(indices, pa.uint64())})
    with pa.OSFile(str(folder / "indices.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    state = json.loads((folder / "state.json").read_text())
    write(folder / "state.json", state if field is None else {**state, field: [{"filename": "indices.arrow"}]})
    return root


@pytest.mark.parametrize("field", ["_indices_data_files", "_indices_files", None])
def test_only_rows_in_the_indices_are_read(tmp_path: Path, field: str | None) -> None:
    """Rows 5 and 0 of train, across its two files, and no other."""
    shutil.copytree(STORED / "saved", tmp_path / "saved")
    complete = open_data(f"hf:{tmp_path / 'saved'}")
    data = open_data(f"hf:{with_indices(tmp_path / 'saved', 'train', field, [11, 0])}")
    expected = [complete.samples[i] for i in (11, 0)]
    train = [sample for sample in data.samples if sample.split == "train"]
    assert [sample.key for sample in train] == ["train/0", "train/1"]
    assert [(sample.label, sample.text) for sample in train] == [(sample.label, sample.text) for sample in expected]
    assert image_hashes(train) == image_hashes(expected)
    assert len(data) == len(complete) - 10
    assert data.notes[0] == "train: 2 of 12 rows, by indices.arrow"


def test_unlisted_indices_file_is_ignored(tmp_path: Path) -> None:
    shutil.copytree(STORED / "saved", tmp_path / "saved")
    root = with_indices(tmp_path / "saved", "train", None, [0])
    state = json.loads((root / "train" / "state.json").read_text())
    write(root / "train" / "state.json", {**state, "_indices_data_files": None})
    assert len(open_data(f"hf:{root}")) == 18


@pytest.mark.parametrize("indices", [[12], [0, None]])
def test_indices_of_other_rows_are_refused(tmp_path: Path, indices: list[object]) -> None:
    shutil.copytree(STORED / "saved", tmp_path / "saved")
    with pytest.raises(DataError, match=says("the indices name row", "of 12 rows; save the data set again")):
        open_data(f"hf:{with_indices(tmp_path / 'saved', 'train', '_indices_data_files', indices)}")


def test_parts_of_files_are_refused(tmp_path: Path) -> None:
    shutil.copytree(STORED / "saved", tmp_path / "saved")
    path = tmp_path / "saved" / "train" / "state.json"
    state = json.loads(path.read_text())
    parts = [{**entry, "skip": 1, "take": 2} for entry in state["_data_files"]]
    write(path, {**state, "_data_files": parts})
    with pytest.raises(DataError, match=says(path, "_data_files: a part of a file")):
        open_data(f"hf:{tmp_path / 'saved'}")


@pytest.mark.parametrize("column", ["label", "split", "group", "caption"])
@pytest.mark.parametrize("value", [["awe"], ["awe", "fear"], [], {"name": "awe"}])
def test_lists_and_objects_in_json_lines_are_refused(tmp_path: Path, column: str, value: object) -> None:
    put(tmp_path, "a.png", "b.png")
    rows = [{"file_name": "a.png", column: "train"}, {"file_name": "b.png", column: value, "camera": value}]
    write(tmp_path / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    message = says("metadata.jsonl:2, ", column, ": expected one text or number, got ", value, "write a single value")
    with pytest.raises(DataError, match=message):
        open_data(f"hf:{tmp_path}")


NAMES = [("Label", "Split"), ("label\u00a0", "\ufeffsplit"), ("EMOTION", " split\u200b")]


@pytest.mark.parametrize(("label", "split"), NAMES)
@pytest.mark.parametrize("layout", ["metadata.csv", "metadata.jsonl", "parquet"])
def test_names_of_columns_are_compared_as_in_csv_tables(tmp_path: Path, layout: str, label: str, split: str) -> None:
    put(tmp_path, "0.png", "1.png")
    image = (tmp_path / "0.png").read_bytes()
    columns = {"File_Name": ["0.png", "1.png"], label: ["awe", "fear"], split: ["train", "test"], "Camera": ["x", "y"]}
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if layout == "metadata.csv":
        write(tmp_path / layout, "\n".join(",".join(cells) for cells in [columns, *(row.values() for row in rows)]))
    elif layout == "metadata.jsonl":
        write(tmp_path / layout, "".join(json.dumps(row) + "\n" for row in rows))
    else:
        del columns["File_Name"]
        pq.write_table(pa.table({"image": [{"bytes": image, "path": None}] * 2, **columns}), tmp_path / "x.parquet")
    data = open_data(f"hf:{tmp_path}")
    assert [(data.label_of(sample), sample.split) for sample in data.samples] == [("awe", "train"), ("fear", "test")]
    assert data.notes == ("columns not read: Camera",)


def test_of_two_columns_for_a_field_the_exact_name_is_read(tmp_path: Path) -> None:
    put(tmp_path, "a.png")
    write(tmp_path / "metadata.csv", "file_name,Label,label,caption,text\na.png,fear,awe,one,two\n")
    data = open_data(f"hf:{tmp_path}")
    assert [(data.label_of(sample), sample.text) for sample in data.samples] == [("awe", "two")]
    assert data.notes == ("columns not read: Label, caption",)


def test_numbers_of_a_class_label_are_read_as_names_in_every_column(tmp_path: Path) -> None:
    """Also where the split is the only ClassLabel."""
    image = (put(tmp_path, "0.png") / "0.png").read_bytes()
    columns = {"split": [0, 1, -1], "group": [1, 1, 0]}
    names = {"split": ["train", "validation"], "group": ["ada", "ben"]}
    features = {name: {"_type": "ClassLabel", "names": words} for name, words in names.items()}
    table = pa.table({"image": [{"bytes": image, "path": None}] * 3, **columns})
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(about), tmp_path / "x.parquet")
    samples = open_data(f"hf:{tmp_path}").samples
    rows = [(sample.split, sample.group, sample.label) for sample in samples]
    assert rows == [("train", "ben", None), ("val", "ben", None), (None, "ada", None)]
