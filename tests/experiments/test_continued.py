"""The experiment on continuing a start: views, resuming, cross-fitted probes, and its statistics."""

import copy
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from experiments.continued import outcomes as stored
from experiments.continued.__main__ import HERE
from experiments.continued.baselines import score_baselines
from experiments.continued.drawn import drawn_pack
from experiments.continued.figure import draw_contrasts
from experiments.continued.pack import Pack, quantised, ridge, whitened
from experiments.continued.plan import BUDGETS, FULL, HALVES, START, SUPERVISED, TINY, Job, jobs_of
from experiments.continued.plan import CPU as CPU_PROFILE
from experiments.continued.probe import Scores, balanced, features_of, score
from experiments.continued.statistics import difference
from experiments.continued.tables import print_tables
from experiments.continued.tensors import Images, batches, cut, random_boxes, resize_whole, wide_enough
from experiments.continued.training import (
    Course,
    Laboratory,
    new_encoder,
    pretraining_model,
    train,
    train_arm,
    train_start,
)
from experiments.continued.transfer import OtherData, score_all
from uniemox.losses.config import LossWeights

pytestmark = pytest.mark.thorough

CPU = torch.device("cpu")
OUTCOMES = HERE / "outcomes"
ROOT = HERE.parents[1]
FIGURE = ROOT / "docs" / "images" / "continued.svg"
PROFILE = replace(TINY, warm_up_steps=2, arm_epochs=1)


@pytest.fixture(scope="module")
def pack() -> Pack:
    return drawn_pack()


@pytest.fixture(scope="module")
def images(pack: Pack) -> Images:
    return Images.of(pack, CPU)


def test_pack_is_read_as_it_was_written(pack: Pack, tmp_path: Path) -> None:
    pack.write(tmp_path / "pack.npz")
    read = Pack.read(tmp_path / "pack.npz")
    for name in Pack.__slots__:
        np.testing.assert_array_equal(getattr(read, name), getattr(pack, name))
    assert read.pixels().shape == (len(pack.labels), 3, 128, 128)


def test_features_lose_at_most_half_a_step() -> None:
    features = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    stored, step = quantised(features)
    errors = (torch.from_numpy(stored).float() * step - features).abs()
    assert errors.quantile(0.999) <= step / 2 + 1e-6
    assert step < 0.05


def test_halves_have_equal_numbers_of_every_class(pack: Pack) -> None:
    counts = [np.bincount(pack.labels[pack.half == half]) for half in (0, 1)]
    np.testing.assert_array_equal(*counts)


def test_whitened_components_and_ridge_equal_sklearns() -> None:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge

    features = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)
    _, _, ours = whitened(features, 3)
    theirs = PCA(3, whiten=True).fit_transform(features.numpy())
    for i in range(3):
        assert abs(np.corrcoef(ours[:, i], theirs[:, i])[0, 1]) > 0.999
        assert float(ours[:, i].std()) == pytest.approx(1.0, abs=0.01)
    weight, offset = ridge(features, ours, penalty=2.0)
    expected = Ridge(alpha=2.0).fit(features.numpy(), ours.numpy())
    np.testing.assert_allclose(weight.T, expected.coef_, atol=1e-4)
    np.testing.assert_allclose(offset, expected.intercept_, atol=1e-4)


def test_views_are_the_boxes_of_the_images() -> None:
    """Each half of an image of two colours has one colour; mirroring exchanges the sides."""
    pixels = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    pixels[:, 0, :, 8:] = 200
    left = cut(pixels, torch.tensor([[0.0, 0.0, 0.45, 1.0]]), torch.tensor([False]), 4)
    right = cut(pixels, torch.tensor([[0.55, 0.0, 1.0, 1.0]]), torch.tensor([False]), 4)
    mirrored = cut(pixels, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([True]), 4)
    assert (left == 0).all()
    assert (right[:, 0] == 200).all()
    assert (mirrored[0, 0, :, 0] == 200).all()
    assert (mirrored[0, 0, :, 3] == 0).all()
    assert (
        torch.equal(resize_whole(pixels, 16), pixels)
        or (resize_whole(pixels, 16).float() - pixels.float()).abs().max() <= 100
    )
    grey = resize_whole(pixels, 4, grey=True)
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_crops_lie_inside_the_image() -> None:
    boxes = random_boxes(500, torch.Generator().manual_seed(0))
    assert boxes.min() >= 0
    assert boxes.max() <= 1 + 1e-6
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert 0.29 < area.min() < area.max() <= 1.0
    wide = wide_enough(torch.tensor([[0.0, 0.0, 0.001, 1.0], [0.99, 0.2, 1.0, 0.4]]))
    assert ((wide[:, 2:] - wide[:, :2]) > 0.049).all()
    assert wide.min() >= 0
    assert wide.max() <= 1


