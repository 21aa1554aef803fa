"""Answers in files: nothing finished is lost, nothing is done twice."""

import csv
import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn import draw_image
from tests.predict.answers import ANSWERED, FACES, opened, prediction
from tests.predict.networks import make_network, tiny_network
from tests.runs import uniemox_here
from uniemox.errors import ConfigError, DataError, ImageError, ImageNotFoundError
from uniemox.persons.box import Box
from uniemox.predict.embedding_file import EmbeddingFile
from uniemox.predict.images import list_images
from uniemox.predict.path_set import PathSet
from uniemox.predict.prediction import Face, Failure, Person, Prediction
from uniemox.predict.predictor import Predictor
from uniemox.predict.schema import FIELDS
from uniemox.predict.writing import ResultFile

# A name with a byte that is not UTF-8.
ODD = 'a,"b"\n\udcff é.jpg'

ANSWERS = (
    prediction("a.jpg", faces=FACES),
    Failure(path=ODD, error="broken"),
    prediction("b.jpg", persons=[], likely=()),
)


def test_resume_refuses_another_model_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with opened(path, asked="one") as file:
        file.write(prediction("a.jpg", faces=FACES))
    with pytest.raises(ConfigError, match="that has changed under the same name, another coverage"):
        opened(path, resume=True, asked="two")
    with opened(path, resume=True, asked="one") as again:
        assert again.has("a.jpg")


@pytest.mark.thorough
@given(st.sets(st.text()), st.sets(st.text()), st.sets(st.text()))
def test_a_set_of_paths_has_those_that_were_added(first: set[str], second: set[str], others: set[str]) -> None:
    paths = PathSet()
    assert not any(path in paths for path in others)
    for path in first:
        paths.add(path)
    assert {path for path in first | second | others if path in paths} == first
    for path in second:
        paths.add(path)
    assert {path for path in first | second | others if path in paths} == first | second


@pytest.mark.parametrize("with_bom", [False, True])
def test_a_byte_order_mark_is_written_on_request(tmp_path: Path, with_bom: bool) -> None:
    path = tmp_path / "answers.csv"
    with ResultFile(path, resume=False, answered=ANSWERED, with_bom=with_bom) as file:
        file.write(prediction("ö.jpg", faces=FACES))
        file.finish()
    assert path.read_bytes().startswith(b"\xef\xbb\xbfpath" if with_bom else b"path")


def test_formulas_in_names_are_escaped_and_found_again(tmp_path: Path) -> None:
    names = ["=1+1.jpg", "-a.jpg", "@b.jpg", "+c.jpg", "\x1b[31md.jpg", "'e.jpg"]
    path = tmp_path / "answers.csv"
    affect = {"scene": {"valence": -0.5, "=joy": 1.5}}
    with opened(path, labels=("valence", "=joy")) as file:
        for name in names:
            file.write(prediction(name, **affect))
        file.finish()
    with path.open(encoding="utf-8", newline="") as table:
        header, *rows = csv.reader(table)
    assert header[:5] == ["path", "top", "top_value", "valence", "'=joy"]
    assert [row[1] for row in rows] == ["'=joy"] * 6
    assert [row[0] for row in rows] == [*(f"'{name}" for name in names[:5]), "'e.jpg"]
    # Numbers are not escaped.
    assert {tuple(row[3:5]) for row in rows} == {("-0.5", "1.5")}
    with opened(path, resume=True, labels=("valence", "=joy")) as again:
        assert all(again.has(name) for name in names)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_resume_continues_from_any_cut(tmp_path: Path, ending: str) -> None:
    complete = tmp_path / f"whole{ending}"
    with opened(complete) as file:
        for answer in ANSWERS:
            file.write(answer)
        file.finish()
    lines = file.lines.read_bytes()
    for cut in range(0, len(lines) + 1, 7):
        path = tmp_path / f"cut{ending}"
        with opened(path) as part:
            part.lines.write_bytes(lines[:cut])
        with opened(path, resume=True) as part:
            done = [answer for answer in ANSWERS if part.has(str(answer.path))]
            assert (
                len(part._done._keys) == len(done) == lines[:cut].count(b'"scene"', 0, lines.rfind(b"\n", 0, cut) + 1)
            )
            # Failures are tried again.
            assert ANSWERS[1] not in done
            for answer in ANSWERS:
                if answer not in done:
                    part.write(answer)
            part.finish()
        assert sorted(part.lines.read_bytes().splitlines()) == sorted(lines.splitlines())
        if ending == ".csv":
            assert sorted(path.read_bytes().splitlines()) == sorted(complete.read_bytes().splitlines())
        for written in {path, part.lines}:
            written.unlink()
    assert not list(tmp_path.glob("*.partial"))


