"""Receiver of a run's plan, progress, notes and warnings."""

from collections.abc import Mapping
from dataclasses import dataclass

from uniemox.plurals import counted

# A plan does not mention checkpoints that need less space than this.
MIN_MENTIONED_BYTES = 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """Plan of a run: its steps, batch, data and device."""

    title: str
    """What the run does, such as pre-training."""
    steps: int
    done: int
    """Number of steps that an earlier process did."""
    batch_size: int
    """Number of images per step, over all processes."""
    accumulation: int = 1
    """Number of batches per step."""
    samples: int
    """Number of training images."""
    parameters: int
    """Number of trained parameters."""
    memory_bytes: int
    """Estimate of the memory of one process, bytes: weights, gradients, optimiser, activations."""
    device: str = "cpu"
    processes: int = 1
    disk_bytes: int = 0
    """Maximum size of all checkpoints, bytes."""
    is_sharded: bool = False
    """True if the network is sharded over the processes (FSDP2)."""
    workers: int = 0
    """Number of loading processes per process."""
    stops_on_divergence: bool = False
    cores: int = 0
    """Number of usable cores of this machine; 0: unknown."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the samples."""
        return self.samples // self.batch_size

    def __str__(self) -> str:
        images = self.steps * self.batch_size
        line = (
            f"{self.title}: {counted(self.steps, 'step')} of {counted(self.batch_size, 'image')} "
            f"({counted(self.samples, 'sample')}, {images / self.samples:.1f} epochs), "
            f"{self.parameters / 1e6:.1f} million parameters, about {self.memory_bytes / 1e9:.1f} GB, on "
            f"{self.processes} x {self.device}{', the network sharded over them' if self.is_sharded else ''}"
        )
        if self.cores:
            line += f", each with {self.workers} loading; this machine has {self.cores} cores"
        if self.disk_bytes >= MIN_MENTIONED_BYTES:
            line += f", up to {self.disk_bytes / 1e9:.1f} GB of checkpoints"
        if self.done:
            return f"{line}; {counted(self.done, 'step is', 'steps are')} done"
        return line


class Callback:
    """Receives the progress of a run; does nothing by default."""

    def progress(self, work: str, done: int, total: int | None) -> None:
        """Called during long work before the first step or after a save, see `uniemox.io.progress`."""

    def start(self, plan: RunPlan) -> None:
        """Called once, before the first step."""

    def note(self, line: str) -> None:
        """Called for facts that the user should know, such as the origin of initial weights, or unreadable images."""

    def warn(self, done: int, trouble: str) -> None:
        """Called once for each kind of problem that a run may have.

        Args:
            done: Number of steps so far.
            trouble: A sentence about the problem.
        """

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Called after every step.

        Args:
            done: Number of steps so far.
            values: Losses and other values by name.
        """
