"""Losses of the paper: reconstruction (L1), alignment (L2, L3) and soft targets (arXiv 2409.18877)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from uniemox.errors import ShapeError


def reconstruction_loss(pred: Tensor, target: Tensor, mask: Tensor, norm_pix: bool = False) -> Tensor:
    """Compute the mean squared error over hidden patches (MAE, arXiv 2111.06377; equation 1 of arXiv 2409.18877).

    A mean over the P values of a patch, then over all hidden patches of the batch on this device. With the same number
    of images on each of several GPUs, the mean of their losses is the loss of the joined batch.

    Args:
        pred: (N, L, P) pixel values.
        target: (N, L, P) pixel values.
        mask: (N, L), 1 hidden, 0 visible, at least one hidden.
        norm_pix: Compare with each patch's standardised pixels, an option of MAE.

    Raises:
        ShapeError: If the shapes do not match.
    """
    if pred.shape != target.shape or mask.shape != pred.shape[:2]:
        raise ShapeError(
            f"pred {tuple(pred.shape)} and target {tuple(target.shape)} must both be (N, L, P), "
            f"and mask {tuple(mask.shape)} their (N, L)"
        )
    if norm_pix:
        target = standardise(target)  # (N, L, P)
    error = (pred - target).square().mean(dim=-1)  # (N, L)
    return (error * mask).sum() / mask.sum()  # eq 1


def standardise(patches: Tensor) -> Tensor:
    """Subtract each patch's mean and divide by its standard deviation; unbiased variance plus 1e-6, as MAE.

    Args:
        patches: (N, L, P).

    Returns:
        (N, L, P).
    """
    mean, deviation = _patch_statistics(patches)
    return (patches - mean) / deviation


def undo_standardise(pred: Tensor, patches: Tensor) -> Tensor:
    """Return predictions of standardised patches as pixels; the inverse of `standardise`.

    Args:
        pred: (N, L, P), predicted standardised patches.
        patches: (N, L, P), the true patches, whose means and deviations are used.

    Returns:
        (N, L, P).
    """
    mean, deviation = _patch_statistics(patches)
    return pred * deviation + mean


def _patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each patch, (N, L, 1) each."""
    variance = patches.var(dim=-1, keepdim=True)  # (N, L, 1)
    return patches.mean(dim=-1, keepdim=True), (variance + 1e-6).sqrt()


def contrastive_feature_alignment(fused: Tensor, image: Tensor, text: Tensor, temperature: float | Tensor) -> Tensor:
    """Compute L2: one minus the mean cosine between the rows of A and C (arXiv 2409.18877, equations 7 to 9).

    A row of A (N, M) holds the cosines of an image's Υ with all texts, times τ; a row of C those of its Ω.
    A mean over this device's N rows, in [0, 2].

    Args:
        fused: (N, C) Υ.
        image: (N, C) the teacher's Ω.
        text: (M, C) the teacher's Λ, of the N images (M = N) or, with several GPUs, of all their images (M > N). A row
            compares one image with all M texts, so the loss depends on M: more GPUs raise it, gradient accumulation
            lowers it. With one text every row is 1 or -1, without gradient.
        temperature: τ, positive. It multiplies A and C and cancels when their rows are normalised, so neither the value
            nor any gradient depends on it. It is an argument because equation 8 has it.

    Raises:
        ShapeError: If the widths differ or M < N.
    """
    _check_features(fused, image)
    if text.ndim != 2 or text.shape[1] != fused.shape[1] or len(text) < len(fused):
        raise ShapeError(
            f"text features {tuple(text.shape)} must have the width of the fused ones {tuple(fused.shape)}, "
            "and at least as many rows"
        )
    # Equation 7: features of length 1.
    fused = F.normalize(fused, dim=-1)  # (N, C)
    image = F.normalize(image, dim=-1)  # (N, C)
    text = F.normalize(text, dim=-1)  # (M, C)

    # Equation 8: cosines with all texts.
    A = temperature * fused @ text.T  # (N, M)
    C = temperature * image @ text.T  # (N, M)

    # Equation 9: cosines of the rows of A and C.
    cosines = (F.normalize(A, dim=-1) * F.normalize(C, dim=-1)).sum(dim=-1)  # (N,)
    return 1 - cosines.mean()


def semantic_visual_alignment(fused: Tensor, image: Tensor) -> Tensor:
    """Compute L3: one minus the mean cosine between Υ and Ω (arXiv 2409.18877, equation 10).

    A mean over this device's N images, in [0, 2]. With the same number of images on each of several GPUs, the mean of
    their losses is the loss of the joined batch.

    Args:
        fused: (N, C) Υ.
        image: (N, C) the teacher's Ω.

    Raises:
        ShapeError: If the shapes differ.
    """
    _check_features(fused, image)
    cosines = (F.normalize(fused, dim=-1) * F.normalize(image, dim=-1)).sum(dim=-1)  # (N,)
    return 1 - cosines.mean()  # eq 10


def _check_features(fused: Tensor, image: Tensor) -> None:
    """Raise ShapeError unless both features are (N, C)."""
    if fused.ndim != 2 or fused.shape != image.shape:
        raise ShapeError(
            f"fused features {tuple(fused.shape)} and the teacher's image features {tuple(image.shape)} "
            "must both be (N, C)"
        )


def soft_target_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the cross-entropy with a probability for each class (arXiv 2409.18877, equation 12).

    Summed over classes, then averaged over this device's N images.

    Args:
        logits: (N, E), before the softmax.
        target: (N, E), rows that sum to 1 (label smoothing, mixup, votes).
        weight: (N,), weight of each image; None: equal weights.

    Raises:
        ShapeError: If the shapes differ.
    """
    if logits.ndim != 2 or logits.shape != target.shape:
        raise ShapeError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must both be (N, E)")
    cross_entropy = -(target * logits.log_softmax(dim=-1)).sum(dim=-1)  # (N,)
    return mean_over_images(cross_entropy, weight)  # eq 12


def mean_over_images(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean over this device's images, weighted if there are weights.

    The step of a training run with several batches weighs each batch's mean with its sum of weights: the result is the
    mean over all images of the step.

    Args:
        values: (N,), loss of each image.
        weight: (N,), weight of each image, at least 0; if all are 0, so is the result. None: equal weights.

    Raises:
        ShapeError: For a weight of another shape.
    """
    if weight is None:
        return values.mean()
    if weight.shape != values.shape:
        raise ShapeError(f"weight {tuple(weight.shape)} must be (N,) = {tuple(values.shape)}, one per image")
    total = weight.sum()
    return (weight * values).sum() / torch.where(total > 0, total, 1.0)