def test_json_csv_and_parquet_have_the_same_values(tmp_path: Path) -> None:
    for ending in (".jsonl", ".csv", ".parquet"):
        with opened(tmp_path / f"o{ending}") as file:
            for answer in ANSWERS:
                file.write(answer)
            file.finish()
    lines = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert lines == [answer.to_dict() for answer in ANSWERS]
    with (tmp_path / "o.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["fear"] for row in rows] == ["0.75", "", "0.75"]
    assert [row["likely"] for row in rows] == ["fear;awe", "", ""]
    assert [row["top"] for row in rows] == ["fear", "", "fear"]
    assert [row["top_value"] for row in rows] == ["0.75", "", "0.75"]
    assert [(row["people"], row["people_feel"]) for row in rows] == [("1", "sad"), ("", ""), ("0", "")]
    assert [(row["faces"], row["faces_show"]) for row in rows] == [("2", "joy;?"), ("", ""), ("0", "")]
    assert not any("{" in cell or "[" in cell for row in rows for cell in row.values())
    assert (rows[1]["path"], rows[1]["error"]) == (ODD.replace("\udcff", "\\udcff"), "broken")
    table = pyarrow.parquet.read_table(tmp_path / "o.parquet").to_pylist()
    assert [row["fear"] for row in table] == [0.75, None, 0.75]
    assert table[0]["persons"][0]["emotions"] == [("happy", 0.25), ("sad", 0.75)]
    assert table[0]["persons"][0]["box"] == [1, 2, 3, 4.5]
    assert (table[2]["persons"], table[1]["persons"]) == ([], None)
    assert [face["expressions"] for face in table[0]["faces"]] == [[("joy", 0.75), ("anger", 0.25)], None]
    assert [face["person"] for face in table[0]["faces"]] == [0, None]
    assert (table[0]["width_px"], table[1]["error"]) == (30, "broken")


@pytest.mark.parametrize("known", ["all", "likely", "persons", "faces", "emotions", "valence_interval", "none"])
def test_formats_have_the_same_fields_and_no_empty_column(tmp_path: Path, known: str) -> None:
    """known: the field that the answer has, among those that an answer may lack."""
    emotions = {"happy": 0.25, "sad": 0.75} if known in ("all", "emotions") else None
    values: dict[str, Any] = {
        "likely": ("fear", "awe"),
        "persons": [Person(box=Box(1, 2, 3, 4.5), confidence=0.5, emotions=emotions)],
        "faces": [Face(box=Box(1, 2, 3, 4), confidence=0.5, expressions=None, person=None)],
        "valence_interval": (2.5, 7.0),
    }
    needed = "persons" if known == "emotions" else known
    answer = prediction(
        "a.jpg", **{name: value if known == "all" or name == needed else None for name, value in values.items()}
    )
    for ending in (".jsonl", ".csv", ".parquet"):
        with opened(tmp_path / f"o{ending}") as file:
            for result in (answer, ANSWERS[1]):
                file.write(result)
            file.finish()
    line = json.loads((tmp_path / "o.jsonl").read_text().splitlines()[0])
    assert line.keys() == {field.name for field in FIELDS if not (field.of_film or field.is_optional)}
    fields = {name for name, value in line.items() if value is not None and name != "scene"}
    labels = set(line["scene"])
    with (tmp_path / "o.csv").open(newline="") as text:
        [row, failure] = csv.DictReader(text)
    table = pyarrow.parquet.read_table(tmp_path / "o.parquet").to_pylist()[0]
    assert table.keys() == fields | labels | {"top", "top_value", "error"}
    nested = {"persons": {"people"}, "faces": {"faces"}}
    columns = set[str]().union(*(nested.get(name, {name}) for name in fields))
    if known in ("all", "emotions"):
        columns.add("people_feel")
    assert row.keys() == failure.keys() == columns | labels | {"top", "top_value", "error"}
    assert not [name for name, cell in row.items() if cell == "" and name != "error"]
    assert not [name for name, cell in table.items() if cell is None and name != "error"]
    assert (row["top"], float(row["top_value"])) == (table["top"], table["top_value"])
    if "valence_interval" in fields:
        assert (row["valence_interval"], table["valence_interval"]) == ("2.5;7", [2.5, 7])


def test_table_and_lines_that_are_in_the_way_are_named_together(tmp_path: Path) -> None:
    table = tmp_path / "o.csv"
    lines = tmp_path / "o.csv.jsonl"
    with opened(table) as file:
        file.write(ANSWERS[0])
        file.finish()
    with pytest.raises(ConfigError, match=r"o\.csv and .*o\.csv\.jsonl are there already; .* delete them, or choose"):
        opened(table)
    table.unlink()
    with pytest.raises(ConfigError, match=r"/o\.csv\.jsonl is there already; continue it \(--resume\), delete it, or"):
        opened(table)
    lines.unlink()
    with opened(table):
        pass


def test_answers_and_embeddings_that_are_in_the_way_are_named_together(photos: Path, tmp_path: Path) -> None:
    names = ("o.csv", "o.csv.jsonl", "f.npy", "f.npy.txt")
    for name in names:
        (tmp_path / name).write_text("x")
    words = ("--model", "small", "--no-persons", "--out", tmp_path / "o.csv", "--embeddings", tmp_path / "f.npy")
    done = uniemox_here("predict", photos, *words)
    assert done.returncode == 1
    said = done.stderr.replace("\n", " ")
    assert " and ".join(str(tmp_path / name) for name in names) + " are there already; delete them, or" in said
    with pytest.raises(ConfigError, match=r"f\.npy and .*f\.npy\.txt are there already"):
        EmbeddingFile(tmp_path / "f.npy")


def test_tables_of_failures_alone_and_of_nothing(tmp_path: Path) -> None:
    for name, answers in (("bad", [ANSWERS[1]]), ("none", [])):
        for ending in (".csv", ".parquet"):
            with opened(tmp_path / f"{name}{ending}") as file:
                for answer in answers:
                    file.write(answer)
                file.finish()
        assert pyarrow.parquet.read_table(tmp_path / f"{name}.parquet").num_rows == len(answers)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[" * 100_000, "not JSON"),
        ("?", "not JSON"),
        ("{}", "not a prediction of uniemox predict"),
        ('{"scene": 5}', "field scene: expected an object, got 5"),
        ('{"scene": {"awe": "x"}}', "field scene[...]: expected a number, got a text"),
        ('{"scene": {"awe": NaN}}', "field scene[...]: expected a number >= -1e+18"),
        ('{"scene": {}, "path": 5}', "field path: expected a text or null, got 5"),
        ('{"scene": {}, "time_s": 0.5}', "a frame without path"),
        (json.dumps({"path": "a" * 4097, "error": "e"}), "field path: expected a text of length <= 4096, got"),
    ],
)
def test_odd_lines_are_refused_with_their_number(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=re.escape(f"a.jsonl:1: {problem}")):
        opened(tmp_path / "a.jsonl", resume=True)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("field", ["persons", "arousal", "width_px"])
