"""Scale on which valence and arousal are rated: 1 (negative, calm) to 9 (positive, excited)."""

from typing import Any, TypeVar

# A number, an array or a tensor.
Values = TypeVar("Values", bound=Any)
LOWEST_RATING = 1.0
HIGHEST_RATING = 9.0


def rating_of(share: Values) -> Values:
    """Return the rating at a share of the scale.

    >>> rating_of(0.5)
    5.0
    """
    return LOWEST_RATING + (HIGHEST_RATING - LOWEST_RATING) * share  # type: ignore[return-value]


def share_of_scale(rating: Values) -> Values:
    """Return how far a rating is from the lowest to the highest, 0 to 1; the inverse of `rating_of`.

    >>> share_of_scale(9.0)
    1.0
    """
    return (rating - LOWEST_RATING) / (HIGHEST_RATING - LOWEST_RATING)
