"""Packages that have the name of a public function: `uniemox.finetune` is both.

Python binds a package to its parent when it is imported, so that it would hide the function. Its module is therefore
callable, and calls the function.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """Package whose call is that of the function of the same name in `uniemox.api`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:
        """The function, whose signature `inspect` shows."""
        return getattr(import_module("uniemox.api"), self.__name__.rpartition(".")[2])


def make_callable(package: str) -> None:
    """Make a package callable.  package: its `__name__`."""
    sys.modules[package].__class__ = CallablePackage
