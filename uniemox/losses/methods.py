"""Losses of the related methods, and of valence and arousal."""

from collections.abc import Sequence

import torch
from torch import Tensor

from uniemox.errors import ShapeError
from uniemox.losses.objective import mean_over_images, soft_target_cross_entropy

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


def multiplicative_loss(logits: Tensor, target: Tensor, beta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """-Σ_k p_k^(β / (K - 1)) log p_k, p_k what modality k gives the true label (Mittal et al., CVPR 2020).

    A modality that is unsure weighs little, so that each image is learned from those that are sure.
    logits: (N, K, E) of K modalities.  target: (N, E), rows that sum to 1; with shares of several labels p_k is their
    weighted geometric mean.  beta: its value is not published, 1 is ours.  weight: (N,); None: all the same.
    The factor p_k^(β / (K - 1)) is no path of the gradient: it weighs, it is not to be made small.
    A mean over the N images of this device. Raises ShapeError if the shapes don't belong together.
    """
    if logits.ndim != 3 or logits.shape[1] < 2 or logits.shape[::2] != target.shape:
        raise ShapeError(
            f"logits must be (N, K, E) of at least 2 modalities and target (N, E), got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
        )
    log_p = (target[:, None] * logits.log_softmax(dim=-1)).sum(dim=-1)  # (N, K)
    factor = (log_p.detach() * beta / (logits.shape[1] - 1)).exp()
    return mean_over_images(-(factor * log_p).sum(dim=1), weight)


def word_alignment_loss(logits: Tensor, words: Tensor, kinds: Sequence[int]) -> Tensor:
    """Contrastive loss of images with the words of each kind, after Zhang et al. (IJCAI 2022).

    InfoNCE with several true words, as in arXiv 2004.11362: -log of the softmax over all words of a kind, averaged over
    the image's own words, for each kind and each image that has some.
    logits: (N, V), cosines of images and words over a temperature.  words: (N, V), 1 for those that an image has.
    kinds: how many words there are of each kind, one after the other; together V.
    A mean over the images that have words of a kind, summed over the kinds; 0 if there is none at all.
    Raises ShapeError if the shapes don't belong together.
    """
    if logits.ndim != 2 or logits.shape != words.shape or sum(kinds) != logits.shape[1]:
        raise ShapeError(
            f"logits {tuple(logits.shape)} and words {tuple(words.shape)} must both be (N, V), and kinds add up to V, "
            f"got {tuple(kinds)}"
        )
    total = logits.new_zeros(())
    for part, own in zip(logits.split(list(kinds), dim=1), words.split(list(kinds), dim=1), strict=True):
        count = own.sum(dim=1)  # (N,)
        mean = (own * part.log_softmax(dim=1)).sum(dim=1) / count.clamp(min=1)
        total = total - mean.sum() / torch.clamp((count > 0).sum(), min=1)
    return total
