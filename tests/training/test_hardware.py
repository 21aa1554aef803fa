"""Memory formats, compiled modules, loading processes and shared memory."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from tests.data.tree import says
from tests.networks import small_model
from uniemox.errors import ConfigError
from uniemox.model.classifier import set_drop_path
from uniemox.training import hardware
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import check_shared_memory, count_workers, ready_to_train, wrap

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "is_last"), [("resnet10t", True), ("repvgg_a0", False), ("test_vit", False)])
def test_convolutions_use_channels_last_except_repvgg(name: str, is_last: bool) -> None:
    """RepVGG: torch 2.15 on the CPU writes over other memory in its backward pass otherwise."""
    model = ready_to_train(timm.create_model(name, num_classes=2), torch.device("cpu"))
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4 and parameter.shape[2] > 1]
    assert any(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels) == is_last


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Modules that torch was asked to compile."""
    modules: list[nn.Module] = []

    def compile_model(module: Any) -> Any:
        modules.append(module)
        return module

    def compile_block(module: nn.Module) -> None:
        modules.append(module)

    monkeypatch.setattr(nn.Module, "compile", compile_block)
    monkeypatch.setattr(torch, "compile", compile_model)
    return modules


def test_blocks_of_encoder_and_decoder_are_compiled(compiled: list[nn.Module]) -> None:
    model = small_model()
    assert wrap(model, CPU, compiled=False) is model
    assert compiled == []
    assert wrap(model, CPU, compiled=True) is model
    assert model.decoder is not None
    assert compiled == [*model.encoder.blocks, *model.decoder.blocks]


def test_workers_are_shared_by_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes of torchrun on 16 cores start two workers each, not eight."""
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(hardware, "usable_cores", lambda: 16)
    assert count_workers(HardwareConfig(), gpu) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert count_workers(HardwareConfig(), gpu) == 2
    assert count_workers(HardwareConfig(workers=5), gpu) == 5
    assert count_workers(HardwareConfig(), CPU) == 1


def test_too_little_shared_memory_is_refused_with_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Docker gives a container 64 MB: the need of all processes is compared with what is free."""
    monkeypatch.setattr(hardware, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    # Bytes of both views at a batch of 1,024 on eight GPUs.
    batch = 128 * 2 * 3 * 224**2
    with pytest.raises(
        ConfigError, match=says("16 loading processes need 2.5 GB", "--shm-size=4g", "--hardware.workers (now 2)")
    ):
        check_shared_memory(2, batch)
    check_shared_memory(0, batch)
    check_shared_memory(1, 10_000)
    monkeypatch.setattr(hardware, "SHARED_MEMORY", tmp_path / "none")
    check_shared_memory(2, batch)


def test_blocks_that_differ_are_compiled_as_a_whole(compiled: list[nn.Module]) -> None:
    vit = small_model().encoder
    set_drop_path(vit, 0.1)
    for network in (vit, timm.create_model("test_resnet", num_classes=2)):
        wrap(network, CPU, compiled=True)
        assert compiled.pop() is network
        assert compiled == []
