"""Losses over two levels of emotions: which label, and whether it is negative, positive or neither."""

import torch
from torch import Tensor

from uniemox.errors import ShapeError
from uniemox.losses.soft_target import mean_over_images, soft_target_cross_entropy


def hierarchical_cross_entropy(
    logits: Tensor, target: Tensor, polarity: Tensor, strength: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the labels plus strength times that of their polarity: an error across polarity costs more.

    As in Stimuli-aware (Yang et al., arXiv 2109.01812; its factor is not published, 1 is ours).
    Arguments as `polarity_loss`.
    """
    labels = soft_target_cross_entropy(logits, target, weight)
    return labels + strength * polarity_loss(logits, target, polarity, weight)


def polarity_loss(logits: Tensor, target: Tensor, polarity: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy of the polarity, whose probability is the sum of its labels' probabilities.

    logits: (N, E), before the softmax.  target: (N, E), rows that sum to 1.  polarity: (P, E), 1 where a label is of a
    polarity; every label is of one.  weight: (N,), how much each image counts; None: all the same.
    A mean over the N images of this device. Raises ShapeError if the shapes don't belong together.
    """
    if logits.ndim != 2 or logits.shape != target.shape or polarity.shape[1:] != logits.shape[1:]:
        raise ShapeError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must be (N, E), polarity (P, E), "
            f"got {tuple(polarity.shape)}"
        )
    hidden = torch.where(polarity > 0, 0.0, -torch.inf)  # (P, E)
    shares = (logits.log_softmax(dim=-1)[:, None] + hidden).logsumexp(dim=-1)  # (N, P)
    return mean_over_images(-((target @ polarity.T) * shares).sum(dim=-1), weight)
