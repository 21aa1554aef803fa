"""Evaluation: from predictions to scores, each with its interval over other possible images."""

from uniemox.callable_package import make_callable

make_callable(__name__)
