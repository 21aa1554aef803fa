"""Folder for model hubs: a card, an ONNX file, and weights for timm and transformers if the network is timm's.

The layout is that of timm.models.push_to_hf_hub; nothing is uploaded.
"""

import json
import math
import re
import stat
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

from uniemox import __version__
from uniemox.classifier_info import ClassifierInfo, to_affect
from uniemox.data.seen import OTHERS, SEEN, write_hashes
from uniemox.data.source import public_name
from uniemox.errors import CheckpointError
from uniemox.export.onnx import export_classifier
from uniemox.io.drive import set_permissions
from uniemox.io.files import refuse_special, write_file, writing
from uniemox.io.run_files import ONNX, WEIGHTS
from uniemox.io.weight_names import IN_PACKAGE
from uniemox.labels import quoted
from uniemox.model.classifier import Classifier
from uniemox.model.eval_mode import eval_mode
from uniemox.training.starts import STARTS_FROM

CARD = "README.md"
CONFIG = "config.json"
TOLERANCE = 1e-4
"""Maximum difference of probabilities, or of valence and arousal."""
# These fields are too long for config.json.
OMITTED_FIELDS = ("conformal_scores", "distances", "network")
# JavaScript of the card: the part of the image that the network sees, and its values from the logits.
MIDDLE_SQUARE = """const width = (Math.min(image.width, image.height) * size) / {resized}; // the middle square
const height = width;"""
WHOLE_IMAGE = """const width = image.width; // all of the image, which shows the person, cut out
const height = image.height;"""
SOFTMAX = """const powers = Array.from(logits.data, (logit) => Math.exp(logit / {temperature}));
const sum = powers.reduce((total, power) => total + power, 0);
const values = powers.map((power) => power / sum);"""
RATINGS = "const values = Array.from(logits.data, (logit) => 5 + 4 * logit); // 1 to 9"
SIGMOIDS = """const offsets = {offsets};
const values = Array.from(logits.data, (logit, i) => 1 / (1 + Math.exp(-logit / {temperature} - offsets[i])));"""
THRESHOLDS = "any of {labels}; a label is given if its probability is above its threshold: {thresholds}"
UNNAMED_DATA = "data that its file does not name"
BASE_MODEL = "\n\nBase model: {start}."
ITS_DATA = " Parentheses contain the data that it was trained on."
IN_PACKAGE_TERMS = (
    " The package uniemox contains the models `embedded` and `small`; its MODEL_CARD.md describes their data and "
    "licence."
)
HASHES = f"""

`{SEEN}` has the SHA-256 of each training image's file, and no image or file name. `uniemox evaluate` reads it, and \
refuses to score these images."""
SMOOTHING_OF_TIMM = " For images unlike the training images, uniemox also moves them towards equal values."
FOREIGN_FIELDS = ("license", "tag", "origin_url", "paper_ids", "paper_name", "notes")
SUBJECTS = {
    "evoked": "what an image makes its viewers feel, not what the people in it feel",
    "felt": "what a person in an image feels, as annotators saw it, not what the image makes people feel",
    "expressed": "a face's expression, not what the person feels",
}


def write_hub_folder(
    classifier: Classifier,
    info: ClassifierInfo,
    folder: Path,
    *,
    name: str,
    scores: Sequence[str] = (),
    training_hashes: Collection[str] = (),
) -> bool:
    """Write the files, replacing existing ones; other files stay.

    Args:
        classifier: The classifier.
        info: Its metadata.
        folder: Folder to write to.
        name: Name of the model in the card.
        scores: Lines of Markdown for the card.
        training_hashes: The sha256 of the training images, which `uniemox evaluate` then refuses to score.

    Returns:
        True if timm and transformers can open the folder.

    Raises:
        CheckpointError or DataError: If a file can't be written.
    """
    info = replace(info, trained_on=public_name(info.trained_on))
    export_classifier(classifier, info, folder / ONNX)
    network = timm_network(classifier, info)
    with writing(folder, CheckpointError):
        if network is None:
            about = {key: value for key, value in asdict(info).items() if key not in OMITTED_FIELDS}
            write_file(folder / CONFIG, json.dumps({"library_name": "uniemox", **about}, indent=2) + "\n")
        else:
            _save_for_timm(network, info, folder)
    # Also for an unknown model: the folder may have the hashes of another one.
    write_hashes(folder / SEEN, training_hashes or {OTHERS})
    card = _card(info, name, scores, is_timm=network is not None, has_hashes=bool(training_hashes))
    write_file(folder / CARD, card)
    return network is not None


