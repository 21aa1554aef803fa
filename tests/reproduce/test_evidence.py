"""The experiment: its statistics by hand, probes and fusions on drawn scenes, its plan, its page, its commands."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from tests.runs import uniemox_here as uniemox
from uniemox.checkpoints.saving import save_encoder
from uniemox.data.sample import DataSet
from uniemox.data.splits import split_samples
from uniemox.data.synthetic import synthetic
from uniemox.errors import DataError, ShapeError
from uniemox.finetune import probe
from uniemox.model.encoder import build_encoder
from uniemox.reproduce.evidence.answers import ANSWERS, ProbeAnswers, read_answers, right, write_answers
from uniemox.reproduce.evidence.features import TokenAndMean, features_of
from uniemox.reproduce.evidence.findings import EvidenceFindings
from uniemox.reproduce.evidence.fusions import ALL_IMAGES, PEOPLE, ROWS, compare_fusions, fits_in_all
from uniemox.reproduce.evidence.page import write_evidence
from uniemox.reproduce.evidence.plan import Evidence, EvidenceOptions, plan_evidence
from uniemox.reproduce.evidence.probes import NEIGHBOURS, REGRESSION, probe_encoder, probe_name
from uniemox.reproduce.evidence.rows import (
    ALL,
    COLOURS,
    FULL,
    PLAIN,
    QUICK,
    SCRATCH,
    SHARES,
    START,
    TEACHER,
    VARIANTS,
    Budget,
)
from uniemox.reproduce.evidence.statistics import mean_recall
from uniemox.teacher.stored import save_features

LABELS = np.repeat(np.arange(4), 50)


def divided(count: int = 96) -> DataSet:
    data = synthetic(count)
    scheme = split_samples(data.samples, {"train": 0.5, "test": 0.25, "val": 0.25}, 0)
    return replace(data, samples=[replace(sample, split=scheme[sample.key]) for sample in data.samples])


def drawn(rng: np.random.Generator, chance: float, runs: int = 3, draws: int = 2) -> NDArray[np.bool_]:
    return rng.random((runs, draws, len(LABELS))) < chance


def test_mean_recall_counts_classes_alike() -> None:
    labels = np.array([0, 0, 0, 1])
    found = mean_recall(np.array([[[True, True, True, False]]]), labels)
    assert (found.value, found.seeds) == (0.5, 1)
    assert found.low <= 0.5 <= found.high


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    hits = drawn(rng, 0.5)
    same = mean_recall(hits, LABELS, hits)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    better = hits | drawn(rng, 0.3)
    found = mean_recall(better, LABELS, hits)
    assert 0.08 < found.low < found.value < found.high < 0.25
    alone, other = mean_recall(better, LABELS), mean_recall(hits, LABELS)
    assert found.value == pytest.approx(alone.value - other.value)
    assert found.high - found.low < alone.high - alone.low + other.high - other.low


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    alike = drawn(rng, 0.5, runs=4, draws=1)
    apart = np.concatenate([drawn(rng, chance, runs=1, draws=1) for chance in (0.3, 0.4, 0.6, 0.7)])
    widths = [found.high - found.low for found in (mean_recall(alike, LABELS), mean_recall(apart, LABELS))]
    assert widths[1] > 1.8 * widths[0]
    assert mean_recall(apart, LABELS).visible > 1.8 * mean_recall(alike, LABELS).visible


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Two seeds whose recall varies by 4 points, 200 images: of 60 intervals of 95 % at least 51 hold the mean."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(60):
        chances = np.clip(0.5 + 0.04 * rng.normal(size=4), 0, 1)
        hits = np.concatenate([drawn(rng, chance, runs=1, draws=1) for chance in chances])
        found = mean_recall(hits, LABELS)
        held += found.low <= 0.5 <= found.high
    assert held >= 51


@pytest.mark.parametrize("shape", [(3, 200), (1, 1, 199)])
def test_hits_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"must be \(P, L, N\)"):
        mean_recall(np.zeros(shape, dtype=bool), LABELS)
    with pytest.raises(ShapeError, match="and"):
        mean_recall(drawn(np.random.default_rng(0), 0.5), LABELS, drawn(np.random.default_rng(0), 0.5, runs=2))


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = {"test": ProbeAnswers(("a", "ü|x"), np.array([0, 3]), {"regression 0.1 0": np.array([0, 1])})}
    write_answers(tmp_path / "new" / ANSWERS, parts, {"init": "x"})
    read, about = read_answers(tmp_path / "new" / ANSWERS)
    assert about == {"init": "x"}
    assert read["test"].keys == ("a", "ü|x")
    assert right(read["test"], ["regression 0.1 0"]).tolist() == [[True, False]]
    for content in (b"", b"PK\x03\x04 no archive"):
        (tmp_path / "other.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"other.npz holds no answers"):
            read_answers(tmp_path / "other.npz")


def test_token_and_mean_are_read() -> None:
    torch.manual_seed(0)
    vit = build_encoder("vit_tiny_patch16_224", 32, embed_dim=24, depth=1, num_heads=2).eval()
    pixels = torch.rand(2, 3, 32, 32)
    tokens = vit.forward_features(pixels)
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
    torch.testing.assert_close(TokenAndMean(vit)(pixels), expected)
    assert expected.shape == (2, 48)


def test_features_of_colours_and_of_a_teacher(tmp_path: Path) -> None:
    samples = synthetic(8).samples
    read, colours = features_of("histogram", samples, size=32)
    assert (len(read), colours.shape) == (8, (8, 1, 236))
    features = torch.randn(6, 5)
    keys = [sample.key for sample in samples[:6]]
    save_features(
        tmp_path / "t.npz", image_keys=keys, image_features=features, texts=[], text_features=torch.empty(0, 5)
    )
    read, stored = features_of(f"stored:{tmp_path}/t.npz", samples, size=32)
    assert [sample.key for sample in read] == keys  # the others it was not asked about
    np.testing.assert_allclose(stored[:, 0], features)
    others = [f"other {i}" for i in range(9)]
    save_features(
        tmp_path / "u.npz",
        image_keys=others,
        image_features=torch.ones(9, 5),
        texts=[],
        text_features=torch.empty(0, 5),
    )
    for files in ("t.npz,{}/u.npz", "u.npz,{}/t.npz"):  # the one that knows these images is asked
        read, found = features_of(f"stored:{tmp_path}/{files.format(tmp_path)}", samples, size=32)
        np.testing.assert_array_equal(found, stored)


def test_probes_find_what_features_say_and_nothing_where_they_say_nothing(tmp_path: Path) -> None:
    data = divided()
    told = torch.nn.functional.one_hot(torch.tensor([sample.label for sample in data.samples]), 8).float()
    noise = torch.randn(len(data), 8, generator=torch.Generator().manual_seed(0))
    for name, features in (("told", told + 0.1 * noise), ("noise", noise)):
        save_features(
            tmp_path / f"{name}.npz",
            image_keys=[sample.key for sample in data.samples],
            image_features=features,
            texts=[],
            text_features=torch.empty(0, 8),
        )
        probe_encoder(f"stored:{tmp_path}/{name}.npz", data, tmp_path / name, size=32, shares=(0.5, 1), seeds=2)
    found = {name: read_answers(tmp_path / name)[0]["test"] for name in ("told", "noise")}
    names = [probe_name(method, 0.5, seed) for method in (REGRESSION, NEIGHBOURS) for seed in (0, 1)]
    names += [probe_name(method, 1, 0) for method in (REGRESSION, NEIGHBOURS)]
    assert set(found["told"].given) == set(names)
    assert right(found["told"], names).mean() > 0.95
    assert right(found["noise"], names).mean() < 0.4
    assert read_answers(tmp_path / "told")[0]["val"].given.keys() == found["told"].given.keys()


def test_probes_need_both_splits(tmp_path: Path) -> None:
    data = divided().only("train")
    with pytest.raises(DataError, match="needs the splits train and test"):
        probe_encoder("histogram", data, tmp_path / "a.npz", size=16, shares=(1,), seeds=1)


def test_other_data_are_scored_by_folds(tmp_path: Path) -> None:
    probe_encoder(
        "histogram", divided(48), tmp_path / "a.npz", size=16, shares=(1,), seeds=2, others={"more": synthetic(64)}
    )
    answers = read_answers(tmp_path / "a.npz")[0]["more"]
    assert len(answers.labels) == 64
    assert set(answers.given) == {probe_name(REGRESSION, 1, seed) for seed in (0, 1)}
    with pytest.raises(DataError, match="too few labels"):
        probe_encoder(
            "histogram", divided(48), tmp_path / "b.npz", size=16, shares=(1,), seeds=1, others={"few": synthetic(8)}
        )


def weights_of(tmp_path: Path) -> str:
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    return f"timm:test_resnet@{tmp_path}/w.safetensors"


def test_fusions_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "STEPS", 20)
    compare_fusions(weights_of(tmp_path), divided(), tmp_path / "a.npz", size=32, seeds=2)
    parts, about = read_answers(tmp_path / "a.npz")
    assert set(parts) == {ALL_IMAGES, PEOPLE}
    assert set(parts[ALL_IMAGES].given) == {f"{name} {seed}" for name in ROWS for seed in (0, 1)}
    assert 0 < len(parts[PEOPLE].keys) <= len(parts[ALL_IMAGES].keys) == 24
    assert about["people"] > 0

    def stop(done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    fits: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        compare_fusions(weights_of(tmp_path), divided(), tmp_path / "c.npz", size=32, seeds=2, on_fit=stop)
    compare_fusions(weights_of(tmp_path), divided(), tmp_path / "c.npz", size=32, seeds=2, on_fit=fits.append)
    assert fits == list(range(6, fits_in_all(2) + 1))
    again, _ = read_answers(tmp_path / "c.npz")
    assert again[PEOPLE].given.keys() == parts[PEOPLE].given.keys()
    assert all((again[ALL_IMAGES].given[name] == row).all() for name, row in parts[ALL_IMAGES].given.items())
    nobody = divided()
    nobody = replace(nobody, samples=[replace(sample, persons=(), target_box=None) for sample in nobody.samples])
    with pytest.raises(DataError, match="nobody is known"):
        compare_fusions(weights_of(tmp_path), nobody, tmp_path / "b.npz", size=32, seeds=1)


def asked(tmp_path: Path, **changes: object) -> EvidenceOptions:
    weights = weights_of(tmp_path)
    settings = {
        "root": tmp_path / "out",
        "data": "fi:fi",
        "captions": "csv:captions.txt",
        "towers": weights,
        "objects": f"test_resnet@{tmp_path}/w.safetensors",
        "detector": "embedded",
        "transfer": ("abstract:abstract",),
        "budget": FULL,
    }
    return EvidenceOptions(**{**settings, **changes})  # type: ignore[arg-type]


def epochs_of(words: Sequence[str]) -> float:
    return float(words[list(words).index("--schedule.epochs") + 1])


def test_every_pre_training_gets_the_same_compute_from_one_start(tmp_path: Path) -> None:
    planned = plan_evidence(asked(tmp_path))
    for name, variant in VARIANTS.items():
        for seed in planned.seeds(name):
            run, start = planned.pretrained[name, seed], planned.pretrained[START, seed]
            assert epochs_of(run.words) * variant.cost == pytest.approx(variant.share * FULL.epochs, rel=0.01)
            assert run.words[run.words.index("--encoder.start") + 1] == str(start.folder)
            assert start in run.needs
    assert planned.seeds(PLAIN) == planned.seeds(ALL) == [0, 1, 2]
    assert planned.seeds("L1 and L3") == [0, 1]
    commands = [run.words for run in planned.runs]
    assert len(set(commands)) == len(commands)


def test_quick_looks_for_people_in_the_images_that_it_uses_alone(tmp_path: Path) -> None:
    whole, quick = (plan_evidence(asked(tmp_path, budget=budget)).runs for budget in (FULL, QUICK))
    sources = [[run.words[2] for run in runs if run.words[1] in ("persons", "describe")] for runs in (whole, quick)]
    (drawn,) = (run for run in quick if run.name == "pack the images that are used")
    assert sources[0] == ["fi:fi"] * 2
    assert sources[1] == [f"shards:{drawn.folder}"] * 2
    assert all(drawn in run.needs for run in quick if run.words[1] == "persons")


@pytest.mark.parametrize(("budget", "stages"), [(FULL, 3), (QUICK, 1)])
def test_every_run_comes_once_and_after_those_that_it_needs(budget: Budget, stages: int, tmp_path: Path) -> None:
    planned = plan_evidence(asked(tmp_path, budget=budget))
    keys = [run.key for run in planned.runs]
    assert len(planned.stages) == stages
    assert len(set(keys)) == len(keys)
    assert {run.key for run in (planned.fusions, *planned.probes.values(), *planned.tuned.values())} <= set(keys)
    for run in planned.runs:
        assert all(keys.index(needed.key) < keys.index(run.key) for needed in run.needs)


def test_no_text_names_the_emotion(tmp_path: Path) -> None:
    for run in plan_evidence(asked(tmp_path)).runs:
        if run.words[:2] == ("teacher", "fit"):
            assert "--without-emotion" in run.words
        if run.words[0] == "pretrain":
            assert "--teacher.no-with-emotion" in run.words
        assert "--with-emotion" not in run.words


def test_the_words_of_training_runs_are_settings(tmp_path: Path) -> None:
    from uniemox.cli.plan_check import read_settings
    from uniemox.finetune.config import FinetuneConfig
    from uniemox.pretrain.config import PretrainConfig

    planned = plan_evidence(asked(tmp_path, budget=QUICK))
    for run in planned.runs:
        if run.words[0] in ("pretrain", "finetune"):
            config = read_settings(run.words)
            assert isinstance(config, PretrainConfig | FinetuneConfig)
            assert config.view.size == 112
            assert config.schedule.epochs == epochs_of(run.words)
    plain, everything = (read_settings(planned.pretrained[name, 0].words) for name in (PLAIN, ALL))
    assert isinstance(plain, PretrainConfig)
    assert isinstance(everything, PretrainConfig)
    assert not plain.model.needs_person
    assert not plain.model.needs_text_features
    assert everything.model.fusion == "attention"
    assert everything.model.needs_text_features


def test_a_peer_is_probed_and_tuned_as_the_others(tmp_path: Path) -> None:
    torch.manual_seed(0)
    (tmp_path / "peer").mkdir()
    save_encoder(
        build_encoder("vit_tiny_patch16_224", 112, embed_dim=24, depth=1, num_heads=2),
        tmp_path / "peer" / "encoder.safetensors",
    )
    planned = plan_evidence(asked(tmp_path, peers={"DINO": tmp_path / "peer"}))
    assert "DINO" in planned.rows
    assert ("DINO", 0, 0.1) in planned.tuned
    words = planned.probes["DINO", 0].words
    _, features = features_of(words[words.index("--init") + 1], synthetic(8).samples, size=112)
    assert features.shape == (8, 1, 48)


def answered(planned: Evidence, chances: dict[str, float]) -> None:
    """Write the answers of all probes: a row is right about so many images."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 40)
    keys = tuple(str(i) for i in range(len(labels)))
    for (row, _), run in planned.probes.items():
        parts = {}
        for part in ("test", "val", *planned.options.transfer):
            given = {}
            for method in (REGRESSION, NEIGHBOURS):
                for share in SHARES:
                    for seed in range(planned.options.budget.label_seeds):
                        is_right = rng.random(len(labels)) < chances.get(row, 0.4)
                        given[probe_name(method, share, seed)] = np.where(is_right, labels, (labels + 1) % 8)
            parts[part] = ProbeAnswers(keys, labels, given)
        write_answers(run.folder / ANSWERS, parts, {})


