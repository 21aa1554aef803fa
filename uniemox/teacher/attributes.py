"""EmoSet's attributes for images without annotations, as far as possible, and texts made from them.

Brightness and colorfulness are measured; objects come from a classifier and from detected people. Scene, action and
expression come from a teacher with a text encoder (zero-shot, as CLIP, arXiv 2103.00020, section 3.1); without one, or
if it is uncertain, they are left out.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import numpy as np
import timm
import timm.data
import timm.models
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.data.colour import brightness, colorfulness
from uniemox.data.processes import map_each
from uniemox.data.prompts import describe, plain
from uniemox.data.readers.emoset import read_vocabulary
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.sidecar import Sidecar
from uniemox.errors import ImageError, TeacherError
from uniemox.io.parallel import DIED, ONE_A_CORE, PoolConfig
from uniemox.io.progress import Progress, silent
from uniemox.io.weight_archives import ARCHIVE_ERRORS
from uniemox.teacher.protocol import Teacher, fit_pixels

QUESTIONS = {
    "scene": "A photo of a {}.",
    "human_action": "A photo of a person {}.",
    "facial_expression": "A photo of a person with a {} face.",
}
"""Sentence to compare with the image, by field of an annotation."""
# Fields that are left out for images without detected people.
PEOPLE_FIELDS = ("human_action", "facial_expression")
# Factor of the cosines in the softmax, CLIP's own.
LOGIT_SCALE = 100.0
# Minimum probability of a word in the softmax over all words of its field; below it the field is left out.
MIN_PROBABILITY = 0.2
# Minimum probability and maximum number of a classifier's objects.
MIN_OBJECT_PROBABILITY = 0.2
MAX_OBJECTS = 3
# Images per worker task.
BATCH = 16
# Short side of the decoded images.
SIDE_PX = 256


class ZeroShot:
    """Zero-shot choice of words of EmoSet's vocabulary for an image, by a teacher of images and texts.

    Args:
        teacher: Teacher with a text encoder.
        info: EmoSet's info.json with the words.
    """

    def __init__(self, teacher: Teacher, info: Path) -> None:
        self.teacher = teacher
        self.words = {field: read_vocabulary(info)[field] for field in QUESTIONS}
        self.features = {
            field: F.normalize(teacher.text_features([QUESTIONS[field].format(plain(word)) for word in words]), dim=-1)
            for field, words in self.words.items()
        }  # (words, C) each

    def __call__(self, images: Sequence[Tensor], fields: Sequence[Sequence[str]]) -> list[dict[str, str]]:
        """Return the most probable word for each field of each image, if its probability is high enough.

        Args:
            images: N of (3, H, W) in [0, 1].
            fields: N, requested fields of each image.
        """
        attributes: list[dict[str, str]] = [{} for _ in images]
        # Images of one size form a batch, which the teacher resizes.
        for size in {image.shape for image in images}:
            rows = [i for i, image in enumerate(images) if image.shape == size]
            features = self.teacher.image_features(torch.stack([images[i] for i in rows]), [""] * len(rows))
            features = F.normalize(features, dim=-1)  # (n, C)
            for field, word_features in self.features.items():
                probabilities = (features @ word_features.T * LOGIT_SCALE).softmax(dim=1).cpu()  # (n, words)
                best, indices = probabilities.max(dim=1)  # (n,) each
                for i, probability, index in zip(rows, best.tolist(), indices.tolist(), strict=True):
                    if field in fields[i] and probability >= MIN_PROBABILITY:
                        attributes[i][field] = self.words[field][index]
        return attributes


class ObjectClassifier:
    """ImageNet's objects in an image, by a timm network with a classifier of 1000 classes (or 1001, as TensorFlow's).

    Args:
        name: timm's name of the network.
        weights: A local file; None: the published ones, from the hub or its cache.
        device: Device on which the network runs.

    Raises:
        TeacherError: If there is no such network or the weights don't match.
    """

    def __init__(self, name: str, weights: Path | None = None, device: str = "cpu") -> None:
        if not timm.is_model(name):
            raise TeacherError(f"timm has no model {name!r}; timm.list_models('*') lists what it has")
        try:
            self.model, self.first = _classifier(name, weights)
        except ARCHIVE_ERRORS as error:
            raise TeacherError(
                f"{name} could not be loaded with weights {weights or 'from the hub'}: {error}"
            ) from error
        self.device = device
        self.model.to(device)
        config = timm.data.resolve_model_data_config(self.model)
        self.size = config["input_size"][1:]
        self.mean: Sequence[float] = config["mean"]
        self.std: Sequence[float] = config["std"]
        # Networks from TensorFlow expect pixels from -1 to 1.
        if self.first:
            self.mean = self.std = (0.5, 0.5, 0.5)
        self.names = timm.data.ImageNetInfo()

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor]) -> list[list[str]]:
        """Return the objects of each image, most probable first.  images: N of (3, H, W) in [0, 1]."""
        pixels = torch.cat([fit_pixels(image[None], self.size, self.mean, self.std) for image in images])
        probabilities = self.model(pixels.to(self.device)).softmax(dim=1)[:, self.first :]  # (N, 1000)
        best = probabilities.topk(MAX_OBJECTS)  # (N, 3) each
        return [
            [
                self.names.index_to_description(i).split(",")[0]
                for i, probability in zip(*row, strict=True)
                if probability >= MIN_OBJECT_PROBABILITY
            ]
            for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Describer:
    """Models and settings that make texts from images."""

    zero_shot: ZeroShot | None = None
    classifier: ObjectClassifier | None = None


def write_texts(
    data: DataSet,
    out: Path,
    open_describer: Callable[[], Describer],
    header: Mapping[str, Any],
    on_progress: Progress = silent,
    *,
    with_emotion: bool = True,
    pool: PoolConfig = ONE_A_CORE,
    on_gpu: bool = False,
) -> list[str]:
    """Append every image's text and attributes to a sidecar; return one line per unreadable image.

    Annotations of a data set stay unchanged; other images get computed attributes. Images in the sidecar are skipped.

    Args:
        data: Images to describe.
        out: Sidecar file to append to.
        open_describer: Function that every worker calls to get its models.
        header: Settings of the texts, for the sidecar.
        on_progress: Called with the stage, the number of images done and their total.
        with_emotion: End each text with the label (table VII of the paper compares both).
        pool: Number and limits of the worker processes.
        on_gpu: The describer's networks use the GPU.
    """
    broken = []
    with Sidecar(out, header) as sidecar:
        # An image may have several samples: the first one counts, hence both reversals.
        by_key = {sample.image_key: sample for sample in reversed(data.samples)}
        pending = [sample for key, sample in reversed(by_key.items()) if key not in sidecar.done]
        before = len(by_key) - len(pending)
        on_progress("describing", before, len(by_key))
        open_work = partial(_open_work, open_describer)
        with closing(map_each(open_work, pending, pool, batch=BATCH, on_gpu=on_gpu)) as answers:
            for done, (sample, answer) in enumerate(zip(pending, answers, strict=True), before + 1):
                if answer is None or isinstance(answer, str):
                    broken.append(answer or f"{sample.image}: {DIED}")
                else:
                    annotation = {**answer, "emotion": data.label_of(sample) if with_emotion else None}
                    text = describe(annotation, with_emotion=with_emotion)
                    sidecar.append(sample.image_key, {"text": text, "annotation": annotation})
                on_progress("describing", done, len(by_key))
    return broken


def _open_work(open_describer: Callable[[], Describer]) -> Callable[[Sequence[Sample]], list[dict[str, Any] | str]]:
    """Return a function that computes the attributes of a batch of images."""
    # Each worker process has one core.
    if parent_process() is not None:
        torch.set_num_threads(1)
    return partial(_attributes, describer=open_describer())


def _attributes(samples: Sequence[Sample], describer: Describer) -> list[dict[str, Any] | str]:
    """Return the annotated or computed attributes of images, or why one can't be read."""
    results: list[dict[str, Any] | str] = []
    decoded: list[tuple[dict[str, Any], Sample, Tensor]] = []
    for sample in samples:
        if sample.annotation:
            results.append(dict(sample.annotation))
            continue
        try:
            image, _ = decode_sample(sample, lambda width, height: min(width, height) / SIDE_PX)
        except ImageError as error:
            results.append(str(error))
            continue
        values = np.array(image)
        attributes: dict[str, Any] = {
            "brightness": round(brightness(values), 1),
            "colorfulness": round(colorfulness(values), 1),
            "object": ["Person"] if sample.persons else [],
        }
        results.append(attributes)
        decoded.append((attributes, sample, torch.from_numpy(values).permute(2, 0, 1).float() / 255))  # (3, H, W)
    images = [pixels for _, _, pixels in decoded]
    if images and describer.classifier:
        for (attributes, _, _), objects in zip(decoded, describer.classifier(images), strict=True):
            attributes["object"] += objects
    if images and describer.zero_shot:
        # persons is None where no detector was run, and () where it found nobody.
        fields = [
            [field for field in QUESTIONS if sample.persons != () or field not in PEOPLE_FIELDS]
            for _, sample, _ in decoded
        ]
        for (attributes, _, _), words in zip(decoded, describer.zero_shot(images, fields), strict=True):
            attributes.update(words)
    return results


def _classifier(name: str, weights: Path | None) -> tuple[nn.Module, int]:
    """Return a network with its classifier, and the index of its first output that is an object."""
    if weights is None:
        return timm.create_model(name, pretrained=True).eval(), 0
    state = timm.models.load_state_dict(str(weights), weights_only=True)
    bias = state.get(f"{timm.get_pretrained_cfg_value(name, 'classifier')}.bias")
    outputs = 0 if bias is None else len(bias)
    if outputs not in (1000, 1001):
        raise TeacherError(f"{weights}: a classifier of {outputs} classes; expected ImageNet's 1000, or 1001")
    # Networks from TensorFlow have the background as output 0, and pad as TensorFlow does.
    is_from_tensorflow = outputs == 1001
    options = {"pad_type": "same"} if is_from_tensorflow else {}
    model = timm.create_model(name, num_classes=outputs, **options)
    model.load_state_dict(state)
    return model.eval(), int(is_from_tensorflow)
