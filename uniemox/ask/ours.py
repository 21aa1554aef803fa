"""What a classifier of ours says of the same pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

from uniemox.ask.question import Asked
from uniemox.errors import ConfigError, DataError, LabelError
from uniemox.labels import LabelSet
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure

ONNX, SEEN = "model.onnx", "training_pictures.txt"  # of a run folder; what names them needs torch


def labels_of_ours(
    model: Path, pictures: Sequence[Asked], labels: LabelSet, on_progress: Callable[[int], None] = lambda done: None
) -> dict[str, str]:
    """The most probable label of every picture, by the picture's sha256.

    model: a fine-tuning run, or its model.onnx.  labels: of the data set; a model of other labels is mapped to them.
    Raises DataError for pictures it was trained on, ConfigError if it tells no labels, LabelError where no map is
    known.
    """
    file = model / ONNX if model.is_dir() else model
    seen = file.parent / SEEN
    if seen.is_file():
        known = set(seen.read_text("ascii").split())
        both = [asked for asked in pictures if asked.sha256 in known]
        if both:
            raise DataError(
                f"{model} was trained on {len(both)} of these {len(pictures)} pictures, {both[0].sample.key} among "
                "them: ask about others (--split test; --splits RUN/splits.json where the run made the splits)"
            )
    predictor = load(file, finder=None)
    if predictor.kind != labels.kind:
        raise LabelError(f"{model} says what is {predictor.kind}, {labels.name} what is {labels.kind}: not comparable")
    if predictor.network.info.task == "affect":
        raise ConfigError(f"{model} tells valence and arousal, no labels; give a classifier")
    if predictor.network.info.streams != "scene":
        predictor = load(file)  # it looks at people, whom somebody must find
    target = None if set(predictor.labels) == set(labels.labels) else labels.name
    found: dict[str, str] = {}
    answers = predictor.predict_each((asked.sample.picture.read() for asked in pictures), labels=target)
    for asked, answer in zip(pictures, answers, strict=True):
        if isinstance(answer, Failure):
            raise DataError(f"{asked.sample.key}: {answer.error}")
        found[asked.sha256] = answer.top(1)[0][0]
        on_progress(len(found))
    return found
