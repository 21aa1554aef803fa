"""Options of a data set's name, as in folder:photos?labels=awe,fear: from text to the types of its reader."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from uniemox.data.sample import DataSet
from uniemox.errors import ConfigError

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_CONVERSIONS: dict[Any, Callable[[str], Any]] = {
    bool: lambda text: _BOOLEANS[text.lower()],
    int: int,
    float: float,
    Path: Path,
    str: str,
    # An option without a type, or of any type.
    inspect.Parameter.empty: str,
    Any: str,
}
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number"}
# Types whose names are in quotes twice: as text, and because the module's annotations are texts.
_TYPES_BY_NAME = {kind.__name__: kind for kind in (str, int, float, bool, Path)}


def typed_options(kind: str, reader: Callable[..., DataSet], options: Mapping[str, str]) -> dict[str, Any]:
    """Convert options to the types of the reader's keyword arguments.

    Raises:
        ConfigError: If the reader has no such option, or a value is not of its type.
    """
    if not options:
        return {}
    types = _option_types(reader)
    typed: dict[str, Any] = {}
    for name, value in options.items():
        if name not in types:
            raise ConfigError(f"{kind} has no option {name!r}; it has {', '.join(types) or 'none'}")
        typed[name] = _typed_value(value, types[name], f"{kind}?{name}")
    return typed


def _option_types(reader: Callable[..., DataSet]) -> dict[str, Any]:
    """Return the type of each keyword argument of a reader; a text if it can't be resolved."""
    try:
        parameters = inspect.signature(reader, eval_str=True).parameters.values()
    except (NameError, AttributeError, SyntaxError, TypeError):
        # A type that is imported for type checkers alone; that of another argument may be readable.
        parameters = inspect.signature(reader).parameters.values()
    # The first argument is the path.
    others = list(parameters)[1:]
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter.annotation for parameter in others if parameter.kind in by_name}


def _typed_value(text: str, annotation: Any, option: str) -> Any:
    """Convert the text of an option.

    Args:
        text: The text.
        annotation: str, int, float, bool, Path or Literal, a union of them and None, or the name of one of them.
        option: Name of the option, for messages.

    Raises:
        ConfigError: If the text has another type, or texts can't be converted to this type.
    """
    annotation = _TYPES_BY_NAME.get(annotation, annotation) if isinstance(annotation, str) else annotation
    if isinstance(annotation, str):
        raise ConfigError(f"{option}: its type {annotation} can't be read; import it for the program, too")
    is_union = get_origin(annotation) in (Union, UnionType)
    members = [member for member in (get_args(annotation) if is_union else (annotation,)) if member is not NoneType]
    choices = {
        str(choice): choice for member in members if get_origin(member) is Literal for choice in get_args(member)
    }
    if text in choices:
        return choices[text]
    plain = [member for member in members if get_origin(member) is not Literal]
    convertible = [member for member in plain if member in _CONVERSIONS]
    if plain and not convertible and not choices:
        raise ConfigError(f"{option}: its type {plain[0]} can't be given as text; use str, int, float, bool or Path")
    for member in sorted(convertible, key=lambda member: member is str):
        with suppress(ValueError, KeyError):
            return _CONVERSIONS[member](text)
    if choices:
        raise ConfigError(f"{option} must be one of {', '.join(choices)}, got {text!r}")
    expected = " or ".join(_EXPECTED[member] for member in convertible)
    raise ConfigError(f"{option} must be {expected}, got {text!r}")
