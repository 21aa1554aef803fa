"""A map from a model's labels to those of a data set, as a user writes it: fun=amusement+excitement,yuck=disgust."""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path

from uniemox.errors import LabelError
from uniemox.io.files import read_limited
from uniemox.labels import CUSTOM, NO_LABELS, LabelMap, LabelSet, ScoredLabels, clean, quoted, scored_labels

LabelPairs = Mapping[str, tuple[str, ...]]
"""By label of the data, the labels of the model that mean it; none: the images of this label are left out."""
EXAMPLE = "fun=amusement+excitement,yuck=disgust"
TOO_FEW_LABELS = "the label map leaves fewer than two labels to choose among; give labels of the model for two at least"


def read_label_pairs(text: str) -> LabelPairs:
    """Parse pairs of labels.

    Args:
        text: LABEL=LABELS of the model with + between, several with commas or line ends; or a file of such pairs. A
            label that contains one of , = + stands in double quotes.

    Raises:
        LabelError: For empty text or text that is not pairs, or for a file that can't be read.

    >>> read_label_pairs("fun=amusement+excitement, yuck=disgust, meh=")
    {'fun': ('amusement', 'excitement'), 'yuck': ('disgust',), 'meh': ()}
    >>> read_label_pairs('"joy, love"=amusement')
    {'joy, love': ('amusement',)}
    """
    where = "the label map"
    if not text.strip():
        raise LabelError(f"{where} is empty; give pairs, such as {EXAMPLE}, or a file of such pairs")
    if "=" not in text:
        where = text
        text = _text_of(Path(text))
    pairs: dict[str, tuple[str, ...]] = {}
    for part in _parts(text):
        label, *words = [side.strip() for side in _split(part, "=")]
        label = _unquoted(label)
        if len(words) != 1 or not label:
            raise LabelError(
                f"{where}: expected LABEL=LABEL OF THE MODEL, such as {EXAMPLE}, got {part!r}; write a label that "
                'contains one of , = + in double quotes, such as "joy, love"=amusement (in a shell, put the map in '
                "single quotes, or in a file)"
            )
        if clean(label) in map(clean, pairs):
            raise LabelError(f"{where}: {label} occurs twice; write its labels with +, such as {EXAMPLE}")
        pairs[label] = tuple(_unquoted(word.strip()) for word in _split(words[0], "+") if word.strip())
    if not pairs:
        raise LabelError(f"{where}: there is no pair of labels; expected such as {EXAMPLE}")
    return pairs


def resolve_pairs(pairs: LabelPairs, data: LabelSet) -> LabelPairs:
    """Return the pairs with each label as the data set writes it.

    Raises:
        LabelError: For a label that the data set lacks or that occurs twice, and for a text in place of a tuple.
    """
    resolved: dict[str, tuple[str, ...]] = {}
    for label, words in pairs.items():
        # A script may give a single label.
        if isinstance(words, str):
            raise LabelError(f"the label map gives a text for {label}, not a tuple of labels; write ({words!r},)")
        name = data.labels[data.index(label)]
        if name in resolved:
            raise LabelError(f"the label map names {name} twice, once as {label}; write its labels with +")
        resolved[name] = words
    return resolved


def needs_map(model: LabelSet, data: LabelSet, pairs: LabelPairs) -> bool:
    """Return True if a model is scored by the pairs; False if they only leave labels out, or are for another model.

    They are for another model if this one has the labels of the data that they name, and lacks those that they give.
    Pairs that merge, rename or choose among the labels of a model with the labels of the data are a map for it, too.

    Raises:
        LabelError: For pairs that map labels of the model and name others that it lacks; see also `resolve_pairs`.
    """
    words_of = {label: words for label, words in resolve_pairs(pairs, data).items() if words}
    if not words_of:
        return False
    if not set(words_of) <= set(model.labels):
        return True
    changes = False
    error_of_other_model: LabelError | None = None
    for label, words in words_of.items():
        try:
            changes |= {model.labels[model.index(word)] for word in words} != {label}
        except LabelError as error:
            error_of_other_model = error
    if error_of_other_model is None:
        return changes or not set(model.labels) <= set(data.labels)
    if changes:
        raise error_of_other_model
    return False


