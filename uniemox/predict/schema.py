"""Every field of a prediction, defined once: JSON, CSV, Parquet, data frames, HTTP schema and web page derive from it.

docs/extending/field.md shows how to add a field, in this list or from another package.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from uniemox.errors import ConfigError
from uniemox.labels import AXES, Kind

# Probability without a counterpart above which an answer counts as none of the requested labels.
MAX_UNMAPPED = 0.5
NO_LABEL = "none"
# Digits after the decimal point in JSON.
DIGITS = 6
Corners = tuple[float, float, float, float]
Interval = tuple[float, float]
Shares = dict[str, float]


def shares_with_none(scene: Mapping[str, float], unmapped: float) -> dict[str, float]:
    """Return how a model's whole probability is divided among requested labels and `none`.

    Args:
        scene: Probability by requested label, with sum 1.
        unmapped: Probability of the model's labels without a counterpart, 0 to 1.
    """
    return {label: share * (1 - unmapped) for label, share in scene.items()} | {NO_LABEL: unmapped}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a prediction."""

    name: str
    type: Any
    """Type of the JSON value: bool, int, float, str, Literal; tuple, list or dict of these; or one of them | None."""
    meaning: str
    """Description in one line, with unit and range, for the HTTP schema and the web page."""
    get: Callable[[Any], Any] | None = None
    """Function from a Prediction to the value; None: its attribute of that name."""
    columns: tuple[str, ...] | None = None
    """Columns of a CSV table; None: one with the field's name; (): none. A list of objects has a column for the number
    of objects, and may have another for the most probable word of each."""
    parts: tuple["Field", ...] = ()
    """Fields of each element, for a list of objects."""
    digits: int = DIGITS
    """Digits after the decimal point. Parquet stores 32-bit floats up to 6 digits, else 64-bit."""
    of_film: bool = False
    """True if only predictions for frames of a video have the field."""
    is_optional: bool = False
    """True if answers without a value, None, lack the field."""

    def value(self, answer: Any) -> Any:
        """Return the JSON form of this field of a Prediction, Person or Face."""
        return self._as_json(getattr(answer, self.name) if self.get is None else self.get(answer))

    def _as_json(self, value: Any) -> Any:
        if isinstance(value, float):
            return round(float(value), self.digits)
        if isinstance(value, Mapping):
            return {key: self._as_json(element) for key, element in value.items()}
        if isinstance(value, list | tuple) and self.parts:
            return [values_of(self.parts, element) for element in value]
        if isinstance(value, list | tuple):
            return [self._as_json(element) for element in value]
        return value


def values_of(fields: Sequence[Field], answer: Any) -> dict[str, Any]:
    """Return the JSON form of fields of a Prediction, Person or Face, without optional ones that have no value."""
    values = {field.name: field.value(answer) for field in fields}
    optional = {field.name for field in fields if field.is_optional}
    return {name: value for name, value in values.items() if value is not None or name not in optional}


