"""The loss of emotion-aware pre-training: an image beside its words for emotion, objects and attributes (EAP)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from uniemox.errors import ShapeError


def word_alignment_loss(logits: Tensor, words: Tensor, kinds: Sequence[int]) -> Tensor:
    """Contrastive loss of images with the words of each kind, after Zhang et al. (IJCAI 2022).

    For each kind of word and each image that has some: the mean over its own words of -log of the share that exp(logit)
    has among all words of the kind (InfoNCE with several true words, as in arXiv 2004.11362).
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
