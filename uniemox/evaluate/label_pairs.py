"""A map from a model's labels to those of a data set, as a user writes it: fun=amusement+excitement,yuck=disgust."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from uniemox.errors import LabelError
from uniemox.io.files import read_limited
from uniemox.labels import LabelMap, LabelSet, ScoredLabels, clean

LabelPairs = Mapping[str, tuple[str, ...]]
"""By label of the data, the labels of the model that mean it; none: the images of this label are left out."""
EXAMPLE = "fun=amusement+excitement,yuck=disgust"


def read_label_pairs(text: str) -> LabelPairs:
    """Parse pairs of labels.

    Args:
        text: LABEL=LABELS of the model with + between, several with commas or line ends; or a file of such pairs.

    Raises:
        LabelError: For text that is not pairs, or for a file that can't be read.

    >>> read_label_pairs("fun=amusement+excitement, yuck=disgust, meh=")
    {'fun': ('amusement', 'excitement'), 'yuck': ('disgust',), 'meh': ()}
    """
    where = "the label map"
    if "=" not in text:
        where = text
        text = _text_of(Path(text))
    pairs: dict[str, tuple[str, ...]] = {}
    for part in _parts(text):
        label, sign, words = part.partition("=")
        label = label.strip()
        if not sign or not label:
            raise LabelError(f"{where}: expected LABEL=LABEL OF THE MODEL, such as {EXAMPLE}, got {part!r}")
        if clean(label) in map(clean, pairs):
            raise LabelError(f"{where}: {label} occurs twice; write its labels with +, such as {EXAMPLE}")
        pairs[label] = tuple(word.strip() for word in words.split("+") if word.strip())
    if not pairs:
        raise LabelError(f"{where}: there is no pair of labels; expected such as {EXAMPLE}")
    return pairs


def needs_map(model: LabelSet, data: LabelSet, pairs: LabelPairs) -> bool:
    """Return False for a model that has the labels of the data, but for those that the pairs leave out."""
    if set(model.labels) == set(data.labels):
        return False
    with_counterpart = {data.labels[data.index(label)] for label, words in pairs.items() if words}
    return not with_counterpart <= set(model.labels) <= set(data.labels)


def score_by_pairs(model: LabelSet, data: LabelSet, pairs: LabelPairs) -> ScoredLabels:
    """Return the maps for scoring a model in the labels of a data set, as the user's pairs say.

    Model's labels that no pair names get no part of the answer: its other probabilities are divided by their sum.

    Args:
        model: Labels of the model.
        data: Labels of the data set.
        pairs: See `LabelPairs`; each label of the data set must be named.

    Raises:
        LabelError: For an unknown or a missing label, for a label of the model that is given twice, for fewer than two
            labels to choose among, or if one set describes felt and the other evoked emotions.
    """
    if model.kind != data.kind:
        raise LabelError(
            f"the model predicts {model.kind} emotions, the data's labels are {data.kind} ones: no map changes that"
        )
    meaning: dict[str, str | None] = dict.fromkeys(model.labels)
    named = set()
    for label, words in pairs.items():
        target = data.labels[data.index(label)]
        named.add(target)
        for word in words:
            source = model.labels[model.index(word)]
            if meaning[source] is not None:
                raise LabelError(f"{source} is given for {meaning[source]} and for {target}; it can mean only one")
            meaning[source] = target
    missing = [label for label in data.labels if label not in named]
    if missing:
        raise LabelError(
            f"the label map lacks {', '.join(missing)}: give labels of the model for each ({', '.join(model.labels)}), "
            f"or write {missing[0]}= to leave its images out"
        )
    reached = tuple(label for label in data.labels if label in meaning.values())
    if len(reached) < 2:
        raise LabelError(
            "the label map leaves fewer than two labels to choose among; give labels of the model for two at least"
        )
    # The model can't choose the other labels, so they don't count among the scored ones.
    scored = replace(data, labels=reached)
    of_data = LabelMap(data, scored, {label: label if label in reached else None for label in data.labels})
    return ScoredLabels(LabelMap(model, scored, meaning), of_data)


def _text_of(file: Path) -> str:
    try:
        return read_limited(file).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise LabelError(f"{file} is no file of label pairs ({error}); give pairs, such as {EXAMPLE}") from error


def _parts(text: str) -> Iterator[str]:
    for line in text.splitlines():
        for part in line.split(","):
            if part.strip():
                yield part.strip()
