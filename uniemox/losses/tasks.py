"""Losses of the tasks of fine-tuning: ratings, distributions, several labels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from uniemox.errors import ShapeError
from uniemox.losses.objective import mean_over_images

# Added to numerator and denominator, so that equal numbers that are predicted exactly have concordance 1.
EPS = 1e-8
# c of the discrete weights of EMOTIC's authors.
DISCRETE_CONSTANT = 1.2


def affect_loss(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the mean squared error plus one minus the mean concordance of K ratings, such as valence and arousal.

    The error is a mean over the N images and all K values. The concordance is computed over the same N images and is no
    mean over images: losses of parts of a batch don't add up to that of the batch; see `uniemox.finetune.affect_step`.
    At least 0.

    Args:
        pred: (N, K), ratings, -1 to 1.
        target: (N, K), ratings, -1 to 1.
        weight: (N,), weight of each image; None: equal weights.

    Raises:
        ShapeError: If the shapes differ.
    """
    if pred.ndim != 2 or pred.shape != target.shape:
        raise ShapeError(f"pred {tuple(pred.shape)} and target {tuple(target.shape)} must both be (N, K)")
    squared_error = (pred - target).square().mean(dim=-1)  # (N,)
    error = mean_over_images(squared_error, weight)
    return error + 1 - concordance(pred, target, weight).mean()


def concordance(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute Lin's concordance correlation coefficient of every column (Biometrics 45, 1989).

    Args:
        pred: (N, K).
        target: (N, K).
        weight: (N,); None: equal weights.

    Returns:
        (K,), -1 to 1.
    """
    shares = torch.ones_like(pred[:, :1]) if weight is None else weight[:, None]  # (N, 1)
    shares = shares / shares.sum()
    pred_mean = (shares * pred).sum(dim=0)  # (K,)
    target_mean = (shares * target).sum(dim=0)  # (K,)
    pred_offset = pred - pred_mean  # (N, K)
    target_offset = target - target_mean  # (N, K)
    covariance = (shares * pred_offset * target_offset).sum(dim=0)  # (K,)
    variance_sum = (shares * (pred_offset.square() + target_offset.square())).sum(dim=0)  # (K,)
    return (2 * covariance + EPS) / (variance_sum + (pred_mean - target_mean).square() + EPS)


def distribution_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the Kullback-Leibler divergence of the softmax from the shares of votes, with 0 log 0 = 0.

    Summed over classes, then averaged over this device's N images; at least 0. Its gradient in the logits is that of
    `soft_target_cross_entropy`.

    Args:
        logits: (N, E), before the softmax.
        target: (N, E), rows that sum to 1.
        weight: (N,), weight of each image; None: equal weights.

    Raises:
        ShapeError: If the shapes differ.
    """
    if logits.ndim != 2 or logits.shape != target.shape:
        raise ShapeError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must both be (N, E)")
    divergence = torch.xlogy(target, target) - target * logits.log_softmax(dim=-1)  # (N, E)
    return mean_over_images(divergence.sum(dim=-1), weight)


def multilabel_loss(
    logits: Tensor, target: Tensor, label_weight: Tensor | None = None, weight: Tensor | None = None
) -> Tensor:
    """Compute the binary cross-entropy of several labels.

    A weighted mean over labels, then a mean over this device's N images; at least 0.

    Args:
        logits: (N, E), before the sigmoid.
        target: (N, E), 1 for the labels that an image has, else 0; between them for mixed images.
        label_weight: (E,), weight of each label; None: equal weights.
        weight: (N,), weight of each image; None: equal weights.

    Raises:
        ShapeError: If the shapes do not match.
    """
    if logits.ndim != 2 or logits.shape != target.shape:
        raise ShapeError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must both be (N, E)")
    if label_weight is None:
        label_weight = torch.ones_like(logits[0])
    if label_weight.shape != logits.shape[1:]:
        raise ShapeError(f"label_weight {tuple(label_weight.shape)} must be (E,), one per label")
    losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none")  # (N, E)
    by_image = (losses * label_weight).sum(dim=1) / label_weight.sum()  # (N,)
    return mean_over_images(by_image, weight)


def discrete_weights(shares: Tensor) -> Tensor:
    """Return the weight of each label in the loss, 1 / ln(1.2 + p) (Kosti et al., TPAMI 2020): (E,).

    The constant bounds the weight of rare labels, at 5.48. The authors' code takes the number of images of a batch
    instead of p, so that its weights depend on the size of the batch.

    Args:
        shares: (E,), p, share of the training images that have a label, 0 to 1.
    """
    return 1 / (DISCRETE_CONSTANT + shares).log()
