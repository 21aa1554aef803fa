"""Kinds of data sets: the reader of each, and readers of the user's own package."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from uniemox.data.readers.csv_table import read_csv
from uniemox.data.readers.emoset import read_emoset
from uniemox.data.readers.emotic import read_emotic
from uniemox.data.readers.emotion6 import read_emotion6
from uniemox.data.readers.ferplus import read_ferplus
from uniemox.data.readers.folders import read_class_folders, read_folder
from uniemox.data.readers.heco import read_heco
from uniemox.data.readers.hugging_face import read_hugging_face
from uniemox.data.readers.machajdik import read_abstract, read_artphoto
from uniemox.data.readers.oasis import read_oasis
from uniemox.data.readers.shards import read_shards
from uniemox.data.sample import DataSet
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import ConfigError
from uniemox.labels import CAER, MIKELS, UBE


@dataclass(frozen=True, slots=True)
class Reader:
    """Reader of the data sets of one kind."""

    read: Callable[..., DataSet]
    """Returns the data set of a path; keyword arguments are the options of its name."""
    as_argument: Callable[[str], Any] = Path
    """Converts the path to the first argument of `read`."""
    walks_folder: bool = True
    """True if images are found by walking a folder; False if the data name each image."""
    has_files_beside: bool = True
    """True if a file of people and one of texts may be next to the data."""


def _parse_count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"expected a whole number, as in synthetic:1000, got {text!r}") from None


READERS: Mapping[str, Reader] = {
    "emoset": Reader(read_emoset),
    "emotion6": Reader(read_emotion6),
    "oasis": Reader(read_oasis),
    "abstract": Reader(read_abstract),
    "artphoto": Reader(read_artphoto),
    # <class>/<search word>/<image>; the word is the domain.
    "ube": Reader(lambda root: read_class_folders(root, UBE)),
    # [<split>/]<class>/<image>
    "fi": Reader(lambda root: read_class_folders(root, MIKELS)),
    # [<split>/]<class>/[<style>/]<image>
    "emo8": Reader(lambda root: read_class_folders(root, MIKELS)),
    # <split>/<class>/<image>
    "caer-s": Reader(lambda root: read_class_folders(root, CAER)),
    "heco": Reader(read_heco),
    "emotic": Reader(read_emotic),
    "ferplus": Reader(read_ferplus),
    "folder": Reader(read_folder),
    "csv": Reader(read_csv, walks_folder=False),
    "hf": Reader(read_hugging_face, walks_folder=False),
    # The argument may be an address.
    "shards": Reader(read_shards, as_argument=str, walks_folder=False, has_files_beside=False),
    "synthetic": Reader(synthetic, as_argument=_parse_count, walks_folder=False, has_files_beside=False),
}
CUSTOM_READER = r"[A-Za-z_]\w*(?:\.\w+)+:[A-Za-z_]\w*"
"""Function in the user's own package that opens a path as a DataSet: mypackage.module:open_mine."""


def reader_of(kind: str) -> Reader:
    """Return the reader of a kind; mypackage.module:function is imported.

    Raises:
        ConfigError: If there is no such module or function.
    """
    if kind in READERS:
        return READERS[kind]
    module, _, name = kind.partition(":")
    try:
        read = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"there is no reader {kind}: {error}; is its package installed or on PYTHONPATH?") from error
    if not callable(read):
        raise ConfigError(f"{kind} is no function that returns a uniemox.DataSet, but {type(read).__name__}")
    return Reader(read, walks_folder=False)
