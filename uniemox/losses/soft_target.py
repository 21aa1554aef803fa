"""The fine-tuning loss (equation 12)."""

from torch import Tensor

from uniemox.errors import ShapeError


def soft_target_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy with a probability for each class (arXiv 2409.18877, equation 12).

    logits: (N, E), before the softmax.  target: (N, E), rows that sum to 1 (label smoothing, mixup, votes).
    weight: (N,), how much each image counts; None: all the same.
    A mean over the N images of this device of the sum over classes. Raises ShapeError if the shapes differ.
    """
    if logits.ndim != 2 or logits.shape != target.shape:
        raise ShapeError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must both be (N, E)")
    return mean_over_images(-(target * logits.log_softmax(dim=-1)).sum(dim=-1), weight)


def mean_over_images(values: Tensor, weight: Tensor | None) -> Tensor:
    """The mean, or with weights the sum of weight times value over the sum of the weights of this device.

    values, weight: (N,), weights of at least 0 and not all 0. Raises ShapeError for a weight of another shape.
    """
    if weight is None:
        return values.mean()
    if weight.shape != values.shape:
        raise ShapeError(f"weight {tuple(weight.shape)} must be (N,) = {tuple(values.shape)}, a number an image")
    return (weight * values).sum() / weight.sum()
