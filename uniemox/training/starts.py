"""Names of the initial weights of a run, with the data that they were trained on."""

import os.path
from pathlib import Path

from uniemox.checkpoints.classifier import read_classifier_info
from uniemox.data.source import public_name
from uniemox.errors import UniemoxError
from uniemox.io.run_files import CONFIG, WEIGHTS
from uniemox.io.run_record import find_field
from uniemox.io.weight_names import Init, is_in_package
from uniemox.predict.opening import open_network

STARTS_FROM = "; starts from "
"""Separates the name of a model's data from its initial weights, in `ClassifierInfo.trained_on`."""


def named_with_start(data_name: str, init: str) -> str:
    """Return the name of a run's data with those of its initial weights; unchanged for random weights.

    Args:
        data_name: Name of the data.
        init: Initial weights, see `FinetuneConfig.init`; empty if there are none.

    >>> named_with_start("fi", "embedded")
    'fi; starts from embedded (fi, fi2)'
    """
    parsed = Init.parse(init)
    if parsed.from_scratch or not parsed.networks:
        return data_name
    return data_name + STARTS_FROM + " and ".join(map(_describe, parsed.networks))


def _describe(name: str) -> str:
    """Return the name of initial weights, without folders, and of their data if known."""
    try:
        data_name = _data_of(name)
    except UniemoxError:
        # An old run is exported although the weights that it started from have become unreadable.
        data_name = ""
    if not data_name:
        return public_name(name)
    return f"{public_name(name)} ({public_name(data_name)})"


def _data_of(name: str) -> str:
    """Return the name of the data that weights were trained on; empty if unknown.

    Raises:
        UniemoxError: If a file can't be read.
    """
    if is_in_package(name):
        return open_network(name).info.trained_on
    # os.path, because Path.is_dir raises OSError for a name that is too long.
    if not os.path.isdir(name):
        return ""
    run = Path(name)
    info = read_classifier_info(run / WEIGHTS) if (run / WEIGHTS).is_file() else None
    if info is not None:
        return info.trained_on
    if not (run / CONFIG).is_file():
        return ""
    # A pre-training run.
    return str(find_field(run, "data", "source") or "")
