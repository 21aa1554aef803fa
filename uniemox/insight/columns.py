"""Names of the columns of a predictor's index, and why it lacks one."""

from uniemox.labels import AFFECT, DOMINANCE, clean
from uniemox.predict.building import axes_of
from uniemox.predict.confidence import unflagged_note
from uniemox.predict.predictor import Predictor
from uniemox.predict.schema import FIELDS, columns_of
from uniemox.spelling import similar_name

FAMILIARITY = "familiarity"
PEOPLE = "people"
FACES = "faces"
COUNTS = (PEOPLE, FACES)
# Fields that the index has under another name.
_COLUMN_OF_FIELD = {"persons": PEOPLE}
# Names that only some indices have, so that an error about another one must not say that none has them.
_OPTIONAL = (*AFFECT, DOMINANCE, FAMILIARITY, *COUNTS)


def column_names(predictor: Predictor) -> tuple[str, ...]:
    """Return the names of the columns that the index of a predictor has."""
    optional = {
        FAMILIARITY: bool(predictor.network.info.distances),
        PEOPLE: predictor.finder is not None,
        FACES: predictor.face_reader is not None,
    }
    present = [name for name, is_present in optional.items() if is_present]
    return tuple(dict.fromkeys((*predictor.labels, *axes_of(predictor.network), *present)))


def why_missing(predictor: Predictor, name: str) -> str:
    """Return why the index of a predictor has no column of a name, and what to do.

    Args:
        predictor: From `load`.
        name: Name that is none of `column_names`.
    """
    model = predictor.name
    if name.lower() in _OPTIONAL or field_note(name.lower()):
        name = name.lower()
    if name == PEOPLE:
        return "a condition on people needs a predictor with a finder; leave out finder=None"
    if name == FACES:
        return 'a condition on faces needs a predictor that reads them: load(faces="find")'
    choice = f"choose one of {', '.join(column_names(predictor))}"
    if name in AFFECT:
        return (
            f"{model} does not predict {name}; use a model that does, such as the package's own (leave out --model; in "
            f"Python: predictor), fit ratings of your own (uniemox calibrate --ratings), or {choice}"
        )
    if name == DOMINANCE:
        return f"{model} does not predict {name}; use a model that has learned it, or {choice}"
    if name == FAMILIARITY:
        return f"{model} has no {name}: {unflagged_note(predictor.network.info)}; {choice}"
    if note := field_note(name):
        return f"the index has no {name!r}{note}; {choice}"
    return f"{model} has no label {name!r}{_other_spelling(name, column_names(predictor))}; {choice}"


def field_note(name: str) -> str:
    """Return the end of an error about a name that is a field of predictions, but of no index; else empty."""
    if name in _COLUMN_OF_FIELD:
        return f"; it is called {_COLUMN_OF_FIELD[name]} there"
    fields = {name for field in FIELDS for name in (field.name, *columns_of(field))}
    if name in fields.difference(_OPTIONAL):
        return "; it is a field of predict's answers, but not of the index"
    return ""


def _other_spelling(name: str, names: tuple[str, ...]) -> str:
    """Return the end of an error about a misspelt name; empty if no name is similar."""
    by_spelling = {clean(known): known for known in names}
    similar = similar_name(clean(name), by_spelling, cutoff=0.8)
    return "" if similar is None else f" (did you mean {by_spelling[similar]!r}?)"
