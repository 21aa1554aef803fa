"""What a classifier of ours says of the same images."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from uniemox.ask.question import AskedImage
from uniemox.data.sample import Sample, decode_sample
from uniemox.data.seen import read_seen, refuse_seen
from uniemox.errors import ConfigError, DataError, LabelError
from uniemox.io.files import ONNX
from uniemox.labels import LabelSet
from uniemox.predict.network import Network
from uniemox.predict.opening import load, open_finder
from uniemox.predict.prediction import Failure
from uniemox.predict.predictor import Predictor
from uniemox.predict.question import answers_in


def labels_of_ours(
    model: Path,
    images: Sequence[AskedImage],
    labels: LabelSet,
    on_progress: Callable[[int], None] = lambda done: None,
) -> dict[str, str]:
    """The most probable label of every image, by the image's sha256.

    A model that looks at people sees those that the data set knows, as in its evaluation; where nobody has looked, the
    embedded finder does.
    model: a fine-tuning run, or its model.onnx.  labels: of the data set; a model of other labels is mapped to them.
    Raises DataError for images it was trained on, ConfigError if it tells no labels, LabelError where no map is
    known.
    """
    file = model / ONNX if model.is_dir() else model
    refuse_seen([asked.sample for asked in images], [asked.sha256 for asked in images], read_seen(file), str(model))
    predictor = load(file, finder=None)
    if predictor.kind != labels.kind:
        raise LabelError(f"{model} says what is {predictor.kind}, {labels.name} what is {labels.kind}: not comparable")
    if predictor.network.info.task == "affect":
        raise ConfigError(f"{model} tells valence and arousal, no labels; give a classifier")
    target = None if set(predictor.labels) == set(labels.labels) else labels.name
    known_people: list[AskedImage] = []
    rest: list[AskedImage] = []
    looks_at_people = predictor.network.info.needs_person
    for asked in images:
        (known_people if looks_at_people and _knows_people(asked.sample) else rest).append(asked)
    if rest and looks_at_people:
        predictor = Predictor(predictor.network, open_finder("embedded"))
    found: dict[str, str] = {}
    for asked, label in chain(_seeing(predictor.network, known_people, target), _predicted(predictor, rest, target)):
        found[asked.sha256] = label
        on_progress(len(found))
    return found


def _knows_people(sample: Sample) -> bool:
    return sample.persons is not None or sample.target_box is not None


def _seeing(network: Network, images: Sequence[AskedImage], target: str | None) -> Iterator[tuple[AskedImage, str]]:
    """The labels of images whose people the data set knows: what the network sees is what it is evaluated with."""
    answers = answers_in(network.info.find_labels(), target)
    for asked in images:
        image, full = decode_sample(asked.sample)
        views = network.look(image, full, asked.sample.persons, asked.sample.target_box)
        named = answers.named(network.answer([views]).values[0])
        yield asked, max(named, key=named.__getitem__)


def _predicted(
    predictor: Predictor, images: Sequence[AskedImage], target: str | None
) -> Iterator[tuple[AskedImage, str]]:
    """The labels of other images."""
    answers = predictor.predict_each((asked.sample.image.read() for asked in images), labels=target)
    for asked, answer in zip(images, answers, strict=True):
        if isinstance(answer, Failure):
            raise DataError(f"{asked.sample.key}: {answer.error}")
        yield asked, answer.top(1)[0][0]
