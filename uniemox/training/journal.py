"""Records of a training run: callbacks, metrics.jsonl, images, warnings of divergence."""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, Self

import torch
from msgspec import Meta
from PIL import Image
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from uniemox.io.files import write_file
from uniemox.io.images import encode_image
from uniemox.io.run_files import METRICS
from uniemox.io.typed import check_json, read_json_lines
from uniemox.plurals import counted
from uniemox.training.processes import local_parameters, rank
from uniemox.training.trackers import open_tracker

# A plan does not mention checkpoints that need less space than this.
MIN_MENTIONED_BYTES = 10**9
# Weight, gradient, and AdamW's two running means, in float32.
BYTES_OF_A_PARAMETER = 16
BYTES_OF_A_FROZEN_PARAMETER = 4


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


IMAGES = "pictures"
TENSORBOARD = "tensorboard"


class Journal:
    """Journal of one run.

    Only the first process writes.

    Args:
        run: Folder of the run.
        step: Number of steps done; a killed process's records of later steps are removed.
        tracker: Tracker that also receives the values, see `open_tracker`; None: none.
    """

    def __init__(self, run: Path, step: int, tracker: Literal["wandb", "mlflow"] | None = None) -> None:
        self.run = run
        self.is_written = rank() == 0
        if not self.is_written:
            return
        path = run / METRICS
        earlier_lines = []
        if path.exists():
            earlier_lines = [line for line in read_metrics(run) if line["step"] <= step]
        write_file(path, "".join(json.dumps(line) + "\n" for line in earlier_lines))
        self.file = path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(run / TENSORBOARD), purge_step=step + 1)
        self.tracker = open_tracker(run, tracker)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.is_written:
            self.file.close()
            self.board.close()
            if self.tracker is not None:
                self.tracker.close(failed=kind is not None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write one line to metrics.jsonl, and one point to every curve.

        Args:
            step: Number of steps done.
            values: Values by name.
        """
        if self.is_written:
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
            if self.tracker is not None:
                self.tracker.write(step, values)

    def image(self, step: int, name: str, image: Image.Image) -> None:
        """Save an image of this step as pictures/NAME-STEP.png."""
        if self.is_written:
            path = self.run / IMAGES / f"{name}-{step:08d}.png"
            write_file(path, encode_image(image, "PNG"))
            if self.tracker is not None:
                self.tracker.image(step, name, image)


# Whole numbers beyond this are not exact as floats.
MAX_WHOLE = 2**53
LoggedValue = Annotated[int, Meta(ge=-MAX_WHOLE, le=MAX_WHOLE)] | float


@dataclass(frozen=True, slots=True)
class MetricsLine:
    """The field that every line has; the others are losses and other values by name."""

    step: int


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Read the lines of a run's metrics.jsonl, without an incomplete last line.

    Raises:
        DataError: If there is no such file, or if a line is not an object with a step.
    """
    remedy = "copy the run's folder again"
    values = []
    # A process that was killed while writing leaves half a line at the end.
    for where, value in read_json_lines(run / METRICS, dict[str, LoggedValue], remedy=remedy, may_be_cut=True):
        check_json(value, MetricsLine, where, remedy=remedy)
        values.append(value)
    return values


WINDOW = 20
"""Number of steps whose median is watched."""
# A loss has diverged if it is MAX_LOSS_RATIO times its lowest value, and has risen by MAX_RISE times its first value.
MAX_LOSS_RATIO = 2.0
MAX_RISE = 0.5
# Gradients have exploded if their norm is this many times the first one.
MAX_NORM_RATIO = 20.0
REMEDY = "the learning rate may be too high: try half of --optimizer.base-lr, or more --schedule.warmup-epochs"


class DivergenceWatch:
    """Watches every step of a run and warns once of each kind of problem."""

    def __init__(self) -> None:
        # Losses and gradient norms of the last steps.
        self._window: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        # Median loss and norm of the first window.
        self._first: tuple[float, float] | None = None
        # Lowest median loss, and its step.
        self._lowest = (0.0, 0)
        self._warned: set[str] = set()

    def check(self, done: int, values: Mapping[str, float]) -> str | None:
        """Add a step, and return a warning if it is the first of its kind, else None.

        Args:
            done: Number of steps so far.
            values: The step's values: total or loss, and grad_norm.
        """
        total = values.get("total", values.get("loss"))
        if total is None or "grad_norm" not in values:
            return None
        self._window.append((total, values["grad_norm"]))
        if len(self._window) < WINDOW:
            return None
        loss, norm = map(median, zip(*self._window, strict=True))
        if self._first is None:
            self._first = (loss, norm)
            self._lowest = (loss, done)
        if loss < self._lowest[0]:
            self._lowest = (loss, done)

        lowest, step = self._lowest
        first_loss, first_norm = self._first
        # A loss near or below 0 easily exceeds twice its lowest value, so it must also rise by a share of the first.
        if loss > MAX_LOSS_RATIO * lowest and loss > lowest + MAX_RISE * abs(first_loss):
            kind = "loss"
            sentence = f"the loss was {lowest:.3g} at step {step:,} and is {loss:.3g} now; {REMEDY}"
        elif norm > MAX_NORM_RATIO * first_norm:
            kind = "grad_norm"
            sentence = (
                f"gradients were {first_norm:.3g} long at first and are {norm:.3g} now; {REMEDY}; or set "
                "--optimizer.max-grad-norm"
            )
        else:
            return None
        is_new = kind not in self._warned
        self._warned.add(kind)
        return sentence if is_new else None
