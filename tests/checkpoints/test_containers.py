"""Files as training scripts and wrappers write them: registers, prefixes, moving averages, timm's own containers."""

import argparse
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from uniemox.checkpoints import load_published, load_start
from uniemox.checkpoints.classifier import load_classifier, save_classifier
from uniemox.checkpoints.saving import convert, save_encoder
from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import CheckpointError
from uniemox.export.onnx import export_classifier
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.network import build_network
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import encode_visible
from uniemox.model.uniemox import UniEmoX
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD, patchify

OPTIONS: dict[str, Any] = {"embed_dim": 192, "depth": 2, "num_heads": 3, "num_classes": 0}
SIZE = 32
REGISTERS = 4


def vit(size: int = SIZE, seed: int = 0, **options: Any) -> VisionTransformer:
    """A small ViT whose tokens, tables and scales are all large enough to change its features."""
    torch.manual_seed(seed)
    network = VisionTransformer(img_size=size, **{**OPTIONS, **options}).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def registers(size: int = SIZE) -> VisionTransformer:
    """timm's layout of DINOv2 with registers, see `vit_small_patch14_reg4_dinov2`."""
    return vit(size, reg_tokens=REGISTERS, no_embed_class=True, init_values=1.0)


def official(network: VisionTransformer) -> dict[str, Tensor]:
    """DINOv2's own names: the position table has a row for the CLS token, and registers have none."""
    state = dict(network.state_dict())
    row = torch.randn_like(state["cls_token"])
    state["register_tokens"] = state.pop("reg_token")
    state["cls_token"] = state["cls_token"] - row
    state["pos_embed"] = torch.cat([row, state["pos_embed"]], dim=1)
    return {**state, "mask_token": torch.zeros(1, OPTIONS["embed_dim"])}


def dinov2_tokens(state: dict[str, Tensor], network: VisionTransformer, x: Tensor) -> Tensor:
    """The forward pass of facebookresearch/dinov2, vision_transformer.py, over timm's blocks.

    prepare_tokens_with_masks: CLS token, positions, then the registers between the CLS token and the patches.
    """
    tokens = torch.cat([state["cls_token"].expand(len(x), -1, -1), network.patch_embed(x)], dim=1)
    tokens = tokens + state["pos_embed"]
    inserted = state["register_tokens"].expand(len(x), -1, -1)
    tokens = torch.cat([tokens[:, :1], inserted, tokens[:, 1:]], dim=1)
    return network.norm(network.blocks(tokens))


