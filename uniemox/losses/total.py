"""The pre-training objective: the weighted sum of L1, L2 and L3."""

from collections.abc import Mapping

from torch import Tensor

from uniemox.losses.config import LossWeights


def total_loss(losses: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """The sum of the losses that were computed, each times its weight.

    losses: scalars by the names of LossWeights' fields; those that are turned off are absent.
    """
    terms = [getattr(weights, name) * value for name, value in losses.items()]
    return sum(terms[1:], start=terms[0])
