"""L1: mean squared error over hidden patches (equation 1)."""

from torch import Tensor

from uniemox.errors import ShapeError


def reconstruction_loss(pred: Tensor, target: Tensor, mask: Tensor, norm_pix: bool = False) -> Tensor:
    """Mean squared error over hidden patches (MAE, arXiv 2111.06377, section 3; equation 1 of arXiv 2409.18877).

    pred, target: (N, L, P) pixel values.  mask: (N, L), 1 hidden, 0 seen, at least one hidden.
    norm_pix compares with each patch's own standardised pixels.
    A mean: over the P values of a patch, then over all hidden patches of the batch on this device. With the same number
    of images on each of several GPUs, the mean of their losses is the loss of the joined batch.
    Raises ShapeError if the shapes don't belong together.
    """
    if pred.shape != target.shape or mask.shape != pred.shape[:2]:
        raise ShapeError(
            f"pred {tuple(pred.shape)} and target {tuple(target.shape)} must both be (N, L, P), "
            f"and mask {tuple(mask.shape)} their (N, L)"
        )
    if norm_pix:
        target = standardise(target)  # (N, L, P)
    error = (pred - target).square().mean(dim=-1)  # (N, L)
    return (error * mask).sum() / mask.sum()


def standardise(patches: Tensor) -> Tensor:
    """Each patch minus its mean, over its standard deviation; unbiased variance and 1e-6, as MAE.

    patches: (N, L, P).  Returns (N, L, P).
    """
    variance, mean = patches.var(dim=-1, keepdim=True), patches.mean(dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()
