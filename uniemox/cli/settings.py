"""Options of a command made from a config: every field a dotted option, the preset's values as defaults."""

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


def options_of(config: Any, *, without: Collection[str] = (), names: Mapping[str, str] | None = None) -> Any:
    """A class of the config's fields for cyclopts to fill, see `takes`.

    config: its values are the defaults; the class of a config for those that are written there.
    without: fields that are no options, or that the command has options of its own for.
    names: of options that are called otherwise than their fields, such as {"models": "--model"}.
    """
    from docstring_parser import parse_from_object  # as cyclopts reads docstrings

    kind = config if isinstance(config, type) else type(config)
    hints = get_type_hints(kind)
    texts = {param.arg_name: param.description for param in parse_from_object(kind).params}
    parts: list[tuple[str, Any, Any]] = []
    for part in fields(kind):
        if part.name in without:
            continue
        value = part.default if config is kind else getattr(config, part.name)
        if is_dataclass(value):
            options = options_of(value)
            parts.append((part.name, options, field(default_factory=options)))
        else:
            name = names.get(part.name) if names else None
            about = Parameter(name=name, negative="" if name else None, help=texts.get(part.name))
            hint: Any = Annotated[hints[part.name], about]
            parts.append((part.name, hint, field(default=value)))
    made = make_dataclass(kind.__name__, parts, kw_only=True)
    made.__module__ = kind.__module__  # what has no module of its own is taken for one of Python's own types
    return made


def takes(**options: Any) -> Callable[[Command], Command]:
    """Let cyclopts fill parameters of a command from classes of `options_of`: every field is an option.

    options: classes by keyword parameter. A class that is made when the program runs can't be written as an annotation.
    """

    def annotate(command: Command) -> Command:
        for name, kind in options.items():
            command.__annotations__[name] = Annotated[kind, Parameter(name="*")]
            if not any(part.default is part.default_factory is MISSING for part in fields(kind)):
                command.__kwdefaults__ = {**(command.__kwdefaults__ or {}), name: kind()}
        return command

    return annotate


def config_of(kind: type[Config], options: Any, **others: Any) -> Config:
    """The config that the filled options make.

    others: values of fields that are no options; the remaining ones take their defaults. Raises what the config raises.
    """
    hints = get_type_hints(kind)
    for part in fields(options):
        value = getattr(options, part.name)
        if value == "none" and type(None) in get_args(hints[part.name]):  # where text is taken, cyclopts leaves it
            value = None
        others[part.name] = config_of(hints[part.name], value) if is_dataclass(value) else value
    return kind(**others)


def read_key(variable: str | None, *, min_length: int = 1, remedy: str = "export the key in it") -> str | None:
    """The key in an environment variable of that name; None without a name.

    Raises ConfigError if it holds none. The message never holds the key, nor what was given in place of a name, because
    it may be the key.
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
