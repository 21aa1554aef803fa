"""The fine-tuning loss (equation 12)."""

from torch import Tensor

from uniemox.errors import ShapeError


def soft_target_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with a probability for each class (arXiv 2409.18877, equation 12).

    logits: (N, E), before the softmax.  target: (N, E), rows that sum to 1 (label smoothing, mixup, votes).
    A mean over the N pictures of this device of the sum over classes. Raises ShapeError if the shapes differ.
    """
    if logits.ndim != 2 or logits.shape != target.shape:
        raise ShapeError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must both be (N, E)")
    return -(target * logits.log_softmax(dim=-1)).sum(dim=-1).mean()
