"""Method prototypes: a CLIP's texts about the labels as a linear head, untrained and fitted to images."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import open_clip
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor
from torch.nn.functional import normalize

from tests.networks import drawn_clip
from tests.runs import CPU, SIZE, SPLITS, colours, sha256, tiny_finetuning
from uniemox.checkpoints.classifier import load_classifier
from uniemox.errors import CheckpointError, ConfigError, TeacherError
from uniemox.evaluate.run import evaluate
from uniemox.export.hub_folder import timm_network
from uniemox.finetune.config import FinetuneConfig, LoraConfig, NetworkConfig
from uniemox.finetune.mean import mean_head
from uniemox.finetune.prototypes import fit_prototypes
from uniemox.finetune.run import check_parts, dry_run, finetune
from uniemox.labels import CAER, MIKELS, POLARITY, LabelSet
from uniemox.teacher.clip_encoder import open_clip_encoder, open_clip_teacher
from uniemox.teacher.prototypes import PROMPTS, text_prototypes, words_of
from uniemox.teacher.sources import ClipTeacher
from uniemox.views.config import ViewConfig

# Mikels' labels in order, each with the other name that its data sets use.
MIKELS_WORDS = (
    ("amusement", "amused"),
    ("anger", "angry"),
    ("awe",),
    ("contentment", "content"),
    ("disgust",),
    ("excitement", "excited"),
    ("fear",),
    ("sadness", "sad"),
)
TIMM_VISIONS: Mapping[str, dict[str, object]] = {
    "as SigLIP": {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 160},
    "with a linear layer": {
        "timm_model_name": "test_vit",
        "timm_pool": "token",
        "timm_proj": "linear",
        "image_size": 160,
    },
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn_clip(tmp_path_factory.mktemp("clip"))


def prototypes_run(clip: Path, **changes: object) -> FinetuneConfig:
    return tiny_finetuning(f"clip:local-dir:{clip}", method="prototypes", **changes)


@pytest.fixture(scope="module")
def zero_shot(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "zero"
    finetune(prototypes_run(clip, zero_shot=True), colours(splits=SPLITS), out)
    return out


@pytest.fixture(scope="module")
def fitted(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "fitted"
    finetune(prototypes_run(clip), colours(splits=SPLITS), out)
    return out


def pixels(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def zero_shot_logits(clip: Path, images: Tensor) -> Tensor:
    """Logits by open_clip alone: cosines of images and texts, times the scale."""
    model = open_clip.create_model(f"local-dir:{clip}", require_pretrained=True).eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip}")
    rows = []
    for words in MIKELS_WORDS:
        sentences = [f"A photo that makes people feel {word}." for word in words]
        texts = model.encode_text(tokenizer(sentences), normalize=True)
        rows.append(texts.mean(dim=0) / texts.mean(dim=0).norm())
    return model.logit_scale.exp() * model.encode_image(images, normalize=True) @ torch.stack(rows).T


@pytest.mark.thorough
@torch.no_grad()
def test_method_mean_refuses_a_head_of_features_of_length_one(fitted: Path) -> None:
    with pytest.raises(ConfigError, match="reads features of length 1, which the concatenated ones are not"):
        mean_head([str(fitted)], MIKELS.labels, ViewConfig())


@pytest.mark.thorough
def test_untrained_prototypes_are_zero_shot_clip(zero_shot: Path, clip: Path) -> None:
    classifier, info = load_classifier(zero_shot / "model.safetensors")
    expected = zero_shot_logits(clip, pixels())
    # Different labels have different texts.
    assert expected.std(dim=1).min() > 0.1
    torch.testing.assert_close(classifier(scene=pixels()), expected, rtol=1e-4, atol=1e-4)
    assert isinstance(classifier.head, torch.nn.Linear)
    assert info.labels == MIKELS.labels
    assert info.mean == (0.48145466, 0.4578275, 0.40821073)
    session = onnxruntime.InferenceSession(zero_shot / "model.onnx")
    [logits] = session.run(["logits"], {"scene": pixels().numpy()})
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    # No network of timm scales features to length 1, so a hub folder has the ONNX file alone.
    assert timm_network(classifier, info) is None


def test_fitted_prototypes_learn_and_keep_their_length_free(fitted: Path, zero_shot: Path) -> None:
    data = colours(splits=SPLITS).only("test")
    before = evaluate(zero_shot, data, hardware=CPU).scores
    after = evaluate(fitted, data, hardware=CPU).scores
    assert after.accuracy > before.accuracy
    assert after.accuracy > 0.9


@pytest.mark.usefixtures("without_onnx")
def test_the_same_seed_gives_the_same_bits(fitted: Path, clip: Path, tmp_path: Path) -> None:
    finetune(prototypes_run(clip), colours(splits=SPLITS), tmp_path / "run")
    assert sha256(tmp_path / "run" / "model.safetensors") == sha256(fitted / "model.safetensors")


@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize("method", ["probe", "knn", "lora"])
def test_a_clip_is_a_start_of_every_method(method: str, clip: Path, tmp_path: Path) -> None:
    lora = LoraConfig(rank=2) if method == "lora" else LoraConfig()
    config = tiny_finetuning(f"clip:local-dir:{clip}", method=method, lora=lora, probe_first=method == "lora")
    finetune(config, colours(splits=SPLITS), tmp_path / "run")
    scores = evaluate(tmp_path / "run" / "model.safetensors", colours(splits=SPLITS).only("test"), hardware=CPU).scores
    assert scores.accuracy > 0.9


@pytest.mark.parametrize("kind", ["quick", *TIMM_VISIONS])
@torch.no_grad()
def test_image_encoders_of_clip_and_siglip_become_networks_of_timm(kind: str, tmp_path: Path) -> None:
    folder = drawn_clip(tmp_path, quick_gelu=kind == "quick", timm_vision=TIMM_VISIONS.get(kind))
    model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True).eval()
    size = 32 if kind == "quick" else 160
    encoder, spec = open_clip_encoder(f"clip:local-dir:{folder}", size)
    images = torch.randn(2, 3, size, size)
    torch.testing.assert_close(encoder(images), model.encode_image(images), rtol=1e-4, atol=1e-5)
    larger, spec = open_clip_encoder(f"clip:local-dir:{folder}", 2 * size)
    assert larger.report.resized == ("pos_embed",)
    assert spec.options["img_size"] == 2 * size
    assert larger(torch.randn(1, 3, 2 * size, 2 * size)).shape == encoder(images)[:1].shape


def test_an_image_encoder_needs_no_tokenizer_and_texts_name_what_is_missing(tmp_path: Path) -> None:
    folder = drawn_clip(tmp_path, timm_vision=TIMM_VISIONS["as SigLIP"])
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "timm/ViT-B-16-SigLIP"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    encoder, _ = open_clip_encoder(f"clip:local-dir:{folder}", 160)
    assert encoder(torch.zeros(1, 3, 160, 160)).shape == (1, 64)
    with pytest.raises(TeacherError, match=r"the tokenizer of the CLIP model .* Give local-dir:FOLDER"):
        open_clip_teacher(f"clip:local-dir:{folder}")


def test_a_dry_run_builds_the_network_without_weights(clip: Path) -> None:
    config = prototypes_run(clip).resolved()
    data = colours(splits=SPLITS)
    assert dry_run(config, data, check_parts(config, data)) == f"clip of clip:local-dir:{clip}"


def test_a_convolutional_clip_is_refused(tmp_path: Path) -> None:
    vision: dict[str, object] = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    folder = drawn_clip(tmp_path, timm_vision=vision)
    with pytest.raises(CheckpointError, match="is a ModifiedResNet; --init takes CLIPs with a ViT"):
        open_clip_encoder(f"clip:local-dir:{folder}", 32)


def test_words_are_labels_and_their_other_names() -> None:
    assert tuple(words_of(MIKELS).values()) == MIKELS_WORDS
    assert words_of(POLARITY) == {"negative": ("negative",), "positive": ("positive",)}
    own = LabelSet("custom", ("beach", "city"), "evoked")
    assert words_of(own) == {"beach": ("beach",), "city": ("city",)}


def test_sentences_say_whose_emotion_it_is(clip: Path) -> None:
    teacher = ClipTeacher.load(f"local-dir:{clip}")
    felt = text_prototypes(teacher, CAER)
    alone = normalize(teacher.text_features(["A photo of a person who feels neutral."]), dim=-1)
    torch.testing.assert_close(felt[CAER.labels.index("neutral")], alone[0])
    assert len(set(PROMPTS.values())) == 3


def cloud(each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions around three centres, one-hot targets, and text prototypes that are near the centres."""
    draw = np.random.default_rng(seed)
    centres = np.eye(3, 6)
    labels = np.repeat(np.arange(3), each)
    features = centres[labels] + 0.4 * draw.normal(size=(len(labels), 6))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    prototypes = centres + 0.3 * np.random.default_rng(9).normal(size=(3, 6))
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    return features.astype(np.float32), np.eye(3, dtype=np.float32)[labels], prototypes.astype(np.float32)


