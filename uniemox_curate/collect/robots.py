"""Rules of a robots.txt (RFC 9309).

The standard library's parser takes the first rule that matches instead of the longest, knows no wildcards, and ends a
group at an empty line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlsplit

# A character by its code; letters, digits and -._~ mean the same without.
_CODE = re.compile(rb"%([0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Rule:
    """A path that a host allows or forbids."""

    pattern: bytes
    """Beginning of the paths; * stands for any text, and $ at the end for the end of the path."""
    is_allowed: bool

    def matches(self, path: bytes) -> bool:
        """Return True for a path, see `_comparable`, that the rule is about."""
        is_whole = self.pattern.endswith(b"$")
        first, *others = self.pattern.removesuffix(b"$").split(b"*")
        if not path.startswith(first):
            return False
        position = len(first)
        # Each part as early as possible leaves most room for the others.
        for number, part in enumerate(others, start=1):
            if is_whole and number == len(others):
                return path.endswith(part) and len(path) - len(part) >= position
            position = path.find(part, position)
            if position < 0:
                return False
            position += len(part)
        return not is_whole or position == len(path)


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules of a host for one program."""

    rules: tuple[Rule, ...]

    @classmethod
    def parse(cls, data: bytes, agent: str) -> Self:
        """Read a robots.txt: the groups for this program together, or else those for all programs.

        A file that can't be read for sure forbids everything: one with null characters, as in UTF-16, with a path that
        is none, or with a number in other digits.

        Args:
            data: The file.
            agent: Name of the program, such as uniemox-curate.
        """
        forbids_all = cls((Rule(b"/", is_allowed=False),))
        if b"\0" in data:
            return forbids_all
        of_agent: list[Rule] = []
        of_all: list[Rule] = []
        is_named = False
        names: set[str] = set()
        is_in_names = False
        for field, value in _fields(data.removeprefix(b"\xef\xbb\xbf")):
            if not _is_readable(field, value):
                return forbids_all
            if field == "user-agent":
                if not is_in_names:
                    names = set()
                is_in_names = True
                # A version may follow the name.
                names.add(value if value == "*" else re.split(r"[/\s]", value.lower())[0])
                is_named = is_named or agent.lower() in names
            elif field in ("allow", "disallow"):
                is_in_names = False
                rule = Rule(_comparable(value), is_allowed=field == "allow")
                # An empty path forbids nothing.
                if not rule.pattern:
                    continue
                if agent.lower() in names:
                    of_agent.append(rule)
                if "*" in names:
                    of_all.append(rule)
        return cls(tuple(of_agent if is_named else of_all))

    def allow(self, address: str) -> bool:
        """Return True if an address may be fetched: the longest rule decides, and the one that allows of two equals."""
        parts = urlsplit(address)
        path = _comparable((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        matching = [rule for rule in self.rules if rule.matches(path)]
        if path == b"/robots.txt" or not matching:
            return True
        return max((len(rule.pattern), rule.is_allowed) for rule in matching)[1]


def _fields(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield the fields and values of lines, without remarks."""
    for line in re.split(r"\r\n|\r|\n", data.decode("utf-8", "replace")):
        field, colon, value = line.partition("#")[0].partition(":")
        if colon:
            yield field.strip().lower(), value.strip()


def _is_readable(field: str, value: str) -> bool:
    if field in ("crawl-delay", "request-rate"):
        return value.isascii()
    if field in ("allow", "disallow"):
        try:
            urlsplit(value)
        except ValueError:
            return False
    return True


def _comparable(path: str) -> bytes:
    """Return a path in ASCII in which equal characters are written alike.

    >>> _comparable("/ä%7ea%2fb*$")
    b'/%C3%A4~a%2Fb*$'
    """
    encoded = quote(path, safe="/?:@!$&'()*+,;=%~-._#[]", errors="replace").encode("ascii")

    def plain(match: re.Match[bytes]) -> bytes:
        character = bytes.fromhex(match[1].decode())
        return character if re.fullmatch(rb"[A-Za-z0-9\-._~]", character) else match[0].upper()

    return _CODE.sub(plain, encoded)
