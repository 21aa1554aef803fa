"""Definitions of labels, which become part of the question."""

from pathlib import Path

from uniemox.errors import DataError, LabelError
from uniemox.io import read_json
from uniemox.labels import LabelSet

REMEDY = 'give a JSON object with a definition for each label, such as {"fear": "an unpleasant feeling about a danger"}'


def read_definitions(path: Path, labels: LabelSet) -> dict[str, str]:
    """Return the definition of each label.

    Args:
        path: JSON file, an object with the definition of each label or its alias.
        labels: The labels.

    Raises:
        DataError: If the file can't be read, names another label or a label twice, or lacks a definition.
    """
    definitions: dict[str, str] = {}
    for word, text in read_json(path, dict[str, str], remedy=REMEDY).items():
        try:
            label = labels.labels[labels.index(word)]
        except LabelError as error:
            raise DataError(f"{path}: {error}; remove this definition") from error
        if label in definitions:
            raise DataError(f"{path}: {word!a} is another definition of {label}; remove one")
        definitions[label] = " ".join(text.split())
    missing = [label for label in labels.labels if not definitions.get(label)]
    if missing:
        raise DataError(f"{path}: no definition of {', '.join(missing)}; {REMEDY}")
    return definitions
