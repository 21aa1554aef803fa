"""The whole comparison: images, predictions of our models, questions, and results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uniemox.data import DataSet, refuse_seen
from uniemox.errors import DataError
from uniemox.io import Progress, silent
from uniemox.plurals import counted
from uniemox_ask.answers import ModelAnswers, Source, answers_by_model
from uniemox_ask.config import AskConfig
from uniemox_ask.expert import MIN_VAL, GateResult, score_gate
from uniemox_ask.forms import QuestionSet
from uniemox_ask.our_model import labels_of_ours, probabilities_of_ours, training_hashes
from uniemox_ask.question import AskedImage, select
from uniemox_ask.result import Results, summarise
from uniemox_ask.run import ask


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComparison:
    """Models, data and questions to compare."""

    config: AskConfig
    questions: QuestionSet
    data: DataSet
    """Data to draw the scored images from."""
    split: str = "all"
    """Name of the split of `data`, for the report."""
    ours: Path | None = None
    """A model of ours to compare with."""
    expert: Path | None = None
    """A model of ours to combine with each large model; needs `val`."""
    val: DataSet | None = None
    """Data to draw the images from that the gate is fitted to."""


def compare(
    comparison: ModelComparison,
    out: Path,
    *,
    key: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    on_progress: Progress = silent,
) -> tuple[Results, int]:
    """Ask all models, and score their answers.

    Args:
        comparison: Models, data and questions.
        out: Folder of the answers.
        key: The endpoint's key.
        say: Called with notes, and with the number and cost of the questions before any is sent.
        on_progress: Called after each image and answer.

    Returns:
        The results, and the number of questions of this call that failed.

    Raises:
        ConfigError: For too many questions, or if asking is pointless, see `run.ask`.
        DataError: If there is no image to ask about, or a model of ours was trained on one of the scored images.
        StoppedError: After Ctrl-C.
    """
    config = comparison.config
    questions = comparison.questions
    labels = comparison.data.labels
    selection = select(comparison.data, config.images, config.seed, on_progress)
    images = selection.images
    notes = list(selection.notes)
    val: tuple[AskedImage, ...] = ()
    if comparison.val is not None:
        val, val_notes = _select_val(comparison.val, config, images, on_progress)
        notes += val_notes
    all_images = (*images, *val)
    config.check_size(len(all_images), questions)
    # Our models predict before the questions are sent, so that an unusable model costs nothing.
    predicted = None
    if comparison.ours is not None:
        predicted = labels_of_ours(comparison.ours, images, labels, on_progress)
    expert = None
    if comparison.expert is not None:
        notes += _check_expert(comparison.expert, images, val)
        expert = probabilities_of_ours(comparison.expert, all_images, labels, on_progress)
    for note in notes:
        say(note)
    rows = ask(config, all_images, questions, out, key=key, on_plan=say, on_progress=on_progress)
    answers = answers_by_model(config, all_images, questions, rows)
    gates: dict[Source, GateResult] = {}
    if comparison.expert is not None and expert is not None:
        name = comparison.expert.name
        gates, gate_notes = _score_gates(answers, labels.labels, expert, name=name, val=val, test=images)
        for note in gate_notes:
            say(note)
        notes += gate_notes
    data = f"{comparison.data.name}, split {comparison.split}, seed {config.seed}"
    results = summarise(config, images, questions, rows, data=data, ours=predicted, notes=notes)
    failed = sum(answers[config.url, model].failed for model in config.models)
    return replace(results, gates=gates), failed


def _score_gates(
    answers: Mapping[Source, ModelAnswers],
    labels: Sequence[str],
    expert: Mapping[str, NDArray[np.float64]],
    *,
    name: str,
    val: Sequence[AskedImage],
    test: Sequence[AskedImage],
) -> tuple[dict[Source, GateResult], list[str]]:
    """Return the gate of each model, and a note for each that has none; see `score_gate` for the arguments."""
    gates = {}
    notes = []
    for source, model_answers in answers.items():
        gate = score_gate(labels, model_answers.choices, expert, name=name, val=val, test=test)
        if gate is None:
            _, model = source
            notes.append(f"{model} has answers about too few images for a gate; it needs {MIN_VAL} of val, 1 of test")
        else:
            gates[source] = gate
    return gates, notes


def _check_expert(expert: Path, scored: Sequence[AskedImage], val: Sequence[AskedImage]) -> list[str]:
    """Return a note if the expert was trained on images that the gate is fitted to.

    Raises:
        DataError: If it was trained on one of the scored images.
    """
    known = training_hashes(expert)
    refuse_seen([image.sample for image in scored], [image.sha256 for image in scored], known, str(expert))
    known_val = sum(image.sha256 in known for image in val)
    if not known_val:
        return []
    return [f"{expert.name} was trained on {known_val} of the {len(val)} val images, so the gate may trust it too much"]


def _select_val(
    data: DataSet, config: AskConfig, scored: Sequence[AskedImage], on_progress: Progress
) -> tuple[tuple[AskedImage, ...], list[str]]:
    """Return the images that the gate is fitted to, and notes about skipped ones.

    Copies of scored images are left out.

    Raises:
        DataError: If there are too few.
    """
    selection = select(data, config.images, config.seed, on_progress)
    scored_hashes = {image.sha256 for image in scored}
    images = tuple(image for image in selection.images if image.sha256 not in scored_hashes)
    notes = [f"for the gate, models are asked about {counted(len(images), 'image')} of split val, too"]
    notes += [f"split val: {note}" for note in selection.notes]
    copies = len(selection.images) - len(images)
    if copies:
        notes.append(f"split val: {counted(copies, 'copy of a scored image', 'copies of scored images')} skipped")
    if len(images) < MIN_VAL:
        raise DataError(
            f"{data.name} has {counted(len(images), 'image')} of split val for the gate; it needs {MIN_VAL}. Give "
            f"--images {MIN_VAL} or more, or leave out --expert"
        )
    return images, notes
