"""Splits: even in every class, no group torn apart, the same for everybody, kept in files that can't change unseen."""

import json
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from tests.drawn import class_folders, draw_image
from uniemox.cli.data import SchemeOptions
from uniemox.cli.data import split as split_command
from uniemox.data.hashes import image_hashes, stored_or_decoded_hashes
from uniemox.data.readers.shards import read_shards
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.split_choice import choose_scheme, frechet_distance, paper_split, plot_choice
from uniemox.data.split_files import read_splits, write_splits
from uniemox.data.splits import (
    PAPER_RECIPES,
    count_copies_across_splits,
    hold_out,
    join_copies,
    keep_fraction,
    lacking_splits,
    note_on_shares,
    parse_ratio,
    split_samples,
    take_fraction,
)
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import ConfigError, DataError
from uniemox.io.parallel import PoolConfig
from uniemox.labels import CAER, MIKELS, UBE, LabelSet

RATIOS = {"train": 0.7, "val": 0.1, "test": 0.2}


def samples_of(count: int, classes: int = 3, **known: object) -> list[Sample]:
    return [
        Sample(key=f"{i:05d}.jpg", image=ImageFile(Path(f"{i}.jpg")), label=i % classes, **known)  # type: ignore
        for i in range(count)
    ]


def test_shares_that_differ_from_the_requested_ones_are_explained() -> None:
    ratios = {"train": 0.8, "test": 0.2}
    samples = synthetic(40).samples
    assert note_on_shares(samples, split_samples(samples, ratios, 0), ratios) == ""
    grouped = [replace(sample, group=str(number // 20)) for number, sample in enumerate(samples)]
    scheme = {sample.key: "train" if sample.group == "0" else "test" for sample in grouped}
    assert note_on_shares(grouped, scheme, ratios, groups_of="near duplicates") == (
        "the splits have 50/50 % of the images instead of 80/20 %: 40 images are in 2 groups of near duplicates, which "
        "are not divided (the largest has 20)"
    )
    assert note_on_shares(samples, scheme, ratios).endswith(
        ": each label is divided by itself, and its numbers are rounded"
    )
    # One image needs no explanation.
    assert note_on_shares(samples[:4], {sample.key: "train" for sample in samples[:4]}, ratios) == ""


@given(st.integers(1, 400), st.integers(1, 8), st.integers(0, 5))
def test_every_class_has_the_ratio_to_within_a_few_samples(count: int, classes: int, seed: int) -> None:
    samples = samples_of(count, classes)
    scheme = split_samples(samples, RATIOS, seed)
    assert scheme.keys() == {sample.key for sample in samples}
    total = Counter(scheme.values())
    for split, share in RATIOS.items():
        assert abs(total[split] - share * count) < 3
        for label in range(classes):
            members = [sample.key for sample in samples if sample.label == label]
            in_split = sum(scheme[key] == split for key in members)
            assert abs(in_split - share * len(members)) < 3


def test_labels_of_data_with_several_labels_are_found_in_their_splits() -> None:
    """All of them were reported as missing."""
    samples = [Sample(key=str(i), image=ImageFile(Path("a.jpg")), categories=(i % 2, 2)) for i in range(4)]
    data = DataSet("several", LabelSet("custom", ("awe", "fear", "joy"), "evoked"), samples)
    scheme = {"0": "train", "1": "train", "2": "test", "3": "train"}
    assert lacking_splits(data, scheme, ("train", "test")) == {"fear": ("test",)}
    assert lacking_splits(replace(data, samples=[]), scheme, ("train", "test")) == {}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(0, 3))
def test_groups_stay_together(groups: list[int], seed: int) -> None:
    samples = [
        Sample(key=str(i), image=ImageFile(Path("x")), label=i % 2, group=f"g{group}") for i, group in enumerate(groups)
    ]
    scheme = split_samples(samples, RATIOS, seed)
    for name in set(groups):
        assert len({scheme[sample.key] for sample in samples if sample.group == f"g{name}"}) == 1


def test_the_draw_depends_on_keys_and_seed_alone() -> None:
    samples = samples_of(300)
    scheme = split_samples(samples, RATIOS, 0)
    assert split_samples(samples[::-1], RATIOS, 0) == scheme
    assert split_samples(samples, RATIOS, 1) != scheme


@given(st.integers(20, 300), st.integers(1, 6), st.integers(0, 3), st.data())
def test_one_image_more_or_fewer_moves_at_most_one_at_a_border(
    count: int, classes: int, seed: int, draw: st.DataObject
) -> None:
    samples = samples_of(count, classes)
    gone = draw.draw(st.sampled_from(samples))
    fewer = split_samples([sample for sample in samples if sample is not gone], RATIOS, seed)
    scheme = split_samples(samples, RATIOS, seed)
    moved = [sample for sample in samples if sample is not gone and scheme[sample.key] != fewer[sample.key]]
    assert {sample.label for sample in moved} <= {gone.label}
    ways = Counter(frozenset((scheme[sample.key], fewer[sample.key])) for sample in moved)
    assert ways.keys() <= {frozenset(("train", "val")), frozenset(("val", "test"))} or count < 60
    assert max(ways.values(), default=0) <= 1
    members = [sample for sample in samples if sample.label == gone.label]
    other_members = [sample for sample in members if sample is not gone]
    if other_members:
        taken = {sample.key for sample in take_fraction(members, 0.5, seed)}
        taken_of_others = {sample.key for sample in take_fraction(other_members, 0.5, seed)}
        assert len(taken ^ taken_of_others - {gone.key}) <= 2


def test_keys_in_another_spelling_are_drawn_alike() -> None:
    keys = [f"fröhlich/{i}.jpg" for i in range(50)]
    forms = [[unicodedata.normalize(form, key) for key in keys] for form in ("NFC", "NFD")]
    composed, decomposed = (
        split_samples([Sample(key=key, image=ImageFile(Path("x"))) for key in form], RATIOS, 0) for form in forms
    )
    assert [composed[key] for key in forms[0]] == [decomposed[key] for key in forms[1]]


def test_copies_of_an_image_are_counted_and_kept_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten images, each in both class folders."""
    for label in ("awe", "fear"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(10):
            draw_image(i, (48, 48)).save(tmp_path / "data" / label / f"{i}.png")
    source = f"folder:{tmp_path / 'data'}"
    file = tmp_path / "s.json"
    split_command(source, file, scheme=SchemeOptions(ratio="50/50"), as_json=True)
    apart = sum(
        {scheme_of(file)[f"{label}/{i}.png"] for label in ("awe", "fear")} == {"train", "test"} for i in range(10)
    )
    shown = capsys.readouterr()
    assert json.loads(shown.out)["straddling_copies"] == 2 * apart > 0
    words = f"{2 * apart} images have an exact copy in another split"
    assert words in " ".join(shown.err.split())
    assert "--together" in shown.err
    file = tmp_path / "together.json"
    split_command(source, file, scheme=SchemeOptions(ratio="50/50", together=True), as_json=True)
    scheme = scheme_of(file)
    assert all(scheme[f"awe/{i}.png"] == scheme[f"fear/{i}.png"] for i in range(10))
    shown = capsys.readouterr()
    assert json.loads(shown.out)["straddling_copies"] == 0
    assert "exact copy" not in shown.err


def test_unreadable_files_are_not_copies_of_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Empty and equal damaged files are neither counted nor kept together."""
    root = class_folders(tmp_path / "data", each=10)
    for name in ("awe", "fear"):
        for i in range(10):
            (root / name / f"{i}.jpg").write_bytes(b"" if i % 2 else b"damaged")
    for together in (False, True):
        file = tmp_path / f"{together}.json"
        split_command(f"folder:{root}", file, scheme=SchemeOptions(ratio="50/50", together=together), as_json=True)
        assert json.loads(capsys.readouterr().out)["straddling_copies"] == 0
        assert len(set(scheme_of(file).values())) == 2


def scheme_of(file: Path) -> dict[str, str]:
    """Split by key."""
    return {key: split for split, keys in json.loads(file.read_text())["splits"].items() for key in keys}


def test_hashes_that_shards_store_are_not_read_again(tmp_path: Path) -> None:
    samples = synthetic(6).samples
    write_shards(DataSet("x", MIKELS, samples), tmp_path / "s", ShardConfig(pool=PoolConfig(workers=1)))
    packed = read_shards(str(tmp_path / "s")).samples
    expected = image_hashes([*packed, *samples[:2]])
    for path in (tmp_path / "s").glob("*.tar"):
        path.write_bytes(b"")
    assert stored_or_decoded_hashes([*packed, *samples[:2]]) == expected


def test_groups_that_share_a_file_are_joined() -> None:
    samples = [replace(sample, group=group) for sample, group in zip(samples_of(7), "aab", strict=False)]
    samples += samples_of(7)[3:]
    joined = join_copies(samples, ["1", "2", "2", "3", "3", "", ""])
    names = [sample.group for sample in joined]
    assert names[0] == names[1] == names[2] is not None
    assert names[3] == names[4] not in (None, names[0])
    assert names[5:] == [None, None]
    scheme = {sample.key: split for sample, split in zip(samples, ("a", "a", "b", "a", "a", "b", "a"), strict=True)}
    assert count_copies_across_splits(samples, ["1", "2", "2", "3", "3", "", ""], scheme) == 2


@pytest.mark.parametrize("ratios", [{}, {"train": 0.5, "test": 0.4}, {"train": 1.5, "test": -0.5}])
def test_shares_that_do_not_add_up_are_refused(ratios: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="add up to 1"):
        split_samples(samples_of(10), ratios, 0)


def test_ratios_are_parsed_or_refused() -> None:
    assert parse_ratio("80/20") == {"train": 0.8, "test": 0.2}
    assert parse_ratio("2/1/1") == {"train": 0.5, "val": 0.25, "test": 0.25}
    for wrong in ("", "80", "80/x/10", "80/0/20", "1/2/3/4", "0/0", "nan/1", "-1/2", "-80/-10/-10", "inf/1"):
        with pytest.raises(ConfigError, match=r"80/10/10|above 0"):
            parse_ratio(wrong)


@given(st.integers(1, 300), st.floats(0.01, 1), st.floats(0.01, 1))
def test_smaller_fractions_are_parts_of_larger_ones(count: int, first: float, second: float) -> None:
    samples = samples_of(count, 4)
    small, large = ({s.key for s in take_fraction(samples, f, seed=0)} for f in sorted((first, second)))
    assert small <= large
    for label in range(min(4, count)):
        members = [sample for sample in samples if sample.label == label]
        taken = [sample for sample in members if sample.key in large]
        assert len(taken) == max(1, round(max(first, second) * len(members)))


def test_fraction_of_train_leaves_val_and_test_complete() -> None:
    samples = samples_of(300)
    scheme = split_samples(samples, RATIOS, 0)
    sizes = Counter(keep_fraction(scheme, samples, 0.1, seed=0).values())
    assert sizes == {"train": 21, "val": 30, "test": 60}
    assert take_fraction(samples, 0.1, 0) != take_fraction(samples, 0.1, 1)
    for wrong in (0, -1, 1.1):
        with pytest.raises(ConfigError, match="fraction"):
            take_fraction(samples, wrong, 0)


@given(st.integers(8, 300), st.integers(1, 6), st.integers(0, 3), st.data())
def test_held_out_images_come_from_train_only(count: int, classes: int, seed: int, draw: st.DataObject) -> None:
    samples = samples_of(count, classes)
    samples = [replace(sample, split="val" if i % 4 == 0 else "train") for i, sample in enumerate(samples)]
    train = sum(sample.split == "train" for sample in samples)
    wanted = draw.draw(st.integers(1, train - 1))
    scheme = hold_out(samples, wanted, seed)
    sizes = Counter(scheme.values())
    assert sizes["val"] == count - train
    assert abs(sizes["test"] - wanted) <= classes
    assert {key for key, split in scheme.items() if split == "val"} == {s.key for s in samples if s.split == "val"}
    assert hold_out(samples[::-1], wanted, seed) == scheme


@pytest.mark.parametrize("count", [0, -1, 6, 7])
def test_hold_out_count_must_be_below_the_size_of_train(count: int) -> None:
    samples = [replace(sample, split="train") for sample in samples_of(6)]
    with pytest.raises(ConfigError, match="below the 6 training images"):
        hold_out(samples, count, 0)
    with pytest.raises(ConfigError, match="there is already a test split"):
        hold_out([replace(samples[0], split="test"), *samples[1:]], 2, 0)


@pytest.mark.parametrize("other", [{"paper": True}, {"ratio": "80/20"}, {"schemes": 2}])
def test_hold_out_excludes_other_schemes(other: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--hold-out splits only train"):
        split_command("synthetic:16", tmp_path / "s.json", scheme=SchemeOptions(hold_out=2, **other))  # type: ignore[arg-type]


def test_changed_split_files_are_refused(tmp_path: Path) -> None:
    samples = samples_of(40)
    data = DataSet("x", MIKELS, samples)
    scheme = split_samples(samples[:30], RATIOS, 0)
    digest = write_splits(tmp_path / "a.json", scheme, source="x", how="by hand")
    assert write_splits(tmp_path / "b.json", dict(reversed(scheme.items())), source="y", how="else") == digest
    divided = read_splits(tmp_path / "a.json", data)
    assert {sample.key: sample.split for sample in divided.samples} == scheme
    assert divided.notes == (f"splits from {tmp_path}/a.json (sha256 {digest[:12]})", "10 images are not in it")
    content = json.loads((tmp_path / "a.json").read_text())
    assert (tmp_path / "a.json").read_text().split('"sha256"')[1] == (tmp_path / "b.json").read_text().split(
        '"sha256"'
    )[1]
    assert all(keys == sorted(keys) for keys in content["splits"].values())
    content["splits"]["test"].append(content["splits"]["train"].pop())
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"a\.json: its hash does not match"):
        read_splits(tmp_path / "a.json", data)
    with pytest.raises(DataError, match=r"b\.json: 30 of its images are not in z, such as 00000.jpg"):
        read_splits(tmp_path / "b.json", DataSet("z", MIKELS, samples[30:]))
    for wrong in ("", "[]", "{}", '{"splits": 3, "sha256": ""}', '{"splits": {"train": 3}, "sha256": ""}'):
        (tmp_path / "c.json").write_text(wrong)
        with pytest.raises(DataError, match=r"c\.json: .*; uniemox data split writes files of splits"):
            read_splits(tmp_path / "c.json", data)


def test_recipes_equal_those_of_the_paper(shared: Path) -> None:
    """What tables.json says in words, as numbers."""
    recipes_in_words = json.loads((shared / "paper" / "tables.json").read_text())["splits"]
    for name, words in recipes_in_words.items():
        recipe = PAPER_RECIPES[name.lower()]
        if recipe is None:
            numbers = []
        else:
            numbers = [round(100 * share) for share in recipe.ratios.values()]
        assert "/".join(map(str, numbers)) in words
        assert (recipe is None) == (words == "official")
        assert recipe is None or recipe.by_domain == ("sub-folder" in words)
        assert recipe is None or (recipe.schemes > 1) == ("PCA" in words)


def test_the_papers_split_of_ube_is_even_in_every_sub_folder() -> None:
    samples = [
        Sample(key=f"{i}.jpg", image=ImageFile(Path("x")), label=i % 2, domain=f"d{i % 10}") for i in range(1000)
    ]
    scheme, _ = paper_split("ube", DataSet("ube", UBE, samples), seed=0)
    for i in range(10):
        counts = Counter(scheme[sample.key] for sample in samples if sample.domain == f"d{i}")
        assert counts == {"train": 70, "val": 10, "test": 20}


def test_the_papers_split_of_caer_divides_the_official_test() -> None:
    samples = [
        Sample(key=f"{i}.jpg", image=ImageFile(Path("x")), label=i % 7, split="train" if i < 700 else "test")
        for i in range(1400)
    ]
    scheme, _ = paper_split("caer-s", DataSet("caer", CAER, samples), seed=0)
    assert all(scheme[sample.key] == "train" for sample in samples[:700])
    assert Counter(scheme.values()) == {"train": 700, "test": 462, "val": 238}
    with pytest.raises(ConfigError, match="official split 'test', which is missing"):
        paper_split("caer-s", DataSet("caer", CAER, samples[:700]), seed=0)
    with pytest.raises(ConfigError, match="official splits of emoset, but they do not exist"):
        paper_split("emoset", DataSet("emoset", MIKELS, samples_of(9)), seed=0)
    with pytest.raises(ConfigError, match="the paper does not split folder"):
        paper_split("folder", DataSet("x", MIKELS, samples), seed=0)
    with pytest.raises(ConfigError, match="needs colour histograms"):
        paper_split("emo8", DataSet("x", MIKELS, samples_of(9)), seed=0)


def test_the_scheme_whose_colours_agree_best_is_chosen() -> None:
    samples = samples_of(200)
    histograms = np.random.default_rng(0).random((200, 48))
    choice = choose_scheme(samples, RATIOS, histograms, seeds=range(30))
    assert choice.distances[choice.seed] == min(choice.distances.values())
    assert choice.scheme == split_samples(samples, RATIOS, choice.seed)
    assert len(choice.distances) == 30
    scheme, chosen = paper_split("emo8", DataSet("emo8", MIKELS, samples), 0, lambda: histograms)
    assert chosen is not None
    assert len(chosen.distances) == 100
    assert {split: pytest.approx(count, abs=3) for split, count in Counter(scheme.values()).items()} == {
        "train": 160,
        "val": 20,
        "test": 20,
    }


def test_frechet_distance_of_known_normals() -> None:
    """Between N(0, 1) and N(m, s²) in each of two dimensions it is 2 (m² + (1 - s)²)."""
    draw = np.random.default_rng(0)
    a = draw.normal(size=(200_000, 2))
    assert frechet_distance(a, 3 * draw.normal(size=(200_000, 2)) + 2) == pytest.approx(2 * (4 + 4), rel=0.01)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a[:1]) == frechet_distance(a[:1], a) == np.inf
    # Two points at 0 and 2 have mean 1 and variance 2, points at 1 and 5 mean 3 and variance 8: 2² + (√8 - √2)².
    pairs = (np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[1.0, 0.0], [5.0, 0.0]]))
    assert frechet_distance(*pairs) == pytest.approx(6)


