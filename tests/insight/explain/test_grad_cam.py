"""Grad-CAM against a plain form, for ViTs, Swin and convolutional networks, one stream and two."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from tests.drawn import draw_image
from tests.export.networks import Convolutions, classify, info_of
from tests.runs import finetuned
from uniemox.checkpoints.classifier import load_classifier
from uniemox.errors import CheckpointError, ConfigError, LabelError
from uniemox.export.onnx import WithMaps
from uniemox.insight.explain.grad_cam import TorchEngine, grad_cam_maps
from uniemox.insight.explain.maps import heat_map, open_explainer
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.persons.box import Box, Detection
from uniemox.predict.network import Network
from uniemox.predict.predictor import Predictor
from uniemox.views.patches import IMAGENET

SIZE = 32


def plain(maps: Tensor, slopes: Tensor) -> Tensor:
    """Equations 1 and 2 of arXiv 1610.02391, before ReLU, one channel at a time. maps, slopes: (C, h, w)."""
    total = torch.zeros(maps.shape[1:])
    for channel in range(maps.shape[0]):
        total += slopes[channel].sum() / slopes[channel].numel() * maps[channel]
    return total


def output_and_gradient(module: nn.Module, classifier: nn.Module, index: int, **views: Tensor) -> tuple[Tensor, Tensor]:
    """Return a module's output in a forward pass, and the gradient of one of the logits with respect to it."""
    outputs: list[Tensor] = []

    def record(_: nn.Module, __: object, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    handle = module.register_forward_hook(record)
    classifier(**{name: view.clone().requires_grad_() for name, view in views.items()})[0, index].backward()
    handle.remove()
    return outputs[0].detach(), outputs[0].grad


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_a_vit_uses_the_first_norm_of_its_last_block(pool: str) -> None:
    options = {"img_size": SIZE, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool=pool, **options)
    classifier = classify(vit, 24)
    pixels = torch.randn(1, 3, SIZE, SIZE)
    tokens, slopes = output_and_gradient(vit.blocks[-1].norm1, classifier, 3, scene=pixels)  # (1, 17, 24)
    expected = plain(*(part[0, 1:].reshape(4, 4, 24).permute(2, 0, 1) for part in (tokens, slopes)))
    torch.testing.assert_close(grad_cam_maps(classifier, 3, scene=pixels), expected[None], atol=1e-6, rtol=1e-4)


def test_a_swin_uses_the_grid_of_its_last_stage() -> None:
    name = "swin_tiny_patch4_window7_224"
    options = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2)}
    swin = timm.create_model(name, num_classes=0, img_size=56, **options)
    classifier = classify(swin, 16)
    pixels = torch.randn(1, 3, 56, 56)
    features, slopes = output_and_gradient(
        swin.layers[-1].blocks[-1].norm1, classifier, 0, scene=pixels
    )  # (1, 7, 7, 16)
    expected = plain(features[0].permute(2, 0, 1), slopes[0].permute(2, 0, 1))
    torch.testing.assert_close(grad_cam_maps(classifier, 0, scene=pixels), expected[None], atol=1e-6, rtol=1e-4)


def test_a_convolutional_network_gives_its_activation_map() -> None:
    """With a linear head over the mean of a map, the two differ only by the number of positions as a factor."""
    for encoder, width in ((Convolutions(), 48), (timm.create_model("resnet10t", num_classes=0), 512)):
        size = 64 if width == 512 else SIZE
        classifier = classify(encoder, width)
        pixels = torch.randn(1, 3, size, size)
        with torch.no_grad():
            maps = WithMaps(classifier)(pixels)["maps"][:, 2]  # (1, h, w)
        gradient_map = grad_cam_maps(classifier, 2, scene=pixels)
        torch.testing.assert_close(gradient_map * maps[0].numel(), maps, atol=1e-4, rtol=1e-4)


