"""Signatures and docstrings for the page `reference` in a terminal, where mkdocstrings does not fill it in.

They are read from the source and not imported, so that no name needs torch or an extra.
"""

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import uniemox
from uniemox.errors import ConfigError

PACKAGE = Path(uniemox.__file__).parent
DIRECTIVE = re.compile(r"^::: (?P<name>[\w.]+)\n(?P<options>(?: +\S.*\n)*)", re.MULTILINE)
"""A directive of mkdocstrings with its indented options."""
SHOWN_DECORATORS = ("property", "cached_property", "classmethod", "staticmethod")

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def fill_in(text: str) -> str:
    """Return a page in which the signatures and docstrings of names replace the directives of mkdocstrings.

    Raises:
        ConfigError: If a name is not in the source.
    """
    public_names = _public_names()

    def section(directive: re.Match[str]) -> str:
        name = directive["name"]
        members = re.search(r"members: \[(.*?)\]", directive["options"])
        wanted = None if members is None else re.findall(r"\w+", members[1])
        # Docstrings may contain fences of three.
        return f"\n### {public_names.get(name, name)}\n\n````python\n{outline(name, wanted)}\n````\n"

    return DIRECTIVE.sub(section, text)


def outline(name: str, members: Collection[str] | None = None) -> str:
    """Return the signature and docstring of a function, or of a class with its public fields and methods.

    Of a module, the result has its public classes and functions.

    Args:
        name: Import path, such as uniemox.predict.opening.load.
        members: Names of the members to show besides the constructor; None: all that are public and documented.

    Raises:
        ConfigError: If there is no such name.
    """
    path = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
    if path.is_file():
        source = path.read_text("utf-8")
        nodes = [node for node in ast.parse(source).body if isinstance(node, Definition) and _is_documented(node)]
        return "\n\n\n".join(_joined(node, source, members) for node in nodes)
    path = path.parent.with_suffix(".py")
    if path.is_file():
        source = path.read_text("utf-8")
        # The last definition of an overloaded function has the docstring.
        for node in reversed(ast.parse(source).body):
            if isinstance(node, Definition) and node.name == name.rpartition(".")[2]:
                return _joined(node, source, members)
    raise ConfigError(f"{name} is in the documentation, but not in the source; install uniemox again")


def _public_names() -> dict[str, str]:
    """Return the short names of what `uniemox` itself exports, such as uniemox.load, by import path."""
    stub = (PACKAGE / "__init__.pyi").read_text("utf-8")
    return {
        f"uniemox.{module}.{name}": f"uniemox.{name}"
        for module, name in re.findall(r"^from \.([\w.]+) import (\w+) as", stub, re.MULTILINE)
    }


def _is_documented(node: Definition) -> bool:
    return not node.name.startswith("_") and ast.get_docstring(node) is not None


def _joined(node: Definition, source: str, members: Collection[str] | None) -> str:
    return "\n".join(_outline_lines(node, source.splitlines(), members))


def _outline_lines(node: Definition, lines: list[str], members: Collection[str] | None) -> Iterator[str]:
    """Yield the lines of a definition without code."""
    for decorator in node.decorator_list:
        if ast.unparse(decorator).rpartition(".")[2] in SHOWN_DECORATORS:
            yield lines[decorator.lineno - 1]
    first = node.body[0]
    for line in lines[node.lineno - 1 : first.lineno - 1]:
        # Remarks for linters.
        yield re.sub(r"\s+# (?:noqa|type:).*", "", line)
    if ast.get_docstring(node) is not None:
        yield from lines[first.lineno - 1 : first.end_lineno]
    else:
        yield " " * first.col_offset + "..."
    if not isinstance(node, ast.ClassDef):
        return
    following = [*node.body[1:], None]
    for member, after in zip(node.body, following, strict=True):
        if isinstance(member, ast.AnnAssign) and _is_shown(ast.unparse(member.target), members):
            yield ""
            yield from lines[member.lineno - 1 : member.end_lineno]
            if isinstance(after, ast.Expr):
                yield from lines[after.lineno - 1 : after.end_lineno]
        elif isinstance(member, Definition) and _is_method_shown(member, members):
            yield ""
            yield from _outline_lines(member, lines, None)


def _is_shown(name: str, members: Collection[str] | None) -> bool:
    return not name.startswith("_") if members is None else name in members


def _is_method_shown(method: Definition, members: Collection[str] | None) -> bool:
    # The class describes its constructor.
    return method.name == "__init__" or (_is_documented(method) and _is_shown(method.name, members))
