"""Folders in which the scores of models are saved."""

import hashlib
import os
from pathlib import Path
from typing import Any

from uniemox.errors import DataError
from uniemox.io.run_files import CONFIG, EVALUATIONS, ONNX
from uniemox.io.typed import read_json
from uniemox.io.weight_names import is_in_package

# Number of digits of a hash that tells hub folders of one name apart.
PLACE_DIGITS = 8


def evaluations_folder(model: Path) -> Path:
    """Return the folder of a model's saved scores.

    It is evaluations/ in a run, evaluations/NAME in the working directory for embedded and small, and
    evaluations/NAME-HASH there for a hub folder. The hash is that of its path, because several may have one name.

    >>> evaluations_folder(Path("embedded")).as_posix(), evaluations_folder(Path("runs/fi")).as_posix()
    ('evaluations/embedded', 'runs/fi/evaluations')
    """
    if is_in_package(model):
        return Path(EVALUATIONS) / model
    if is_hub_folder(model):
        hub_folder = model.resolve()
        digest = hashlib.sha256(os.fsencode(hub_folder)).hexdigest()
        return Path(EVALUATIONS) / f"{hub_folder.name}-{digest[:PLACE_DIGITS]}"
    return model / EVALUATIONS


def saves_scores_here(model: Path) -> bool:
    """Return True for a model whose scores are saved in the working directory.

    These are the models of the package, and hub folders: they are published, and scores have the names of images.
    """
    return is_in_package(model) or is_hub_folder(model)


def is_hub_folder(folder: Path) -> bool:
    """Return True for a folder of `uniemox export --to hub-folder`; timm reads its model.safetensors."""
    if not ((folder / ONNX).is_file() and (folder / CONFIG).is_file()):
        return False
    try:
        config = read_json(folder / CONFIG, dict[str, Any], remedy="export it again")
    except DataError:
        # The weights of a run can be scored without its record.
        return False
    return "pretrained_cfg" in config or "library_name" in config


def is_onnx(model: Path) -> bool:
    """Return True for an ONNX file, and for a model of the package."""
    return is_in_package(model) or model.suffix == ".onnx"


def runs_without_torch(model: Path) -> bool:
    """Return True if onnxruntime scores a model: an ONNX file, one of the package, or one in a hub folder."""
    return is_onnx(model) or is_hub_folder(model)