@pytest.mark.thorough
@torch.no_grad()
@pytest.mark.parametrize("layout", ["official.pth", "official.safetensors", "timm.safetensors", "timm.pth", "timm.tar"])
def test_registers_are_encoded(layout: str, tmp_path: Path) -> None:
    """Features and start equal DINOv2's forward pass, and timm's (float32, 1e-5)."""
    network = registers()
    x = torch.randn(2, 3, SIZE, SIZE)
    state = official(network)
    path = tmp_path / layout
    content = state if layout.startswith("official") else dict(network.state_dict())
    if path.suffix in (".pth", ".tar"):
        torch.save({"state_dict": content} if path.suffix == ".tar" else content, path)
    else:
        save_file(content, path)
    expected = dinov2_tokens(state, network, x)
    torch.testing.assert_close(network.forward_features(x), expected, rtol=1e-5, atol=1e-5)
    encoder: Any = load_published(path)
    torch.testing.assert_close(encoder(x), expected[:, 0], rtol=1e-5, atol=1e-5)
    assert set(encoder.report.dropped) <= {"mask_token"}
    start = load_start(path)
    UniEmoX(start, ModelConfig())
    tokens = encode_visible(start, patchify(x, 16), torch.arange(4).expand(2, -1))
    expected = torch.cat([expected[:, :1], expected[:, 1 + REGISTERS :]], dim=1)
    torch.testing.assert_close(tokens, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_registers_survive_writing_and_another_size(tmp_path: Path) -> None:
    """Written as by a run and by convert; a larger image resizes the table as DINOv2 and timm do."""
    network = registers()
    torch.save(official(network), tmp_path / "reg.pth")
    start: Any = load_start(tmp_path / "reg.pth")
    save_encoder(start, tmp_path / "run.safetensors")
    convert(tmp_path / "reg.pth", tmp_path / "converted.safetensors")
    x = torch.randn(2, 3, SIZE, SIZE)
    larger = torch.randn(2, 3, 64, 64)
    tokens = network.forward_features(x)
    mean = tokens[:, 1 + REGISTERS :].mean(dim=1)
    again: Any = load_published(tmp_path / "converted.safetensors")
    torch.testing.assert_close(again(x), tokens[:, 0], rtol=1e-5, atol=1e-5)
    of_run: Any = load_published(tmp_path / "run.safetensors")
    assert of_run.report.new == ("fc_norm.weight", "fc_norm.bias")  # as MAE: a new norm of the mean patch
    torch.testing.assert_close(load_start(tmp_path / "run.safetensors").forward_features(x), tokens)
    assert of_run(x).shape == mean.shape
    network.set_input_size((64, 64))  # timm's own resizing
    for name in ("reg.pth", "converted.safetensors"):
        resized: Any = load_published(tmp_path / name, image_size=64)
        torch.testing.assert_close(resized(larger), network(larger), rtol=1e-5, atol=1e-5)


def test_registers_are_trained_fine_tuned_and_exported(tmp_path: Path) -> None:
    """A classifier on them gives the same logits from its file and from ONNX; pre-training has a gradient for them."""
    network = registers()
    torch.save(official(network), tmp_path / "reg.pth")
    start: Any = load_start(tmp_path / "reg.pth")
    model = UniEmoX(start, ModelConfig(decoder=DecoderConfig(width=16, depth=1, heads=4)))
    x = torch.randn(2, 3, SIZE, SIZE)
    model(x, x, image_features=torch.randn(2, 16), text_features=torch.randn(2, 16)).total.backward()
    assert start.reg_token.grad.abs().sum() > 0

    built: Any = build_network(str(tmp_path / "reg.pth"), NetworkConfig(), size=SIZE, outputs=2)
    torch.nn.init.normal_(built.classifier.head.weight)
    info = ClassifierInfo(label_set="custom", kind="felt", size=SIZE, network=replace(built.spec, labels=("a", "b")))
    save_classifier(built.classifier, info, tmp_path / "model.safetensors")
    again, _ = load_classifier(tmp_path / "model.safetensors")
    with torch.no_grad():
        expected = built.classifier.eval().head(network(x))
        torch.testing.assert_close(again(x), expected, rtol=1e-5, atol=1e-5)
    export_classifier(again, info, tmp_path / "model.onnx")
    logits = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["logits"], {"scene": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)


STRAY = ["reg_token_2", "dist_token", "norm_pre.weight", "attn_pool.q.weight", "prompts", "prompt_embeddings"]


@pytest.mark.parametrize("name", STRAY)
@pytest.mark.parametrize("layout", ["flat", "model", "module.", "mae"])
def test_a_tensor_that_features_depend_on_is_not_dropped(name: str, layout: str, tmp_path: Path) -> None:
    state = {**vit().state_dict(), name: torch.zeros(1, 1, 192)}
    if layout == "mae":
        state["decoder_pred.weight"] = torch.zeros(3, 3)
    prefixed = {f"module.{key}": value for key, value in state.items()} if layout == "module." else state
    torch.save({"model": prefixed} if layout != "flat" else prefixed, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=rf"odd\.pth: {name} are not of a plain encoder"):
        load_published(tmp_path / "odd.pth")


PREFIXES = [
    "module.",
    "_orig_mod.",
    "backbone.",
    "model.",
    "module.backbone.",
    "_orig_mod.module.",
    "module._orig_mod.",
    "encoder.",
    "module.encoder.",
    "encoder.backbone.",
    "student.",
    "teacher.backbone.",
    "net.",
    "vit.",
    "trunk.",
]


@pytest.mark.thorough
@torch.no_grad()
@pytest.mark.parametrize(("prefix", "container"), zip(PREFIXES, cycle([None, "model", "state_dict"]), strict=False))
@pytest.mark.parametrize("method", ["auto", "mae"])
def test_prefixes_of_wrappers_are_removed(prefix: str, container: str | None, method: str, tmp_path: Path) -> None:
    """With --method and without; a head beside a backbone keeps its name."""
    network = vit()
    x = torch.randn(2, 3, SIZE, SIZE)
    plain = {**network.state_dict(), "decoder_pred.weight": torch.zeros(3, 3), "mask_token": torch.zeros(1, 1, 192)}
    state = {f"{prefix}{name}": value for name, value in plain.items()}
    if prefix == "backbone.":
        state["head.weight"] = torch.zeros(2, 192)
    torch.save(state if container is None else {container: state}, tmp_path / "wrapped.pth")
    encoder: Any = load_published(tmp_path / "wrapped.pth", method=method)
    assert encoder.report.method == "mae"
    tokens = load_start(tmp_path / "wrapped.pth", method=method).forward_features(x)
    torch.testing.assert_close(tokens, network.forward_features(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["encoder.", "model.encoder.", "student.", "net."])
def test_a_prefix_changes_nothing_for_a_plain_network(prefix: str, tmp_path: Path) -> None:
    """Without a decoder, it is recognised as without the prefix; "cae" needs its own query bias."""
    network = vit()
    x = torch.randn(2, 3, SIZE, SIZE)
    torch.save({f"{prefix}{name}": value for name, value in network.state_dict().items()}, tmp_path / "plain.pth")
    for method, expected in (("auto", "dino"), ("timm", "timm")):
        encoder: Any = load_published(tmp_path / "plain.pth", method=method)
        assert encoder.report.method == expected
        torch.testing.assert_close(encoder(x), network(x), rtol=1e-5, atol=1e-5)


def test_a_wrong_method_is_refused_without_wrong_advice(golden: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no encoder of mae") as error:
        load_published(golden / "moco_v3" / "checkpoint.pth", method="mae")
    assert "leave out --method" not in str(error.value)


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    state = {f"backbone.{name}": value for name, value in vit().state_dict().items()}
    torch.save({**state, "norm.weight": torch.zeros(192)}, tmp_path / "both.pth")
    with pytest.raises(CheckpointError, match=r"has both norm\.weight and backbone\.norm\.weight"):
        load_published(tmp_path / "both.pth", method="mae")


def timm_checkpoint(path: Path, arch: str, **more: Any) -> tuple[Any, Any]:
    """A checkpoint of timm's training script; returns the network with the raw weights and that of the average."""
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(timm.create_model(arch, num_classes=5).eval())
    args = argparse.Namespace(model=arch, mean=None, std=None)
    content = {"epoch": 3, "arch": arch, "state_dict": networks[0].state_dict(), "args": args, "version": 2, **more}
    torch.save({**content, "state_dict_ema": networks[1].state_dict()}, path)
    return networks[0], networks[1]


@torch.no_grad()
@pytest.mark.parametrize("source", ["FILE", "timm:vit_tiny_patch16_224@FILE"])
def test_the_moving_average_is_loaded_and_reported(source: str, tmp_path: Path) -> None:
    """One rule for both ways to name a file; the network's own mean and deviation, and its CLS token, stay."""
    _, average = timm_checkpoint(tmp_path / "last.pth.tar", "vit_tiny_patch16_224")
    encoder: Any = load_published(source.replace("FILE", str(tmp_path / "last.pth.tar")))
    x = torch.randn(1, 3, 224, 224)
    expected = average.forward_head(average.forward_features(x), pre_logits=True)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-5)
    assert encoder.report.mean_std == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert encoder.report.is_average
    assert "weights of state_dict_ema, the moving average" in str(encoder.report)


def moving_averages() -> dict[str, Any]:
    """The average of a network as training scripts write it, next to the raw weights, and the container's name."""
    average = vit(seed=1).state_dict()
    wrapped = {f"module.{name}": value for name, value in average.items()}
    keys = ("ema", "ema_state_dict", "ema_model", "model_ema_state_dict", "state_dict_ema")
    contents = {key: {key: average} for key in keys}
    averaged = torch.optim.swa_utils.AveragedModel(vit(seed=1))
    contents["torchvision"] = {"model_ema": averaged.state_dict()}
    contents["module"] = {"model_ema": {"module": average, "decay": 0.999}}
    contents["wrapped"] = {"model_ema": wrapped}
    return contents


@pytest.mark.thorough
@torch.no_grad()
@pytest.mark.parametrize("name", sorted(moving_averages()))
@pytest.mark.parametrize("raw", ["model", "state_dict"])
def test_moving_averages_of_training_scripts_are_loaded(name: str, raw: str, tmp_path: Path) -> None:
    content = moving_averages()[name]
    torch.save({raw: vit().state_dict(), **content}, tmp_path / "ema.pth")
    encoder: Any = load_published(tmp_path / "ema.pth", method="timm")
    x = torch.randn(2, 3, SIZE, SIZE)
    torch.testing.assert_close(encoder(x), vit(seed=1)(x), rtol=1e-5, atol=1e-5)
    assert encoder.report.container == next(iter(content))
    assert encoder.report.is_average


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("my_ema_weights", {"my_ema_weights": {"a": torch.ones(2)}}),
        ("ModelEma", {"ModelEma": {"a": torch.ones(2)}}),
        ("ema", {"ema": {"decay": 0.999, "shadow_params": [torch.ones(2)]}}),  # torch_ema
        ("callbacks.EMA.ema_weights", {"callbacks": {"EMA": {"ema_weights": {"a": torch.ones(2)}}}}),  # Lightning
    ],
)
def test_an_unusable_moving_average_is_refused_by_name(key: str, content: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"state_dict": vit().state_dict(), **content}, tmp_path / "ema.pth")
    for source in (tmp_path / "ema.pth", f"timm:vit_tiny_patch16_224@{tmp_path / 'ema.pth'}"):
        with pytest.raises(CheckpointError, match=f"has weights in {key}, which seem a moving average"):
            load_published(source, image_size=SIZE)


