"""What is compiled: each block of a network once, whatever it is wrapped in; a network without blocks as a whole."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from tests.runs import tiny_pretraining
from uniemox.pretrain.run import build_model
from uniemox.training.hardware import wrap

CPU = torch.device("cpu")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """The modules that are compiled, in place of compiling them."""
    found: list[nn.Module] = []

    def one(module: nn.Module) -> None:
        found.append(module)

    def whole(module: Any) -> Any:
        found.append(module)
        return module

    monkeypatch.setattr(nn.Module, "compile", one)
    monkeypatch.setattr(torch, "compile", whole)
    return found


def test_blocks_of_encoder_and_decoder_are_compiled(compiled: list[nn.Module]) -> None:
    model = build_model(tiny_pretraining(), 8)
    assert wrap(model, CPU, compiled=False) is model
    assert compiled == []
    assert wrap(model, CPU, compiled=True) is model
    assert model.decoder is not None
    assert compiled == [*model.encoder.blocks, *model.decoder.blocks]


def test_a_network_without_blocks_is_compiled_as_a_whole(compiled: list[nn.Module]) -> None:
    vgg = timm.create_model("vgg11", num_classes=2)
    wrap(vgg, CPU, compiled=True)
    assert compiled == [vgg]