def test_a_line_with_a_field_of_another_type_is_named(tmp_path: Path, ending: str, field: str) -> None:
    path = tmp_path / f"o{ending}"
    with opened(path) as file:
        file.write(ANSWERS[0])
    line = json.loads(file.lines.read_bytes()) | {field: {"persons": 5, "arousal": "high", "width_px": 10**30}[field]}
    file.lines.write_text(json.dumps(line) + "\n")
    with opened(path, resume=True) as again:
        # Cells of a CSV table take any text.
        if ending == ".csv" and field != "persons":
            again.finish()
        else:
            with pytest.raises(DataError, match=rf"o{ending}\.jsonl: a field is of another type"):
                again.finish()


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_job_that_failed_before_its_first_answer_does_not_block_the_next(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"o{ending}"
    with suppress(DataError), opened(path):
        raise DataError("no image can be read")
    with opened(path) as file:
        file.write(ANSWERS[0])
        file.finish()
    assert path.stat().st_size > 0
    with pytest.raises(ConfigError, match=r"there already; continue (it|them)"):
        opened(path)


def test_files_that_can_not_be_resumed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    with opened(path) as file:
        file.write(ANSWERS[0])
        file.finish()
    with pytest.raises(ConfigError, match="there already; continue them"):
        opened(path)
    for name, value, difference in (
        *(("model", "other", "model 'm', not 'other'"), ("label_set", "polarity", "label_set 'custom'")),
        *(("labels", ("awe", "joy"), "labels "), ("has_likely", False, "with likely labels")),
        *(("has_persons", False, "with people"), ("has_faces", False, "with faces")),
    ):
        with pytest.raises(ConfigError, match=re.escape(f"holds other predictions ({difference}")):
            opened(path, resume=True, **{name: value})
    with pytest.raises(ConfigError, match="the label 'kind' has the name of a column"):
        opened(tmp_path / "new.csv", labels=("kind", "sad"))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match="can't be read"):
        opened(tmp_path / "folder.jsonl", resume=True)
    file.lines.unlink()
    with pytest.raises(ConfigError, match="which --resume needs"):
        opened(path, resume=True)
    with pytest.raises(ConfigError, match="expected a name that ends in"):
        opened(tmp_path / "o.txt")
    with pytest.raises(ConfigError, match="expected a name that ends in"):
        opened(Path("."))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="can't be written"):
        opened(tmp_path / "file" / "o.jsonl")


