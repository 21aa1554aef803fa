"""Checkpoints of a run, written atomically: a kill never leaves an incomplete one.

RUN/checkpoints/step-00000500/model.safetensors    the weights
                              state.pt             optimiser, step, and what else the run needs to resume
"""

import pickle
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from uniemox.checkpoints.saving import write_tensors
from uniemox.errors import CheckpointError
from uniemox.io.drive import flush
from uniemox.io.files import PARTIAL, open_regular
from uniemox.io.run_files import CHECKPOINTS
from uniemox.io.weight_archives import check_weight_archive
from uniemox.training.config import SaveConfig
from uniemox.training.processes import rank
from uniemox.training.sharding import copy_to_host, shard_like, shard_moments

MODEL = "model.safetensors"
STATE = "state.pt"
STATE_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, safetensors.SafetensorError)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Position of a run when it saved."""

    step: int  # steps done
    score: float | None = None  # higher is better; None if nothing was scored
    more: Mapping[str, Any] = field(default_factory=dict)  # further state of the run, such as a moving average


class _OtherGroupsError(CheckpointError):
    """The optimiser groups the parameters in another way than the run did, which no earlier checkpoint changes."""


def _refuse_other_groups(path: Path, saved: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Raise CheckpointError if an optimiser's groups are not those that were saved, by their numbers of parameters."""
    sizes = [len(group["params"]) for group in saved["param_groups"]]
    if sizes != [len(group["params"]) for group in optimizer.param_groups]:
        raise _OtherGroupsError(
            f"{path}: this version of uniemox groups the weights by layers in another way than the one that began the "
            "run; finish it with that version, or begin it again with another --out"
        )


