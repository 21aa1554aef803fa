"""What classifiers answered for the same images, in one file: by the name of each, its answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import DataError
from uniemox.files import replacing

ANSWERS = "answers.npz"
ABOUT = "about"


@dataclass(frozen=True, slots=True)
class ProbeAnswers:
    """Of several classifiers, for the images of one part of a data set."""

    keys: tuple[str, ...]
    """N."""
    labels: NDArray[np.int64]
    """(N,), what is right."""
    given: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """By name of a classifier: (N,), what it says."""


def write_answers(path: Path, parts: Mapping[str, ProbeAnswers], about: Mapping[str, Any]) -> None:
    """Write the answers for several parts, and what else is known of those who gave them, to one file."""
    arrays: dict[str, Any] = {ABOUT: np.array(json.dumps(about))}
    for part, answers in parts.items():
        arrays |= {f"{part}|keys": np.array(answers.keys, dtype=str), f"{part}|labels": answers.labels.astype(np.int16)}
        arrays |= {f"{part}|given|{name}": row.astype(np.int16) for name, row in answers.given.items()}
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_answers(path: Path) -> tuple[dict[str, ProbeAnswers], dict[str, Any]]:
    """What `write_answers` wrote. Raises DataError for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        about = json.loads(str(arrays.pop(ABOUT)))
        parts = {
            part: ProbeAnswers(tuple(map(str, arrays[f"{part}|keys"])), arrays[f"{part}|labels"].astype(np.int64))
            for part in dict.fromkeys(name.partition("|")[0] for name in arrays)
        }
        for name, row in arrays.items():
            part, _, what = name.partition("|")
            if what.startswith("given|"):
                parts[part].given[what.removeprefix("given|")] = row.astype(np.int64)
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(f"{path} holds no answers of probes ({error}); delete it and run the plan again") from error
    return parts, about


def right(answers: ProbeAnswers, names: Sequence[str]) -> NDArray[np.bool_]:
    """(S, N) whether each of S classifiers is right about each image."""
    return np.array([answers.given[name] == answers.labels for name in names])
