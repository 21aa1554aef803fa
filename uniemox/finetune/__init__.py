"""Fine-tuning: from a pre-trained encoder to a classifier of emotions."""

from uniemox.callable_package import make_callable

make_callable(__name__)
