"""The how-to pages of docs/extending on methods and fusions: their code, as a package of the user's own, works."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.tree import says
from tests.runs import pretrained, scenes, tiny_finetuning, tiny_pretraining, uniemox_here
from uniemox.checkpoints.classifier import load_classifier
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import CheckpointError, ConfigError
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.run import finetune
from uniemox.model.config import ALLOW, DecoderConfig, ModelConfig
from uniemox.predict.opening import load
from uniemox.pretrain.run import pretrain
from uniemox.training.config import ScheduleConfig

DOCS = Path(__file__).parents[1] / "docs" / "extending"
ONE_EPOCH = ScheduleConfig(epochs=1, warmup_epochs=0)


@pytest.fixture(params=["method", "fusion"])
def page(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page's name, with its first Python block as module mypackage.module."""
    [code, *_] = re.findall(r"```python\n(.*?)```", (DOCS / f"{request.param}.md").read_text("utf-8"), re.DOTALL)
    folder = tmp_path / "elsewhere" / "mypackage"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "module.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.delenv(ALLOW, raising=False)
    yield request.param
    for name in ("mypackage", "mypackage.module"):
        sys.modules.pop(name, None)


@pytest.mark.thorough
def test_custom_class_trains_saves_and_loads_only_if_allowed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    if page == "method":
        name = "mypackage.module:MyMethod"
        network = NetworkConfig(fused_width=8, dropout=0.0)
        config = tiny_finetuning("scratch:timm:test_vit", method=name, network=network, schedule=ONE_EPOCH)
    else:
        name = "mypackage.module:MyFusion"
        model = ModelConfig(fusion=name, decoder=DecoderConfig(width=16, depth=1, heads=2))
        pretrain(tiny_pretraining(model=model), scenes(), tmp_path / "pre")
        assert any(key.startswith("fusion.") for key in _keys(tmp_path / "pre" / "model.safetensors"))
        network = NetworkConfig(streams="both", pool="token")
        config = tiny_finetuning(tmp_path / "pre", network=network, schedule=ONE_EPOCH)
        with pytest.raises(CheckpointError, match=says(ALLOW)):
            finetune(config, synthetic(24), run)
        monkeypatch.setenv(ALLOW, "another,mypackage")
    info = finetune(config, synthetic(24), run)
    monkeypatch.delenv(ALLOW, raising=False)
    assert name in (info.network.method, info.network.fusion)
    for module in ("mypackage", "mypackage.module"):
        sys.modules.pop(module, None)
    with pytest.raises(CheckpointError, match=says(name, "package mypackage", f"set {ALLOW}=mypackage")):
        load_classifier(run / "model.safetensors")
    assert "mypackage.module" not in sys.modules  # none of its code ran
    with pytest.raises(CheckpointError, match=says(ALLOW)):
        load_classifier(run / "model.safetensors", allow=("other",))
    allowed, _ = load_classifier(run / "model.safetensors", allow=("mypackage",))
    monkeypatch.setenv(ALLOW, "mypackage")
    again, _ = load_classifier(run / "model.safetensors")
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(allowed(pixels, pixels), again(pixels, pixels))
    monkeypatch.delenv(ALLOW)
    answer = load(run / "model.onnx", finder=None).predict(np.full((40, 40, 3), 90, np.uint8))
    assert sum(answer.scene.values()) == pytest.approx(1)


def _keys(path: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return list(file.keys())


def test_unknown_names_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    for words, message in (
        (["--method", "solvr"], "there is no method 'solvr'; choose one of full, lora, probe"),
        (["--network.fusion", "gatd"], "there is no fusion 'gatd'; choose one of static"),
    ):
        done = uniemox_here("finetune", "--init", pretrained(), "--data", "synthetic:8", "--out", tmp_path, *words)
        assert done.returncode == 1
        assert message in " ".join(done.stderr.split())
    with pytest.raises(ConfigError, match=says("nowhere.module:MyMethod can't be imported", "PYTHONPATH")):
        tiny_finetuning("x", method="nowhere.module:MyMethod").resolved()
    with pytest.raises(ConfigError, match=says("must be a subclass of uniemox.model.methods.relation.Relation")):
        finetune(tiny_finetuning("scratch:timm:test_vit", method="pathlib:Path"), synthetic(24), tmp_path / "run")
