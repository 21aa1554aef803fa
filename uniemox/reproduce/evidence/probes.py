"""How much a frozen encoder tells of the labels: logistic regression and 20 neighbours on shares of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from uniemox.data.sample import DataSet, Sample
from uniemox.data.splits import take_fraction
from uniemox.errors import ConfigError, DataError
from uniemox.finetune.probe import fit_head, fit_neighbours
from uniemox.finetune.targets import class_weights, has_target, target_of
from uniemox.reproduce.evidence.answers import ProbeAnswers, write_answers
from uniemox.reproduce.evidence.features import Watch, features_of

TRANSFER_FOLDS, MIN_OF_CLASS = 5, 5
REGRESSION, NEIGHBOURS = "regression", "neighbours"
Classify = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def probe_name(method: str, share: float, seed: int) -> str:
    """Under which a probe's answers are kept."""
    return f"{method} {share:g} {seed}"


def probe_encoder(
    init: str,
    data: DataSet,
    out: Path,
    *,
    size: int,
    shares: Sequence[float],
    seeds: int,
    others: Mapping[str, DataSet] | None = None,
    on_progress: Watch = lambda done: None,
) -> None:
    """Fit probes on shares of train, and write their answers for test and val; and for others, by cross-validation.

    init, size: see `features_of`.  shares: of every class of train, 0 to 1; all of it is fitted once, a part once for
    each of so many seeds, which draw it. Whatever chooses a penalty is within the share. All classes count the same.
    others: by name, data sets that are small: five folds each, all answers of a seed together.
    Raises ConfigError for shares or seeds that are none, DataError where there is nothing to fit or to score.
    """
    if seeds < 1 or not shares or not all(0 < share <= 1 for share in shares):
        raise ConfigError(f"--seeds must be at least 1, --shares above 0 and at most 1, got {seeds} and {shares}")
    began = time.process_time()
    parts: dict[str, ProbeAnswers] = {}
    samples, features = _encoded(init, data, size, on_progress)
    encoding_s = time.process_time() - began
    rows = {sample.key: i for i, sample in enumerate(samples)}
    train = [sample for sample in samples if sample.split == "train"]
    for part in ("test", "val"):
        scored = [sample for sample in samples if sample.split == part]
        if scored:
            parts[part] = ProbeAnswers(tuple(sample.key for sample in scored), _labels(scored, data))
    if not train or "test" not in parts:
        raise DataError(f"{data.name} needs the splits train and test for probes; give --splits of `data split`")
    for share in shares:
        for seed in range(seeds if share < 1 else 1):
            shown = take_fraction(train, share, seed) if share < 1 else train
            known = features[[rows[sample.key] for sample in shown]]
            for method, classify in _fit(known, shown, data, seed).items():
                for answers in parts.values():
                    asked = features[[rows[key] for key in answers.keys]]
                    answers.given[probe_name(method, share, seed)] = classify(asked)
    for name, other in (others or {}).items():
        parts[name] = _transferred(init, other, size, seeds)
    about = {"init": init, "width": features.shape[1], "train": len(train), "encoding_s": round(encoding_s, 1)}
    write_answers(out, parts, about | {"fitting_s": round(time.process_time() - began - encoding_s, 1)})


def _encoded(init: str, data: DataSet, size: int, on_progress: Watch) -> tuple[list[Sample], NDArray[np.float32]]:
    """The labelled samples that can be read, and their features (N, D)."""
    useful = [sample for sample in data.samples if has_target(sample, "label", data.labels)]
    samples, features = features_of(init, useful, size=size, on_progress=on_progress)
    return samples, features[:, 0]


def _labels(samples: Sequence[Sample], data: DataSet) -> NDArray[np.int64]:
    return target_of(samples, "label", data.labels).argmax(dim=1).numpy()


def _fit(features: NDArray[np.float32], samples: Sequence[Sample], data: DataSet, seed: int) -> dict[str, Classify]:
    """By method, a classifier of features (N, D): (N,) places of labels."""
    target = target_of(samples, "label", data.labels)
    weights = class_weights(samples, data.labels).numpy()
    regression, _ = fit_head(features, target.numpy(), task="label", seed=seed, class_weights=weights)
    neighbours = fit_neighbours(features, target.numpy())

    @torch.no_grad()
    def classify(head: torch.nn.Module, asked: NDArray[np.float32]) -> NDArray[np.int64]:
        return head(torch.from_numpy(asked)).argmax(dim=1).numpy()

    return {
        REGRESSION: lambda asked: classify(regression, asked),
        NEIGHBOURS: lambda asked: classify(neighbours, asked),
    }


def _transferred(init: str, data: DataSet, size: int, seeds: int) -> ProbeAnswers:
    """Answers for all images of another data set, each by a regression that was fitted on the other four folds."""
    samples, features = _encoded(init, data, size, lambda done: None)
    labels = _labels(samples, data)
    is_common = np.bincount(labels)[labels] >= MIN_OF_CLASS  # of a rarer class not every fold has one
    samples = [sample for sample, is_kept in zip(samples, is_common, strict=True) if is_kept]
    features, labels = features[is_common], labels[is_common]
    if len(np.unique(labels)) < 2:
        raise DataError(f"{data.name} has too few labels for probes: two classes of {MIN_OF_CLASS} images are needed")
    answers = ProbeAnswers(tuple(sample.key for sample in samples), labels)
    for seed in range(seeds):
        said = np.zeros_like(labels)
        for known, held in StratifiedKFold(TRANSFER_FOLDS, shuffle=True, random_state=seed).split(features, labels):
            shown = [samples[i] for i in known]
            said[held] = _fit(features[known], shown, data, seed)[REGRESSION](features[held])
        answers.given[probe_name(REGRESSION, 1.0, seed)] = said
    return answers
