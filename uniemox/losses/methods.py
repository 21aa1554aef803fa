"""Losses of the related methods, and of valence and arousal."""

from collections.abc import Sequence

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


def word_alignment_loss(logits: Tensor, words: Tensor, kinds: Sequence[int]) -> Tensor:
    """Compute the contrastive loss between images and the words of each kind, after Zhang et al. (IJCAI 2022).

    InfoNCE with several positives (arXiv 2004.11362). Per image and kind: -log softmax over all words of the kind,
    averaged over the image's own words. Then averaged over the images that have words of the kind, and summed over
    kinds; 0 if no image has a word.

    Args:
        logits: (N, V), cosines of images and words divided by a temperature.
        words: (N, V), 1 for an image's own words.
        kinds: Number of words of each kind; the V words are ordered by kind.

    Raises:
        ShapeError: If the shapes do not match.
    """
    return word_alignment_terms(logits, words, kinds).sum()


def word_alignment_terms(logits: Tensor, words: Tensor, kinds: Sequence[int]) -> Tensor:
    """Compute the terms of `word_alignment_loss`, one for each of K kinds of words, (K,).

    Takes the same arguments, and raises the same error.
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
    """Count the images that have words of each of K kinds, (K,). Arguments as for `word_alignment_loss`."""
    return torch.stack([(kind_words.sum(dim=1) > 0).sum() for kind_words in words.split(list(kinds), dim=1)])
