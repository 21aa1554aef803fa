"""Labels in which a model can answer."""

from contextlib import suppress

from uniemox.errors import LabelError
from uniemox.labels import LABEL_SETS, LabelMap, LabelSet, find_label_set, label_map

# Number of labels of the requested set that a model must be able to predict.
MIN_REACHED = 2


def answers_in(source: LabelSet, target: str | None) -> LabelMap:
    """Return the map of predictions from a label set to the requested one.

    Args:
        source: Label set of the model.
        target: Name of the requested label set; None: the labels of `source`.

    Raises:
        LabelError: Without such a set (then with the possible ones) or a map to it, if one is evoked and the other
            felt, or if only one label is reached, which would always have probability 1.
    """
    if target is None:
        return LabelMap(source, source, {label: label for label in source.labels})
    try:
        requested = find_label_set(target)
    except LabelError as error:
        possible = ", ".join(possible_sets(source)) or "its own labels only"
        raise LabelError(f"there is no label set {target!r}; the model can answer in {possible}") from error
    mapping = label_map(source, requested)
    if len(mapping.reached) < MIN_REACHED:
        reached = f"only {mapping.reached[0]} has" if mapping.reached else "none has"
        raise LabelError(
            f"of the labels of {target}, {reached} a counterpart among the model's ({', '.join(source.labels)}); leave "
            "out --labels (labels=) to get the model's own"
        )
    return mapping


def possible_sets(source: LabelSet) -> list[str]:
    """Return the names of the published label sets to which a model with the labels of `source` can be mapped."""
    names = []
    for label_set in LABEL_SETS:
        with suppress(LabelError):
            answers_in(source, label_set.name)
            names.append(label_set.name)
    return names
