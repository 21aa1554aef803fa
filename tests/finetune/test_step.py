"""One step of fine-tuning: the loss of the formula, accumulation, errors."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.runs import PLAIN
from uniemox.errors import NonFiniteLossError, ShapeError
from uniemox.finetune.step import FinetuneBatch, Objective, finetune_step
from uniemox.model.classifier import Classifier
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD, PixelStats

STATS = PixelStats(IMAGENET_MEAN, IMAGENET_STD)
LABEL = Objective(task="label")


def network() -> Classifier:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = Classifier(encoder, feature_width=8, outputs=3, streams="scene")
    nn.init.normal_(model.head.weight)
    return model


def batch(count: int = 6, seed: int = 0) -> FinetuneBatch:
    draw = torch.Generator().manual_seed(seed)
    scene = torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8, generator=draw)
    return FinetuneBatch(scene=scene, person=None, target=torch.eye(3)[torch.arange(count) % 3])


def rows(joined: FinetuneBatch, part: slice) -> FinetuneBatch:
    return FinetuneBatch(scene=joined.scene[part], person=None, target=joined.target[part])


def step(model: Classifier, *batches: FinetuneBatch, rate: float = 0.0, **options: Any) -> dict[str, float]:
    options = {"objective": LABEL, "augment": PLAIN, "stats": STATS} | options
    return finetune_step(model, torch.optim.SGD(model.parameters(), lr=rate), batches, **options)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_loss_and_gradient_are_those_of_cross_entropy() -> None:
    model = network()
    inputs = batch()
    pixels = (inputs.scene / 255 - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    expected = F.cross_entropy(model(pixels), inputs.target)
    expected.backward()
    wanted = gradients(model)
    values = step(model, inputs)
    assert values["loss"] == pytest.approx(expected.item(), rel=1e-5)
    norm = torch.stack([grad.norm() for grad in wanted.values()]).norm().item()
    assert values["grad_norm"] == pytest.approx(norm, rel=1e-5)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, wanted[name], rtol=1e-4, atol=1e-6)


def test_accumulated_batches_of_any_size_give_the_joined_batchs_gradient() -> None:
    model = network()
    joined = batch()
    values = step(model, joined)
    expected = gradients(model)
    parts = [rows(joined, slice(0, 1)), rows(joined, slice(1, 4)), rows(joined, slice(4, 6))]
    assert step(model, *parts) == pytest.approx(values, rel=1e-5)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], rtol=1e-4, atol=1e-6)


def test_class_weights_weight_the_loss() -> None:
    model = network()
    inputs = batch()
    each = [step(model, rows(inputs, slice(i, i + 1)))["loss"] for i in range(6)]
    weights = torch.tensor([1.0, 2.0, 0.0])
    loss = step(model, inputs, objective=Objective(task="label", class_weights=weights))["loss"]
    expected = (torch.tensor(each) * weights[torch.arange(6) % 3]).sum() / weights[torch.arange(6) % 3].sum()
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_non_finite_loss_changes_no_weight() -> None:
    model = network()
    model.head.bias.data[0] = float("inf")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(NonFiniteLossError, match=r"^loss is (nan|inf); no weight was changed"):
        step(model, batch(), rate=1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_view_that_is_missing_is_refused() -> None:
    with pytest.raises(ShapeError):
        step(network(), FinetuneBatch(scene=None, person=None, target=torch.eye(3)))
    with pytest.raises(ShapeError):
        step(network(), FinetuneBatch(scene=batch(2).scene, person=None, target=torch.eye(3)))
