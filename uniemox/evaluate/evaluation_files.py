"""Files of an evaluation: its scores, and its predictions by image."""

import hashlib
import json
import re
from pathlib import Path

from uniemox.data.sample import DataSet
from uniemox.errors import ConfigError
from uniemox.evaluate.evaluation import Evaluation
from uniemox.evaluate.places import evaluations_folder
from uniemox.evaluate.scores import AffectScores
from uniemox.io.files import refuse_special, write_file
from uniemox.io.run_files import ONNX
from uniemox.io.weight_names import is_in_package

# Names of data sets can exceed what file systems allow.
MAX_NAME_CHARACTERS = 120


def write_evaluation(
    evaluation: Evaluation,
    model: Path,
    data: DataSet,
    split: str,
    *,
    name: str | None = None,
    persons: Path | None = None,
) -> Path:
    """Save scores and every image's prediction in the run's folder; replaces files of the same name.

    Args:
        evaluation: The evaluation.
        model: A run's folder or a file in one; or embedded, small or a hub folder, see `evaluations_folder`.
        data: Scored data set.
        split: Scored split, or all.
        name: Name of the files, without its ending; None: made from data and split.
        persons: File of people that was used; None: none was.

    Returns:
        evaluations/NAME.json; the predictions are in NAME.jsonl, one per line.

    Raises:
        ConfigError: If the name can't be one of a file.
    """
    path = evaluation_file(evaluation, model, data, split, name)
    refuse_special(path.parent)
    about = {"data": data.name, "split": split, "persons": None if persons is None else str(persons)}
    write_file(path.with_suffix(".jsonl"), "".join(json.dumps(line) + "\n" for line in evaluation.predictions))
    write_file(path, json.dumps({**about, **evaluation.as_dict()}, indent=2) + "\n")
    return path


def evaluation_file(evaluation: Evaluation, model: Path, data: DataSet, split: str, name: str | None) -> Path:
    """Return the file to which `write_evaluation` writes the scores; the arguments are the same."""
    if name is None:
        name = _name_of(evaluation, model, data, split)
    check_evaluation_name(name)
    run = model if model.is_dir() or is_in_package(model) else model.parent
    return evaluations_folder(run) / f"{name}.json"


def _name_of(evaluation: Evaluation, model: Path, data: DataSet, split: str) -> str:
    """Return a file name from the names of data and split."""
    title = f"{data.name} {split}"
    # A folder may contain several ONNX files.
    if model.suffix == ".onnx" and model.name != ONNX:
        title += f" {model.stem}"
    # A classifier may have scores of its labels too.
    if isinstance(evaluation.scores, AffectScores):
        title += " affect"
    name = re.sub(r"\W+", "-", title).strip("-")
    if len(name) > MAX_NAME_CHARACTERS:
        return f"{name[:MAX_NAME_CHARACTERS]}-{hashlib.sha256(title.encode()).hexdigest()[:8]}"
    return name


def check_evaluation_name(name: str) -> None:
    """Raise ConfigError if an evaluation's name can't be one of a file."""
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ConfigError(f"an evaluation's name has letters, digits, _ and -, got {name!r}")
