"""Embeddings in files: a row for each image that could be read, whole or not at all."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.drawn import draw_image
from tests.predict.networks import made, tiny_network
from tests.runs import uniemox_here
from uniemox.errors import ConfigError, DataError, ImageError, ImageNotFoundError
from uniemox.predict.predictor import Predictor
from uniemox.predict.writing import EmbeddingFile

COUNT, WIDTH = 5, 48


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
def test_a_row_for_each_image_that_could_be_read(photos: Path, tmp_path: Path, ending: str) -> None:
    out = tmp_path / "new" / f"features{ending}"
    done = uniemox_here(
        "predict", photos, "--model", tmp_path / "m.onnx", "--no-persons", "--embeddings", out, "--json"
    )
    assert done.returncode == 3, done.stderr  # the broken one
    if ending == ".npy":
        rows = np.load(out)
        names = (out.parent / "features.npy.txt").read_text().splitlines()
    else:
        table = pq.read_table(out)
        rows, names = np.stack(table["embedding"].to_numpy()), table["path"].to_pylist()
    assert rows.shape == (COUNT, WIDTH)
    assert rows.dtype == np.float32
    assert [Path(name).name for name in names] == ["0.png", "1.png", "3.png", "4.png", "a b.png"]
    predictor = Predictor(made(tmp_path / "new", distances=(1.0,)))
    np.testing.assert_allclose(rows[:2], predictor.embed([photos / "0.png", photos / "1.png"]), atol=1e-5)
    left = {path.name for path in out.parent.iterdir() if path.suffix != ".onnx"}
    assert left == ({out.name, "features.npy.txt"} if ending == ".npy" else {out.name})


def test_what_can_not_be_written(photos: Path, tmp_path: Path) -> None:
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


def test_old_files_have_no_features(tmp_path: Path) -> None:
    predictor = Predictor(made(tmp_path))
    with pytest.raises(ConfigError, match="export it again"):
        predictor.embed([draw_image(0)])


def test_a_folder_and_what_can_not_be_read(photos: Path, tmp_path: Path) -> None:
    predictor = Predictor(made(tmp_path, distances=(1.0,)))
    with pytest.raises(ImageError, match=r"x\.jpg"):
        predictor.embed(photos)
    (photos / "x.jpg").unlink()
    assert predictor.embed(photos).shape == (COUNT, WIDTH)
    with pytest.raises(ImageNotFoundError, match=r"x\.jpg"):
        predictor.embed(photos / "x.jpg")
    with pytest.raises(ImageError, match="no image to embed"):
        predictor.embed([])
