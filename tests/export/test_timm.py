"""timm alone opens the encoder of a run with three lines, as docs/export.md shows."""

from pathlib import Path

import pytest
import timm
import torch

from tests.runs import SIZE, finetuned, pretrained
from uniemox.checkpoints.classifier import load_classifier
from uniemox.checkpoints.published import load_start

DOCS = Path(__file__).parents[2] / "docs" / "export.md"


def test_three_lines_load_the_encoder() -> None:
    run = pretrained()
    options = {"img_size": SIZE, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
    path = str(run / "encoder.safetensors")
    encoder = timm.create_model("vit_tiny_patch16_224", checkpoint_path=path, **options).eval()
    ours = load_start(run / "encoder.safetensors")
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():  # the CLS token after the final norm
        torch.testing.assert_close(encoder(pixels), ours(pixels), atol=1e-6, rtol=1e-5)


def test_the_docs_show_these_lines() -> None:
    text = DOCS.read_text("utf-8")
    assert 'timm.create_model("vit_small_patch16_224", num_classes=0, ' in text
    assert 'checkpoint_path="runs/pre/encoder.safetensors"' in text


@pytest.mark.parametrize("name", ["knn", "probe"])
def test_timm_loads_the_encoder_of_a_fine_tuning_run(name: str) -> None:
    classifier, info = load_classifier(finetuned(name) / "model.safetensors")
    options = {**info.network.encoders[0].options}
    encoder = timm.create_model(
        info.network.encoders[0].name, checkpoint_path=str(finetuned(name) / "encoder.safetensors"), **options
    ).eval()
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(encoder(pixels), classifier.encoder(pixels), atol=1e-6, rtol=1e-5)
