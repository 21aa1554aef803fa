"""Several data sets opened as one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.data.tree import abstract, emoset, emotion6, put, says, words, write
from tests.drawn import class_folders, draw_image, jpeg_of
from tests.runs import pretrained, tiny_finetuning
from uniemox.cli.data import SchemeOptions, check, show, split
from uniemox.data.sample import Sample
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.source import folder_of, open_data, parse_source, split_sources
from uniemox.errors import ConfigError, DataError, LabelError
from uniemox.evaluate.run import evaluate
from uniemox.finetune.run import finetune
from uniemox.io.parallel import PoolConfig
from uniemox.training.config import HardwareConfig
from uniemox.training.data_record import describe_data

CLASSES = ("anger", "awe", "disgust", "fear", "sadness")
EKMAN_ROWS = {
    "anger/1.jpg": (0.5, 0, 0, 0.25, 0, 0, 0.25),
    "joy/2.jpg": (0, 0, 0, 1, 0, 0, 0),
    "surprise/3.jpg": (0, 0, 0, 0, 0, 1, 0),
}


@pytest.fixture
def both(tmp_path: Path) -> str:
    """EmoSet's layout with splits, and Emotion6's without."""
    emoset(tmp_path / "a", {"awe/1": {"emotion": "awe"}, "anger/2": {"emotion": "anger"}})
    emotion6(tmp_path / "b", EKMAN_ROWS)
    return f"emoset:{tmp_path}/a,emotion6:{tmp_path}/b"


def votes(sample: Sample) -> dict[str, float]:
    """Those that were given."""
    return {word: share for word, share in (sample.distribution or {}).items() if share}


def test_only_commas_before_a_kind_part_sources() -> None:
    assert split_sources("fi:a,b,folder:c?kind=felt,synthetic:8") == ["fi:a,b", "folder:c?kind=felt", "synthetic:8"]
    assert split_sources("csv:a,b.csv?labels=mikels") == ["csv:a,b.csv?labels=mikels"]
    with pytest.raises(ConfigError, match="names several data sets where one is expected"):
        parse_source("fi:a,emo8:b")
    with pytest.raises(ConfigError, match="several data sets; give a file with --out"):
        folder_of("fi:a,emo8:b")


def test_a_joined_union_keeps_every_label(both: str) -> None:
    """As table III's ViT from scratch needs it: every test set is scored in its own full label set."""
    first, second = both.split(",")
    data = open_data(f"{first}?union=joined,{second}")
    assert words(data)["emotion6/images/joy/2.jpg"] == "joy"
    assert words(data)["emotion6/images/surprise/3.jpg"] == "surprise"
    assert words(data)["emoset/image/awe/1.jpg"] == "awe"
    assert (data.labels.name, len(data.labels), data.labels.kind) == ("joined", 10, "evoked")
    assert data.parts[1].labels == "ekman: 6 of the 10 joined labels"
    sample = next(sample for sample in data.samples if sample.key == "emotion6/images/anger/1.jpg")
    assert votes(sample) == {"anger": 0.5, "joy": 0.25, "neutral": 0.25}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{first}?union=joined", "option union is for several data sets"),
        ("{first},{second}?union=joined", "option union belongs to the first of several data sets"),
        ("{first}?union=all,{second}", "option union must be joined, got 'all'"),
    ],
)
def test_union_option_belongs_to_the_first_of_several_sources(both: str, source: str, message: str) -> None:
    first, second = both.split(",")
    with pytest.raises(ConfigError, match=message):
        open_data(source.format(first=first, second=second))


def test_union_prefixes_keys_and_uses_the_labels_of_the_first(both: str) -> None:
    """Joy has no counterpart among Mikels' eight, nor has surprise: their images stay, without a label."""
    data = open_data(both)
    assert words(data) == {
        "emoset/image/awe/1.jpg": "awe",
        "emoset/image/anger/2.jpg": "anger",
        "emotion6/images/anger/1.jpg": "anger",
        "emotion6/images/joy/2.jpg": None,
        "emotion6/images/surprise/3.jpg": None,
    }
    assert votes(data.samples[2]) == {"anger": 0.5, "joy": 0.25, "neutral": 0.25}
    assert [part.name for part in data.parts] == ["emoset", "emotion6"]
    assert data.parts[1].labels == (
        "ekman -> mikels: dropped: joy, surprise; never reached: amusement, awe, excitement, contentment"
    )
    assert str(data.parts[1]) in data.notes


def test_labels_that_become_one_share_their_votes(tmp_path: Path) -> None:
    emotion6(tmp_path / "b", {"joy/2.jpg": EKMAN_ROWS["joy/2.jpg"]})
    abstract(tmp_path / "c", {"1.jpg": (2, 0, 0, 1, 0, 1, 0, 0)})
    data = open_data(f"emotion6:{tmp_path}/b,abstract:{tmp_path}/c")
    assert words(data) == {"emotion6/images/joy/2.jpg": "joy", "abstract/images/1.jpg": "joy"}
    assert votes(data.samples[1]) == {"joy": 1.0}


