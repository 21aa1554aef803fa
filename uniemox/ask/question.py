"""The question, and the predictions of our model."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.seen import read_seen, refuse_seen
from uniemox.errors import ConfigError, DataError, ImageError, LabelError
from uniemox.io.files import ONNX
from uniemox.io.html import data_url
from uniemox.io.images import MinSides, encode_image
from uniemox.io.progress import Progress, silent
from uniemox.labels import LabelSet
from uniemox.predict.opening import load, open_finder
from uniemox.predict.prediction import Failure
from uniemox.predict.predictor import Predictor
from uniemox.predict.question import answers_in

MAX_SIDE_PX = 1024  # of an image that is sent
DECODED = MinSides(long_px=MAX_SIDE_PX)
QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedImage:
    """An image that models are asked about."""

    sample: Sample
    label: str
    sha256: str
    """Hash of the file, under which answers are saved."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Images for the questions."""

    images: tuple[AskedImage, ...]
    notes: tuple[str, ...]
    """Notes about skipped images."""


def question(labels: LabelSet) -> str:
    """Return the paper's question with the classes of a data set, in reverse order as in the paper for Mikels' eight.

    Source: arXiv 2409.18877, section V-F.

    Raises:
        ConfigError: For labels of felt emotions, because the question asks about evoked ones.
    """
    if labels.kind != "evoked":
        raise ConfigError(
            f"the question is which emotion an image evokes; {labels.name} describes what people in it feel. "
            "Ask about a data set of evoked emotions (fi, emoset, emotion6, ube, emo8)"
        )
    return (
        "Which emotion does this image most strongly evoke? Please select the most intense emotional response from "
        f"the following list and explain your choice: {list(reversed(labels.labels))}."
    )


def follow_up(labels: LabelSet) -> str:
    """Return the follow-up question after an answer that is not a label: the same list, for one word."""
    return f"Which one of these do you select? Answer with that word alone: {', '.join(reversed(labels.labels))}."


def first_message(text: str, image_url: str) -> dict[str, Any]:
    """Return a question about an image in the protocol's form.  image_url: from `image_url`."""
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": image_url}}]
    return {"role": "user", "content": content}


def select(data: DataSet, count: int, seed: int, on_progress: Progress = silent) -> Selection:
    """Draw images with a label by seed, each class in proportion to its size; fewer if there are not enough.

    With the same seed, a larger count begins with the images of a smaller one, so answers can be reused. Copies of an
    image count once; an unreadable image is replaced by the next one.

    Raises:
        DataError: If there are none.
    """
    images: dict[str, AskedImage] = {}
    broken = []
    copies = 0
    for sample in _drawn(data, seed):
        if len(images) == count:
            break
        try:
            digest = hashlib.sha256(sample.image.read()).hexdigest()
            if digest in images:
                copies += 1
                continue
            decode_sample(sample, DECODED)
        except (OSError, ImageError) as error:
            broken.append(str(error))
            continue
        images[digest] = AskedImage(sample=sample, label=str(data.label_of(sample)), sha256=digest)
        on_progress("reading images", len(images), count)
    if not images:
        raise DataError(f"{data.name} has no readable image with a label, so there is nothing to ask about")
    if len(images) < count:
        notes = [f"{len(images)} of {count} images: there are no more"]
    else:
        notes = []
    notes += [f"{copies} copies of other images were skipped"] if copies else []
    notes += [f"{len(broken)} images can't be read and were skipped: {broken[0]}"] if broken else []
    return Selection(tuple(images.values()), tuple(notes))


def _drawn(data: DataSet, seed: int) -> list[Sample]:
    """Order all samples with a label so that every prefix has each class in proportion to its size (Webster)."""

    def number(sample: Sample) -> str:
        return hashlib.sha256(f"{seed} {sample.key}".encode("utf-8", "surrogatepass")).hexdigest()

    labelled = sorted((sample for sample in data.samples if sample.label is not None), key=number)
    sizes = Counter(sample.label for sample in labelled)
    before: Counter[int | None] = Counter()
    places = []
    for sample in labelled:
        places.append((before[sample.label] + 0.5) / sizes[sample.label])
        before[sample.label] += 1
    order = sorted(range(len(labelled)), key=lambda i: (places[i], number(labelled[i])))
    return [labelled[i] for i in order]


def image_url(sample: Sample) -> str:
    """Encode an image for a request: a JPEG of at most 1,024 px without the file's metadata, in base64.

    Raises:
        ImageError: If it can't be read.
    """
    image, _ = decode_sample(sample, DECODED)
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    return data_url(encode_image(image, "JPEG", quality=QUALITY), "image/jpeg")


def labels_of_ours(
    model: Path, images: Sequence[AskedImage], labels: LabelSet, on_progress: Progress = silent
) -> dict[str, str]:
    """Return the most probable label of every image by our model, by the image's sha256.

    A model that reads person boxes gets those of the data set, as in its evaluation; without boxes the embedded
    detector is run.

    Args:
        model: A fine-tuning run, or its model.onnx.
        labels: Of the data set; other labels of the model are mapped to them.

    Raises:
        DataError: For training images of the model.
        ConfigError: If it predicts no labels.
        LabelError: Without a map.
    """
    file = model / ONNX if model.is_dir() else model
    refuse_seen([asked.sample for asked in images], [asked.sha256 for asked in images], read_seen(file), str(model))
    predictor = load(file, finder=None)
    if predictor.kind != labels.kind:
        raise LabelError(f"{model} predicts {predictor.kind}, {labels.name} has {labels.kind} emotions: not comparable")
    if predictor.network.info.task == "affect":
        raise ConfigError(f"{model} predicts valence and arousal, no labels; give a classifier")
    if set(predictor.labels) == set(labels.labels):
        target = None
    else:
        target = labels.name
    looks = predictor.network.info.needs_person
    with_boxes = {one.sha256 for one in images if looks and (one.sample.persons is not None or one.sample.target_box)}
    seen, rest = ([one for one in images if (one.sha256 in with_boxes) is is_known] for is_known in (True, False))
    if rest and looks:
        predictor = Predictor(predictor.network, open_finder("embedded"))
    network = predictor.network
    predictions = dict[str, str]()
    mapped = answers_in(network.info.find_labels(), target)
    for asked in seen:  # the network's input is that of its evaluation
        image, full = decode_sample(asked.sample)
        views = network.look(image, full, asked.sample.persons, asked.sample.target_box)
        named = mapped.named(network.answer([views]).values[0])
        predictions[asked.sha256] = max(named, key=named.__getitem__)
        on_progress("asking ours", len(predictions), len(images))
    answers = predictor.predict_each((asked.sample.image.read() for asked in rest), labels=target)
    for asked, answer in zip(rest, answers, strict=True):
        if isinstance(answer, Failure):
            raise DataError(f"{asked.sample.key}: {answer.error}")
        predictions[asked.sha256] = answer.top(1)[0][0]
        on_progress("asking ours", len(predictions), len(images))
    return predictions
