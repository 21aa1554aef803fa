"""Texts for images without annotations: measured values, objects of a classifier, words of a teacher."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from tests.drawn import class_folders, jpeg_of
from uniemox.data.colour import brightness, colorfulness, colour_histogram
from uniemox.data.prompts import teacher_text
from uniemox.data.source import open_data
from uniemox.errors import TeacherError
from uniemox.io.parallel import PoolConfig
from uniemox.teacher.attributes import BATCH, QUESTIONS, Describer, ObjectClassifier, ZeroShot, write_texts

WORDS = {
    "emotion": ["amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness"],
    "scene": ["beach", "ice_rink"],
    "facial_expression": ["happy", "sad"],
    "human_action": ["riding scooter", "archery"],
}


class ColourTeacher:
    """Teacher whose features of red images match some words, those of blue ones others, those of grey ones none."""

    width = 3
    red = ("beach", "happy", "riding scooter")

    def image_features(self, pixels: Tensor, keys: tuple[str, ...]) -> Tensor:
        mean = pixels.mean(dim=(2, 3))
        return mean - mean.mean(dim=1, keepdim=True) + torch.tensor([0, 1e-3, 0])

    def text_features(self, texts: list[str]) -> Tensor:
        return torch.tensor([[1.0, 0, 0] if any(w in text for w in self.red) else [0, 0, 1.0] for text in texts])


@pytest.fixture
def info(tmp_path: Path) -> Path:
    path = tmp_path / "info.json"
    path.write_text(json.dumps({f: {"label2idx": {w: i for i, w in enumerate(words)}} for f, words in WORDS.items()}))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = class_folders(tmp_path / "data", ("awe", "fear"), each=0)
    for label, name, colour in (("awe", "red", "#e01010"), ("awe", "blue", "#1010e0"), ("fear", "grey", "#606060")):
        (root / label / f"{name}.jpg").write_bytes(jpeg_of(Image.new("RGB", (60, 40), colour), 95))
    return root


def texts_of(file: Path) -> dict[str, str]:
    return {line["key"]: line["text"] for line in map(json.loads, file.read_text().splitlines()[1:])}


def test_measured_attributes_are_in_the_text(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts.jsonl"
    assert write_texts(open_data(f"folder:{root}"), out, Describer, {}, with_emotion=False) == []
    assert texts_of(out) == {
        "awe/blue.jpg": "A dark, colorful photo.",
        "awe/red.jpg": "A dark, colorful photo.",
        "fear/grey.jpg": "A moderately bright, nearly colorless photo.",
    }


@pytest.mark.parametrize("with_emotion", [False, True])
def test_the_label_is_in_the_texts_only_with_emotion(root: Path, tmp_path: Path, with_emotion: bool) -> None:
    data = open_data(f"folder:{root}")
    out = tmp_path / "texts.jsonl"
    write_texts(data, out, Describer, {"with_emotion": with_emotion}, with_emotion=with_emotion)
    samples = open_data(f"folder:{root}", texts=out).samples
    texts = [teacher_text(sample, with_emotion=True) for sample in samples]
    assert texts == [texts_of(out)[sample.key] for sample in samples]
    assert ["emotion is" in text for text in texts] == [with_emotion] * 3


def test_a_teacher_chooses_words_if_their_probability_is_high(root: Path, info: Path, tmp_path: Path) -> None:
    lines = [
        {"detector": "x"},
        {"key": "awe/red.jpg", "boxes": [[0, 0, 9, 9, 1]]},
        {"key": "awe/blue.jpg", "boxes": []},
    ]
    (root / "persons.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "texts.jsonl"
    write_texts(open_data(f"folder:{root}"), out, lambda: Describer(ZeroShot(ColourTeacher(), info)), {})
    assert texts_of(out) == {
        "awe/red.jpg": (
            "A dark, colorful photo of a beach. It shows person. The facial expression is happy. "
            "The action is riding scooter. The overall emotion is awe."
        ),
        # The detector found nobody.
        "awe/blue.jpg": "A dark, colorful photo of an ice rink. The overall emotion is awe.",
        # Two words have half of the probability each.
        "fear/grey.jpg": (
            "A moderately bright, nearly colorless photo of a beach. The facial expression is happy. "
            "The action is riding scooter. "
            "The overall emotion is fear."
        ),
    }
    data = open_data(f"folder:{root}", texts=out)
    assert data.samples[0].annotation["scene"] == "ice_rink"
    assert data.samples[0].text == texts_of(out)["awe/blue.jpg"]


def test_texts_do_not_depend_on_the_number_of_processes(tmp_path: Path, info: Path) -> None:
    root = class_folders(tmp_path / "photos", ("awe", "fear"), each=BATCH)
    for workers in (1, 2):
        open_describer = partial(_describer, info)
        out = tmp_path / f"{workers}.jsonl"
        pool = PoolConfig(workers=workers)
        assert write_texts(open_data(f"folder:{root}"), out, open_describer, {}, pool=pool) == []
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert len(texts_of(tmp_path / "2.jsonl")) == 2 * BATCH


def _describer(info: Path) -> Describer:
    return Describer(ZeroShot(ColourTeacher(), info))


def test_an_uncertain_teacher_chooses_no_word(info: Path) -> None:
    teacher = ColourTeacher()
    teacher.red = ()
    zero_shot = ZeroShot(teacher, info)
    # Nine words of equal probability.
    zero_shot.words["scene"] = ["x"] * 9
    zero_shot.features["scene"] = torch.ones(9, 3)
    assert zero_shot([torch.rand(3, 8, 8)], [["scene"]]) == [{}]
    [attributes] = zero_shot([torch.rand(3, 8, 8)], [list(QUESTIONS)])
    assert set(attributes) == {"human_action", "facial_expression"}


@pytest.mark.parametrize(("outputs", "name"), [(1000, "resnet10t"), (1001, "mobilenetv2_050")])
def test_objects_are_named_by_imagenets_classes(outputs: int, name: str, tmp_path: Path) -> None:
    """A network whose bias predicts ImageNet's class 207; with 1001 outputs the first is the background."""
    options = {"pad_type": "same"} if outputs == 1001 else {}
    model = timm.create_model(name, num_classes=outputs, **options)
    with torch.no_grad():
        model.get_classifier().weight.zero_()
        model.get_classifier().bias.copy_(torch.eye(outputs)[207 + outputs - 1000] * 10)
    save_file(model.state_dict(), tmp_path / "x.safetensors")
    assert ObjectClassifier(name, tmp_path / "x.safetensors")([torch.rand(3, 40, 60)]) == [["golden retriever"]]