def test_maps_of_several_encoders_are_added_at_the_size_of_the_largest() -> None:
    encoders = [Convolutions(16, 4), Convolutions(24, 8)]
    classifier = classify(ConcatEncoder(encoders, [IMAGENET, IMAGENET]), 40)
    pixels = torch.randn(1, 3, SIZE, SIZE)
    parts = []
    for encoder, rows in zip(encoders, (slice(0, 16), slice(16, 40)), strict=True):
        alone = classify(encoder, rows.stop - rows.start)
        alone.head.weight.data = classifier.head.weight.data[:, rows]
        parts.append(grad_cam_maps(alone, 5, scene=pixels))
    large = nn.functional.interpolate(parts[1][None], (8, 8), mode="bilinear")[0]
    torch.testing.assert_close(grad_cam_maps(classifier, 5, scene=pixels), parts[0] + large, atol=1e-5, rtol=1e-4)


def test_each_stream_has_its_own_map() -> None:
    classifier, _ = load_classifier(finetuned("both") / "model.safetensors")
    views = {name: torch.randn(1, 3, SIZE, SIZE) for name in ("scene", "person")}
    tokens, slopes = output_and_gradient(classifier.encoder.blocks[-1].norm1, classifier, 1, **views)  # (2, 17, 32)
    maps = grad_cam_maps(classifier, 1, **views)
    for i in range(2):
        grids = (part[i, 1:].reshape(4, 4, -1).permute(2, 0, 1) for part in (tokens, slopes))
        torch.testing.assert_close(maps[i], plain(*grids), atol=1e-6, rtol=1e-4)
    image = draw_image(0)
    box = Box(20, 30, 120, 200)
    persons = [Detection(box, 0.9)]
    explainer = open_explainer(finetuned("both"), "grad-cam")
    scene = explainer.explain(image, persons=persons)
    person = explainer.explain(image, scene.label, persons, stream="person")
    assert person.box == box
    assert scene.box.y2 - scene.box.y1 == pytest.approx(240 * 32 / 35)
    assert scene.probability == person.probability
    assert not np.array_equal(scene.heat, person.heat)
    assert scene.heat.shape == person.heat.shape == (4, 4)
    assert scene.heat.max() == person.heat.max() == 1


def test_label_and_probability_equal_those_of_onnx() -> None:
    """Label and probability as `heat_map`, from the same run."""
    for run in (finetuned("knn"), finetuned("probe")):
        by_slopes = open_explainer(run, "grad-cam")
        by_covers = open_explainer(run)
        assert by_slopes.name == by_covers.name == run.name
        explanation, expected = (explainer.explain(draw_image(3), None) for explainer in (by_slopes, by_covers))
        assert explanation.label == expected.label
        assert explanation.probability == pytest.approx(expected.probability, abs=1e-5)
        assert explanation.box == expected.box
        assert explanation.method == "grad-cam"


def test_scores_equal_those_of_onnx() -> None:
    run = finetuned("probe")
    by_slopes = open_explainer(run / "model.safetensors", "grad-cam")
    by_covers = open_explainer(run)
    explanation = by_covers.explain(draw_image(3), None)
    first = by_slopes.score(explanation)
    second = by_covers.score(explanation)
    assert first.deletion == pytest.approx(second.deletion, abs=1e-5)
    assert first.random_insertion == pytest.approx(second.random_insertion, abs=1e-5)


def test_values_have_maps_but_no_scores() -> None:
    explainer = open_explainer(finetuned("affect"), "grad-cam")
    explanation = explainer.explain(draw_image(1), "arousal")
    assert explanation.label == "arousal"
    with pytest.raises(ConfigError, match="valence and arousal"):
        explainer.score(explanation)


def test_what_can_not_be_explained_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="needs a fine-tuning run"):
        open_explainer(tmp_path, "grad-cam")
    with pytest.raises(ConfigError, match="give --model RUN"):
        open_explainer(None, "grad-cam")
    explainer = open_explainer(finetuned("knn"), "grad-cam")
    with pytest.raises(ConfigError, match="reads scene; there is no map of person"):
        explainer.explain(draw_image(0), stream="person")
    with pytest.raises(LabelError, match="'boredom'"):
        explainer.explain(draw_image(0), "boredom")
    flat = classify(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 4)), 4)
    predictor = Predictor(Network("flat", info_of(SIZE), TorchEngine(flat)))
    with pytest.raises(ConfigError, match="no last feature map"):
        heat_map(predictor, Image.new("RGB", (50, 50)), method="grad-cam")
