"""Files of splits: written by `uniemox data split`, or published with a data set."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uniemox.data.published_splits import scheme_of_lists
from uniemox.data.sample import DataSet
from uniemox.data.split_folders import scheme_of_folders
from uniemox.data.split_lists import FORMS, is_folder_of_lists
from uniemox.data.splits import Scheme
from uniemox.data.text_files import read_text
from uniemox.errors import DataError
from uniemox.io.files import write_file
from uniemox.io.typed import parse_json
from uniemox.plurals import counted
from uniemox.spelling import match_names

FORMAT = "uniemox-splits-1"


@dataclass(frozen=True, slots=True)
class SplitFile:
    """Index file of splits."""

    splits: dict[str, list[str]]
    """Keys of the samples by split."""
    sha256: str
    """Hash of the splits, see `_digest`."""


def write_splits(path: Path, scheme: Scheme, *, source: str, how: str) -> str:
    """Write a scheme as an index file and return its hash; the same splits always have the same hash.

    Args:
        source: Name of the data set.
        how: Description of how the scheme was made.

    Raises:
        DataError: If the path is not a file, or can't be written.
    """
    splits = _keys_by_split(scheme)
    digest = _digest(splits)
    content = {"format": FORMAT, "data": source, "how": how, "sha256": digest, "splits": splits}
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is not a file; give the name of a file for the splits")
    write_file(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return digest


def read_splits(path: Path, data: DataSet) -> DataSet:
    """Return the data set with the splits of a file or folder; samples that have none there are left out.

    Args:
        path: File of `write_splits`; a folder with copies of the images, see `scheme_of_folders`; or lists as authors
            publish them, in a file or a folder, see `scheme_of_lists`.

    Raises:
        DataError: If a file of `write_splits` was changed later. If it, or a folder of copies, names images that the
            data set does not have. If a list has another form, or names an image twice.
    """
    # Path.is_dir raises OSError for a name that is too long.
    is_folder = os.path.isdir(path)
    text = "" if is_folder else read_text(path)
    list_notes: tuple[str, ...] | None = None
    if is_folder and not is_folder_of_lists(path):
        scheme = scheme_of_folders(path, data)
        digest = _digest(_keys_by_split(scheme))
    elif _is_index_file(text):
        scheme, digest = _read_scheme(text, path)
    else:
        scheme, list_notes = scheme_of_lists(path, data)
        digest = _digest(_keys_by_split(scheme))
    key_of = match_names(scheme, {sample.key for sample in data.samples})
    absent = scheme.keys() - key_of.keys()
    if absent:
        raise DataError(f"{path}: {len(absent)} of its images are not in {data.name}, such as {min(absent)}")
    scheme = {key_of[key]: split for key, split in scheme.items()}
    samples = [replace(sample, split=scheme[sample.key]) for sample in data.samples if sample.key in scheme]
    notes = [f"splits from {path} (sha256 {digest[:12]})"]
    if list_notes is not None:
        notes += list_notes
    elif len(samples) < len(data):
        notes.append(f"{counted(len(data) - len(samples), 'image is', 'images are')} not in it")
    return replace(data, samples=samples, notes=(*data.notes, *notes))


def _is_index_file(text: str) -> bool:
    """Return True for the text of a file of `write_splits`; it alone has splits and a hash."""
    return text.lstrip().startswith("{") and '"sha256"' in text and '"splits"' in text


def _read_scheme(text: str, path: Path) -> tuple[Scheme, str]:
    """Read a scheme and its hash from the text of an index file.

    Raises:
        DataError: If it is not such a file, or its hash does not match its content.
    """
    content = parse_json(text, SplitFile, str(path), remedy=FORMS)
    if _digest(content.splits) != content.sha256:
        raise DataError(f"{path}: its hash does not match its content, because it was changed by hand; write it again")
    scheme = {key: split for split, keys in content.splits.items() for key in keys}
    return scheme, content.sha256


def _keys_by_split(scheme: Scheme) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = defaultdict(list)
    for key, split in sorted(scheme.items()):
        splits[split].append(key)
    return splits


def _digest(splits: Mapping[str, Sequence[str]]) -> str:
    lines = sorted(f"{split}\t{key}" for split, keys in splits.items() for key in keys)
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
