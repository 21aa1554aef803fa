"""Fine-tuning losses for valence and arousal, and for shares of votes."""

import torch
from torch import Tensor

from uniemox.errors import ShapeError
from uniemox.losses.soft_target import mean_over_images

EPS = 1e-8  # over and under the fraction: a batch of equal numbers, met exactly, has concordance 1


def affect_loss(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error plus one minus the mean concordance of valence and arousal.

    pred, target: (N, 2), valence and arousal, -1 to 1.  weight: (N,), how much each image counts; None: all the same.
    The error is a mean over the N images of this device and both numbers. The concordance is taken over these N
    images too, so that fewer images a device or a step make another loss.
    At least 0. Raises ShapeError if the shapes differ.
    """
    if pred.ndim != 2 or pred.shape[1] != 2 or pred.shape != target.shape:
        raise ShapeError(f"pred {tuple(pred.shape)} and target {tuple(target.shape)} must both be (N, 2)")
    error = mean_over_images((pred - target).square().mean(dim=-1), weight)
    return error + 1 - concordance(pred, target, weight).mean()


def concordance(pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Lin's concordance correlation coefficient of every column (Biometrics 45, 1989).

    pred, target: (N, K).  weight: (N,); None: all the same.  Returns (K,), -1 to 1.
    """
    shares = torch.ones_like(pred[:, :1]) if weight is None else weight[:, None]  # (N, 1)
    shares = shares / shares.sum()
    pred_mean, target_mean = (shares * pred).sum(dim=0), (shares * target).sum(dim=0)  # (K,)
    pred_rest, target_rest = pred - pred_mean, target - target_mean  # (N, K)
    covariance = (shares * pred_rest * target_rest).sum(dim=0)  # (K,)
    variances = (shares * (pred_rest.square() + target_rest.square())).sum(dim=0)  # (K,), of both together
    return (2 * covariance + EPS) / (variances + (pred_mean - target_mean).square() + EPS)


def distribution_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the softmax from the shares of votes, 0 log 0 = 0.

    logits: (N, E), before the softmax.  target: (N, E), rows that sum to 1.
    weight: (N,), how much each image counts; None: all the same.
    A mean over the N images of this device of the sum over classes, at least 0; its gradient in the logits is that of
    `soft_target_cross_entropy`. Raises ShapeError if the shapes differ.
    """
    if logits.ndim != 2 or logits.shape != target.shape:
        raise ShapeError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must both be (N, E)")
    divergence = torch.xlogy(target, target) - target * logits.log_softmax(dim=-1)  # (N, E)
    return mean_over_images(divergence.sum(dim=-1), weight)
