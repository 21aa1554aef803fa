"""FER+: votes as distributions; majority, unknown and no face kept apart; what is wrong is named."""

from pathlib import Path

import pytest

from tests.data.tree import put, says
from uniemox.data.readers.ferplus import read_ferplus
from uniemox.data.source import open_data
from uniemox.errors import DataError
from uniemox.labels import FERPLUS

HEADER = "path,split,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
ROWS = (
    "train/a.jpg,train,6,4,0,0,0,0,0,0,0,0",  # neutral
    "train/b.jpg,train,5,5,0,0,0,0,0,0,0,0",  # half is no majority
    "train/c.jpg,train,1,1,1,0,0,0,0,0,7,0",  # unknown
    "val/d.jpg,val,0,0,0,0,0,0,0,0,2,8",  # no face
    "val/e.jpg,val,0,0,0,0,0,0,1,6,3,0",  # contempt
    "train/a.jpg,train,6,4,0,0,0,0,0,0,0,0",  # twice, alike
)


def tree(root: Path, *rows: str) -> Path:
    (root / "votes.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for name in ("train/a", "train/b", "train/c", "val/d", "val/e"):
        put(root, f"images/{name}.jpg")
    return root


def test_labels_distributions_and_what_has_none(tmp_path: Path) -> None:
    data = read_ferplus(tree(tmp_path, *ROWS))
    assert (data.labels, data.labels.kind) == (FERPLUS, "expressed")
    assert [data.label_of(sample) for sample in data.samples] == ["neutral", None, None, None, "contempt"]
    assert [sample.domain for sample in data.samples] == ["majority", "no majority", "unknown", "no face", "majority"]
    assert [sample.split for sample in data.samples] == ["train", "train", "train", "val", "val"]
    shares = [sample.distribution for sample in data.samples]
    assert shares[1] is not None
    assert (shares[1]["neutral"], shares[1]["happiness"], sum(shares[1].values())) == (0.5, 0.5, 1)
    assert shares[2] is not None
    assert shares[2]["surprise"] == pytest.approx(1 / 3)
    assert shares[3] is None
    assert "1 rows stand twice in votes.csv, alike: they were taken once" in data.notes
    assert len(data.notes) == 4


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], ("votes.csv", "no rows")),
        ([ROWS[0], ROWS[0].replace("6,4", "4,6")], ("votes.csv:3", "other votes or another split further up")),
        ([ROWS[0].replace(",6,", ",-1,")], ("votes.csv:2", "neutral must lie between")),
        ([ROWS[0].replace(",6,", ",six,")], ("votes.csv:2", "neutral must be a number")),
        ([ROWS[0].replace(",train,", ",public,")], ("votes.csv:2", "split must be one of", "public")),
        ([ROWS[0].replace("train/a", "../a")], ("votes.csv:2, path", "must be a path inside")),
        ([ROWS[0].replace("train/a", "train/z")], ("votes.csv:2, path", "is not there")),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, rows: list[str], message: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=says(*message)):
        read_ferplus(tree(tmp_path, *rows))


def test_a_table_without_its_columns(tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text("path,split,neutral\na.jpg,train,1\n")
    with pytest.raises(DataError, match=says("votes.csv:1", "there is no column happiness")):
        read_ferplus(tmp_path)


def test_the_real_part(shared: Path) -> None:
    data = open_data(f"ferplus:{shared / 'data' / 'ferplus'}")
    assert len(data) == 23_186
    of_val = [sample for sample in data.samples if sample.split == "val"]
    assert len(of_val) == 2_834
    majorities = [data.label_of(sample) for sample in data.samples if sample.label is not None]
    assert (majorities.count("disgust"), majorities.count("contempt")) == (59, 86)
    assert sum(sample.domain == "no face" for sample in data.samples) == 1
