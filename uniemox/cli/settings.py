"""Command-line options made from a config: each field is a dotted option, whose default is the preset's value."""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from cyclopts import Parameter

from uniemox.errors import ConfigError

Config = TypeVar("Config")
Command = TypeVar("Command", bound=Callable[..., Any])


def preset_in(words: Sequence[str], presets: Collection[str], default: str) -> str:
    """Return the preset that a command line names. It is needed before parsing, because option defaults depend on it.

    Raises:
        ConfigError: For an unknown preset.

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


def options_of(config: Any, *, without: Collection[str] = (), names: Mapping[str, str] | None = None) -> Any:
    """Make a dataclass of a config's fields for cyclopts to fill, see `takes`.

    Args:
        config: An instance, whose values become the defaults; or a class, whose own defaults are used.
        without: Fields that are not options, or for which the command has its own option; of a part as PART.FIELD.
        names: Option names that differ from the field's name, such as {"models": "--model"}.
    """
    kind = config if isinstance(config, type) else type(config)
    hints = get_type_hints(kind)
    texts = _texts_of(kind)
    parts: list[tuple[str, Any, Any]] = []
    for part in fields(kind):
        if part.name in without:
            continue
        value = part.default if config is kind else getattr(config, part.name)
        if is_dataclass(value):
            inside = [name.partition(".")[2] for name in without if name.startswith(f"{part.name}.")]
            options = options_of(value, without=inside)
            parts.append((part.name, options, field(default_factory=options)))
        else:
            name = names.get(part.name) if names else None
            # On the command line, None is written in lower case.
            text = (texts.get(part.name) or "").replace("None:", "none:")
            if value is None and "none:" in text:
                text += " [default: none]"
            parameter = Parameter(name=name, negative="" if name else None, negative_iterable=(), help=text)
            hint: Any = Annotated[hints[part.name], parameter]
            parts.append((part.name, hint, field(default=value)))
    options_class = make_dataclass(kind.__name__, parts, kw_only=True)
    # Without a module, cyclopts takes the class for a built-in type.
    options_class.__module__ = kind.__module__
    return options_class


def help_of(kind: type[Any], name: str) -> str:
    """Return the documentation of a config's field; empty if it has none."""
    return _texts_of(kind).get(name) or ""


def _texts_of(kind: type[Any]) -> dict[str, str | None]:
    """Return the documentation of each field of a config."""
    # The parser that cyclopts uses itself.
    from docstring_parser import parse_from_object

    return {param.arg_name: param.description for param in parse_from_object(kind).params}


def takes(**options: Any) -> Callable[[Command], Command]:
    """Let cyclopts fill parameters of a command from classes made by `options_of`: every field becomes an option.

    Args:
        options: Classes by keyword parameter, which can't be annotations because they are made at run time.
    """

    def annotate(command: Command) -> Command:
        for name, kind in options.items():
            command.__annotations__[name] = Annotated[kind, Parameter(name="*")]
            if not any(part.default is part.default_factory is MISSING for part in fields(kind)):
                command.__kwdefaults__ = {**(command.__kwdefaults__ or {}), name: kind()}
        return command

    return annotate


def config_of(kind: type[Config], options: Any, **others: Any) -> Config:
    """Build the config from filled options.

    Args:
        kind: Class of the config.
        options: Filled instance of the class that `options_of` made.
        others: Values of fields that are not options; all other fields keep their defaults.

    Raises:
        ConfigError: If the config refuses a value.
    """
    hints = get_type_hints(kind)
    for part in fields(options):
        value = getattr(options, part.name)
        # cyclopts leaves none as text.
        if value == "none" and type(None) in get_args(hints[part.name]):
            value = None
        others[part.name] = config_of(hints[part.name], value) if is_dataclass(value) else value
    return kind(**others)


def read_key(variable: str | None, *, min_length: int = 1, remedy: str = "export the key in it") -> str | None:
    """Read a key from the environment variable of this name.

    Error messages never contain the key, nor the text given as the name, which may be the key itself.

    Returns:
        The key; None if no name is given.

    Raises:
        ConfigError: If the variable holds no key.
    """
    if variable is None:
        return None
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):
        raise ConfigError(
            "--key-from takes the name of an environment variable in capitals, such as OPENAI_API_KEY, never the key"
        )
    key = os.environ.get(variable, "").strip()
    if len(key) < min_length or not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError(
            f"the environment variable {variable} holds no key: expected at least {min_length} printable characters "
            f"without blanks; {remedy}"
        )
    return key
