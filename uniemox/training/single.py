"""Steps of a run in this process alone, on the CPU: of a fitted teacher, of a person finder."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from uniemox.training.callbacks import Callback, RunPlan, memory_estimate
from uniemox.training.journal import Journal
from uniemox.training.loop import B, Step, training_steps
from uniemox.training.schedule import warmup_cosine
from uniemox.training.state import Checkpoints, Progress
from uniemox.views.loader import BrokenCount

SAVE_EVERY = 500  # steps


def parameter_groups_of(
    parts: Sequence[tuple[Iterable[nn.Parameter], float]], weight_decay: float
) -> list[dict[str, object]]:
    """Groups for an optimiser of torch: matrices are decayed, all else is not.

    parts: parameters with their "lr_scale"; those that don't train are left out.
    """
    groups: list[dict[str, object]] = []
    for parameters, scale in parts:
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        for is_matrix, decay in ((True, weight_decay), (False, 0.0)):
            own = [parameter for parameter in trained if (parameter.ndim > 1) == is_matrix]
            if own:
                groups.append({"params": own, "weight_decay": decay, "lr_scale": scale})
    return groups


@dataclass(frozen=True, kw_only=True, slots=True)
class SingleRun:
    """A run that resumes, keeps a journal, and shows its progress, as those of several processes do."""

    folder: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    what: str
    """Is done: "fitting"."""
    total: int
    """Steps of the whole run."""
    batch_size: int
    samples: int
    lr: float
    """The highest; groups get their "lr_scale" of it."""
    warmup: float
    """Share of the steps in which it rises."""
    broken: BrokenCount
    callback: Callback

    def steps(self, load_from: Callable[[int], Iterable[B]]) -> Generator[Step[B]]:
        """The steps that are left, after the newest checkpoint if there is one; each reports what it gave.

        load_from: batches from a step on.  Close it (contextlib.closing). Raises as `training_steps`.
        """
        checkpoints = Checkpoints(self.folder, keep=1)
        saved = checkpoints.found()
        start = checkpoints.load(saved[-1], self.model, self.optimizer).step if saved else 0
        plan = self._plan(start)
        self.callback.start(plan)

        with Journal(self.folder, start) as journal:
            left = training_steps(
                load_from(start),
                plan=plan,
                save=lambda done: checkpoints.save(Progress(done, None, {}), self.model, self.optimizer),
                wait_until_saved=checkpoints.wait,
                save_every=(SAVE_EVERY,),
                broken=self.broken,
                journal=journal,
                callback=self.callback,
            )
            with closing(left):
                for step in left:
                    lr = self.lr * warmup_cosine(step.done, self.total, self.warmup)
                    for group in self.optimizer.param_groups:
                        group["lr"] = lr * group["lr_scale"]
                    yield step

    def _plan(self, start: int) -> RunPlan:
        return RunPlan(
            what=self.what,
            steps=self.total,
            done=start,
            batch_size=self.batch_size,
            accumulation=1,
            samples=self.samples,
            parameters=sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad),
            memory_bytes=memory_estimate(self.model, 0),
            device="cpu",
            processes=1,
        )
