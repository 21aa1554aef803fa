"""A run records the source of its weights, and reports a moving average."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.runs import colours, pretrained, tiny_finetuning
from uniemox.finetune.run import finetune
from uniemox.training.callback import Callback
from uniemox.training.run_folder import START_REPORT

SPLITS = {"train": 4, "val": 2, "test": 1}


class Notes(Callback):
    """Keeps what a run tells its user of its weights; the colours are few, and half of their label set."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        if "has no training image of" not in line and "held-out images" not in line:
            self.lines.append(line)


@pytest.mark.usefixtures("without_onnx")
def test_a_moving_average_is_named_and_recorded(tmp_path: Path) -> None:
    state = timm.create_model("test_vit", num_classes=5).state_dict()
    content = {"arch": "test_vit", "state_dict": state, "state_dict_ema": state}
    torch.save(content, tmp_path / "last.pth.tar")
    init = f"timm:test_vit@{tmp_path / 'last.pth.tar'}"
    notes = Notes()
    finetune(tiny_finetuning(init, method="knn"), colours(splits=SPLITS), tmp_path / "run", callback=notes)
    assert notes.lines == [f"{init}: starts from state_dict_ema, the moving average of its weights"]
    report = (tmp_path / "run" / START_REPORT).read_text()
    assert "weights of state_dict_ema, the moving average" in report
    assert "resized 1: pos_embed" in report


@pytest.mark.usefixtures("without_onnx")
def test_weights_of_unknown_normalisation_are_named(tmp_path: Path) -> None:
    """A ViT of timm in a file alone may need a mean of 0.5; from ImageNet's it gets more than twice the contrast."""
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1, img_size=32)
    save_file(network.state_dict(), tmp_path / "vit.safetensors")
    notes = Notes()
    config = tiny_finetuning(str(tmp_path / "vit.safetensors"), method="knn")
    finetune(config, colours(splits=SPLITS), tmp_path / "run", callback=notes)
    [line] = notes.lines
    assert "does not say how its pixels are normalised: ImageNet's mean and deviation are used" in line
    assert f"timm:NAME@{tmp_path / 'vit.safetensors'}" in line


@pytest.mark.usefixtures("without_onnx")
def test_a_run_s_own_weights_are_recorded_and_random_ones_are_not(tmp_path: Path) -> None:
    data = colours(splits=SPLITS)
    notes = Notes()
    finetune(tiny_finetuning(pretrained(), method="knn"), data, tmp_path / "run", callback=notes)
    assert f"{pretrained() / 'encoder.safetensors'}: uniemox" in (tmp_path / "run" / START_REPORT).read_text()
    finetune(tiny_finetuning("scratch:timm:test_vit", method="knn"), data, tmp_path / "scratch", callback=notes)
    assert not (tmp_path / "scratch" / START_REPORT).exists()
    assert notes.lines == []
