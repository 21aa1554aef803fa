"""EmoSet's attributes for images that have none, as far as they can be had, and the texts made of them.

Brightness and colorfulness are measured; objects come from a classifier and from the people found; scene, action and
expression are asked of a teacher with a text side (zero-shot, as CLIP, arXiv 2103.00020, section 3.1) and left out
without one, or where it is not sure.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import timm.data
import timm.models
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from uniemox.data.colour import brightness, colorfulness
from uniemox.data.prompts import describe, plain
from uniemox.data.readers.emoset import read_vocabulary
from uniemox.data.sample import DataSet, Sample, decode_sample
from uniemox.data.sidecar import Sidecar
from uniemox.errors import ImageError, TeacherError
from uniemox.teacher.clip import UNLOADABLE
from uniemox.teacher.protocol import Teacher, fit_pixels

QUESTIONS = {
    "scene": "A photo of a {}.",
    "human_action": "A photo of a person {}.",
    "facial_expression": "A photo of a person with a {} face.",
}
"""Field of an annotation to the text that is compared with the image."""
OF_PEOPLE = ("human_action", "facial_expression")  # not asked of images in which nobody was found
TEMPERATURE = 100.0  # of the softmax over cosines, CLIP's own
MIN_SHARE = 0.2  # of the softmax over all words; below it a word is left out
MIN_OBJECT, MAX_OBJECTS = 0.2, 3  # probability and number of a classifier's objects
SIDE_PX = 256  # short side at which images are looked at


class ZeroShot:
    """Words of EmoSet's vocabulary for an image, by a teacher of images and texts.

    info: EmoSet's info.json, whose words are asked for.
    """

    def __init__(self, teacher: Teacher, info: Path) -> None:
        self.teacher, self.words = teacher, {field: read_vocabulary(info)[field] for field in QUESTIONS}
        self.features = {
            field: F.normalize(teacher.text_features([QUESTIONS[field].format(plain(word)) for word in words]), dim=-1)
            for field, words in self.words.items()
        }  # (words, C) each

    def __call__(self, pixels: Tensor, fields: Sequence[str]) -> dict[str, str]:
        """The surest word for each field, where it is sure enough.  pixels: (1, 3, H, W) in [0, 1]."""
        image = F.normalize(self.teacher.image_features(pixels, ("",)), dim=-1)  # (1, C)
        found = {}
        for field in fields:
            share, best = (image @ self.features[field].T * TEMPERATURE).softmax(dim=1)[0].max(dim=0)
            if float(share) >= MIN_SHARE:
                found[field] = self.words[field][int(best)]
        return found


class ObjectClassifier:
    """ImageNet's objects in an image, by a timm network with a classifier of 1000 classes (or 1001, as TensorFlow's).

    name: timm's name.  weights: a local file; None: the published ones, from the hub or its cache.
    Raises TeacherError if there is no such network or the weights don't fit.
    """

    def __init__(self, name: str, weights: Path | None = None) -> None:
        if not timm.is_model(name):
            raise TeacherError(f"timm has no model {name!r}; timm.list_models('*') lists what it has")
        try:
            self.model, self.first = _classifier(name, weights)
        except UNLOADABLE as error:
            raise TeacherError(
                f"{name} could not be loaded with weights {weights or 'from the hub'}: {error}"
            ) from error
        config = timm.data.resolve_model_data_config(self.model)
        self.size = config["input_size"][1:]
        self.mean: Sequence[float] = config["mean"]
        self.std: Sequence[float] = config["std"]
        if self.first:
            self.mean = self.std = (0.5, 0.5, 0.5)  # TensorFlow's networks see -1 to 1
        self.names = timm.data.ImageNetInfo()

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> list[str]:
        """Objects, the surest first.  pixels: (1, 3, H, W) in [0, 1]."""
        shares = self.model(fit_pixels(pixels, self.size, self.mean, self.std)).softmax(dim=1)[0, self.first :]
        best = shares.topk(MAX_OBJECTS)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [self.names.index_to_description(i).split(",")[0] for i, share in pairs if share >= MIN_OBJECT]


@dataclass(frozen=True, slots=True)
class Describer:
    """How texts are made."""

    with_emotion: bool = True
    """End with the label (table VII of the paper compares)."""
    zero_shot: ZeroShot | None = None
    classifier: ObjectClassifier | None = None


def write_texts(
    data: DataSet,
    out: Path,
    describer: Describer,
    header: Mapping[str, Any],
    on_progress: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """Append the text and the attributes of every image to a sidecar, and return a line for each broken one.

    Annotations that a data set brings are kept as they are; for other images attributes are made. Images that the
    sidecar has are not looked at again.
    header: how the texts are made, for the sidecar.  on_progress: called with the number of samples done.
    """
    broken = []
    with Sidecar(out, header) as sidecar:
        for done, sample in enumerate(data.samples, start=1):
            if sample.image_key not in sidecar.done:
                try:
                    annotation = dict(sample.annotation or _attributes(sample, describer))
                    annotation["emotion"] = data.label_of(sample)
                    text = describe(annotation, with_emotion=describer.with_emotion)
                    sidecar.append(sample.image_key, {"text": text, "annotation": annotation})
                except ImageError as error:
                    broken.append(str(error))
            on_progress(done)
    return broken


def _attributes(sample: Sample, describer: Describer) -> dict[str, Any]:
    """What can be found out about an image. Raises ImageError if it can't be read."""
    image, _ = decode_sample(sample, lambda width, height: min(width, height) / SIDE_PX)
    values = np.asarray(image)
    found: dict[str, Any] = {
        "brightness": round(brightness(values), 1),
        "colorfulness": round(colorfulness(values), 1),
        "object": ["Person"] if sample.persons else [],
    }
    if describer.classifier or describer.zero_shot:
        pixels = _pixels(image)
        if describer.classifier:
            found["object"] += describer.classifier(pixels)
        if describer.zero_shot:
            fields = [field for field in QUESTIONS if sample.persons != () or field not in OF_PEOPLE]
            found |= describer.zero_shot(pixels, fields)
    return found


def _pixels(image: Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def _classifier(name: str, weights: Path | None) -> tuple[nn.Module, int]:
    """A network with its classifier, and the first of its outputs that is an object."""
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