@given(st.sets(st.text(max_size=5), max_size=20), st.text(max_size=5))
def test_answered_images_are_found_again(tmp_path_factory: pytest.TempPathFactory, paths: set[str], other: str) -> None:
    path = tmp_path_factory.mktemp("o") / "o.jsonl"
    with opened(path) as file:
        for answered_path in paths:
            file.write(prediction(answered_path))
    with opened(path, resume=True) as file:
        assert all(file.has(answered_path) for answered_path in paths)
        assert file.has(other) == (other in paths)


def test_list_images_expands_folders_and_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d/b.jpg", "d/a.jpg", "d/e/c.png", "d/x.txt", "[1].jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(list_images(["d"])) == ["d/a.jpg", "d/b.jpg", "d/e/c.png"]
    assert list(list_images(["d/*.jpg", "missing", "[1].jpg"])) == ["d/a.jpg", "d/b.jpg", "missing", "[1].jpg"]
    assert list(list_images(["d/**/*.png", "no*.jpg"])) == ["d/e/c.png", "no*.jpg"]
    assert list(list_images(["d/*"])) == ["d/a.jpg", "d/b.jpg", "d/e/c.png"]
    assert list(list_images(["d/**"])) == ["d/a.jpg", "d/b.jpg", "d/e/c.png"]
    assert list(list_images(["-", "x"], ["one.jpg\n", "\n", "two words.jpg\r\n"])) == ["one.jpg", "two words.jpg", "x"]
    assert list(list_images([])) == []


COUNT = 5
WIDTH = 48


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images, one with a line break in its name, and a broken one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(COUNT):
        draw_image(i, (48, 48)).save(folder / ("a\nb.png" if i == 2 else f"{i}.png"))
    (folder / "x.jpg").write_bytes(b"broken")
    tiny_network(tmp_path / "m.onnx", distances=(1.0,))
    return folder


