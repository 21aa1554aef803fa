"""Fusion alone: frozen networks, the scene by itself and joined with the person through Γ1 to Γ4."""

from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from uniemox.data.sample import DataSet, Sample
from uniemox.errors import DataError
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.network import build_fused
from uniemox.finetune.probe import fit_fusion
from uniemox.finetune.step import Objective
from uniemox.finetune.targets import class_weights, has_target, target_of
from uniemox.model.classifier import Classifier
from uniemox.model.config import FusionName
from uniemox.reproduce.evidence.answers import ProbeAnswers, read_answers, write_answers
from uniemox.reproduce.evidence.features import Watch, features_of

WIDTH = 128  # C3
SCENE, TWICE = "scene", "scene and scene"
ROWS: dict[str, tuple[FusionName | None, tuple[int, ...]]] = {  # fusion, and which views are its first and second
    SCENE: (None, (0,)),
    TWICE: ("attention", (0, 0)),
    "Γ1": ("dynamic", (0, 1)),
    "Γ2": ("attention", (0, 1)),
    "Γ3": ("gated", (0, 1)),
    "Γ4": ("static", (0, 1)),
}
ALL_IMAGES, PEOPLE = "all", "people"


def fits_in_all(seeds: int) -> int:
    """How many networks `compare_fusions` fits."""
    return 2 * len(ROWS) * seeds


def compare_fusions(
    init: str,
    data: DataSet,
    out: Path,
    *,
    size: int,
    seeds: int,
    on_progress: Watch = lambda done: None,
    on_fit: Watch = lambda done: None,
) -> None:
    """Fit projection, fusion and head on train, with every seed, and write the answers for test.

    On all images, and on those with people alone. "scene and scene" gives Γ2 the scene twice: what the second view and
    the fusion's own parameters bring without a person. Nothing is chosen: 1,000 steps, the last weights.
    Answers are kept beside `out` after every fit; the same call fits the rest.
    init, size, on_progress: see `features_of`.  on_fit: called with the number of fits done, see `fits_in_all`.
    Raises DataError without train, test or people.
    """
    useful = [sample for sample in data.samples if has_target(sample, "label", data.labels) and sample.split != "val"]
    samples, features = features_of(init, useful, size=size, has_person=True, on_progress=on_progress)
    encoded = torch.from_numpy(features)  # (N, 2, D)
    encoded = (encoded - encoded.mean(dim=(0, 1))) / (encoded.std(dim=(0, 1)) + 1e-6)
    has_people = np.array([bool(sample.persons or sample.target_box) for sample in samples])
    if not has_people.any():
        raise DataError(f"nobody is known in {data.name}; give --persons of `data persons`")
    kept = [sample for sample, is_kept in zip(samples, has_people, strict=True) if is_kept]
    fitted_on = {ALL_IMAGES: (samples, encoded), PEOPLE: (kept, encoded[torch.from_numpy(has_people)])}
    parts = {part: _unanswered(some, data) for part, (some, _) in fitted_on.items()}
    about = {"init": init, "size": size, "width": int(encoded.shape[2]), "people": int(has_people.sum())}
    partial = out.with_suffix(".partial.npz")
    _take_over(partial, parts, about)
    for part, (some, views) in fitted_on.items():
        for name, answer in _answers(some, views, data, seeds, done=set(parts[part].given)):
            parts[part].given[name] = answer
            write_answers(partial, parts, about)
            on_fit(sum(len(answers.given) for answers in parts.values()))
    write_answers(out, parts, about)
    partial.unlink(missing_ok=True)


def _unanswered(samples: Sequence[Sample], data: DataSet) -> ProbeAnswers:
    """Those of test, with their labels."""
    test = [sample for sample in samples if sample.split == "test"]
    if not test or all(sample.split != "train" for sample in samples):
        raise DataError(f"{data.name} needs the splits train and test; give --splits of `data split`")
    labels = target_of(test, "label", data.labels).argmax(dim=1).numpy()
    return ProbeAnswers(tuple(sample.key for sample in test), labels)


def _take_over(partial: Path, parts: Mapping[str, ProbeAnswers], about: Mapping[str, Any]) -> None:
    """What an interrupted call answered for the same images with the same networks."""
    if not partial.is_file():
        return
    done, known = read_answers(partial)
    for part, answers in parts.items():
        if known == about and done[part].keys == answers.keys:
            answers.given.update(done[part].given)


def _answers(
    samples: Sequence[Sample], encoded: Tensor, data: DataSet, seeds: int, done: Set[str]
) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """By row and seed, what the network that is fitted so says of the images of test; without those that are done."""
    is_train = torch.tensor([sample.split == "train" for sample in samples])
    train = [sample for sample in samples if sample.split == "train"]
    target = target_of(train, "label", data.labels)
    objective = Objective(task="label", class_weights=class_weights(train, data.labels))
    for (row, (fusion, views)), seed in product(ROWS.items(), range(seeds)):
        name = f"{row} {seed}"
        if name in done:
            continue
        seen = encoded[:, list(views)]  # (N, V, D)
        network = _network(fusion, encoded.shape[2], len(data.labels), seed)
        fit_fusion(network, seen[is_train], target, objective, seed)
        network.eval()
        with torch.no_grad():
            yield name, network.head(network.fuse(seen[~is_train])).argmax(dim=1).numpy()  # of (M, E)


def _network(fusion: FusionName | None, width: int, outputs: int, seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if fusion is None:
            return Classifier(nn.Identity(), feature_width=width, outputs=outputs, streams="scene")
        embed, joined, _ = build_fused({}, NetworkConfig(streams="both", fusion=fusion, fused_width=WIDTH), width)
        return Classifier(
            nn.Identity(), feature_width=width, outputs=outputs, streams="both", embed=embed, fusion=joined
        )
