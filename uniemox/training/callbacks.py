"""What a run tells whoever watches it: what it will cost before it starts, then every step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from uniemox.training.sharding import kept_parameters

SHOWN_BYTES = 10**9  # less disk than that is nothing to mention
BYTES_OF_A_PARAMETER = 16  # weight, gradient, and AdamW's two means in float32


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """What a run is going to do."""

    what: str  # "pre-training"
    steps: int
    done: int  # steps that an earlier process did
    batch_size: int  # images of a step, over all processes
    accumulation: int  # batches of a step
    samples: int  # training images
    parameters: int  # that are trained
    memory_bytes: int  # estimate for one process: weights, gradients, optimiser, activations
    device: str
    processes: int
    disk_bytes: int = 0  # that checkpoints will take at most
    is_sharded: bool = False  # whether the network is divided over the processes (FSDP2)
    workers: int = 0  # processes that load, of each process
    stops_on_divergence: bool = False
    cores: int = 0  # of this machine that may be used; 0: not known

    def __str__(self) -> str:
        images = self.steps * self.batch_size
        line = (
            f"{self.what}: {self.steps:,} steps of {self.batch_size} images "
            f"({self.samples:,} samples, {images / self.samples:.1f} epochs), "
            f"{self.parameters / 1e6:.1f} million parameters, about {self.memory_bytes / 1e9:.1f} GB, on "
            f"{self.processes} x {self.device}{', the network divided over them' if self.is_sharded else ''}"
        )
        if self.cores:
            line += f", each with {self.workers} loading; this machine has {self.cores} cores"
        line += f", up to {self.disk_bytes / 1e9:.1f} GB of checkpoints" if self.disk_bytes >= SHOWN_BYTES else ""
        return f"{line}; {self.done:,} steps are done" if self.done else line


class Callback(Protocol):
    """Whoever watches a run."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Called during long work before the first step or after a save."""

    def start(self, plan: RunPlan) -> None:
        """Told once, before the first step."""

    def warn(self, done: int, trouble: str) -> None:
        """Told, once for each kind, that the run seems to go wrong.  done: steps so far.  trouble: a sentence."""

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Told after every step.  done: steps so far.  values: losses and more, by name."""


class NullCallback:
    """Nobody watches."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Nothing."""

    def start(self, plan: RunPlan) -> None:
        """Nothing."""

    def warn(self, done: int, trouble: str) -> None:
        """Nothing."""

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Nothing."""


class ActivationCount:
    """Within it, the bytes that autograd keeps for the backward pass, parameters left out.

    model: whose forward pass runs within.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {parameter.untyped_storage().data_ptr() for parameter in kept_parameters(model)}
        self.kept: dict[int, int] = {}
        self.alive: list[Tensor] = []  # so that no address is used twice
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """Of all distinct tensors."""
        return sum(self.kept.values())

    def __enter__(self) -> "ActivationCount":
        self.hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.hooks.__exit__(*exception)
        self.alive.clear()

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.parameters:
            self.kept[storage.data_ptr()] = storage.nbytes()
            self.alive.append(tensor)
        return tensor


def memory_estimate(model: nn.Module, activation_bytes: int) -> int:
    """Bytes of a training process: 16 for each trained parameter that it keeps, and the activations of one batch."""
    trained = sum(parameter.numel() for parameter in kept_parameters(model) if parameter.requires_grad)
    return BYTES_OF_A_PARAMETER * trained + activation_bytes