def test_the_fit_has_the_highest_posterior_probability() -> None:
    """No step from it, in any of many directions, lowers loss and priors; the penalty is the best of the folds."""
    features, target, prototypes = cloud(12)
    weight, penalty = fit_prototypes(features, target, prototypes, 10.0, seed=0)
    assert np.isfinite(penalty)

    def objective(factor: float, change: np.ndarray) -> float:
        logits = features @ (factor * 10.0 * prototypes + change).T
        loss = -(target * log_softmax(logits, axis=1)).sum()
        return float(loss + 0.5 * (factor - 1) ** 2 + 0.5 * penalty * (change**2).sum())

    # At the optimum, factor and change share the same gradient, which gives the factor.
    gradient = (softmax(features @ weight.T, axis=1) - target).T @ features
    change = -gradient / penalty
    factor = 1 - float((gradient * 10.0 * prototypes).sum())
    np.testing.assert_allclose(factor * 10.0 * prototypes + change, weight, atol=1e-2)
    best = objective(factor, change)
    draw = np.random.default_rng(1)
    for _ in range(50):
        assert objective(factor + 0.1 * draw.normal(), change + 0.1 * draw.normal(size=change.shape)) > best


def test_one_image_of_a_class_changes_little_and_many_change_more() -> None:
    features, target, prototypes = cloud(40)
    lone = [0, 40, 80]
    few, penalty = fit_prototypes(features[lone], target[lone], prototypes, 10.0, seed=0)
    many, _ = fit_prototypes(features, target, prototypes, 10.0, seed=0)
    assert penalty == 1.0
    distances = []
    for weight in (few, many):
        directions = weight / np.linalg.norm(weight, axis=1, keepdims=True)
        distances.append(float(np.linalg.norm(directions - prototypes)))
    assert distances[0] < distances[1]


def test_a_class_without_images_keeps_its_text() -> None:
    features, target, prototypes = cloud(12)
    seen = target[:, 2] == 0
    weight, _ = fit_prototypes(features[seen], target[seen], prototypes, 10.0, seed=0)
    answers = (features[~seen] @ weight.T).argmax(axis=1)
    assert (answers == 2).mean() > 0.8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "embedded"}, "needs a CLIP, which has texts: give --init clip:NAME@FILE"),
        ({"network": NetworkConfig(streams="both", fusion="gated")}, "reads one view"),
        ({"task": "affect"}, "give task label or distribution, got 'affect'"),
        ({"method": "probe", "zero_shot": True}, "zero_shot needs method prototypes, got 'probe'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, object], message: str, clip: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(prototypes_run(clip), **changes)