def _save_for_timm(network: nn.Module, info: ClassifierInfo, folder: Path) -> None:
    # timm would write to the file that a link leads to.
    for name in (CONFIG, WEIGHTS):
        refuse_special(folder / name, CheckpointError)
    pixels = {"input_size": (3, info.size, info.size), "mean": info.mean, "std": info.std}
    save_for_hf(
        network,
        str(folder),
        model_config={"label_names": list(info.labels)},
        safe_serialization=True,
        data_config={**pixels, "crop_pct": info.crop_fraction, "interpolation": "bicubic", "crop_mode": "center"},
    )
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    # transformers adds the top level's value.
    config["model_args"].pop("num_classes", None)
    # timm's values are those of the network that it publishes under this architecture, not of this one.
    for name in FOREIGN_FIELDS:
        config["pretrained_cfg"].pop(name, None)
    write_file(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    # safetensors makes the file unreadable for other users.
    set_permissions(folder / WEIGHTS, stat.S_IMODE((folder / CONFIG).stat().st_mode))


def timm_network(classifier: Classifier, info: ClassifierInfo) -> nn.Module | None:
    """Convert the classifier to one timm network whose softmax is the calibrated probability; None if impossible.

    The temperature goes into its last layer; valence and arousal are 1 to 9. With task multilabel, the offsets go into
    this layer, too, and the sigmoid of each output is the probability of a label.
    """
    encoders = info.network.encoders
    head = classifier.head
    is_joined = classifier.fusion is not None or classifier.method is not None
    if len(encoders) != 1 or is_joined or not isinstance(head, nn.Linear):
        return None
    [encoder] = encoders
    # timm's networks have one linear layer after the pooling, and no scaling to length 1.
    has_projection = bool(encoder.options.get("num_classes")) or info.network.unit_features
    if not timm.is_model(encoder.name) or "conv_head" in encoder.options or has_projection:
        return None
    network: Any = timm.create_model(encoder.name, **{**encoder.options, "num_classes": len(info.labels)})
    last = network.get_classifier()
    if not isinstance(last, nn.Linear) or last.weight.shape != head.weight.shape:
        return None
    network.load_state_dict(classifier.encoder.state_dict(), strict=False)
    if info.task == "affect":
        # `to_affect` is linear.
        shift = torch.tensor(to_affect(0.0))
        scale = to_affect(1.0) - to_affect(0.0)
    else:
        scale = 1 / (info.temperature or 1.0)
        shift = torch.tensor(info.offsets or 0.0)
    with torch.no_grad():
        last.weight.copy_(scale * head.weight)
        last.bias.copy_(scale * head.bias + shift)
    network.eval()
    if _agrees(network, classifier, info):
        return network
    return None


@torch.no_grad()
def _agrees(network: nn.Module, classifier: Classifier, info: ClassifierInfo) -> bool:
    """Return True if both have the same output for an image of noise, so no weight was left out."""
    pixels = torch.randn(2, 3, info.size, info.size, generator=torch.Generator().manual_seed(0))
    with eval_mode(classifier):
        logits = classifier(**dict.fromkeys(info.views, pixels))
    expected: Tensor
    if info.task == "affect":
        expected = to_affect(logits)
        outputs = network(pixels)
    elif info.task == "multilabel":
        expected = (logits / (info.temperature or 1.0) + torch.tensor(info.offsets or 0.0)).sigmoid()
        outputs = network(pixels).sigmoid()
    else:
        expected = (logits / (info.temperature or 1.0)).softmax(-1)
        outputs = network(pixels).softmax(-1)
    return bool((outputs - expected).abs().max() < TOLERANCE)


def _card(info: ClassifierInfo, name: str, scores: Sequence[str], *, is_timm: bool, has_hashes: bool) -> str:
    """Return the README of the folder: card.md without the sections that don't apply."""
    data_name, _, start = info.trained_on.partition(STARTS_FROM)
    views = {"scene": "the middle of the image", "person": "the person, cut out", "both": "the image and the person"}
    unused = []
    if not is_timm:
        unused.append("With timm")
    # The pipeline of transformers would apply the softmax.
    if not is_timm or not info.has_shares:
        unused.append("With transformers")
    if info.streams == "both":
        # Its second input needs a person detector.
        unused.append("In a browser")
    sections = files("uniemox.export").joinpath("card.md").read_text("utf-8").split("\n## ")
    template = "\n## ".join(section for section in sections if section.partition("\n")[0] not in unused)
    return template.format(
        library="timm" if is_timm else "uniemox",
        timm_tag="\n- timm" if is_timm else "",
        name=name,
        subject=SUBJECTS[info.kind],
        task=_task_in_words(info),
        activation="sigmoid()" if info.task == "multilabel" else "softmax(-1)",
        smoothing_of_timm="" if info.task == "multilabel" else SMOOTHING_OF_TIMM,
        view=views[info.streams],
        trained_on=data_name or UNNAMED_DATA,
        base_model=_base_model(start),
        version=__version__,
        scores="\n".join(map(public_name, scores)) or "*It was not evaluated, or the scores are not available.*",
        hashes=HASHES if has_hashes else "",
        cut_out=" It was trained on crops of people: give it such crops." if info.has_person else "",
        size=info.size,
        mean=list(info.mean),
        std=list(info.std),
        **_browser_parts(info),
    )


def _task_in_words(info: ClassifierInfo) -> str:
    """Return the outputs of a model, for the first sentence of its card."""
    labels = ", ".join(map(quoted, info.labels))
    if info.task == "affect":
        return f"{' and '.join(info.labels)}, 1 to 9"
    if info.task == "multilabel":
        return THRESHOLDS.format(labels=labels, thresholds=", ".join(f"{value:.3f}" for value in info.thresholds))
    return f"one of {labels}"


def _base_model(start: str) -> str:
    """Return the paragraph of the card about the initial weights; empty for random weights."""
    if not start:
        return ""
    paragraph = BASE_MODEL.format(start=start)
    if " (" in start:
        paragraph += ITS_DATA
    # The data of the package's models are always known, so they follow in parentheses.
    if re.search(rf"(?<![\w-])({'|'.join(IN_PACKAGE)}) \(", start):
        paragraph += IN_PACKAGE_TERMS
    return paragraph


def _browser_parts(info: ClassifierInfo) -> dict[str, str]:
    """Return the parts of the card's JavaScript and of the text below it that depend on the model."""
    resized = math.floor(info.size / info.crop_fraction)
    parts = {
        "labels": json.dumps(info.labels),
        "view_name": "scene",
        "crop": MIDDLE_SQUARE.format(resized=resized),
        "pixels_of_uniemox": f"uniemox takes the image with its shorter side resized to {resized} px (bicubic, "
        f"antialiased), then the middle {info.size} x {info.size} px.",
        "values": SOFTMAX.format(temperature=info.temperature or 1.0),
        "smoothing": " For images unlike the training images, uniemox also moves the probabilities towards equal "
        "values.",
    }
    if info.has_person:
        parts["view_name"] = "person"
        parts["crop"] = WHOLE_IMAGE
        parts["pixels_of_uniemox"] = (
            f"uniemox resizes the person to {info.size} x {info.size} px (bicubic, antialiased)."
        )
    if info.task == "affect":
        parts["values"] = RATINGS
        parts["smoothing"] = ""
    elif info.task == "multilabel":
        offsets = json.dumps(info.offsets or (0.0,) * len(info.labels))
        parts["values"] = SIGMOIDS.format(temperature=info.temperature or 1.0, offsets=offsets)
        parts["smoothing"] = ""
    return parts
