"""A step gives the same loss and gradient however its images are divided into batches and processes.

The reference is the same loss over all images at once, with torch's weighted cross-entropy where torch has one.
Float32: losses to 1e-5, gradients to 1e-4 of their norm.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.finetune.augmented import augment_batch
from tests.runs import PLAIN
from uniemox.finetune.config import AugmentConfig, Task
from uniemox.finetune.step import FinetuneBatch, Objective, finetune_step
from uniemox.labels import MIKELS
from uniemox.losses.tasks import affect_loss, distribution_loss
from uniemox.model.classifier import Classifier
from uniemox.model.methods.relation import build_method
from uniemox.views.patches import IMAGENET, normalise

COUNT = 12
LABELS = torch.tensor([0] * 8 + [1] * 3 + [2])
# Weights of class_weighting balanced.
WEIGHTS = (COUNT / 3) / torch.bincount(LABELS).float()
DIVISIONS = [(6, 6), (3, 3, 3, 3), (1, 7, 4)]


class Network(nn.Module):
    """A linear head, after a batch norm and a dropout where asked for."""

    def __init__(self, outputs: int = 3, *, is_random: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm = nn.BatchNorm2d(3) if is_random else nn.Identity()
        self.dropout = nn.Dropout(0.5 if is_random else 0.0)
        self.head = nn.Linear(3 * 8 * 8, outputs)

    def forward(self, scene: Tensor, person: Tensor | None = None, with_features: bool = False) -> Any:
        features = self.dropout(self.norm(scene).flatten(1))
        return self.head(features), features


def scenes(size: int = 8) -> Tensor:
    return torch.randint(0, 256, (COUNT, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def targets(task: Task) -> Tensor:
    draw = torch.Generator().manual_seed(2)
    if task == "affect":
        return torch.rand(COUNT, 2, generator=draw) * 2 - 1
    if task == "distribution":
        return torch.rand(COUNT, 3, generator=draw).softmax(dim=1)
    return torch.eye(3)[LABELS]


def run_step(
    model: nn.Module, joined: FinetuneBatch, sizes: Sequence[int], objective: Objective, augment: AugmentConfig = PLAIN
) -> tuple[float, Tensor]:
    """Return the loss of a step, and its gradient as one vector."""
    fields: dict[str, Tensor | None] = {
        "scene": joined.scene,
        "person": joined.person,
        "target": joined.target,
        "batch_targets": joined.batch_targets,
    }
    parts: dict[str, Any] = {
        name: [None] * len(sizes) if value is None else value.split(sizes) for name, value in fields.items()
    }
    batches = [FinetuneBatch(**{name: part[i] for name, part in parts.items()}) for i in range(len(sizes))]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    values = finetune_step(model, optimizer, batches, objective=objective, augment=augment, stats=IMAGENET)
    return values["loss"], gradient_of(model)


def gradient_of(model: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def assert_same(step: tuple[float, Tensor], expected: tuple[float, Tensor]) -> None:
    assert step[0] == pytest.approx(expected[0], rel=1e-5)
    assert (step[1] - expected[1]).norm() <= 1e-4 * expected[1].norm()


@pytest.mark.parametrize("task", ["label", "distribution"])
@pytest.mark.parametrize("sizes", [(COUNT,), *DIVISIONS])
def test_class_weights_count_over_the_whole_step(task: Task, sizes: Sequence[int]) -> None:
    model = Network()
    target = targets(task)
    logits = model(normalise(scenes(), torch.device("cpu")))[0]
    if task == "label":
        expected = F.cross_entropy(logits, LABELS, weight=WEIGHTS)
    else:
        expected = distribution_loss(logits, target, target @ WEIGHTS)
    expected.backward()
    reference = expected.item(), gradient_of(model)
    joined = FinetuneBatch(scene=scenes(), person=None, target=target)
    objective = Objective(task=task, class_weights=WEIGHTS)
    assert_same(run_step(Network(), joined, sizes, objective), reference)


def test_a_batch_without_weight_adds_nothing() -> None:
    """The last four images are of classes with weight 0; torch's loss over all images is that of the others."""
    weights = torch.tensor([1.0, 0.0, 0.0])
    model = Network()
    expected = F.cross_entropy(model(normalise(scenes(), torch.device("cpu")))[0], LABELS, weight=weights)
    expected.backward()
    joined = FinetuneBatch(scene=scenes(), person=None, target=targets("label"))
    step = run_step(Network(), joined, (8, 4), Objective(task="label", class_weights=weights))
    assert_same(step, (expected.item(), gradient_of(model)))


def test_a_mixed_target_counts_with_its_own_weight() -> None:
    """The loss of two mixed batches is the sum of w·l over both, divided by the sum of w.

    w is of the mixed target before smoothing, which would give all images a part of the weights of rare classes.
    """
    augment = replace(PLAIN, mixup=0.8, smoothing=0.1)
    joined = FinetuneBatch(scene=scenes(), person=None, target=targets("label"))
    objective = Objective(task="label", class_weights=WEIGHTS)
    np.random.seed(3)
    step = run_step(Network(), joined, (6, 6), objective, augment)
    np.random.seed(3)
    total = loss = torch.zeros(())
    for scene, target in zip(scenes().split(6), joined.target.split(6), strict=True):
        pixels, _, mixed = augment_batch(scene, None, target, augment, task="label")
        classes = WEIGHTS.numel()
        weight = (mixed - 0.1 / classes) / 0.9 @ WEIGHTS
        loss = loss + (weight * F.cross_entropy(Network()(pixels)[0], mixed, reduction="none")).sum()
        total = total + weight.sum()
    assert step[0] == pytest.approx((loss / total).item(), rel=1e-5)


