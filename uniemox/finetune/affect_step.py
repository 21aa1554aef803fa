"""Loss of valence and arousal over all images of a step, in several batches and processes.

The concordance is no mean over images: the loss of a part says nothing about the loss of the whole. The step therefore
first predicts all images, computes the whole step's loss and its gradient in each prediction, and then passes that
gradient back through one batch at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from uniemox.losses.tasks import affect_loss
from uniemox.training.processes import gather_numbers, gather_rows, rank, world_size


@dataclass(frozen=True, slots=True, eq=False)
class AffectBatch:
    """N images of a step."""

    predict: Callable[[], Tensor]
    """Forward pass; returns valence and arousal, (N, 2)."""
    target: Tensor
    """(N, 2), on the device of the predictions."""


@dataclass(slots=True)
class AffectStep:
    """Losses of a step's batches for `train_step`: with the share of each batch's images they add up to the whole."""

    model: nn.Module
    batches: Sequence[AffectBatch]
    _loss: Tensor | None = None
    _gradients: list[Tensor] = field(default_factory=list)

    def losses_of(self, batch: AffectBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a scalar with the batch's part of the step's gradient, and the step's loss.

        The first call predicts the images of all batches; every process must call it.
        """
        if len(self.batches) == 1 and world_size() == 1:
            loss = affect_loss(batch.predict(), batch.target)
            return loss, {"loss": loss}
        if len(self.batches) == 1:
            prediction = batch.predict()
            self._measure([prediction])
        else:
            if self._loss is None:
                with rehearsal(self.model, batch.target.device):
                    predictions = [step_batch.predict() for step_batch in self.batches]
                self._measure(predictions)
            prediction = batch.predict()
        assert self._loss is not None, "it was measured above"
        # Comparing batches by value would compare their tensors.
        index = next(i for i, candidate in enumerate(self.batches) if candidate is batch)
        return (self._gradients[index] * prediction).sum(dim=1).mean(), {"loss": self._loss}

    def _measure(self, predictions: Sequence[Tensor]) -> None:
        """Compute the loss over all images of all processes, and its gradient in each prediction times their number."""
        local = torch.cat([prediction.detach() for prediction in predictions])  # (images of this process, 2)
        counts = [count for [count] in gather_numbers(len(local))]
        start = sum(counts[: rank()])
        gathered = gather_rows(local).requires_grad_()  # (images of the step, 2)
        targets = gather_rows(torch.cat([batch.target for batch in self.batches]))
        loss = affect_loss(gathered, targets)
        (gradient,) = torch.autograd.grad(loss, gathered)
        # `train_step` takes means over images; their sum is needed.
        gradient = len(gathered) * gradient[start : start + len(local)]
        self._loss = loss.detach()
        self._gradients = list(gradient.split([len(prediction) for prediction in predictions]))


@contextmanager
def rehearsal(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Run forward passes that leave no trace: no graph, no draw of torch's generators, no batch-norm statistics.

    The same passes afterwards draw the same numbers.

    Args:
        model: The model that runs inside the context.
        device: The model's device.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    counts = [None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone() for norm in norms]
    for norm in norms:
        # The running statistics stay unchanged.
        norm.momentum = 0.0
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            yield
    finally:
        for norm, momentum, count in zip(norms, momenta, counts, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = count