def test_several_labels_are_mapped_once_each(tmp_path: Path) -> None:
    """Two labels may become one, and an image may lose all; it then has no label, and no votes either."""
    first = write(tmp_path / "a.csv", "path,anger,fear,disgust,sadness,joy,surprise\n1.jpg,1,0,0,1,0,0\n")
    rows = "1.jpg,1,0,0,1,0,0,0,0\n2.jpg,0,1,0,0,0,0,0,1\n"
    second = write(tmp_path / "b.csv", f"path,amusement,anger,awe,contentment,disgust,excitement,fear,sadness\n{rows}")
    put(tmp_path, "1.jpg", "2.jpg")
    data = open_data(f"csv:{first},csv:{second}")
    data.check_categories()
    of_both = {sample.key: data.words_of(sample) for sample in data.samples}
    assert of_both == {"csv/1.jpg": ("anger", "sadness"), "csv2/1.jpg": ("joy",), "csv2/2.jpg": ("anger", "sadness")}
    data = open_data(f"csv:{second},csv:{first}")
    data.check_categories()


def test_a_second_of_a_kind_has_a_number_and_groups_stay_apart(tmp_path: Path) -> None:
    for name in "ab":
        put(tmp_path / name, "awe/1.jpg")
        write(tmp_path / f"{name}.csv", f"path,label,group\n{name}/awe/1.jpg,awe,one\n{name}/awe/1.jpg,fear,one\n")
    data = open_data(f"csv:{tmp_path}/a.csv?labels=mikels,csv:{tmp_path}/b.csv?labels=mikels")
    assert [sample.key for sample in data.samples] == [
        "csv/a/awe/1.jpg",
        "csv/a/awe/1.jpg#2",
        "csv2/b/awe/1.jpg",
        "csv2/b/awe/1.jpg#2",
    ]
    assert [sample.group for sample in data.samples] == ["csv/one", "csv/one", "csv2/one", "csv2/one"]


def test_felt_and_evoked_emotions_are_never_joined(tmp_path: Path) -> None:
    put(tmp_path / "fi", "awe/1.jpg")
    put(tmp_path / "caer", "train/angry/1.jpg")
    put(tmp_path / "own", "calm/1.jpg", "wild/2.jpg")
    with pytest.raises(LabelError, match=says("caer", "has felt emotions", "fi evoked ones", "never")):
        open_data(f"fi:{tmp_path}/fi,caer-s:{tmp_path}/caer")
    some = open_data(f"fi:{tmp_path}/fi,folder:{put(tmp_path / 'some', 'Sad/1.jpg', 'awe/2.jpg')}")
    assert words(some) == {"fi/awe/1.jpg": "awe", "folder/Sad/1.jpg": "sadness", "folder/awe/2.jpg": "awe"}
    with pytest.raises(
        LabelError, match=says("own can't be mapped to the labels of", "no map from custom to mikels is known")
    ):
        open_data(f"fi:{tmp_path}/fi,folder:{tmp_path}/own")


def test_unlabelled_images_join_any_data_set(tmp_path: Path) -> None:
    put(tmp_path / "plain", "1.jpg")
    put(tmp_path / "caer", "train/angry/1.jpg")
    data = open_data(f"folder:{tmp_path}/plain,caer-s:{tmp_path}/caer")
    assert (data.labels.name, data.labels.kind) == ("caer", "felt")
    assert words(data) == {"folder/1.jpg": None, "caer-s/train/angry/1.jpg": "angry"}


def test_a_single_data_set_is_described_as_before(tmp_path: Path) -> None:
    """The hash is over the samples alone, and was computed before there were unions."""
    put(tmp_path / "fi", "awe/1.jpg", "fear/2.jpg")
    data = open_data(f"fi:{tmp_path}/fi")
    assert data.parts == ()
    description = describe_data(data)
    assert set(description) == {"source", "samples", "labels", "sha256", "details_sha256"}
    assert description["sha256"] == "0fb1b21ed865a6be503ec7da21aa2cdb3930b7b090057f84c17ae4af02bcae7f"
    several = describe_data(open_data(f"fi:{tmp_path}/fi,folder:{tmp_path}/fi"))
    assert [part["name"] for part in several["parts"]] == ["fi", "folder"]


def test_divided_and_undivided_are_not_trained_on_together(both: str, tmp_path: Path) -> None:
    data = open_data(both)
    with pytest.raises(DataError, match=says("emotion6 has no splits, the others have", "uniemox data split")):
        data.to_train()
    with pytest.raises(DataError, match="emotion6 has no splits"):
        data.only("train")
    assert len(data.to_train("all")) == 5
    one_apart = replace(data, samples=[replace(data.samples[0], split="val"), *data.samples[1:]])
    assert len(one_apart.to_describe()) == 4  # a teacher learns from train of the one, and from all of the other
    split(both, tmp_path / "splits.json", scheme=SchemeOptions(ratio="50/50"))
    assert len(open_data(both, splits=tmp_path / "splits.json").to_train()) in (2, 3)