class Checkpoints:
    """Checkpoints of one run, by number of steps.

    They are written from a copy while training continues; every other method waits for the one being written.

    Args:
        run: Folder of the run.
        keep: Number of recent checkpoints to keep, besides the best.
        keep_every: Keep the checkpoints at multiples of this number of steps; 0: none.
    """

    def __init__(self, run: Path, keep: int, keep_every: int = 0) -> None:
        self.folder = run / CHECKPOINTS
        self.keep = keep
        self.keep_every = keep_every
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[None] | None = None
        # Scores of complete checkpoints: to read one, the state of the optimiser is searched.
        self._scores: dict[Path, float | None] = {}

    def save(self, point: ResumePoint, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
        """Start writing a checkpoint; afterwards delete those that are neither recent nor the best.

        Training can continue at once, because a copy of weights and moments on the CPU is written. Tensors sharded over
        processes (FSDP2) are gathered first; then all processes call it, and the first one writes.

        Returns:
            The checkpoint's folder.

        Raises:
            CheckpointError: If the previous one could not be written; the ones before it remain.
        """
        # Raises the error of the previous checkpoint.
        self.wait()
        final = self.folder_of(point.step)
        state = {
            "step": point.step,
            "score": point.score,
            "more": dict(point.more),
            "optimizer": optimizer.state_dict(),
        }
        copied_weights = copy_to_host(model.state_dict())
        copied_state = copy_to_host(state)
        if rank() == 0:
            self._written = self._writer.submit(self._write, final, copied_weights, copied_state)
        return final

    def wait(self) -> None:
        """Wait until every saved checkpoint is on disk.

        Raises:
            CheckpointError: If one could not be written.
        """
        written = self._written
        self._written = None
        if written is not None:
            written.result()

    def _write(self, final: Path, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        partial = final.with_name(final.name + PARTIAL)
        try:
            # A killed process left these.
            for half_written in self.folder.glob(f"*{PARTIAL}"):
                shutil.rmtree(half_written)
            partial.mkdir(parents=True)
            write_tensors(partial / MODEL, weights)
            torch.save(state, partial / STATE)
            # After a power failure, a renamed folder could otherwise hold empty files.
            for path in (partial / MODEL, partial / STATE, partial):
                flush(path)
            if final.exists():
                _discard(final)
            partial.rename(final)
            self._scores[final] = state["score"]
            flush(self.folder)
            self._prune()
        except (OSError, RuntimeError, CheckpointError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(f"{final} can't be written: {error}; earlier checkpoints are intact") from error

    def need_space(self, model: nn.Module, *, steps: int, has_ema: bool = False) -> int:
        """Return the maximum size of a run's checkpoints in bytes, including the one being written.

        Args:
            model: The model in training.
            steps: Number of steps of the whole run.
            has_ema: Each checkpoint also stores a moving average of the weights (EMA).

        Raises:
            CheckpointError: If the disk has too little space for those that do not exist yet.
        """
        weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # AdamW has two running means per trained weight.
        moments = 2 * sum(parameter.numel() * parameter.element_size() for parameter in trained)
        size = weights * (2 if has_ema else 1) + moments
        # Besides the recent ones there are the best, and the one being written.
        count = self.keep + 2
        if self.keep_every:
            count += steps // self.keep_every

        existing = sum(file.stat().st_size for path in self.saved() for file in path.iterdir())
        needed = count * size - existing
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise CheckpointError(
                f"{self.folder} needs {needed / 1e9:.1f} GB for {count} checkpoints of "
                f"{size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free: make room, choose another --out, or keep "
                "fewer (save.keep, save.keep_every)"
            )
        return count * size

    def folder_of(self, step: int) -> Path:
        """Return the folder of the checkpoint after a number of steps."""
        return self.folder / f"step-{step:08d}"

    def saved(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        self.wait()
        return _complete_in(self.folder)

    def load(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> ResumePoint:
        """Load a checkpoint's weights, and the optimiser's state if an optimiser is given.

        Raises:
            CheckpointError: If the files can't be read, or do not match the run.
        """
        try:
            read_weights(model, path / MODEL)
            state = read_state(path / STATE)
            if optimizer is not None:
                _refuse_other_groups(path, state["optimizer"], optimizer)
                optimizer.load_state_dict(shard_moments(state["optimizer"], optimizer))
            return ResumePoint(int(state["step"]), state["score"], state["more"])
        except _OtherGroupsError:
            raise
        except (*STATE_ERRORS, CheckpointError) as error:
            raise CheckpointError(
                f"{path} can't be read: {error}. Delete this folder to resume from the checkpoint before it"
            ) from error

    def best(self) -> Path | None:
        """Return the checkpoint with the highest score; the newest if several are equal."""
        return self._best_of(self.saved())

    def finish(self) -> None:
        """Delete all checkpoints of the finished run except permanent ones."""
        for path in self.saved():
            if not self._stays(path):
                _discard(path)

    def _stays(self, path: Path) -> bool:
        return self.keep_every > 0 and step_of(path) % self.keep_every == 0

    def _prune(self) -> None:
        paths = _complete_in(self.folder)
        best = self._best_of(paths)
        for path in paths[: -self.keep]:
            if path != best and not self._stays(path):
                _discard(path)

    def _best_of(self, paths: Sequence[Path]) -> Path | None:
        for path in paths:
            if path not in self._scores:
                self._scores[path] = _read_score(path)
        ranked = [(score, path) for path in paths if (score := self._scores[path]) is not None]
        if not ranked:
            return None
        _, best = max(ranked, key=lambda pair: (pair[0], step_of(pair[1])))
        return best


def _complete_in(folder: Path) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in paths if re.fullmatch(r"step-\d{8,}", path.name)), key=step_of)


def _read_score(path: Path) -> float | None:
    try:
        return read_state(path / STATE, mmap=True)["score"]
    except (*STATE_ERRORS, CheckpointError) as error:
        raise CheckpointError(f"{path} can't be read: {error}; delete this folder") from error


def was_finished(run: Path, last_file: str, config: SaveConfig) -> bool:
    """Return True if a run that deletes its checkpoints at the end has written its last file.

    All processes call it; the first deletes checkpoints that a late kill has left.

    Args:
        run: Folder of the run.
        last_file: Name of the file that the run writes last.
        config: Settings for saving.
    """
    is_finished = not config.keep_finished and (run / last_file).exists()
    if is_finished and rank() == 0:
        Checkpoints(run, config.keep, config.keep_every).finish()
    return is_finished


def read_weights(model: nn.Module, path: Path) -> None:
    """Load all tensors that `write_tensors` wrote.

    Raises:
        CheckpointError: If the file can't be read, or does not match the model.
    """
    try:
        open_regular(path).close()
        model.load_state_dict(shard_like(safetensors.torch.load_file(path), model.state_dict()))
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} can't be loaded: {error}") from error


def read_state(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read a state that `Checkpoints.save` wrote.

    Raises:
        CheckpointError: If the file has other content; one of the errors in STATE_ERRORS if it can't be read.
    """
    check_weight_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        # torch's own message advises loading the file unsafely, so it is not repeated.
        raise CheckpointError(f"{path.name} does not hold the state of a run") from error


def step_of(path: Path) -> int:
    """Return the number of steps of a checkpoint from its folder's name."""
    return int(path.name.removeprefix("step-"))


def _discard(path: Path) -> None:
    """Delete a folder so that, if killed in the middle, the rest does not count as a checkpoint."""
    doomed = path.with_name(f"{path.name}.old{PARTIAL}")
    path.rename(doomed)
    shutil.rmtree(doomed)
