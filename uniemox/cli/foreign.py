"""Commands of other packages, which name them by the entry-point group uniemox.commands."""

import ast
from collections.abc import Callable, Collection
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from uniemox.errors import ConfigError
from uniemox.io.plugins import package_of, plugins_of

GROUP = "uniemox.commands"


def foreign_commands(reserved: Collection[str]) -> dict[str, EntryPoint]:
    """Return the commands of installed packages by name; none of their code is imported.

    It takes about 30 ms, so it is called only for names that are not reserved.

    Args:
        reserved: Names of commands that are no entry points. No other package can replace these, nor those of programs
            in this package, such as `serve`.
    """
    return {name: entry for name, entry in plugins_of(GROUP).items() if name not in reserved}


def help_of(entry: EntryPoint) -> str:
    """Return the line of a command in the list of commands: the first one of its docstring.

    The docstring is that of the function, or of the module if the command is no function. It is read from the source,
    so that none of the package's code runs.
    """
    try:
        module = ast.parse(_source_of(entry.module).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return f"A command of the package {_package_of(entry)}."
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == entry.attr]
    text = ast.get_docstring(functions[0] if functions else module)
    return text.partition("\n")[0] if text else f"A command of the package {_package_of(entry)}."


def load_command(entry: EntryPoint) -> Callable[..., Any]:
    """Import a command of another package.

    Raises:
        ConfigError: If it can't be imported; names the package.
    """
    try:
        command = entry.load()
    # The code of another package may raise anything.
    except Exception as error:
        raise ConfigError(
            f"the command {entry.name} of the package {_package_of(entry)} can't be imported: {error}; update or "
            "uninstall this package"
        ) from error
    if not callable(command):
        raise ConfigError(
            f"the command {entry.name} of the package {_package_of(entry)} is {entry.value}, which is no function"
        )
    return command


def _source_of(module: str) -> Path:
    """Return the file of a module, which is not imported, nor is its package.

    Raises:
        FileNotFoundError: If the module is not a file in a folder of `sys.path`.
    """
    folders = None
    origin = None
    for name in module.split("."):
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            raise FileNotFoundError(module)
        folders = spec.submodule_search_locations
        origin = spec.origin
    if origin is None:
        raise FileNotFoundError(module)
    return Path(origin)


def _package_of(entry: EntryPoint) -> str:
    return package_of(entry) or "an unknown package"
