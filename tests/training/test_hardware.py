"""How convolutional networks lie in memory."""

import pytest
import timm
import torch

from uniemox.training.hardware import ready_to_train


@pytest.mark.parametrize(("name", "is_last"), [("resnet10t", True), ("repvgg_a0", False), ("test_vit", False)])
def test_channels_are_last_but_where_torch_fails(name: str, is_last: bool) -> None:
    """RepVGG: torch 2.15 on the CPU writes over other memory in its backward pass otherwise."""
    model = ready_to_train(timm.create_model(name, num_classes=2), torch.device("cpu"))
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4 and parameter.shape[2] > 1]
    assert any(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels) == is_last