def labels_by(labels: LabelSet, data: LabelSet, pairs: LabelPairs | None) -> ScoredLabels:
    """Return the labels in which a model is scored: by the user's map, or by the known map if there is none.

    Of a map that the model does not need, only the labels count that it leaves out.

    Args:
        labels: Labels of the model.
        data: Labels of the data set.
        pairs: The user's map; None: there is none.

    Raises:
        LabelError: If the map does not fit, or if there is none.
    """
    if pairs and not data.labels:
        raise LabelError(f"the label map has nothing to map: {NO_LABELS}")
    if pairs is None:
        return scored_labels(labels, data)
    if needs_map(labels, data, pairs):
        return score_by_pairs(labels, data, pairs)
    without = left_out_by(pairs, data)
    if not without:
        return scored_labels(labels, data)
    return _scored_without(labels, data, without)


def left_out_by(pairs: LabelPairs, data: LabelSet) -> set[str]:
    """Return the labels of the data whose images the pairs leave out."""
    return {label for label, words in resolve_pairs(pairs, data).items() if not words}


def _scored_without(model: LabelSet, data: LabelSet, without: Set[str]) -> ScoredLabels:
    """Return the labels in which a model is scored on data of which some labels are left out.

    The model does not choose them either: its other probabilities are divided by their sum. It chooses among all others
    that it had without the map.

    Raises:
        LabelError: If there is no map, or for fewer than two labels to choose among.
    """
    scored_names = tuple(label for label in data.labels if label not in without)
    try:
        scored = scored_labels(model, data)
    except LabelError:
        # The model may lack just the labels that are left out.
        scored = scored_labels(model, replace(data, name=CUSTOM, labels=scored_names))
    word_of = {label: scored.of_data.pairs.get(label, label) for label in data.labels}
    removed = {word_of[label] for label in without} - {word_of[label] for label in scored_names}
    target = replace(
        scored.labels, name=CUSTOM, labels=tuple(word for word in scored.labels.labels if word not in removed)
    )
    of_model = {label: None if word in removed else word for label, word in scored.of_model.pairs.items()}
    of_data = {label: None if label in without else word_of[label] for label in data.labels}
    result = ScoredLabels(LabelMap(model, target, of_model), LabelMap(data, target, of_data))
    if len(result.choices) < 2:
        raise LabelError(TOO_FEW_LABELS)
    return result


def score_by_pairs(model: LabelSet, data: LabelSet, pairs: LabelPairs) -> ScoredLabels:
    """Return the maps for scoring a model in the labels of a data set, as the user's pairs say.

    Model's labels that no pair names get no part of the answer: its other probabilities are divided by their sum.

    Args:
        model: Labels of the model.
        data: Labels of the data set.
        pairs: See `LabelPairs`; each label of the data set must be named, or be a label of the model, which then means
            itself.

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
    for target, words in resolve_pairs(pairs, data).items():
        named.add(target)
        for word in words:
            source = model.labels[model.index(word)]
            if meaning[source] is not None:
                raise LabelError(f"{source} is given for {meaning[source]} and for {target}; it can mean only one")
            meaning[source] = target
    for label in data.labels:
        if label not in named and label in meaning and meaning[label] is None:
            meaning[label] = label
            named.add(label)
    missing = [label for label in data.labels if label not in named]
    if missing:
        raise LabelError(
            f"the label map lacks {', '.join(missing)}: give labels of the model for each ({', '.join(model.labels)}), "
            f"or write {missing[0]}= to leave its images out"
        )
    reached = tuple(label for label in data.labels if label in meaning.values())
    if len(reached) < 2:
        raise LabelError(TOO_FEW_LABELS)
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
        for part in _split(line, ","):
            if part.strip():
                yield part.strip()


def _split(text: str, separator: str) -> list[str]:
    """Split a text at the separators outside of double quotes; a quote that does not end is a character like others."""
    parts = [""]
    for token in re.findall(r'"[^"]*"|.', text):
        if token == separator:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def _unquoted(label: str) -> str:
    if len(label) > 1 and label[0] == label[-1] == '"':
        return label[1:-1].strip()
    return label


def pairs_in(scored: ScoredLabels) -> LabelPairs:
    """Return the pairs by which a model is scored, in the order of the labels of the data and of the model."""
    target_of = scored.of_model.pairs
    return {
        label: tuple(source for source, target in target_of.items() if target is not None and target == scored_label)
        for label, scored_label in scored.of_data.pairs.items()
    }


def format_label_pairs(pairs: LabelPairs) -> str:
    """Return the pairs as text that `read_label_pairs` reads."""
    return ",".join(f"{quoted(label)}={'+'.join(map(quoted, words))}" for label, words in pairs.items())