ASSIGNED = Field(
    "assigned_labels",
    list[str] | None,
    "Labels with a probability above their threshold, most probable first; only of models that give several labels",
    is_optional=True,
)
BOX = Field("box", Corners, "x1, y1, x2, y2 in px of the upright image", digits=2)
PERSON = (
    BOX,
    Field("confidence", float, "Confidence that this is a person, 0 to 1"),
    Field("emotions", Shares | None, "What the person feels: probability by label; null without a person model"),
    ASSIGNED,
)
FACE = (
    BOX,
    Field("confidence", float, "Confidence that this is a face, 0 to 1"),
    Field("expressions", Shares | None, "What the face shows to others: probability by label; null: too small to tell"),
    Field("person", int | None, "Index in persons of the owner; null: no detected person"),
)
FIELDS: list[Field] = [
    Field("path", str | None, "Path of the image; null for one from memory"),
    Field("scene", Shares, "Probability by label; or values of valence and arousal", columns=("top", "top_value")),
    ASSIGNED,
    Field("kind", Kind, "What the scene makes people feel, what people in it feel, or what a face shows"),
    Field("valence", float | None, "1 (negative) to 9 (positive); null where the model can't tell"),
    Field("arousal", float | None, "1 (calm) to 9 (excited); null where the model has not learned it"),
    Field(
        "dominance",
        float | None,
        "1 (not in control) to 9 (in control); only of models that have learned it",
        is_optional=True,
    ),
    Field("valence_interval", Interval | None, "90 % interval of people's mean rating, where learned"),
    Field("arousal_interval", Interval | None, "90 % interval of people's mean rating, where learned"),
    Field(
        "affect_from",
        Literal["ratings", "model", "norms"] | None,
        "ratings: learned from people's ratings of images; model: the network's only task; norms: word norms of labels",
    ),
    Field("familiarity", float | None, "Similarity to the training images, 0 to 1; null: the model can't tell"),
    Field(
        "is_unfamiliar",
        bool,
        "The image is so unlike the training images that the answer is a guess; models with fewer than 20 held-out "
        "images flag only blank ones, of one colour or with less than 16 px on a side",
    ),
    Field("is_colourless", bool, "The image is grey, sepia or of one other tone; its answer is less reliable"),
    Field("view", Corners | None, "The part that was judged: x1, y1, x2, y2, px", digits=2),
    Field(
        "persons",
        list[dict[str, Any]] | None,
        "Most confident first; []: nobody found; null: no person finder",
        columns=("people", "people_feel"),
        parts=PERSON,
    ),
    Field(
        "faces",
        list[dict[str, Any]] | None,
        "Most confident first; []: no face; null: faces were not asked for",
        columns=("faces", "faces_show"),
        parts=FACE,
    ),
    Field(
        "likely",
        list[str] | None,
        "Labels that hold the true one with the coverage asked, for images like the held-out ones; null: not asked",
    ),
    Field(
        "unmapped",
        float | None,
        "Probability of labels without a counterpart in the requested label set; above 0.5 no label of it fits; null: "
        "not converted",
    ),
    Field("width_px", int, "Width of the upright image"),
    Field("height_px", int, "Height of the upright image"),
    Field("label_set", str, "Name of the label set"),
    Field("model", str, "Name of the model"),
    Field("time_s", float, "Moment of the film", digits=15, of_film=True),
    Field("shot", int, "Number of the shot between two cuts of the film, from 1", of_film=True),
]
"""Fields in the order of JSON and of the HTTP schema."""
COLUMN_ORDER = (
    *("path", "time_s", "shot", "scene", "assigned_labels", "valence", "arousal", "dominance", "familiarity"),
    *("is_unfamiliar", "likely", "persons", "faces", "kind", "label_set", "model", "width_px", "height_px"),
    *("is_colourless", "unmapped"),
)
"""Order of the columns in tables; other fields follow, before `error`."""


def add_field(field: Field) -> None:
    """Add a field to all predictions of this process; call it before importing anything of `uniemox_serve`.

    Raises:
        ConfigError: If the name is taken.
    """
    if field.name in {"error", "name", "sha256"} | {existing.name for existing in FIELDS}:
        raise ConfigError(f"a prediction already has a field {field.name!r}; choose another name")
    FIELDS.append(field)


def table_fields(labels: Sequence[str], *, of_film: bool, with_optional: bool = False) -> list[Field]:
    """Return the fields in tables, in column order; valence and arousal only if they are not the labels."""
    fields = [
        field
        for field in FIELDS
        if field.columns != () and (of_film or not field.of_film) and (with_optional or not field.is_optional)
    ]
    order = {name: position for position, name in enumerate(COLUMN_ORDER)}
    fields.sort(key=lambda field: order.get(field.name, len(order)))
    return [field for field in fields if field.name not in AXES or field.name not in labels]


def columns_of(field: Field) -> tuple[str, ...]:
    """Return the names of a field's columns in a CSV table; label columns follow those of `scene`."""
    if field.columns is None:
        return (field.name,)
    return field.columns


def required_type(field: Field) -> Any:
    """Return a field's type without None."""
    options = [option for option in get_args(field.type) if option is not type(None)]
    if type(None) in get_args(field.type):
        return options[0]
    return field.type


def top_word(values: Mapping[str, float] | None) -> str:
    """Return the most probable label; "?" without probabilities."""
    if values:
        return max(values, key=values.__getitem__)
    return "?"


def words_of(field: Field, elements: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the most probable word of each element of a list of objects; [] if no element has probabilities."""
    name = next((part.name for part in field.parts if required_type(part) == Shares), None)
    if name is None or not any(element[name] for element in elements):
        return []
    return [top_word(element[name]) for element in elements]