@pytest.mark.parametrize(
    ("chance", "verdict"), [(0.6, "The method helped here"), (0.2, "was worse"), (0.4, "A difference was not seen")]
)
def test_the_page_says_what_was_found(tmp_path: Path, chance: float, verdict: str) -> None:
    planned = plan_evidence(asked(tmp_path))
    answered(planned, {ALL: chance, PLAIN: 0.4, COLOURS: 0.3, TEACHER: 0.8})
    path = write_evidence(planned)
    page, figures = path.read_text("utf-8"), json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert verdict in page
    assert "12.5 %" in page  # chance
    assert figures["outcome"]["value"] == pytest.approx(chance - 0.4, abs=0.06)
    assert figures["outcome"]["seeds"] == FULL.primary_seeds
    for row in (*VARIANTS, START, COLOURS, TEACHER, SCRATCH):
        assert row.replace("'", "&#x27;") in page
    tables = [part for part in page.split("<section")[1:] if "20 nearest" in part or "five folds" in part]
    assert len(tables) == 2
    for table in tables:  # what no table may lack
        assert all(row.replace("'", "&#x27;") in table for row in (TEACHER, COLOURS, "chance"))
    secondary = EvidenceFindings(planned).gained("L1 and L3", REGRESSION, 0.1)
    assert secondary is not None
    assert secondary.seeds == FULL.seeds