@pytest.mark.parametrize("ending", [".npy", ".parquet"])
def test_embeddings_have_a_row_for_each_readable_image(photos: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / "new" / f"features{ending}"
    done = uniemox_here(
        "predict", photos, "--model", tmp_path / "m.onnx", "--no-persons", "--embeddings", out, "--json"
    )
    # The exit code reports the broken image.
    assert done.returncode == 3, done.stderr
    if ending == ".npy":
        rows = np.load(out)
        names = (out.parent / "features.npy.txt").read_text().splitlines()
    else:
        table = pq.read_table(out)
        rows = np.stack(table["embedding"].to_numpy())
        names = table["path"].to_pylist()
    assert rows.shape == (COUNT, WIDTH)
    assert rows.dtype == np.float32
    assert [Path(name).name for name in names] == ["0.png", "1.png", "3.png", "4.png", "a b.png"]
    predictor = Predictor(make_network(tmp_path / "new", distances=(1.0,)))
    np.testing.assert_allclose(rows[:2], predictor.embed([photos / "0.png", photos / "1.png"]), atol=1e-5)
    files = {path.name for path in out.parent.iterdir() if path.suffix != ".onnx"}
    assert files == ({out.name, "features.npy.txt"} if ending == ".npy" else {out.name})


def test_unsuitable_embedding_files_are_refused(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "there.npy").touch()
    for name, message in (("a.txt", "ends in .npy or .parquet"), ("there.npy", "is there already")):
        with pytest.raises(ConfigError, match=message):
            EmbeddingFile(tmp_path / name)
    with EmbeddingFile(tmp_path / "none.npy") as file, pytest.raises(DataError, match="no embeddings"):
        file.finish()
    assert not list(tmp_path.glob("none*"))
    words = ("predict", photos, "--embeddings", tmp_path / "f.npy")
    done = uniemox_here(*words, "--out", tmp_path / "o.csv", "--resume")
    assert (done.returncode, "--embeddings can't be resumed" in done.stderr) == (2, True)


def test_files_without_features_are_refused(tmp_path: Path) -> None:
    predictor = Predictor(make_network(tmp_path))
    with pytest.raises(ConfigError, match="export it again"):
        predictor.embed([draw_image(0)])


def test_embed_reads_a_folder_and_refuses_unreadable_images(photos: Path, tmp_path: Path) -> None:
    predictor = Predictor(make_network(tmp_path, distances=(1.0,)))
    with pytest.raises(ImageError, match=r"x\.jpg"):
        predictor.embed(photos)
    (photos / "x.jpg").unlink()
    features = predictor.embed(photos)
    assert (features.shape, features.dtype) == ((COUNT, WIDTH), np.float32)
    np.testing.assert_allclose(predictor.embed(photos / "1.png")[0], features[1], atol=1e-6)
    answers = [answer for answer in predictor.predict_folder(photos) if isinstance(answer, Prediction)]
    assert all(answer.embedding is None for answer in answers)
    assert replace(answers[0], embedding=features[0]) == answers[0]
    with pytest.raises(ImageNotFoundError, match=r"x\.jpg"):
        predictor.embed(photos / "x.jpg")
    with pytest.raises(ImageError, match="no image to embed"):
        predictor.embed([])


@pytest.mark.parametrize("content", ["{broken", '{"path": "a.jpg", "error": "x"}\n'])
def test_lines_behind_a_link_are_not_copied_into_the_folder(tmp_path: Path, content: str) -> None:
    """Failures and a cut last line are repaired, but not in a file that the link leads to."""
    private = tmp_path / "private.jsonl"
    private.write_text(content)
    (tmp_path / "answers.jsonl").symlink_to(private)
    with pytest.raises(DataError, match="is a link"):
        opened(tmp_path / "answers.jsonl", resume=True)
    assert (tmp_path / "answers.jsonl").is_symlink()
    assert private.read_text() == content


def test_a_line_without_an_end_takes_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "answers.jsonl").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(DataError, match="longer than 16 MiB"):
        opened(tmp_path / "answers.jsonl", resume=True)


def test_a_failure_with_a_longer_name_than_any_file_does_not_spoil_the_file(tmp_path: Path) -> None:
    """A folder in an archive may be so deep that its files can't be opened."""
    name = "d/" * 2_050 + "a.jpg"
    with opened(tmp_path / "a.csv") as file:
        file.write(Failure(path=name, error=f"{name}: can't be read"))
        file.write(prediction("b.jpg"))
        file.finish()
    with opened(tmp_path / "a.csv", resume=True) as file:
        assert file.has("b.jpg")