def test_paper_splits_of_a_union_equal_those_of_its_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every part is divided as it is alone."""
    put(tmp_path / "fi", *(f"{word}/{i}.jpg" for word in ("awe", "fear") for i in range(20)))
    put(tmp_path / "ube", *(f"{word}/a/{i}.jpg" for word in ("anger", "fear") for i in range(10)))
    sources = {"fi": f"fi:{tmp_path}/fi", "ube": f"ube:{tmp_path}/ube"}
    expected = {}
    for name, source in sources.items():
        split(source, tmp_path / f"{name}.json", scheme=SchemeOptions(paper=True))
        splits = json.loads((tmp_path / f"{name}.json").read_text())["splits"]
        expected |= {f"{name}/{key}": split_name for split_name, keys in splits.items() for key in keys}
    split(",".join(sources.values()), tmp_path / "both.json", scheme=SchemeOptions(paper=True))
    joint = json.loads((tmp_path / "both.json").read_text())["splits"]
    assert {key: name for name, keys in joint.items() for key in keys} == expected
    assert "ube: 20 samples" in capsys.readouterr().err


def test_copies_in_two_data_sets_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class_folders(tmp_path / "a", CLASSES, 3)
    put(tmp_path / "b", "anger/x.jpg").joinpath("anger", "x.jpg").write_bytes((tmp_path / "a/awe/1.jpg").read_bytes())
    check(f"folder:{tmp_path}/a,fi:{tmp_path}/b", as_json=True, pool=PoolConfig(workers=1))
    report = json.loads(capsys.readouterr().out)
    [copies] = report["exact_duplicates"]
    assert copies["paths"] == [f"{tmp_path}/b/anger/x.jpg", f"{tmp_path}/a/awe/1.jpg"]
    assert {entry["key"] for entry in report["exclude"]} == {"fi/anger/x.jpg", "folder/awe/1.jpg"}
    assert "under several labels: anger, awe" in {entry["reason"] for entry in report["exclude"]}


def test_shards_of_a_union_contain_all_samples(both: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = open_data(both)
    write_shards(data, tmp_path / "packed", ShardConfig(pool=PoolConfig(workers=1)))
    packed = open_data(f"shards:{tmp_path}/packed")
    assert words(packed) == words(data)
    show(both, as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["key"] for line in lines] == [sample.key for sample in data.samples]


@pytest.mark.thorough
@pytest.mark.usefixtures("without_onnx")
def test_a_joined_classifier_is_scored_in_the_full_label_set_of_each_data_set(tmp_path: Path) -> None:
    """No image is left out, and no answer lies outside of the scored set's labels."""
    first = ("anger", "fear", "joy", "love", "sadness", "surprise")
    second = (*CLASSES, "amusement")
    class_folders(tmp_path / "ube", first, 8)
    class_folders(tmp_path / "fi", second, 8)
    source = f"ube:{tmp_path}/ube?union=joined,fi:{tmp_path}/fi"
    out = tmp_path / "run"
    finetune(tiny_finetuning(pretrained(), method="probe"), open_data(source), out)
    record = json.loads((out / "config.json").read_text())["data"]
    assert len(record["labels"]["labels"]) == 11
    for kind, labels in (("ube", first), ("fi", second)):
        data = open_data(f"{kind}:{tmp_path}/{kind}")
        result = evaluate(out, data, allow_seen=True, hardware=HardwareConfig(device="cpu", workers=0))
        assert result.scores.n == len(data) == 48
        assert not [note for note in result.notes if "left out" in note or "never reached" in note]
        for line in result.predictions:
            assert set(line["probabilities"]) == set(data.labels.labels) >= set(labels)
            assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)


@pytest.mark.usefixtures("without_onnx")
def test_a_classifier_learns_from_both_and_is_scored_by_part(tmp_path: Path) -> None:
    class_folders(tmp_path / "a", CLASSES, 10)
    for i, word in enumerate(CLASSES):
        for j in range(11):
            write(tmp_path / "b" / word / f"{j}.jpg", jpeg_of(draw_image(1000 + 100 * i + j)))
    source = f"folder:{tmp_path}/a,fi:{tmp_path}/b"
    out = tmp_path / "run"
    finetune(tiny_finetuning(pretrained(), method="probe"), open_data(source), out)
    record = json.loads((out / "config.json").read_text())["data"]
    assert (record["source"], record["samples"]) == (source, 105)
    assert [(part["name"], part["samples"]) for part in record["parts"]] == [("folder", 50), ("fi", 55)]
    held_out = open_data(source, splits=out / "splits.json").only("test")
    result = evaluate(out, held_out, by="part", hardware=HardwareConfig(device="cpu", workers=0))
    assert result.scores.n == len(held_out)
    assert result.by is not None
    assert set(result.by.groups) == {"folder", "fi"}
