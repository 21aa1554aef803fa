"""Verdict on whether a user's model is better than one in the package, as far as the compared images can show it."""

import math
from statistics import NormalDist

from uniemox.evaluate.compare import Comparison
from uniemox.intervals import UPPER, lowest_of_all_right, sign_test
from uniemox.plurals import counted

# Detectable difference up to which a comparison is fine enough for its question.
FINE_ENOUGH = 0.05
# Share of such comparisons whose 95 % interval excludes 0 if the models differ by the detectable difference. Half of
# the interval's width is detected in every second one only.
POWER = 0.8
# 2.80 standard errors instead of 1.96.
DETECTABLE_PER_HALF_WIDTH = 1 + NormalDist().inv_cdf(POWER) / NormalDist().inv_cdf(UPPER)
# Number of images that tell two models apart below which resampling shows too little of the spread of the difference.
MIN_DISCORDANT = 10
# Level of the test that decides then, that of the 95 % intervals.
MAX_P = 0.05


def gain_over_built_in(comparison: Comparison) -> str | None:
    """Return sentences on whether the user's models are better than one in the package; None without an interval."""
    if not comparison.is_fair:
        return "no verdict: the models chose among different labels, or by different label maps; give --map"
    if comparison.difference.interval is None:
        return None
    low, high = comparison.difference.interval
    verdict = "training gained nothing here that these images can show: the built-in model may be as good"
    if comparison.difference.difference < 0:
        verdict += " or better"
    excludes_zero = low > 0 or high < 0
    p_of_few = _p_of_few(comparison)
    is_shown = excludes_zero and (p_of_few is None or p_of_few < MAX_P)
    if is_shown and low > 0:
        verdict = "training gained accuracy over the built-in model"
    elif is_shown:
        verdict = "training lost accuracy: the built-in model is better on these images"
    if comparison.left_out:
        verdict = (
            f"among the labels that are compared, {verdict}. Left out: {counted(comparison.left_out, 'image')} whose "
            "label a model can't choose, or the map leaves out"
        )
    if not is_shown:
        verdict += _resolution(DETECTABLE_PER_HALF_WIDTH * (high - low) / 2, comparison)
    if excludes_zero and not is_shown:
        verdict += (
            ". The interval is too narrow for so few: by an exact test, equally good models differ as much with a "
            f"probability of {p_of_few:.0%}"
        )
    return verdict


def _p_of_few(comparison: Comparison) -> float | None:
    """Return the p-value of an exact test if few groups tell two models apart; None for more, or several runs.

    An image without a group is a group. Resamples of a few such groups spread too little, so that the interval of the
    difference is too narrow.
    """
    if comparison.wins_and_losses is None or sum(comparison.wins_and_losses) >= MIN_DISCORDANT:
        return None
    return sign_test(*comparison.wins_and_losses)


def _resolution(detectable: float, comparison: Comparison) -> str:
    """Return a sentence on how large a difference the images can show; "" if even a small one.

    Args:
        detectable: Difference that is detected with a probability of `POWER`.
        comparison: The comparison.
    """
    images = counted(comparison.pictures, "image")
    if comparison.discordant == 0:
        # The exact upper end of the share of images that tell the models apart (Clopper and Pearson, 1934).
        share = 1 - lowest_of_all_right(comparison.units or comparison.pictures)
        return f". Both are right on the same of these {images}; of other images, up to {share:.0%} may tell them apart"
    if comparison.wins_and_losses is not None and sum(comparison.wins_and_losses) < MIN_DISCORDANT:
        few = f"{comparison.discordant} of these {images}"
        if comparison.units != comparison.pictures:
            few = f"{sum(comparison.wins_and_losses)} of the {comparison.units} groups of these {images}"
        return (
            f". Only {few} tell the models apart, too few to say how many images it takes; try a hundred that are new "
            "to both"
        )
    if detectable <= FINE_ENOUGH:
        return ""
    sentence = f". {images} show a difference of about {100 * detectable:.0f} points with {POWER:.0%} power"
    if len(comparison.ours) > 1 or len(comparison.theirs) > 1:
        # More images don't narrow the part of the seeds.
        return f"{sentence}, because the runs differ, too"
    # The width falls with the root of the number of images.
    needed = math.ceil(comparison.pictures * (detectable / FINE_ENOUGH) ** 2 / 10) * 10
    return f"{sentence}; one of {100 * FINE_ENOUGH:.0f} points takes about {needed:,} images that are new to both"