def test_batches_have_every_image_once_per_epoch_and_resume_unchanged(images: Images) -> None:
    options = {"steps": 12, "seed": 3}
    complete = list(batches(images, PROFILE, **options))
    labels = torch.cat([batch.labels for batch in complete[:6]])
    assert torch.equal(labels.bincount(), images.labels.bincount())
    resumed = list(batches(images, PROFILE, **options, done=9))
    for batch, resumed_batch in zip(complete[9:], resumed, strict=True):
        assert torch.equal(batch.views.scene, resumed_batch.views.scene)
        assert torch.equal(batch.views.scene_noise, resumed_batch.views.scene_noise)
    with_emotion = next(iter(batches(images, PROFILE, **options, reads_emotion=True)))
    assert not torch.equal(with_emotion.views.text_features, complete[0].views.text_features)


def test_a_killed_run_ends_with_the_same_weights(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.continued import training

    laboratory = Laboratory(PROFILE, images, torch.zeros(len(images)), tmp_path)
    course = Course(steps=8, warm_up=2, lr=1e-3, seed=0)

    def new_model() -> torch.nn.Module:
        torch.manual_seed(0)
        return pretraining_model(laboratory, new_encoder(PROFILE), LossWeights(), "attention")

    undisturbed = new_model()
    train(laboratory, undisturbed, images, tmp_path / "undisturbed.pt", course)
    monkeypatch.setattr(training, "SAVE_EVERY", 3)
    step_of = training.step_of

    def dying(*args: object) -> object:
        step = step_of(*args)  # type: ignore[arg-type]
        count = iter(range(5))

        def once(batch: object) -> object:
            if next(count, None) is None:
                raise KeyboardInterrupt
            return step(batch)  # type: ignore[arg-type]

        return once

    monkeypatch.setattr(training, "step_of", dying)
    with pytest.raises(KeyboardInterrupt):
        train(laboratory, new_model(), images, tmp_path / "killed.pt", course)
    monkeypatch.setattr(training, "step_of", step_of)
    resumed = new_model()
    train(laboratory, resumed, images, tmp_path / "killed.pt", course)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not (tmp_path / "killed.partial").exists()


@pytest.mark.parametrize("arm", [START, FULL, SUPERVISED])
def test_an_arm_changes_the_encoder_but_not_the_start(arm: str, images: Images, pack: Pack, tmp_path: Path) -> None:
    laboratory = Laboratory(PROFILE, images, torch.from_numpy(pack.half), tmp_path)
    torch.manual_seed(0)
    start = new_encoder(PROFILE)
    before = start.blocks[0].attn.qkv.weight.clone()  # type: ignore[union-attr,index]
    encoder = train_arm(laboratory, start, Job(arm, "A", 0))
    is_changed = not torch.equal(encoder.blocks[0].attn.qkv.weight, before)  # type: ignore[union-attr,index]
    assert is_changed == (arm != START)
    assert features_of(encoder, images, PROFILE.side_px).shape == (len(images), 2 * PROFILE.encoder["embed_dim"])


def test_the_unseen_half_is_the_other_one(images: Images, pack: Pack, tmp_path: Path) -> None:
    laboratory = Laboratory(PROFILE, images, torch.from_numpy(pack.half), tmp_path)
    for half in HALVES:
        own = laboratory.part(half)
        unseen = laboratory.part(half, unseen=True)
        assert len(own) + len(unseen) == len(images)
        assert not {row.numpy().tobytes() for row in own.pixels} & {row.numpy().tobytes() for row in unseen.pixels}


@pytest.mark.parametrize("tenths", [True, False])
def test_probes_do_not_read_the_images_that_they_score(tenths: bool) -> None:
    """With labels by chance, recall is chance; a probe that had read the images would know all of them."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 60))
    labels = rng.integers(0, 4, 400)
    scores = score(features, labels, tenths=tenths)
    assert 0.17 < balanced(scores.hit, labels) < 0.33
    features[:, :4] += 8 * np.eye(4)[labels]
    assert balanced(score(features, labels, tenths=tenths).hit, labels) > 0.8


def test_intervals_and_equivalence_are_scipys() -> None:
    values = [0.4, -0.2, 0.1, 0.6, 0.3, -0.1]
    result = difference(values, 1.0)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert result.interval == pytest.approx(tuple(interval))
    expected_p = max(
        stats.ttest_1samp(values, -1.0, alternative="greater").pvalue,
        stats.ttest_1samp(values, 1.0, alternative="less").pvalue,
    )
    assert result.equivalence == pytest.approx(expected_p)
    assert result.verdicts() == ["no effect above the bound"]
    assert difference([2.1, 2.3, 1.9, 2.2], 1.0).verdicts() == ["helps"]
    assert difference([-0.31, -0.3, -0.29, -0.3], 1.0).verdicts() == ["harms", "no effect above the bound"]
    assert difference([3.0, -3.0, 2.0, -1.0], 1.0).verdicts() == ["undecided"]


def test_archive_contains_all_outcomes(tmp_path: Path) -> None:
    """A rented machine returns only a few files."""
    outcomes = tmp_path / "outcomes"
    archive = tmp_path / "outcomes.tar"
    for name in ("full.A.0.npz", "full.B.0.npz"):
        outcomes.mkdir(exist_ok=True)
        np.savez(outcomes / name, values=np.arange(3))
        stored.pack_outcomes(outcomes, archive)
    contents = {}
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            content = tar.extractfile(member)
            if content is not None:
                contents[member.name] = content.read()
    assert contents == {f"outcomes/{path.name}": path.read_bytes() for path in outcomes.iterdir()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outcomes", "outcomes.tar"]


def test_tables_come_from_the_stored_outcomes_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The control fails with equal arms; with a better supervised arm, verdicts appear."""
    labels = np.repeat(np.arange(4), 10)
    stored.write_labels(tmp_path, dict.fromkeys(HALVES, labels))
    rng = np.random.default_rng(0)
    for job in jobs_of(PROFILE):
        gain = 0.3 if job.arm == SUPERVISED else 0.0
        hit = (rng.random(40) < 0.4 + gain).astype(float)
        scores = dict.fromkeys(BUDGETS, Scores(np.full(40, -1.0 + gain), hit))
        stored.write(job.path(tmp_path), scores, {"stage0": 40.0} if job.arm == START else {})
    print_tables(tmp_path, PROFILE)
    text = capsys.readouterr().out
    assert text.startswith("Positive control: passed.")
    assert "| claim | full − start |" in text
    assert "| claim | 2 |" in text
    assert "- half A: 40.0" in text


def test_the_pages_show_the_tables_of_the_stored_outcomes(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(OUTCOMES, CPU_PROFILE)
    lines = capsys.readouterr().out.splitlines()
    assert "Positive control: not passed, so there is no verdict." in lines
    tables = (ROOT / "experiments/continued/TABLES.md").read_text("utf-8").splitlines()
    assert not [line for line in lines if line not in tables]
    page = (ROOT / "docs/experiments.md").read_text("utf-8")
    page = page.partition("## Continuing a saturated start")[2].partition("## From random weights")[0]
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert len(rows) > 12
    assert not [row for row in rows if row not in lines]


def test_the_figure_is_that_of_the_stored_outcomes(tmp_path: Path) -> None:
    draw_contrasts(OUTCOMES, CPU_PROFILE, tmp_path / "continued.svg")
    drawn, of_page = (file.read_text("utf-8") for file in (tmp_path / "continued.svg", FIGURE))
    assert re.findall("<!-- (.+?) -->", drawn) == re.findall("<!-- (.+?) -->", of_page)  # its words and numbers


def test_every_planned_encoder_has_an_outcome() -> None:
    assert not [job for job in jobs_of(CPU_PROFILE) if not job.path(OUTCOMES).exists()]
    figures = stored.read_transfer(OUTCOMES)
    assert sorted(figures) == sorted(job.path(OUTCOMES).stem for job in jobs_of(CPU_PROFILE))
    assert all(set(halves) == set(HALVES) for halves in stored.read_baselines(OUTCOMES).values())


def test_other_data_are_scored_by_folds_that_no_theme_is_divided_by(images: Images) -> None:
    """Ratings that only the theme predicts give no correlation if no fold divides a theme."""
    rng = np.random.default_rng(0)
    themes = np.arange(len(images)) % 8
    ratings = rng.normal(size=8)[themes]
    pixels = torch.zeros_like(images.pixels)
    for row, theme in enumerate(themes):
        pixels[row] = int(30 * theme)
    data = OtherData("drawn", replace(images, pixels=pixels), ratings, themes.astype(str))
    encoder = new_encoder(PROFILE)
    by_theme = data.score(encoder, PROFILE.side_px)
    by_image = replace(data, groups=np.arange(len(images)).astype(str)).score(encoder, PROFILE.side_px)
    assert by_image > 90
    assert by_theme < 60


def test_encoders_are_scored_once_on_other_data(images: Images, pack: Pack, tmp_path: Path) -> None:
    """A repeated call keeps the figures; the start is that of its last stage."""
    laboratory = Laboratory(PROFILE, images, torch.from_numpy(pack.half), tmp_path)
    start, _ = train_start(laboratory, "A")
    train_arm(laboratory, copy.deepcopy(start), Job(SUPERVISED, "A", 0))
    data = OtherData("drawn, recall", images, images.labels.numpy().astype(np.float64))
    score_all([data], tmp_path, tmp_path, PROFILE)
    figures = stored.read_transfer(tmp_path)
    assert set(figures) == {"start.A.0", "supervised.A.0"}
    assert figures["start.A.0"]["drawn, recall"] == pytest.approx(data.score(start, PROFILE.side_px), abs=1e-3)
    score_all([replace(data, name="other")], tmp_path, tmp_path, PROFILE)
    assert stored.read_transfer(tmp_path) == figures


def test_baselines_are_scored_on_the_half_that_is_not_trained_on(images: Images, pack: Pack, tmp_path: Path) -> None:
    score_baselines(images, torch.from_numpy(pack.half), tmp_path, PROFILE, jobs=1)
    figures = stored.read_baselines(tmp_path)
    assert set(figures) == {"colour histogram", "random weights", "teacher"}
    labels = images.labels.numpy()
    rows = pack.half == 1
    expected = score(images.image_features.double().numpy()[rows], labels[rows], tenths=False)
    assert figures["teacher"]["A"]["all"][0] == pytest.approx(100 * balanced(expected.hit, labels[rows]), abs=1e-3)
