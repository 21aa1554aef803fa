"""Grad-CAM of a fine-tuned network, as figure 8 of the paper shows it (arXiv 1610.02391)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from uniemox.checkpoints.classifier import load_classifier
from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import CheckpointError, ConfigError
from uniemox.io.files import WEIGHTS
from uniemox.model.classifier import Classifier
from uniemox.model.encoders import ConcatEncoder
from uniemox.persons.box import Box, Detection
from uniemox.persons.crop import choose_person
from uniemox.persons.detector import Detector
from uniemox.predict.confidence import answers_of
from uniemox.predict.explain.explanation import Array, Explanation, normalised
from uniemox.predict.explain.scores import MapScores, check_has_probabilities, map_scores
from uniemox.predict.images import ImageLike, read_any
from uniemox.predict.opening import open_finder
from uniemox.predict.views import Pixels, hide, person_view, scene_box, scene_view
from uniemox.views.pixels import PixelStats, normalise

Stream = Literal["scene", "person"]


def grad_cam(
    classifier: Classifier,
    info: ClassifierInfo,
    image: ImageLike,
    label: str | None = None,
    *,
    stream: Stream | None = None,
    persons: Sequence[Detection] | None = None,
) -> Explanation:
    """Which parts of an image speak for a label.

    classifier, info: of `load_classifier`.  label: None: the most probable.
    stream: which view is explained; None: the scene, or the person for a network that sees nothing else. Where both
    are seen, each has its own map of the same answer.
    persons: people in the image, px, of whom `info.person` takes its view; None: the whole image is the person.
    Raises ImageError for what is no image, LabelError for an unknown label, ConfigError for a view that is not seen
    or a network without a last feature map.
    """
    shown = info.views[0] if stream is None else stream
    if shown not in info.views:
        raise ConfigError(f"the network sees {' and '.join(info.views)}; there is no map of {shown}")
    decoded, _ = read_any(image)
    views, boxes = _views(info, decoded, persons)
    device = next(classifier.parameters()).device
    pixels = {name: view.to(device) for name, view in views.items()}
    with torch.no_grad():
        logits, far = classifier.eval().answer(**pixels)
    answer = answers_of(info, logits.float().cpu().numpy(), None if far is None else far.cpu().numpy())[0]  # (E,)
    index = int(answer.argmax()) if label is None else info.find_labels().index(label)
    maps = grad_cam_maps(classifier, index, **pixels)  # (views, h, w)
    return Explanation(
        label=info.labels[index],
        probability=float(answer[index]),
        method="grad-cam",
        heat=normalised(maps[info.views.index(shown)].cpu().numpy()),
        box=boxes[shown],
        image=decoded,
        persons=None if persons is None else tuple(persons),
    )


class GradCam:
    """A fine-tuned network that explains its answers; see `Explainer`.

    finder: looks for people where none are given; None: nobody looks.
    """

    def __init__(self, classifier: Classifier, info: ClassifierInfo, name: str, finder: Detector | None = None) -> None:
        self.classifier, self.info, self.name, self.finder = classifier, info, name, finder
        self.looks_at_people = info.needs_person

    def explain(self, image: ImageLike, label: str | None, persons: Sequence[Detection] | None = None) -> Explanation:
        """See `Explainer`."""
        if persons is None and self.finder is not None:
            image, _ = read_any(image)
            [persons] = self.finder.detect([image])
        return grad_cam(self.classifier, self.info, image, label, persons=persons)

    def score(self, explanation: Explanation) -> MapScores:
        """See `Explainer`. Raises ConfigError for valence and arousal."""
        check_has_probabilities(self.info.task, self.name)
        views = _views(self.info, explanation.image, explanation.persons)[0]
        seen = next(iter(views))

        def classify(pixels: Array) -> Array:
            given = {name: view.expand(len(pixels), -1, -1, -1) for name, view in views.items()}
            with torch.no_grad():
                logits = self.classifier(**(given | {seen: torch.from_numpy(pixels)})).float()
            return answers_of(self.info, logits.numpy()).astype(np.float32)

        index = self.info.labels.index(explanation.label)
        return map_scores(classify, views[seen][0].numpy(), explanation.heat, index)


def open_grad_cam(path: Path) -> GradCam:
    """The explainer of a fine-tuning run, or of its model.safetensors. Raises CheckpointError if it is none."""
    weights = path / WEIGHTS if path.is_dir() else path
    if not weights.is_file() or weights.suffix != ".safetensors":
        raise CheckpointError(
            f"{path}: grad-cam needs a fine-tuning run, or its {WEIGHTS}; its ONNX file has no slopes"
        )
    name = path.name if path.is_dir() else path.parent.name if path.name == WEIGHTS else path.name
    classifier, info = load_classifier(weights)
    return GradCam(classifier, info, name or str(path), open_finder("embedded") if info.needs_person else None)


def grad_cam_maps(classifier: Classifier, index: int, **views: Tensor) -> Tensor:
    """Maps of one output, by view: (V, h, w), V = 2 with both streams, scene first; before ReLU.

    index: of the output.  views: scene, person as `Classifier.forward` takes them, one image each.
    Each channel of the last feature map A counts by the mean of its gradient over the places (arXiv 1610.02391,
    equations 1 and 2). Of a ViT, A is what the first norm of the last block gives, without prefix tokens, as
    pytorch-grad-cam has it; of a convolutional network its last map of more than one place. Maps of several encoders
    are added at the size of the largest. Raises ConfigError where there is no such A.
    """
    classifier.eval()
    encoder: Any = classifier.encoder
    encoders = list(encoder.encoders) if isinstance(encoder, ConcatEncoder) else [encoder]
    given = {name: view.detach().clone().requires_grad_(True) for name, view in views.items()}
    with torch.enable_grad(), _recorded(encoders) as places:
        output = classifier(**given)[0, index]
        if len(places) != len(encoders):
            raise ConfigError(f"{type(encoder).__name__} has no last feature map that Grad-CAM could use")
        gradients = torch.autograd.grad(output, [places[i] for i in range(len(encoders))])
    maps = []
    for i, gradient in enumerate(gradients):
        values, slopes = (_as_grid(encoders[i], part.detach().float()) for part in (places[i], gradient))
        weights = slopes.mean(dim=(2, 3), keepdim=True)  # (V, C, 1, 1)
        maps.append((weights * values).sum(dim=1))  # (V, h, w)
    size = max((one.shape[1], one.shape[2]) for one in maps)
    return torch.stack([F.interpolate(one[:, None], size, mode="bilinear")[:, 0] for one in maps]).sum(dim=0)


def _views(
    info: ClassifierInfo, image: Image.Image, persons: Sequence[Detection] | None
) -> tuple[dict[str, Tensor], dict[str, Box]]:
    """What the network sees, (1, 3, S, S), normalised, by view; and which part of the image each view is."""
    stats = PixelStats(info.mean, info.std)
    views: dict[str, Pixels] = {}
    boxes: dict[str, Box] = {}
    crop = choose_person(persons, None, image.size, info.person)
    if "scene" in info.views:
        shown = hide(image, crop, image.size) if info.hides_person else image
        views["scene"] = scene_view(shown, info.size, info.crop_fraction)
        boxes["scene"] = scene_box(image.size, info.size, info.crop_fraction)
    if info.has_person:
        views["person"], boxes["person"] = person_view(image, crop, image.size, info.size), crop.box
    cpu = torch.device("cpu")
    return {name: normalise(torch.from_numpy(view)[None], cpu, stats) for name, view in views.items()}, boxes


@contextmanager
def _recorded(encoders: Sequence[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """While it lasts, the feature map of each encoder's forward pass, by its number."""
    found: dict[int, Tensor] = {}
    handles = []
    for i, encoder in enumerate(encoders):
        norm = _last_norm(encoder)
        watched = [norm] if norm is not None else [part for part in encoder.modules() if part is not encoder]

        def keep(_: nn.Module, __: Any, output: Any, *, i: int = i, of_tokens: bool = norm is not None) -> None:
            if isinstance(output, Tensor) and (of_tokens or (output.ndim == 4 and output.shape[2:].numel() > 1)):
                found[i] = output

        handles += [part.register_forward_hook(keep) for part in watched]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _last_norm(encoder: Any) -> nn.Module | None:
    """The first norm of the last block of a ViT or Swin; None for other networks."""
    blocks = getattr(encoder, "blocks", None)
    if blocks is None and hasattr(encoder, "layers"):
        blocks = getattr(encoder.layers[-1], "blocks", None)
    return getattr(blocks[-1], "norm1", None) if blocks is not None and len(blocks) else None


def _as_grid(encoder: Any, x: Tensor) -> Tensor:
    """A feature map as (V, C, h, w), from tokens (V, prefix + L, C), Swin's (V, h, w, C), or as it is."""
    if _last_norm(encoder) is None:
        return x
    if x.ndim == 4:
        return x.permute(0, 3, 1, 2)
    prefix = getattr(encoder, "num_prefix_tokens", 1)
    rows, columns = encoder.patch_embed.grid_size
    tokens = x[:, prefix:]  # (V, L, C)
    return tokens.transpose(1, 2).reshape(len(x), -1, rows, columns)