def test_a_page_of_nothing_says_so(tmp_path: Path) -> None:
    path = write_evidence(plan_evidence(asked(tmp_path, budget=QUICK)))
    assert "are not done" in path.read_text("utf-8")
    assert "proves nothing" in path.read_text("utf-8")
    assert json.loads(path.with_suffix(".json").read_text())["outcome"] is None


def test_the_commands(tmp_path: Path) -> None:
    source = weights_of(tmp_path)
    words = [
        "--data",
        "fi:fi",
        "--captions",
        "csv:c.txt",
        "--towers",
        source,
        "--objects",
        "test_resnet",
        "--detector",
        "embedded",
    ]
    done = uniemox("reproduce", "evidence", *words, "--out", tmp_path / "out", "--quick", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("uniemox pretrain") for line in done.stdout.splitlines()) == 1 + len(VARIANTS)
    done = uniemox("reproduce", "evidence", *words, "--peers", "DINO=nowhere")
    assert done.returncode == 1
    assert "--peers takes NAME=FOLDER with an encoder.safetensors" in " ".join(done.stderr.split())
    done = uniemox(
        "reproduce", "probes", "--init", "histogram", "--data", "synthetic:16", "--out", "a.npz", "--shares", "2"
    )
    assert done.returncode == 1
    assert "--shares above 0 and at most 1" in " ".join(done.stderr.split())