def test_all_splits_are_plotted_on_the_same_axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are the range of each principal component, so the colours of the splits can be compared."""
    samples = samples_of(60)
    choice = choose_scheme(samples, RATIOS, np.random.default_rng(0).random((60, 48)), seeds=range(3))
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **_: (figures.append(figure), file.touch()))
    plot_choice(choice, DataSet("x", MIKELS, samples), tmp_path / "plot.png")
    low = choice.projected.min(axis=0)
    high = choice.projected.max(axis=0)
    assert figures[0].get_size_inches().tolist() == [16, 4]  # a square for each split and the distances
    *plots, _ = figures[0].axes
    assert [axis.get_title() for axis in plots] == ["train (42)", "val (6)", "test (12)"]
    for axis in plots:
        assert (axis.get_xlim(), axis.get_ylim()) == ((low[0], high[0]), (low[1], high[1]))
    assert np.concatenate([part.get_offsets() for part in plots[0].collections]).shape == (42, 2)


def test_schemes_leave_no_class_without_an_image_in_a_split() -> None:
    counts = (5, 40, 30, 20, 60, 20, 16, 2)
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    samples = [replace(sample, label=label) for sample, label in zip(samples_of(len(labels)), labels, strict=True)]
    ratios = {"train": 0.8, "val": 0.1, "test": 0.1}
    plain = split_samples(samples, ratios, 0)
    assert {plain[sample.key] for sample in samples if sample.label == 0} != ratios.keys()
    histograms = np.random.default_rng(0).random((len(samples), 48))
    scheme = choose_scheme(samples, ratios, histograms, seeds=range(5)).scheme
    for label in range(7):
        assert {scheme[sample.key] for sample in samples if sample.label == label} == ratios.keys()
    totals = Counter(scheme.values())
    assert all(abs(totals[name] - share * len(samples)) < 2 for name, share in ratios.items())


def test_schemes_of_too_few_samples_are_refused() -> None:
    for count in (1, 3):
        with pytest.raises(ConfigError, match=f"{count} sample.*--schemes 1"):
            choose_scheme(samples_of(count), RATIOS, np.random.default_rng(0).random((count, 48)), seeds=range(3))
    with pytest.raises(ConfigError, match="compared by train and test; there is only a, b"):
        choose_scheme(samples_of(50), {"a": 0.5, "b": 0.5}, np.zeros((50, 48)), seeds=range(3))


def test_output_path_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a file"):
        write_splits(tmp_path, {"a": "train"}, source="x", how="y")


def test_a_new_last_class_leaves_the_images_of_the_others() -> None:
    """Also if its number has one digit more than theirs."""
    samples = samples_of(200, classes=10)
    before = split_samples(samples, RATIOS, 0)
    after = split_samples([*samples, replace(samples[0], key="new.jpg", label=10)], RATIOS, 0)
    assert {key: after[key] for key in before} == before