@torch.no_grad()
@pytest.mark.parametrize("content", [{"state_dict_ema": None}, {"ema": {}}, {"ema_decay": 0.9, "schema": {"a": 1}}])
def test_an_empty_moving_average_is_ignored(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save({"model": vit().state_dict(), **content}, tmp_path / "raw.pth")
    encoder: Any = load_published(tmp_path / "raw.pth", method="timm")
    assert (encoder.report.container, encoder.report.is_average) == ("model", False)


@torch.no_grad()
def test_pixel_statistics_of_timms_training_are_loaded_and_written(tmp_path: Path) -> None:
    """Those of its options come first; convert writes them down."""
    path = tmp_path / "last.pth.tar"
    args = argparse.Namespace(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    timm_checkpoint(path, "vit_tiny_patch16_224", args=args)
    expected = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    convert(path, tmp_path / "last.safetensors")
    for source in (path, f"timm:vit_tiny_patch16_224@{path}", tmp_path / "last.safetensors"):
        encoder: Any = load_published(source)
        assert encoder.report.mean_std == expected
    named: Any = load_published(f"timm:vit_tiny_patch16_224?mean=0.5@{path}")
    assert named.report.mean_std[0] == (0.5, 0.5, 0.5)
    torch.save({"state_dict": vit().state_dict(), "arch": "vit_small"}, tmp_path / "other.pth")
    other: Any = load_published(tmp_path / "other.pth")
    assert other.report.mean_std == (IMAGENET_MEAN, IMAGENET_STD)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_a_file_of_another_image_size_is_resized_as_timm_does(name: str, tmp_path: Path) -> None:
    """Against timm's `set_input_size`."""
    torch.manual_seed(0)
    network: Any = timm.create_model(name, num_classes=5, img_size=64).eval()
    torch.save(network.state_dict(), tmp_path / "small.pth")
    loaded: Any = load_published(f"timm:{name}@{tmp_path / 'small.pth'}", image_size=96)
    x = torch.randn(1, 3, 96, 96)
    network.set_input_size((96, 96))
    expected = network.forward_head(network.forward_features(x), pre_logits=True)
    torch.testing.assert_close(loaded(x), expected, rtol=1e-5, atol=1e-5)
    assert loaded.report.resized == ("pos_embed",)


@torch.no_grad()
def test_official_registers_load_under_timms_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network: Any = timm.create_model("vit_small_patch14_reg4_dinov2", num_classes=0, img_size=28).eval()
    for parameter in (network.pos_embed, network.cls_token, network.reg_token):
        torch.nn.init.normal_(parameter)
    torch.save({**official(network), "mask_token": torch.zeros(1, 384)}, tmp_path / "dinov2.pth")
    loaded: Any = load_published(f"timm:vit_small_patch14_reg4_dinov2@{tmp_path / 'dinov2.pth'}", image_size=28)
    x = torch.randn(1, 3, 28, 28)
    torch.testing.assert_close(loaded(x), network(x), rtol=1e-5, atol=1e-5)
