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
from uniemox.data.people import Sidecar
from uniemox.data.processes import map_each
from uniemox.data.prompts import describe, plain
from uniemox.data.readers.emoset import read_vocabulary
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.errors import ImageError, TeacherError
from uniemox.io.parallel import DIED, ONE_A_CORE, PoolConfig
from uniemox.io.progress import Progress, silent
from uniemox.io.weight_archives import UNREADABLE
from uniemox.teacher.protocol import Teacher, fit_pixels

QUESTIONS = {
    "scene": "A photo of a {}.",
    "human_action": "A photo of a person {}.",
    "facial_expression": "A photo of a person with a {} face.",
}
"""Sentence to compare with the image, by field of an annotation."""
OF_PEOPLE = ("human_action", "facial_expression")  # skipped for images without detected people
TEMPERATURE = 100.0  # of the softmax over cosines, CLIP's own
MIN_SHARE = 0.2  # minimum softmax over all words; below it a word is left out
# minimum probability and maximum number of a classifier's objects
MIN_OBJECT = 0.2
MAX_OBJECTS = 3
BATCH = 16  # images per worker task
SIDE_PX = 256  # short side of the decoded images


class ZeroShot:
    """Zero-shot choice of words of EmoSet's vocabulary for an image, by a teacher of images and texts.

    Args:
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
            fields: N, requested fields of each.
        """
        attributes: list[dict[str, str]] = [{} for _ in images]
        for size in {image.shape for image in images}:  # images of one size form a batch, which the teacher resizes
            rows = [i for i, image in enumerate(images) if image.shape == size]
            features = self.teacher.image_features(torch.stack([images[i] for i in rows]), [""] * len(rows))
            cosines = F.normalize(features, dim=-1)  # (n, C)
            for field, words in self.features.items():
                shares, places = (cosines @ words.T * TEMPERATURE).softmax(dim=1).cpu().max(dim=1)
                for i, share, place in zip(rows, shares.tolist(), places.tolist(), strict=True):
                    if field in fields[i] and share >= MIN_SHARE:
                        attributes[i][field] = self.words[field][place]
        return attributes


class ObjectClassifier:
    """ImageNet's objects in an image, by a timm network with a classifier of 1000 classes (or 1001, as TensorFlow's).

    Args:
        name: Timm's name.
        weights: A local file; None: the published ones, from the hub or its cache.
        device: Where it runs.

    Raises:
        TeacherError: If there is no such network or the weights don't match.
    """

    def __init__(self, name: str, weights: Path | None = None, device: str = "cpu") -> None:
        if not timm.is_model(name):
            raise TeacherError(f"timm has no model {name!r}; timm.list_models('*') lists what it has")
        try:
            self.model, self.first = _classifier(name, weights)
        except UNREADABLE as error:
            raise TeacherError(
                f"{name} could not be loaded with weights {weights or 'from the hub'}: {error}"
            ) from error
        self.device = device
        self.model.to(device)
        config = timm.data.resolve_model_data_config(self.model)
        self.size = config["input_size"][1:]
        self.mean: Sequence[float] = config["mean"]
        self.std: Sequence[float] = config["std"]
        if self.first:
            self.mean = self.std = (0.5, 0.5, 0.5)  # TensorFlow's networks see -1 to 1
        self.names = timm.data.ImageNetInfo()

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor]) -> list[list[str]]:
        """Return the objects of each image, most probable first.  images: N of (3, H, W) in [0, 1]."""
        pixels = torch.cat([fit_pixels(image[None], self.size, self.mean, self.std) for image in images])
        shares = self.model(pixels.to(self.device)).softmax(dim=1)[:, self.first :]
        best = shares.topk(MAX_OBJECTS)  # (N, 3) each
        return [
            [
                self.names.index_to_description(i).split(",")[0]
                for i, share in zip(*row, strict=True)
                if share >= MIN_OBJECT
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
        open_describer: Called by every worker.
        header: Settings of the texts, for the sidecar.
        with_emotion: End with the label (table VII of the paper compares both).
        pool: Worker processes.
        on_gpu: The describer's networks use the GPU.
    """
    broken = []
    with Sidecar(out, header) as sidecar:
        by_key = {sample.image_key: sample for sample in reversed(data.samples)}  # the first of an image's samples
        waiting = [sample for key, sample in reversed(by_key.items()) if key not in sidecar.done]
        before = len(by_key) - len(waiting)
        on_progress("describing", before, len(by_key))
        open_work = partial(_open_work, open_describer)
        with closing(map_each(open_work, waiting, pool, batch=BATCH, on_gpu=on_gpu)) as answers:
            for done, (sample, answer) in enumerate(zip(waiting, answers, strict=True), before + 1):
                if answer is None or isinstance(answer, str):
                    broken.append(answer or f"{sample.image}: {DIED}")
                else:
                    annotation = {**answer, "emotion": data.label_of(sample) if with_emotion else None}
                    text = describe(annotation, with_emotion=with_emotion)
                    sidecar.append(sample.image_key, {"text": text, "annotation": annotation})
                on_progress("describing", done, len(by_key))
    return broken


def _open_work(open_describer: Callable[[], Describer]) -> Callable[[Sequence[Sample]], list[dict[str, Any] | str]]:
    """Return a function that finds the attributes of a batch of images."""
    if parent_process() is not None:
        torch.set_num_threads(1)  # one core per worker
    return partial(_attributes, describer=open_describer())


def _attributes(samples: Sequence[Sample], describer: Describer) -> list[dict[str, Any] | str]:
    """Return the annotated or computed attributes of images, or why one can't be read."""
    results: list[dict[str, Any] | str] = []
    looked: list[tuple[dict[str, Any], Sample, Tensor]] = []
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
        looked.append((attributes, sample, torch.from_numpy(values).permute(2, 0, 1).float() / 255))
    images = [pixels for _, _, pixels in looked]
    if images and describer.classifier:
        for (attributes, _, _), objects in zip(looked, describer.classifier(images), strict=True):
            attributes["object"] += objects
    if images and describer.zero_shot:
        fields = [[f for f in QUESTIONS if sample.persons != () or f not in OF_PEOPLE] for _, sample, _ in looked]
        for (attributes, _, _), words in zip(looked, describer.zero_shot(images, fields), strict=True):
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
    from_tensorflow = outputs == 1001
    model = timm.create_model(name, num_classes=outputs, **({"pad_type": "same"} if from_tensorflow else {}))
    model.load_state_dict(state)
    return model.eval(), int(from_tensorflow)