class Blind(nn.Module):
    """Answers the same for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, scene: Tensor, person: None = None, *, with_features: bool = False) -> tuple[Tensor, Tensor]:
        logits = self.bias.expand(len(scene), 3)
        return logits, logits


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_balanced_classes_count_the_same_with_smoothed_labels(smoothing: float) -> None:
    """Without images to see, a balanced network answers equal shares; it answered the frequent class at 0.33."""
    counts = torch.tensor([90, 9, 3])
    labels = torch.repeat_interleave(torch.arange(3), counts)
    weights = counts.sum() / (3 * counts)
    target = torch.eye(3)[labels]
    objective = Objective(task="label", class_weights=weights)
    network = Blind()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scene = torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8)
    batch = FinetuneBatch(scene=scene, person=None, target=target)
    for _ in range(200):
        finetune_step(
            network,
            optimizer,
            [batch],
            objective=objective,
            augment=replace(PLAIN, smoothing=smoothing),
            stats=IMAGENET,
        )
    torch.testing.assert_close(network.bias.softmax(0).detach(), torch.full((3,), 1 / 3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("method", ["mdan", "stimuli", "emoticon", "eap"])
def test_the_losses_of_region_methods_count_over_the_whole_step(method: str) -> None:
    """EAP aligns images with words here; the images with words of each kind are not spread evenly."""
    torch.manual_seed(0)
    encoder = timm.create_model("test_vit", num_classes=0, img_size=32)
    options: dict[str, Any] = {"word_counts": [len(MIKELS), 3, 2]} if method == "eap" else {}
    relation = build_method(method, width=encoder.num_features, channels=8, labels=MIKELS.labels, **options)
    start = Classifier(encoder, feature_width=encoder.num_features, outputs=8, streams="both", method=relation)
    batch_targets = None
    if method == "eap":
        batch_targets = (torch.rand(COUNT, len(MIKELS) + 5, generator=torch.Generator().manual_seed(4)) < 0.3).float()
        batch_targets[:5, 8:11] = 0
        batch_targets[6:, 11:] = 0
    target = torch.eye(8)[LABELS]
    joined = FinetuneBatch(scene=scenes(32), person=scenes(32).flip(0), target=target, batch_targets=batch_targets)
    weights = torch.cat([WEIGHTS, torch.ones(5)])
    steps = []
    for sizes in ((COUNT,), (1, 7, 4)):
        model = copy.deepcopy(start)
        assert model.method is not None
        steps.append(
            run_step(model, joined, sizes, Objective(task="label", class_weights=weights, method=model.method))
        )
    assert_same(steps[1], steps[0])


@pytest.mark.parametrize("sizes", [(COUNT,), *DIVISIONS])
def test_concordance_is_that_of_the_whole_step(sizes: Sequence[int]) -> None:
    model = Network(2)
    target = targets("affect")
    expected = affect_loss(model(normalise(scenes(), torch.device("cpu")))[0], target)
    expected.backward()
    joined = FinetuneBatch(scene=scenes(), person=None, target=target)
    step = run_step(Network(2), joined, sizes, Objective(task="affect"))
    assert_same(step, (expected.item(), gradient_of(model)))


def test_predicting_a_step_s_images_first_draws_and_counts_nothing() -> None:
    """Dropout draws the same in both passes, and batch norm counts each image once."""
    model = Network(2, is_random=True)
    plain = copy.deepcopy(model)
    joined = FinetuneBatch(scene=scenes(), person=None, target=targets("affect"))
    torch.manual_seed(5)
    step = run_step(model, joined, (6, 6), Objective(task="affect"))
    torch.manual_seed(5)
    predictions = [plain(normalise(part, torch.device("cpu")))[0] for part in scenes().split(6)]
    expected = affect_loss(torch.cat(predictions), joined.target)
    expected.backward()
    assert_same(step, (expected.item(), gradient_of(plain)))
    torch.testing.assert_close(model.norm.running_mean, plain.norm.running_mean)
    torch.testing.assert_close(model.norm.running_var, plain.norm.running_var)
    assert model.norm.momentum == plain.norm.momentum


CASES: list[tuple[Task, Tensor | None]] = [("label", WEIGHTS), ("distribution", WEIGHTS), ("affect", None)]


def _process(rank: int, folder: Path) -> None:
    """Run one of two processes, which has 7 of the 12 images, in two batches, or 5."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = slice(0, 7) if rank == 0 else slice(7, COUNT)
    steps = []
    for task, weights in CASES:
        model = DistributedDataParallel(Network(2 if task == "affect" else 3))
        part = FinetuneBatch(scene=scenes()[rows], person=None, target=targets(task)[rows])
        objective = Objective(task=task, class_weights=weights)
        for sizes in ((len(part.target),), (2, len(part.target) - 2)):
            steps.append(run_step(model, part, sizes, objective))
    if rank == 0:
        torch.save(steps, folder / "steps")
    dist.destroy_process_group()


@pytest.mark.thorough
def test_two_processes_give_the_step_of_one(tmp_path: Path) -> None:
    mp.start_processes(_process, (tmp_path,), nprocs=2, start_method="forkserver")
    steps = iter(torch.load(tmp_path / "steps"))
    for task, weights in CASES:
        joined = FinetuneBatch(scene=scenes(), person=None, target=targets(task))
        model = Network(2 if task == "affect" else 3)
        expected = run_step(model, joined, (COUNT,), Objective(task=task, class_weights=weights))
        for _ in range(2):
            assert_same(next(steps), expected)
