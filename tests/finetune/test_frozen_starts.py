"""Local files of foundation models as frozen encoders: official names of DINOv2, DINOv3 and CLIP, and timm's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.checkpoints.test_containers import official, registers
from tests.runs import SIZE, SPLITS, colours, tiny_finetuning
from uniemox.checkpoints.classifier import load_classifier
from uniemox.finetune.config import LoraConfig, NetworkConfig
from uniemox.finetune.network import build_network
from uniemox.finetune.run import finetune
from uniemox.training.config import ScheduleConfig

Encode = Callable[[Tensor], Tensor]


def dinov2_with_registers(folder: Path) -> tuple[str, Encode]:
    network = registers()
    torch.save(official(network), folder / "dinov2_reg4.pth")
    return str(folder / "dinov2_reg4.pth"), network


def dinov3(folder: Path) -> tuple[str, Encode]:
    """Facebook's names: storage_tokens, one bias of q, k and v with a mask, and numbers that only training needs."""
    name = "vit_tiny_patch16_dinov3_qkvb"
    network: Any = timm.create_model(name, num_classes=0, img_size=SIZE).eval()
    state = {}
    for key, value in network.state_dict().items():
        if key.endswith("q_bias"):
            v_bias = network.get_parameter(key.replace("q_bias", "v_bias"))
            bias = torch.cat([value, torch.zeros_like(value), v_bias.detach()])
            state[key.replace("q_bias", "qkv.bias")] = bias
            state[key.replace("q_bias", "qkv.bias_mask")] = (bias != 0).float()
        elif not key.endswith(("k_bias", "v_bias")):
            renamed = key.replace("reg_token", "storage_tokens").replace("gamma_1", "ls1.gamma")
            state[renamed.replace("gamma_2", "ls2.gamma")] = value
    state["mask_token"] = torch.zeros(1, network.embed_dim)
    state["rope_embed.periods"] = torch.ones(16)
    torch.save(state, folder / "dinov3.pth")
    return f"timm:{name}@{folder / 'dinov3.pth'}", network


def clip_file(folder: Path) -> tuple[str, Encode]:
    """open_clip's names in one file with the texts; timm's network ends before the projection."""
    vision = {"image_size": SIZE, "layers": 10, "width": 256, "head_width": 64, "patch_size": 16}
    text = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 2, "layers": 1}
    clip = CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text).eval()
    torch.save(clip.state_dict(), folder / "clip.pt")
    visual = clip.visual
    visual.proj = None
    return f"timm:vit_xsmall_patch16_clip_224@{folder / 'clip.pt'}", visual


def timm_file(folder: Path) -> tuple[str, Encode]:
    network = timm.create_model("test_vit", num_classes=3, img_size=SIZE).eval()
    save_file(network.state_dict(), folder / "model.safetensors")
    network.reset_classifier(0)
    return f"timm:test_vit@{folder / 'model.safetensors'}", network


FORMS = {"DINOv2": dinov2_with_registers, "DINOv3": dinov3, "CLIP": clip_file, "timm": timm_file}


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_features_are_those_of_the_original_network(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    init, original = FORMS[form](tmp_path)
    built = build_network(init, NetworkConfig(), size=SIZE, outputs=3)
    images = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(built.classifier.eval().encoder(images), original(images), rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.usefixtures("without_onnx")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["probe", "lora"])
def test_light_heads_leave_the_encoder_as_it_is(method: str, form: str, tmp_path: Path) -> None:
    """LoRA changes the attention alone; the classifier that is written has the encoder's own names."""
    torch.manual_seed(0)
    init, _ = FORMS[form](tmp_path)
    before = build_network(init, NetworkConfig(), size=SIZE, outputs=3).classifier.encoder.state_dict()
    lora = LoraConfig(rank=1) if method == "lora" else LoraConfig()
    one_epoch = ScheduleConfig(epochs=1, warmup_epochs=0)
    config = tiny_finetuning(init, method=method, lora=lora, schedule=one_epoch)
    finetune(config, colours(splits=SPLITS), tmp_path / "run")
    after = load_file(tmp_path / "run" / "encoder.safetensors")
    assert after.keys() == before.keys()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    if method == "lora":
        assert changed
        assert all(name.endswith(("attn.qkv.weight", "attn.proj.weight")) for name in changed)
    else:
        assert not changed
    load_classifier(tmp_path / "run" / "model.safetensors")
