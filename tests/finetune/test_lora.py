"""Method lora: low-rank changes of a frozen encoder, trained, resumed, and merged into plain weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from tests.finetune.test_run import dies, newest
from tests.runs import CPU, SPLITS, colours, losses, pretrained, sha256, tiny_finetuning
from uniemox.checkpoints.classifier import load_classifier
from uniemox.errors import ConfigError
from uniemox.evaluate.run import evaluate
from uniemox.finetune.config import FinetuneConfig, LoraConfig, NetworkConfig
from uniemox.finetune.network import network_of
from uniemox.finetune.run import finetune
from uniemox.model.lora import add_adapters, merge_adapters
from uniemox.training.config import OptimizerConfig, SaveConfig
from uniemox.training.optimization import parameter_groups
from uniemox.views.config import ViewConfig

# Attention with one bias, with biases of queries and values alone, in windows, and with rotary positions.
VITS = ("test_vit", "beit_base_patch16_224", "swin_tiny_patch4_window7_224", "vit_small_patch16_dinov3")
SMALL = {
    "beit_base_patch16_224": {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64},
    "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "img_size": 64},
    "vit_small_patch16_dinov3": {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64},
}


def lora_run(**changes: object) -> FinetuneConfig:
    """Four epochs of 4 steps, with a moving average, mixed images and a head from a probe."""
    config = tiny_finetuning(
        pretrained(),
        method="lora",
        lora=LoraConfig(rank=3),
        ema_decay=0.9,
        probe_first=True,
        optimizer=OptimizerConfig(base_lr=0.02, betas=(0.9, 0.999)),
        save=SaveConfig(every_steps=3),
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lora") / "run"
    finetune(lora_run(), colours(splits=SPLITS), out)
    return out


def small_vit(name: str) -> nn.Module:
    torch.manual_seed(0)
    vit = timm.create_model(name, num_classes=0, **SMALL.get(name, {"img_size": 64})).eval()
    for parameter_name, parameter in vit.named_parameters():
        # Layer scales begin near 0, which would hide what attention computes.
        if "gamma" in parameter_name:
            nn.init.ones_(parameter)
    return vit


def trained(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("layers", ["attention", "all"])
@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_merged_vit_gives_the_outputs_of_the_unmerged_one(name: str, layers: str) -> None:
    vit = small_vit(name)
    names = set(vit.state_dict())
    images = torch.randn(2, 3, 64, 64)
    before = vit(images)
    add_adapters(vit, rank=2, layers=layers)
    torch.testing.assert_close(vit(images), before, rtol=0, atol=0)
    changes = [parameter for parameter in vit.parameters() if parameter.requires_grad]
    for parameter in changes:
        nn.init.normal_(parameter, std=0.2)
    unmerged = vit(images)
    assert (unmerged - before).abs().max() > 0.01
    merge_adapters(vit)
    assert set(vit.state_dict()) == names
    torch.testing.assert_close(vit(images), unmerged, rtol=1e-5, atol=1e-5)


def test_a_layer_with_n_inputs_and_m_outputs_gets_rank_times_n_plus_m_weights() -> None:
    """In each of two blocks: qkv, 32 to 96, and proj, 32 to 32; the MLP: 32 to 128 and back."""
    data = colours(splits=SPLITS)
    for layers, expected in (("attention", 2 * 3 * (128 + 64)), ("all", 2 * 3 * (128 + 64 + 160 + 160))):
        network = network_of(lora_run(lora=LoraConfig(rank=3, layers=layers)), data, data.samples).classifier
        assert trained(network.encoder) == expected
        assert trained(network) == expected + 8 * 32 + 8


def test_the_changes_have_a_learning_rate_of_their_own() -> None:
    data = colours(splits=SPLITS)
    network = network_of(lora_run(), data, data.samples).classifier
    groups = parameter_groups(network, 0.05, head_lr_scale=2.0, encoder_lr_scale=10.0)
    scales = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    expected = {name: 10.0 if name.startswith("encoder.") else 2.0 for name, _ in network.named_parameters()}
    assert len(scales) == 2 * 2 * 2 + 2
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert scales[id(parameter)] == expected[name], name


@pytest.mark.thorough
def test_only_the_adapted_weights_change_and_by_no_more_than_the_rank(finished: Path) -> None:
    start = load_file(pretrained() / "encoder.safetensors")
    end = load_file(finished / "encoder.safetensors")
    changed = {name for name, value in end.items() if name in start and not torch.equal(value, start[name])}
    assert changed == {f"blocks.{i}.attn.{layer}.weight" for i in (0, 1) for layer in ("qkv", "proj")}
    for name in changed:
        assert torch.linalg.matrix_rank(end[name] - start[name], atol=1e-5) <= 3, name


def test_the_finished_run_is_a_plain_classifier_that_has_learned(finished: Path) -> None:
    classifier, _ = load_classifier(finished / "model.safetensors")
    assert not [name for name in classifier.state_dict() if "parametrizations" in name]
    data = colours(splits=SPLITS).only("test")
    by_file = {}
    for file in ("model.safetensors", "model.onnx"):
        evaluation = evaluate(finished / file, data, hardware=CPU)
        assert evaluation.scores.accuracy == 1.0
        by_file[file] = torch.tensor([list(line["probabilities"].values()) for line in evaluation.predictions])
    torch.testing.assert_close(by_file["model.onnx"], by_file["model.safetensors"], rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("at", [5, None])
def test_killed_run_resumes_to_the_same_bits(
    at: int | None, finished: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "run"
    if at is not None:
        request.getfixturevalue("without_onnx")
    dies(lora_run(), out, at)
    assert any("parametrizations" in name for name in newest(out))
    finetune(lora_run(), colours(splits=SPLITS), out, resume=True)
    assert losses(out) == losses(finished)
    files = ("model.safetensors", "encoder.safetensors", "model.onnx")
    for name in files if at is None else files[:2]:
        assert sha256(out / name) == sha256(finished / name), name


def test_running_statistics_of_the_frozen_encoder_stay() -> None:
    """LeViT has batch norms in its attention."""
    data = colours(splits=SPLITS)
    config = lora_run(init="scratch:timm:levit_128s", view=ViewConfig(size=224))
    network = network_of(config, data, data.samples).classifier.train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_networks_without_attention_are_refused() -> None:
    data = colours(splits=SPLITS)
    config = lora_run(init="scratch:timm:test_resnet", network=NetworkConfig())
    with pytest.raises(ConfigError, match="ResNet has no linear layer in its attention"):
        network_of(config, data, data.samples)
    with pytest.raises(ConfigError, match="lora need method lora, got 'full'"):
        tiny_finetuning(pretrained(), lora=LoraConfig(rank=2))
    with pytest.raises(ConfigError, match=r"lora.rank must be at least 1, got 0"):
        LoraConfig(rank=0)
