"""A CLIP model as a zero-shot classifier over words (Radford et al., arXiv 2103.00020, section 3.1)."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import ConfigError, TeacherError
from uniemox.labels import MIKELS, clean, recognise_labels
from uniemox.network_spec import NetworkSpec
from uniemox.predict.network import FEATURES, LOGITS, Network
from uniemox.teacher.opening import open_teacher
from uniemox.teacher.sources import ClipTeacher

PROMPT = "A photo that makes people feel {word}."


def open_clip(name: str, words: Sequence[str] | None, *, threads: int | None = None) -> Network:
    """Open clip:NAME@WEIGHTS (see `open_teacher`) as an uncalibrated classifier of evoked emotions.

    Args:
        name: Name of the CLIP.
        words: Labels to choose from; None: Mikels' eight labels.
        threads: Number of torch's threads in this process; None: unchanged.

    Raises:
        TeacherError: If the CLIP can't be loaded.
        ConfigError: For fewer than two words or a repeated word.
    """
    labels = MIKELS.labels if words is None else tuple(clean(word) for word in words)
    teacher = open_teacher(name)
    if not isinstance(teacher, ClipTeacher):
        raise TeacherError(f"{name} is not a CLIP; write clip:NAME@WEIGHTS or clip:local-dir:FOLDER")
    if threads is not None:
        torch.set_num_threads(threads)
    engine = ZeroShotClip(teacher, labels)
    label_set = recognise_labels(labels, "evoked")
    visual = teacher.model.visual
    info = ClassifierInfo(
        network=NetworkSpec(labels=labels, mean=tuple(visual.image_mean), std=tuple(visual.image_std)),
        label_set=label_set.name if set(label_set.labels) == set(labels) else "custom",
        kind="evoked",
        size=engine.size,
        crop_fraction=1.0,
    )
    return Network(name, info, engine)


class ZeroShotClip:
    """Zero-shot logits: cosines of an image with a sentence about each word, times CLIP's own scale; see `Engine`.

    Args:
        clip: Teacher whose features are compared.
        words: At least two different words.

    Raises:
        ConfigError: For fewer than two words, and for repeated or empty ones.
    """

    outputs = frozenset({LOGITS, FEATURES})

    def __init__(self, clip: ClipTeacher, words: Sequence[str]) -> None:
        if len(set(words)) < max(2, len(words)) or not all(words):
            raise ConfigError(f"expected at least two words, all different, got {', '.join(words) or 'none'}")
        self.clip = clip
        self.words = tuple(words)
        texts = clip.text_features([PROMPT.format(word=word) for word in words])
        self._texts = torch.nn.functional.normalize(texts, dim=-1)  # (E, C)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the network's structure and weights, followed by the words."""
        digest = hashlib.sha256(repr(self.clip.model).encode())
        for name, value in sorted(self.clip.model.state_dict().items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return f"{digest.hexdigest()} {' '.join(self.words)}"

    @property
    def size(self) -> int:
        """Side of the input, px.

        Raises:
            TeacherError: For an input that is not square.
        """
        size = self.clip.model.visual.image_size
        width, height = size if isinstance(size, tuple) else (size, size)
        if width != height:
            raise TeacherError(f"this CLIP takes images of {height} x {width} px; choose one with a square input")
        return int(width)

    @torch.no_grad()
    def run(self, outputs: Sequence[str], views: Mapping[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the requested outputs: logits (N, E), or features (N, C) of length 1.

        Args:
            outputs: Names of the outputs, in the order of the result.
            views: The scene, (N, 3, S, S), normalised.
        """
        pixels = torch.from_numpy(views["scene"]).to(self._texts.device)
        images = torch.nn.functional.normalize(self.clip.model.encode_image(pixels).float(), dim=-1)  # (N, C)
        logits = self.clip.model.logit_scale.exp().float() * images @ self._texts.T  # (N, E)
        results = {LOGITS: logits, FEATURES: images}
        return [results[name].cpu().numpy() for name in outputs]
