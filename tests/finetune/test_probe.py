"""Heads on frozen features: against scikit-learn's own pipeline and a plain count of neighbours."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from uniemox.finetune import heads
from uniemox.finetune.head_training import HeadTrainingData, train_after_encoder
from uniemox.finetune.heads import FOLDS, PENALTIES, fit_head
from uniemox.finetune.step import Objective
from uniemox.model.classifier import Classifier, NeighbourHead
from uniemox.model.fusion import build_fusion

DRAW = np.random.default_rng(0)
CENTRES = DRAW.normal(size=(4, 6)) * 1.5


def cloud(each: int, classes: int = 3, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    features = CENTRES[labels] + draw.normal(size=(len(labels), 6))
    return (features * [1, 10, 0.1, 1, 1, 1] + 5).astype(np.float32), labels


def one_hot(labels: NDArray[np.intp], classes: int) -> NDArray[np.float32]:
    return np.eye(classes, dtype=np.float32)[labels]


def logits(head: torch.nn.Module, features: NDArray[np.float32]) -> NDArray[np.float64]:
    with torch.no_grad():
        return head(torch.from_numpy(features)).numpy().astype(np.float64)


def shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(values - np.logaddexp.reduce(values, axis=1, keepdims=True))


@pytest.mark.parametrize("classes", [2, 4])
def test_head_is_scikit_learns_cross_validated_logistic_regression(classes: int) -> None:
    features, labels = cloud(12, classes)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=3)
    scaled = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    search = GridSearchCV(
        LogisticRegression(max_iter=2000), {"C": PENALTIES}, scoring="neg_log_loss", cv=folds, refit=True
    ).fit(scaled, labels)
    head, penalty = fit_head(features, one_hot(labels, classes), task="label", seed=3)
    assert penalty == search.best_params_["C"]
    np.testing.assert_allclose(shares(logits(head, features)), search.predict_proba(scaled), atol=2e-3)


@pytest.mark.parametrize("task", ["label", "multilabel", "affect"])
def test_samples_of_one_group_are_fitted_or_held_out_together(task: str) -> None:
    """Copies of a sample in both parts made the weakest penalty look best, though the features say nothing."""
    draw = np.random.default_rng(5)
    features = np.repeat(draw.normal(size=(60, 40)), 3, axis=0).astype(np.float32)
    labels = np.repeat(draw.integers(2, size=60), 3)
    target = one_hot(labels, 2)
    groups = [str(i // 3) for i in range(len(labels))]
    _, alone = fit_head(features, target, task=task, seed=0)
    _, grouped = fit_head(features, target, task=task, seed=0, groups=groups)
    is_stronger = grouped > alone if task == "affect" else grouped < alone
    assert is_stronger
    unique = fit_head(features[::3], target[::3], task=task, seed=0)
    named = fit_head(features[::3], target[::3], task=task, seed=0, groups=groups[::3])
    assert named[1] == unique[1]


def test_groups_of_one_sample_do_not_decide_the_penalty_of_ratings() -> None:
    """R² of a single sample is undefined: the strongest penalty was taken."""
    random = np.random.default_rng(0)
    features = random.normal(size=(106, 4)).astype(np.float32)
    target = features[:, :2] @ random.normal(size=(2, 2)).astype(np.float32)
    groups = ["large"] * 100 + [f"single {i}" for i in range(6)]
    _, alpha = fit_head(features, target, task="affect", seed=0, groups=groups)
    assert alpha <= 1


def test_each_held_out_sample_counts_the_same_for_the_penalty_of_ratings() -> None:
    """In a mean over folds, each of the last 6 samples counted as much as 25 others."""
    random = np.random.default_rng(0)
    features = random.normal(size=(156, 40)).astype(np.float32)
    target = features[:, :2] + random.normal(size=(156, 2)).astype(np.float32)
    target[150:] *= -3
    groups = np.repeat([0, 1, 2, 3, 4], [75, 75, 2, 2, 2])
    _, alpha = fit_head(features, target, task="affect", seed=0, groups=[str(group) for group in groups])

    x = StandardScaler().fit_transform(features)
    errors: dict[float, list[float]] = {}
    for penalty in PENALTIES:
        errors[1 / penalty] = []
        for group in range(5):
            model = Ridge(1 / penalty).fit(x[groups != group], target[groups != group])
            errors[1 / penalty].extend(np.square(model.predict(x[groups == group]) - target[groups == group]).sum(1))
    assert alpha == min(errors, key=lambda alpha: sum(errors[alpha]))
    of_folds = {
        alpha: np.mean([np.mean(part) for part in np.split(np.array(per_sample), [75, 150, 152, 154])])
        for alpha, per_sample in errors.items()
    }
    assert alpha != min(of_folds, key=of_folds.__getitem__)


def test_folds_hold_out_whole_groups_unless_a_class_has_a_single_one() -> None:
    target = one_hot(np.repeat([0, 1], 8), 2)
    groups = np.arange(16) // 2
    folds = heads.stratified_folds(target, groups, 0)
    assert len(folds) == 4
    for train, held_out in folds:
        assert not set(groups[train]) & set(groups[held_out])
    assert len(heads.stratified_folds(target, np.repeat([0, 1], 8), 0)) == FOLDS


def test_class_without_samples_is_never_predicted() -> None:
    features, labels = cloud(10)
    head, _ = fit_head(features, one_hot(labels, 5), task="label", seed=0)
    answers = logits(head, features)
    assert set(answers.argmax(axis=1)) == {0, 1, 2}
    assert shares(answers)[:, 3:].max() < 1e-4


def test_single_class_or_sample_predicts_that_class() -> None:
    for each in (1, 5):
        features, labels = cloud(each, 1)
        head, _ = fit_head(features, one_hot(labels + 1, 3), task="label", seed=0)
        assert set(logits(head, features).argmax(axis=1)) == {1}


def test_class_with_one_sample_needs_no_folds() -> None:
    features, labels = cloud(8)
    labels[labels == 2] = 1
    labels[0] = 2
    _, penalty = fit_head(features, one_hot(labels, 3), task="label", seed=0)
    assert penalty == 1e-2


def test_shares_count_as_samples_of_each_class() -> None:
    features, _ = cloud(1, 2)
    target = np.array([[0.75, 0.25], [0.75, 0.25]], dtype=np.float32)
    head, _ = fit_head(np.repeat(features[:1], 2, axis=0), target, task="distribution", seed=0)
    np.testing.assert_allclose(shares(logits(head, features[:1]))[0], [0.75, 0.25], atol=1e-3)


def test_class_weights_move_predictions_between_overlapping_clouds() -> None:
    features, labels = cloud(30, 2)
    features = features + 6 * np.random.default_rng(2).normal(size=features.shape).astype(np.float32)
    rare = np.concatenate([features[labels == 0], features[labels == 1][:3]])
    target = one_hot(np.array([0] * 30 + [1] * 3), 2)
    counts = []
    for weights in (None, np.array([33 / 60, 33 / 6], dtype=np.float32)):
        head, _ = fit_head(rare, target, task="label", seed=0, class_weights=weights)
        counts.append((logits(head, features).argmax(axis=1) == 1).sum())
    assert counts[1] > counts[0]


def test_valence_and_arousal_are_ridge_regression() -> None:
    features, _ = cloud(20)
    target = (features @ DRAW.normal(size=(6, 2)) / 10 + DRAW.normal(size=(60, 2)) * 0.1).astype(np.float32)
    head, penalty = fit_head(features, target, task="affect", seed=0)
    plain = make_pipeline(StandardScaler(), RidgeCV(alphas=[1 / c for c in PENALTIES])).fit(features, target)
    assert penalty == plain[-1].alpha_
    np.testing.assert_allclose(logits(head, features), plain.predict(features), atol=1e-3)


def test_constant_feature_does_no_harm() -> None:
    features, labels = cloud(10)
    features[:, 2] = 7
    head, _ = fit_head(features, one_hot(labels, 3), task="label", seed=0)
    assert np.isfinite(logits(head, features)).all()
    assert (logits(head, features).argmax(axis=1) == labels).mean() > 0.8


def test_the_fit_uses_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    class Watched(LogisticRegression):
        def fit(self, *args: object, **options: object) -> LogisticRegression:
            threads.update(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
            return super().fit(*args, **options)

    monkeypatch.setattr(heads, "LogisticRegression", Watched)
    features, labels = cloud(10)
    with threadpool_limits(2):
        fit_head(features, one_hot(labels, 3), task="label", seed=0)
    assert threads == {1}


def test_neighbours_vote_by_cosine() -> None:
    features, labels = cloud(15)
    queries = cloud(4, seed=9)[0]
    answers = shares(logits(NeighbourHead(torch.from_numpy(features), torch.from_numpy(one_hot(labels, 3))), queries))
    for row, answer in zip(queries, answers, strict=True):
        cosines = features @ row / np.linalg.norm(features, axis=1) / np.linalg.norm(row)
        nearest = np.argsort(-cosines)[:20]
        votes = np.exp((cosines[nearest] - cosines.max()) / 0.07)
        expected = np.array([votes[labels[nearest] == label].sum() for label in range(3)]) / votes.sum()
        np.testing.assert_allclose(answer, expected, atol=1e-4)


def fused_classifier() -> Classifier:
    torch.manual_seed(0)
    parts = {"embed": torch.nn.Linear(6, 16), "fusion": build_fusion("gated", 16)}
    return Classifier(torch.nn.Identity(), feature_width=6, outputs=2, streams="both", **parts).train()


def test_fusion_and_head_learn_combinations_of_both_streams() -> None:
    draw = torch.Generator().manual_seed(0)
    encoded = torch.randn(600, 2, 6, generator=draw)
    encoded[:, :, 0] = encoded[:, :, 0].sign()
    # Each stream alone says nothing about the label.
    labels = encoded[:, 0, 0] != encoded[:, 1, 0]
    target = torch.nn.functional.one_hot(labels.long(), 2).float()
    train = slice(0, 500)
    held_out = slice(500, 600)
    classifier = fused_classifier()
    train_after_encoder(
        classifier, HeadTrainingData(encoded[train], target[train]), objective=Objective(task="label"), seed=0
    )
    with torch.no_grad():
        right = classifier.head(classifier.fuse(encoded[held_out])).argmax(dim=1) == labels[held_out].long()
    assert right.float().mean() > 0.85
    linear, _ = fit_head(encoded[train].flatten(1).numpy(), target[train].numpy(), task="label", seed=0)
    alone = logits(linear, encoded[held_out].flatten(1).numpy()).argmax(axis=1) == labels[held_out].numpy()
    assert alone.mean() < 0.65
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_fusion_and_head_are_the_same_for_the_same_seed() -> None:
    encoded = torch.randn(40, 2, 6)
    target = torch.eye(2)[torch.arange(40) % 2]
    fitted = []
    for seed in (1, 1, 2):
        classifier = fused_classifier()
        train_after_encoder(classifier, HeadTrainingData(encoded, target), objective=Objective(task="label"), seed=seed)
        fitted.append(classifier.head.weight.detach())
    assert torch.equal(fitted[0], fitted[1])
    assert not torch.equal(fitted[0], fitted[2])
