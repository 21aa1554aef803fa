"""Options of a command made from a config: every field a dotted option, the preset's values as defaults."""

from collections.abc import Collection, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from cyclopts import Parameter

from uniemox.errors import ConfigError

Config = TypeVar("Config")


def preset_in(words: Sequence[str], presets: Collection[str], default: str) -> str:
    """The preset that a command's words name, before the options that depend on it are parsed.

    Raises ConfigError for a name that is none.

    >>> preset_in(["pretrain", "--preset", "demo"], ["paper", "demo"], "paper")
    'demo'
    """
    name = next((word.partition("=")[2] for word in words if word.startswith("--preset=")), None)
    if name is None and "--preset" in words[:-1]:
        name = words[words.index("--preset") + 1]
    name = name or default
    if name not in presets:
        raise ConfigError(f"there is no preset {name!r}; choose one of {', '.join(presets)}")
    return name


def options_of(config: Any, *, without: Sequence[str] = ()) -> Any:
    """A class of the config's fields whose defaults are the config's values, for cyclopts to fill.

    without: fields that the command has options of its own for.
    """
    from docstring_parser import parse_from_object  # as cyclopts reads docstrings

    kind = type(config)
    hints = get_type_hints(kind)
    texts = {param.arg_name: param.description for param in parse_from_object(kind).params}
    parts: list[tuple[str, Any, Any]] = []
    for part in fields(kind):
        value = getattr(config, part.name)
        if part.name in without:
            continue
        if is_dataclass(value):
            options = options_of(value)
            parts.append((part.name, options, field(default_factory=options)))
        else:
            hint: Any = Annotated[hints[part.name], Parameter(help=texts.get(part.name))]
            parts.append((part.name, hint, field(default=value)))
    made = make_dataclass(kind.__name__, parts, kw_only=True)
    made.__module__ = kind.__module__  # what has no module of its own is taken for one of Python's own types
    return made


def config_of(kind: type[Config], options: Any) -> Config:
    """The config that the filled options make; other fields take their defaults. Raises what the config raises."""
    hints = get_type_hints(kind)
    values = {}
    for part in fields(options):
        value = getattr(options, part.name)
        if value == "none" and type(None) in get_args(hints[part.name]):  # where text is taken, cyclopts leaves it
            value = None
        values[part.name] = config_of(hints[part.name], value) if is_dataclass(value) else value
    return kind(**values)