def test_objects_are_found_in_photographs(shared: Path) -> None:
    """MobileNetV2 finds objects in at least half of the photographs whose captions name dogs."""
    classifier = ObjectClassifier("mobilenetv2_100", shared / "models" / "mobilenetv2_100.imagenet_1001.safetensors")
    rows = [line.split(",", 1) for line in (shared / "data/flickr8k/captions.txt").read_text().splitlines()[1:]]
    captions: dict[str, str] = {}
    for name, caption in rows:
        captions[name] = captions.get(name, "") + caption
    dogs = [name for name, words in captions.items() if words.count("dog") >= 5][:12]
    hits = 0
    for name in dogs:
        values = np.array(Image.open(shared / "data" / "flickr8k" / "images" / name).convert("RGB"))
        [objects] = classifier([torch.from_numpy(values).permute(2, 0, 1).float() / 255])
        hits += bool(objects)
    assert hits >= 6


def test_wrong_networks_and_weights_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="timm has no model 'nothing'"):
        ObjectClassifier("nothing")
    with pytest.raises(TeacherError, match="could not be loaded with weights"):
        ObjectClassifier("resnet10t", tmp_path / "gone.safetensors")
    save_file({"fc.bias": torch.zeros(7)}, tmp_path / "small.safetensors")
    with pytest.raises(TeacherError, match="a classifier of 7 classes; expected ImageNet's 1000"):
        ObjectClassifier("resnet10t", tmp_path / "small.safetensors")
    save_file({"fc.bias": torch.zeros(1000)}, tmp_path / "part.safetensors")
    with pytest.raises(TeacherError, match="could not be loaded"):
        ObjectClassifier("resnet10t", tmp_path / "part.safetensors")


def test_an_interrupted_sidecar_is_completed(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "texts.jsonl"
    write_texts(open_data(f"folder:{root}"), out, Describer, {"with_emotion": True})
    before = out.read_text()
    out.write_text("\n".join(before.splitlines()[:2]) + "\n" + before.splitlines()[2][:20])
    write_texts(open_data(f"folder:{root}"), out, Describer, {"with_emotion": True})
    assert out.read_text() == before


def test_brightness_and_colorfulness_of_known_images() -> None:
    def plain(colour: tuple[int, int, int]) -> np.ndarray:
        return np.full((4, 6, 3), colour, np.uint8)

    assert brightness(plain((255, 255, 255))) == pytest.approx(1)
    assert brightness(plain((255, 0, 0))) == pytest.approx(0.299)
    assert colorfulness(plain((90, 90, 90))) == 0
    # rg = 100, yb = 50, no spread: M = 0.3 √(100² + 50²)
    assert colorfulness(plain((100, 0, 0))) == pytest.approx(0.3 * np.hypot(100, 50) / 109)
    half = np.concatenate([plain((255, 0, 0)), plain((0, 0, 255))])
    # rg: ±, mean 127.5, σ 127.5; yb: 127.5 and -255, mean -63.75, σ 191.25
    expected = np.hypot(127.5, 191.25) + 0.3 * np.hypot(127.5, 63.75)
    assert colorfulness(half) == pytest.approx(min(1, expected / 109))
    histogram = colour_histogram(half)
    assert histogram[[0, 15]].tolist() == [0.5, 0.5]  # red
    assert histogram[16] == 1  # green
    assert histogram.sum() == pytest.approx(3)
