"""Export of a model by name: one ONNX file, or a folder for a model hub."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from uniemox.checkpoints.classifier import load_classifier
from uniemox.data.sample import DataSet
from uniemox.data.seen import OTHERS, read_seen, seen_file, write_hashes
from uniemox.errors import CheckpointError, ConfigError
from uniemox.export.compact import check_float32, store_as_float16, store_as_int8
from uniemox.export.hub_folder import write_hub_folder
from uniemox.export.int8 import Int8Check, export_int8
from uniemox.export.onnx import export_classifier, read_model, write_model
from uniemox.io.progress import Progress, silent
from uniemox.io.run_files import ONNX, WEIGHTS
from uniemox.io.run_record import find_field
from uniemox.io.weight_names import file_in_package, refuse_name_in_package
from uniemox.training.starts import STARTS_FROM, named_with_start

Bits = Literal["float16", "int8"]


def export_onnx(
    model: Path,
    out: Path,
    *,
    weights: Bits | None = None,
    keep_float16: str | None = None,
    data: DataSet | None = None,
    on_progress: Progress = silent,
) -> Int8Check | None:
    """Write a model as one ONNX file, next to the hashes of its training images.

    Args:
        model: A fine-tuning run, its model.safetensors, an ONNX file, embedded or small.
        out: File to write.
        weights: Data type of the stored weights; None: unchanged. Computation stays float32.
        keep_float16: With int8: regular expression; weights whose name contains a match are stored as float16.
        data: Images for computing in 8 bits. Nothing is written if that is not faster and as accurate.
        on_progress: Called with the name of the work, the finished items, and all items.

    Returns:
        Comparison of the int8 model with the original; None without data.

    Raises:
        CheckpointError: For an unfinished run, or a file that can't be read or written.
        ConfigError: For an expression that matches no weight, another data type, or an out that has the name of a model
            in the package.
        DataError: Without readable images.
    """
    if weights not in (None, *get_args(Bits)):
        raise ConfigError(
            f"weights must be one of {', '.join(get_args(Bits))}, got {weights!r}; leave it out for float32"
        )
    refuse_name_in_package(out)
    check = None
    training_hashes = read_seen(file_in_package(model))
    with TemporaryDirectory(prefix="uniemox-export-") as folder:
        source = _as_onnx(model, Path(folder))
        if weights == "float16":
            check_float32(read_model(source))
        if data is not None:
            check = export_int8(source, source, data, training_hashes=training_hashes, on_progress=on_progress)
            if not check.is_kept:
                return check
        if weights == "float16":
            store_as_float16(source, source)
        elif weights == "int8":
            store_as_int8(source, source, keep_float16=keep_float16)
        write_model(read_model(source), out)
    # Also for an unknown model: another one may have been written there.
    write_hashes(seen_file(out), training_hashes or {OTHERS})
    return check


def export_hub_folder(run: Path, out: Path, read_scores: Callable[[Path], Sequence[str]]) -> bool:
    """Write a folder for a model hub from a finished run.

    Args:
        run: Folder of the run.
        out: Folder to write.
        read_scores: Returns the lines of Markdown about a run's scores for the card; called for a finished run.

    Returns:
        True if timm and transformers can open the folder.

    Raises:
        ConfigError: If out has the name of a model in the package.
        CheckpointError: For an unfinished run, or a file that can't be written.
    """
    refuse_name_in_package(out)
    classifier, info = load_classifier(_weights_of(run))
    if STARTS_FROM not in info.trained_on:
        # Written by an older version.
        start = str(find_field(run, "config", "init") or "")
        info = replace(info, trained_on=named_with_start(info.trained_on, start))
    return write_hub_folder(
        classifier, info, out, name=run.resolve().name, scores=read_scores(run), training_hashes=read_seen(run)
    )


def _as_onnx(model: Path, folder: Path) -> Path:
    """Write a model as ONNX to a folder, and return the file.

    Raises:
        CheckpointError: For an unfinished run.
    """
    model = file_in_package(model)
    target = folder / ONNX
    weights = _weights_of(model) if model.is_dir() else model
    if weights.suffix == ".onnx":
        write_model(read_model(weights), target)
    else:
        export_classifier(*load_classifier(weights), target)
    return target


def _weights_of(run: Path) -> Path:
    """Return the weights file of a run.

    Raises:
        CheckpointError: If the run is not finished.
    """
    if not (run / WEIGHTS).is_file():
        raise CheckpointError(f"{run} has no {WEIGHTS}; give a finished run of uniemox finetune")
    return run / WEIGHTS
