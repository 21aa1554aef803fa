"""Losses of the related methods."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from uniemox.errors import ShapeError
from uniemox.losses.objective import mean_over_images


def polarity_loss(logits: Tensor, target: Tensor, polarity: Tensor, weight: Tensor | None = None) -> Tensor:
    """Compute the cross-entropy of the polarity, whose probability is the sum of its labels' probabilities.

    A mean over this device's N images.

    Args:
        logits: (N, E), before the softmax.
        target: (N, E), rows that sum to 1.
        polarity: (P, E), 1 if a label has a polarity; every label has one.
        weight: (N,), weight of each image; None: equal weights.

    Raises:
        ShapeError: If the shapes do not match.
    """
    if logits.ndim != 2 or logits.shape != target.shape or polarity.shape[1:] != logits.shape[1:]:
        raise ShapeError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must be (N, E), polarity (P, E), "
            f"got {tuple(polarity.shape)}"
        )
    # The sum of the probabilities of a polarity's labels, as a logarithm: other labels are left out by -inf.
    log_membership = torch.where(polarity > 0, 0.0, -torch.inf)  # (P, E)
    log_p = (logits.log_softmax(dim=-1)[:, None] + log_membership).logsumexp(dim=-1)  # (N, P)
    polarity_target = target @ polarity.T  # (N, P)
    return mean_over_images(-(polarity_target * log_p).sum(dim=-1), weight)


def multiplicative_loss(logits: Tensor, target: Tensor, beta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Compute -Σ_k p_k^(β / (K - 1)) log p_k; modality k gives the true label p_k (Mittal et al., CVPR 2020).

    An uncertain modality gets a low weight, so each image trains mainly its certain modalities.
    The factor p_k^(β / (K - 1)) has no gradient: it is a weight that must not be minimised itself.
    A mean over this device's N images.

    Args:
        logits: (N, K, E) of K modalities.
        target: (N, E), rows that sum to 1; with shares of several labels p_k is their weighted geometric mean.
        beta: β; above 0 favours certain modalities. The paper's value is not published; 1 is our choice.
        weight: (N,), weight of each image; None: equal weights.

    Raises:
        ShapeError: If the shapes do not match.
    """
    _check_modalities(logits, target)
    log_p = (target[:, None] * logits.log_softmax(dim=-1)).sum(dim=-1)  # (N, K)
    return mean_over_images(_multiplied(log_p, beta), weight)


def multiplicative_label_loss(
    logits: Tensor, target: Tensor, beta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Compute `multiplicative_loss` for several labels: each label is present or not, with a probability of its own.

    A mean over labels, then over this device's N images.

    Args:
        logits: (N, K, E) of K modalities, before the sigmoid.
        target: (N, E), 1 for the labels that an image has, else 0; between them for mixed images.
        beta: As for `multiplicative_loss`.
        weight: (N,), weight of each image; None: equal weights.

    Raises:
        ShapeError: If the shapes do not match.
    """
    _check_modalities(logits, target)
    labels = target[:, None].expand_as(logits)  # (N, K, E)
    # The log of the probability of what is true of a label.
    log_p = -F.binary_cross_entropy_with_logits(logits, labels, reduction="none")  # (N, K, E)
    return mean_over_images(_multiplied(log_p, beta).mean(dim=1), weight)


def _check_modalities(logits: Tensor, target: Tensor) -> None:
    if logits.ndim != 3 or logits.shape[1] < 2 or logits.shape[::2] != target.shape:
        raise ShapeError(
            f"logits must be (N, K, E) of at least 2 modalities and target (N, E), got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
        )


def _multiplied(log_p: Tensor, beta: float) -> Tensor:
    """Return -Σ_k p_k^(β / (K - 1)) log p_k, (N, ...).  log_p: (N, K, ...) of K modalities."""
    factor = (log_p.detach() * beta / (log_p.shape[1] - 1)).exp()
    return -(factor * log_p).sum(dim=1)


def word_alignment_terms(logits: Tensor, words: Tensor, kinds: Sequence[int]) -> Tensor:
    """Compute the contrastive loss between images and the words of each kind, after Zhang et al. (IJCAI 2022).

    InfoNCE with several positives (arXiv 2004.11362). Per image and kind: -log softmax over all words of the kind,
    averaged over the image's own words. Then averaged over the images that have words of the kind; 0 if no image has
    one. The loss is the sum over kinds.

    Args:
        logits: (N, V), cosines of images and words divided by a temperature.
        words: (N, V), 1 for an image's own words.
        kinds: Number of words of each of K kinds; the V words are ordered by kind.

    Returns:
        (K,), the term of each kind.

    Raises:
        ShapeError: If the shapes do not match.
    """
    if logits.ndim != 2 or logits.shape != words.shape or sum(kinds) != logits.shape[1]:
        raise ShapeError(
            f"logits {tuple(logits.shape)} and words {tuple(words.shape)} must both be (N, V), and kinds add up to V, "
            f"got {tuple(kinds)}"
        )
    images = images_with_words(words, kinds)  # (K,)
    logits_by_kind = logits.split(list(kinds), dim=1)
    words_by_kind = words.split(list(kinds), dim=1)
    sums = []
    for kind_logits, kind_words in zip(logits_by_kind, words_by_kind, strict=True):
        count = kind_words.sum(dim=1)  # (N,)
        mean = (kind_words * kind_logits.log_softmax(dim=1)).sum(dim=1) / count.clamp(min=1)  # (N,)
        sums.append(mean.sum())
    return -torch.stack(sums) / images.clamp(min=1)  # (K,)


def images_with_words(words: Tensor, kinds: Sequence[int]) -> Tensor:
    """Count the images that have words of each of K kinds, (K,). Arguments as for `word_alignment_terms`."""
    return torch.stack([(kind_words.sum(dim=1) > 0).sum() for kind_words in words.split(list(kinds), dim=1)])
