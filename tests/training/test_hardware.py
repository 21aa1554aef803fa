"""How convolutional networks lie in memory, and what is compiled."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from tests.networks import small_model
from uniemox.model.classifier import set_drop_path
from uniemox.training.hardware import ready_to_train, wrap

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "is_last"), [("resnet10t", True), ("repvgg_a0", False), ("test_vit", False)])
def test_channels_are_last_but_where_torch_fails(name: str, is_last: bool) -> None:
    """RepVGG: torch 2.15 on the CPU writes over other memory in its backward pass otherwise."""
    model = ready_to_train(timm.create_model(name, num_classes=2), torch.device("cpu"))
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4 and parameter.shape[2] > 1]
    assert any(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels) == is_last


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """What torch was asked to compile."""
    found: list[nn.Module] = []

    def whole(module: Any) -> Any:
        found.append(module)
        return module

    def block(module: nn.Module) -> None:
        found.append(module)

    monkeypatch.setattr(nn.Module, "compile", block)
    monkeypatch.setattr(torch, "compile", whole)
    return found


def test_blocks_of_encoder_and_decoder_are_compiled(compiled: list[nn.Module]) -> None:
    model = small_model()
    assert wrap(model, CPU, compiled=False) is model
    assert compiled == []
    assert wrap(model, CPU, compiled=True) is model
    assert model.decoder is not None
    assert compiled == [*model.encoder.blocks, *model.decoder.blocks]


def test_blocks_that_differ_are_compiled_as_a_whole(compiled: list[nn.Module]) -> None:
    vit = small_model().encoder
    set_drop_path(vit, 0.1)
    for network in (vit, timm.create_model("test_resnet", num_classes=2)):
        wrap(network, CPU, compiled=True)
        assert compiled.pop() is network
        assert compiled == []
