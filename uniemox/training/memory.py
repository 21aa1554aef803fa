"""Estimate of the memory that training takes."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from uniemox.training.sharding import local_parameters

# Weight, gradient, and AdamW's two running means, in float32.
BYTES_OF_A_PARAMETER = 16
BYTES_OF_A_FROZEN_PARAMETER = 4
# Sizes of the batches whose memory is measured; loss L2 compares at least two images.
PROBED_BATCH_SIZES = (2, 4)


class ActivationCount(torch.autograd.graph.saved_tensors_hooks):
    """Context that counts the bytes that autograd stores for the backward pass, without parameters.

    Args:
        model: The model whose forward pass runs inside the context.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(self._pack, lambda tensor: tensor)
        self.parameters = {parameter.untyped_storage().data_ptr() for parameter in local_parameters(model)}
        # Bytes by address, with the storage itself, so that its address is not reused.
        self.storages: dict[int, tuple[int, object]] = {}

    @property
    def bytes(self) -> int:
        """Total size of all distinct tensors, in bytes."""
        return sum(size for size, _ in self.storages.values())

    def __enter__(self) -> Self:  # type: ignore[override] # torch's gives nothing
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.parameters:
            self.storages[storage.data_ptr()] = (storage.nbytes(), storage)
        # The tensor itself would keep its graph alive, which in turn keeps the tensor: nothing would free the two.
        return tensor.detach()


def memory_estimate(model: nn.Module, activation_bytes: int = 0) -> int:
    """Return the bytes of a training process.

    A trained parameter counts 16 bytes, a frozen one 4.

    Args:
        model: The model in training.
        activation_bytes: Bytes that the backward pass of one batch needs.
    """
    trained = 0
    frozen = 0
    for parameter in local_parameters(model):
        if parameter.requires_grad:
            trained += parameter.numel()
        else:
            frozen += parameter.numel()
    return BYTES_OF_A_PARAMETER * trained + BYTES_OF_A_FROZEN_PARAMETER * frozen + activation_bytes


def activation_bytes(model: nn.Module, probe: Callable[[Tensor], object], size: int, images: float) -> int:
    """Estimate what autograd stores for the backward pass of a batch, in bytes.

    It grows linearly with the images. Its fixed part, such as copies of the weights in bfloat16, counts once.

    Args:
        model: The model, on its device.
        probe: Function that passes (N, 3, S, S) uint8 through the model.
        size: S, side of the views in px.
        images: Number of images in the batch; may be a fraction.
    """
    few, many = PROBED_BATCH_SIZES
    bytes_of_few = _stored_bytes(model, probe, size, few)
    bytes_of_many = _stored_bytes(model, probe, size, many)
    bytes_per_image = (bytes_of_many - bytes_of_few) / (many - few)
    return int(bytes_of_few + bytes_per_image * (images - few))


def _stored_bytes(model: nn.Module, probe: Callable[[Tensor], object], size: int, count: int) -> int:
    """Count the bytes that autograd stores for grey images."""
    pixels = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    with torch.compiler.set_stance("force_eager"), ActivationCount(model) as stored:
        probe(pixels)
    return stored.bytes


def view_bytes(size: int) -> int:
    """Return the bytes of one view, (3, S, S) uint8, of a side S in px."""
    return 3 * size**2


def trained_parameters(model: nn.Module) -> int:
    """Return the number of weights that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
