"""Export of classifiers to files for other programs."""

from uniemox.callable_package import make_callable

make_callable(__name__)
