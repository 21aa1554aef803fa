"""Patterns of file names, such as photos/*.jpg, in which existing names win over their wildcards."""

import fnmatch
import glob
import os
import re
from collections.abc import Iterator, Sequence

from uniemox.io.system_folders import is_system_folder

_SEPARATORS = re.compile(r"[/\\]" if os.sep == "\\" else "/")


def expand_pattern(pattern: str, skipped: list[str]) -> list[str]:
    """Return the files and folders that a pattern matches, sorted; ** matches any number of folders.

    A part of the pattern that exists under exactly this name is no pattern: `A [2019]/*.jpg` finds the images of the
    folder `A [2019]`. Wildcards match neither hidden names nor system folders; links to folders end a **.

    Args:
        pattern: Pattern such as photos/*.jpg.
        skipped: Gets the system folders that were skipped.
    """
    drive, path = os.path.splitdrive(pattern)
    is_absolute = _SEPARATORS.match(path) is not None
    parts = [part for part in _SEPARATORS.split(path) if part]
    return sorted(set(_expand(drive + os.sep * is_absolute, parts, skipped)))


def _expand(base: str, parts: Sequence[str], skipped: list[str]) -> Iterator[str]:
    """Yield the existing paths below a folder that the parts match."""
    if not parts:
        yield base
        return
    part = parts[0]
    remaining = parts[1:]
    literal = os.path.join(base, part)
    # Existing names come first: a folder "A [2019]" is not a pattern.
    if os.path.lexists(literal):
        yield from _expand(literal, remaining, skipped)
    elif part == "**":
        for folder in _folders_below(base, skipped):
            if remaining:
                yield from _expand(folder, remaining, skipped)
                continue
            # A final ** matches files; `_folders_below` has already recorded the skipped folders.
            for name, is_folder in _children(folder, "*", []):
                if not is_folder:
                    yield os.path.join(folder, name)
    elif glob.has_magic(part):
        for name, is_folder in _children(base, part, skipped):
            if is_folder or not remaining:
                yield from _expand(os.path.join(base, name), remaining, skipped)


def _children(folder: str, pattern: str, skipped: list[str]) -> Iterator[tuple[str, bool]]:
    """Yield names in a folder that match a pattern, and whether each is a folder; nothing for an unreadable one."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            children = [(entry.name, entry.is_dir()) for entry in entries]
    except OSError:
        return
    for name, is_folder in children:
        if not fnmatch.fnmatch(name, pattern):
            continue
        if is_folder and is_system_folder(name):
            skipped.append(os.path.join(folder, name))
        elif name[0] != "." or pattern[0] == ".":
            yield name, is_folder


def _folders_below(base: str, skipped: list[str]) -> Iterator[str]:
    """Yield a folder and all folders below it."""
    yield base
    for name, is_folder in _children(base, "*", skipped):
        folder = os.path.join(base, name)
        if is_folder and not os.path.islink(folder):
            yield from _folders_below(folder, skipped)
