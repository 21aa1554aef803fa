"""Agreement of answers: of two models about the same images, and of the prompts to one model."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniemox.intervals import Interval, bootstrap_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementWithOurs:
    """Agreement with our model, over the images with a label from both."""

    n: int
    percent: float | None
    kappa: float | None
    """Cohen's kappa; None if undefined, because both always give the same label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """Agreement of a model's answers to several prompts about the same image."""

    n: int
    """Number of images with an answer to every prompt."""
    share: float
    """Share of the pairs of prompts whose answers agree, 0 to 1, averaged over images."""
    interval: Interval
    """95 % interval, bootstrap over images."""
    unanimous: float
    """Share of the images about which all answers agree."""
    kappa: float | None
    """Fleiss' kappa, which corrects for chance; None if undefined, because all answers are the same."""


def agreement(first: Sequence[str], second: Sequence[str]) -> AgreementWithOurs:
    """Return the agreement of two lists of labels, and Cohen's kappa, which corrects for chance.

    Source: Cohen, Educational and Psychological Measurement 20 (1960).

    Args:
        first: (N,) labels, N may be 0.
        second: (N,) labels, N may be 0.

    >>> agreement(["fear", "awe", "awe", "fear"], ["fear", "awe", "fear", "fear"])
    AgreementWithOurs(n=4, percent=75.0, kappa=0.5)
    """
    n = len(first)
    if not n:
        return AgreementWithOurs(n=0, percent=None, kappa=None)
    same = sum(a == b for a, b in zip(first, second, strict=True)) / n
    ours = Counter(first)
    theirs = Counter(second)
    chance = sum(ours[label] * theirs[label] for label in ours) / n**2
    return AgreementWithOurs(n=n, percent=100 * same, kappa=None if chance == 1 else (same - chance) / (1 - chance))


def agreeing_pairs(answers: Sequence[Hashable]) -> float:
    """Return the share of the pairs of answers that are equal, 0 to 1.

    Args:
        answers: (P,) answers to P prompts, P at least 2.

    >>> round(agreeing_pairs(["fear", "fear", "awe"]), 3)
    0.333
    """
    counts = Counter(answers).values()
    return sum(count * (count - 1) for count in counts) / (len(answers) * (len(answers) - 1))


def agreeing_answers(answers: Sequence[Sequence[Hashable]]) -> float:
    """Return the share of agreeing pairs of answers about an image, 0 to 1, averaged over questions.

    Args:
        answers: For each question, the (P,) answers to P prompts, P at least 2.
    """
    return float(np.mean([agreeing_pairs(question) for question in answers]))


def consistency(answers: Sequence[Sequence[Sequence[Hashable]]]) -> Consistency | None:
    """Return the agreement of prompts.

    Source of the shares and of kappa: Fleiss, Psychological Bulletin 76 (1971).

    Args:
        answers: For each of N images, for each question, the (P,) answers to P prompts. An answer that names no option
            is an answer of its own, None.

    Returns:
        The agreement; None without images, or for one prompt.

    >>> consistency([[["fear", "fear"]], [["awe", "fear"]]]).share
    0.5
    """
    if not answers or len(answers[0][0]) == 1:
        return None
    shares = np.array([agreeing_answers(image) for image in answers])  # (N,)
    counts = Counter(answer for image in answers for question in image for answer in question)
    total = counts.total()
    chance = sum((count / total) ** 2 for count in counts.values())
    # All images have the same number of questions, so that the mean over images is that over questions.
    share = float(shares.mean())
    return Consistency(
        n=len(answers),
        share=share,
        interval=bootstrap_interval(shares),
        unanimous=_share_of_ones(shares),
        kappa=None if chance == 1 else (share - chance) / (1 - chance),
    )


def _share_of_ones(shares: NDArray[np.float64]) -> float:
    return float(np.isclose(shares, 1.0).mean())
