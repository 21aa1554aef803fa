"""Published files give the features of the methods' own code, at any input size; incomplete files are refused."""

import argparse
import json
import socket
import threading
import time
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.data
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from tests.data.tree import says
from tests.networks import load_npz
from uniemox.checkpoints import load_published, load_start, timm_networks
from uniemox.checkpoints.classifier import describe_encoder
from uniemox.checkpoints.reading import read_weight_file
from uniemox.checkpoints.saving import convert, save_encoder
from uniemox.errors import CheckpointError, EncoderError, ShapeError
from uniemox.io.weight_names import weight_paths
from uniemox.model.config import ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.encoders import MixMAEEncoder
from uniemox.model.uniemox import UniEmoX
from uniemox.teacher.opening import open_teacher
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD

HEADS = {"mae": 3, "dino": 3, "moco_v3": 4, "dbot": 3, "cae": 3, "siameseim": 3, "tinymim": 3}
RELATIVE = ("beit", "simmim", "simmim_swin", "mixmae")
METHODS = [*HEADS, *RELATIVE]


def file_of(golden: Path, method: str) -> Path:
    return golden / method / "checkpoint.pth"


@pytest.mark.parametrize("method", METHODS)
def test_features_equal_the_methods_own_code(method: str, golden: Path) -> None:
    """golden/checkpoints/<method> (official code, float32, 1e-5), recognised and named."""
    stored = load_npz(golden / method / "expected.npz")
    for name in ("auto", method):
        encoder = load_published(file_of(golden, method), method=name, heads=HEADS.get(method))
        assert encoder.report.method == method
        assert not encoder.training
        with torch.no_grad():
            features = encoder(stored["x"])
        torch.testing.assert_close(features, stored["features"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["dino", "moco_v3", "mae", "dbot"])
def test_every_plain_vit_can_give_the_mean_of_its_patch_tokens(name: str, golden: Path) -> None:
    """golden/checkpoints: the norm that fine-tuning adds is new, so the features are the norm of the mean token."""
    stored = load_npz(golden / name / "expected.npz")
    encoder = load_published(file_of(golden, name), heads=HEADS[name], pool="mean")
    start = load_start(file_of(golden, name), heads=HEADS[name]).eval()
    assert encoder.report.new == ("fc_norm.weight", "fc_norm.bias")
    with torch.no_grad():
        features = encoder(stored["x"])
        start.norm = torch.nn.Identity()
        mean = start.forward_features(stored["x"])[:, 1:].mean(dim=1)
        expected = torch.nn.functional.layer_norm(mean, mean.shape[1:], eps=1e-6)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)
    assert ((features - stored["features"]).abs().max() < 1e-4) == (name in ("mae", "dbot"))  # their own fine-tuning


@pytest.mark.parametrize("name", ["mae", "dino", "moco_v3", "dbot", "cae", "tinymim"])
def test_a_start_gives_the_methods_own_tokens(name: str, golden: Path) -> None:
    """Normed tokens of the pre-training encoder (float32, 1e-5); CAE's BEiT blocks become plain ones."""
    stored = load_npz(golden / name / "expected.npz")
    start = load_start(file_of(golden, name), heads=HEADS[name]).eval()
    assert type(start) is VisionTransformer
    with torch.no_grad():
        torch.testing.assert_close(start.forward_features(stored["x"]), stored["tokens"], rtol=1e-5, atol=1e-5)
    UniEmoX(start, ModelConfig())  # it can be pre-trained


def test_siameseim_starts_with_a_new_norm(golden: Path) -> None:
    start = load_start(file_of(golden, "siameseim"), heads=3)
    assert start.report.new == ("norm.weight", "norm.bias")
    UniEmoX(start, ModelConfig())


@pytest.mark.parametrize("method", RELATIVE)
def test_pre_training_refuses_relative_positions(method: str, golden: Path) -> None:
    with pytest.raises(EncoderError, match=rf"checkpoint\.pth: {method} has relative positions"):
        load_start(file_of(golden, method))


def test_cut_down_releases_are_recognised(golden: Path) -> None:
    """DINO's backbone alone, dBOT's teacher, MAE's model alone; float32, 1e-5."""
    for path, folder, field, method in [
        ("dino/checkpoint_backbone_only.pth", "dino", "features", "dino"),
        ("dbot/checkpoint_teacher.pth", "dbot", "features_teacher", "mae"),
        ("mae_pretrain/checkpoint.pth", "mae", "features", "mae"),
    ]:
        stored = load_npz(golden / folder / "expected.npz")
        encoder = load_published(golden / path, heads=3)
        assert encoder.report.method == method
        torch.testing.assert_close(encoder(stored["x"]), stored[field], rtol=1e-5, atol=1e-5)


def test_moco_after_its_conversion_to_deit_is_recognised(golden: Path, tmp_path: Path) -> None:
    stored = load_npz(golden / "moco_v3" / "expected.npz")
    state = read_weight_file(file_of(golden, "moco_v3")).content["state_dict"]
    prefix = "module.base_encoder."
    renamed = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix) and ".head" not in k}
    torch.save({"model": renamed}, tmp_path / "deit.pth")
    encoder = load_published(tmp_path / "deit.pth", heads=4)
    assert encoder.report.method == "moco_v3"
    torch.testing.assert_close(encoder(stored["x"]), stored["features"], rtol=1e-5, atol=1e-5)


def test_fine_tuned_files_keep_their_own_norm(golden: Path, tmp_path: Path) -> None:
    """A file after MAE's fine-tuning holds fc_norm and head, no norm; its features are normed by its fc_norm."""
    state = dict(read_weight_file(file_of(golden, "mae")).content["model"])
    fc_norm = {"fc_norm.weight": torch.rand(48) + 0.5, "fc_norm.bias": torch.randn(48)}
    tuned = {k: v for k, v in state.items() if not k.startswith(("norm.", "decoder", "mask"))} | fc_norm
    torch.save({"model": tuned | {"head.weight": torch.zeros(8, 48), "head.bias": torch.zeros(8)}}, tmp_path / "ft.pth")
    encoder = load_published(tmp_path / "ft.pth", heads=3)
    plain = load_published(file_of(golden, "mae"), heads=3)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder(x), plain(x) * fc_norm["fc_norm.weight"] + fc_norm["fc_norm.bias"])
    assert encoder.report.new == ()
    assert set(encoder.report.dropped) == {"head.weight", "head.bias"}


@pytest.mark.parametrize("method", METHODS)
def test_the_report_accounts_for_every_tensor(method: str, golden: Path) -> None:
    path = file_of(golden, method)
    report = load_published(path, heads=HEADS.get(method)).report
    assert report.resized == ()
    expected_new = {"mae", "dbot", "siameseim", "tinymim", "beit", "simmim"}
    assert bool([n for n in report.new if n.startswith("fc_norm")]) == (method in expected_new)
    assert report.mean_std[0] == ((0.5, 0.5, 0.5) if method == "beit" else (0.485, 0.456, 0.406))
    assert method in str(report)
    heads = {"beit": 3, "simmim": 3, "simmim_swin": (1, 2, 2, 4), "mixmae": (1, 2, 2, 4)}.get(method, HEADS.get(method))
    assert report.heads == heads
    assert any("head" in n or "decoder" in n or "mask_token" in n for n in report.dropped) or method == "tinymim"


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_tensor_is_an_error_that_names_it(method: str, golden: Path, tmp_path: Path) -> None:
    content = read_weight_file(file_of(golden, method)).content
    key = {"moco_v3": "state_dict", "dino": "teacher"}.get(method, "model")
    block = "layers.1.blocks.0" if method in ("simmim_swin", "mixmae") else "blocks.1"
    for part in (f"{block}.mlp.fc2.weight", f"{block}.attn.proj.bias", "patch_embed.proj.bias"):
        name = next(name for name in content[key] if name.endswith(part) and not name.startswith(("mm_", "module.mom")))
        torch.save({**content, key: {k: v for k, v in content[key].items() if k != name}}, tmp_path / "less.pth")
        with pytest.raises(CheckpointError, match=rf"less\.pth.*missing.*{part}"):
            load_published(tmp_path / "less.pth", heads=HEADS.get(method))


@pytest.mark.parametrize("method", ["mae", "beit", "cae", "mixmae"])
def test_a_tensor_of_another_shape_is_refused(method: str, golden: Path, tmp_path: Path) -> None:
    content = read_weight_file(file_of(golden, method)).content
    name = next(name for name in content["model"] if name.endswith("0.norm1.weight") and "neck" not in name)
    torch.save({"model": content["model"] | {name: torch.zeros(7)}}, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"norm1\.weight has shape \(7,\)"):
        load_published(tmp_path / "odd.pth", heads=HEADS.get(method))


def test_weights_that_are_not_finite_are_refused(golden: Path, tmp_path: Path) -> None:
    content = read_weight_file(file_of(golden, "mae")).content
    torch.save({"model": content["model"] | {"cls_token": torch.full((1, 1, 48), float("nan"))}}, tmp_path / "nan.pth")
    with pytest.raises(CheckpointError, match=r"nan\.pth: cls_token holds numbers that are not finite"):
        load_published(tmp_path / "nan.pth", heads=3)


def test_unknown_numbers_of_heads_are_requested(golden: Path) -> None:
    with pytest.raises(CheckpointError, match="pass heads="):
        load_published(file_of(golden, "mae"))
    with pytest.raises(CheckpointError, match=r"heads=5 contradicts.*3"):
        load_published(file_of(golden, "beit"), heads=5)
    with pytest.raises(CheckpointError, match="network of these dimensions"):
        load_published(file_of(golden, "mae"), heads=5)
    with pytest.raises(CheckpointError, match="heads must be at least 1"):
        load_published(file_of(golden, "mae"), heads=0)


@pytest.mark.parametrize(("width", "expected"), [(192, 3), (384, 12), (768, 12)])
def test_published_widths_determine_the_heads(width: int, expected: int, tmp_path: Path) -> None:
    """MoCo v3's ViT-S has 12 heads where timm's has 6, with the same shapes."""
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=width, depth=1, num_heads=3, num_classes=0)
    state = {f"module.base_encoder.{name}": value for name, value in vit.state_dict().items()}
    torch.save({"state_dict": state, "arch": "vit_small"}, tmp_path / "moco.pth")
    assert load_published(tmp_path / "moco.pth").report.heads == expected


@pytest.mark.thorough
@pytest.mark.parametrize("method", METHODS)
def test_fitting_image_sizes_run_and_others_are_refused(method: str, golden: Path) -> None:
    path = file_of(golden, method)
    for size in (96, 160, 192):
        encoder = load_published(path, heads=HEADS.get(method), image_size=size)
        assert encoder.report.image_size == size
        assert encoder(torch.randn(2, 3, size, size)).shape == (2, 64 if method in ("simmim_swin", "mixmae") else 48)
        assert encoder.report.resized or method == "cae"
    with pytest.raises(ShapeError, match=r"checkpoint\.pth.*100"):
        load_published(path, heads=HEADS.get(method), image_size=100)
    with pytest.raises(CheckpointError, match="image_size must be at least 1"):
        load_published(path, heads=HEADS.get(method), image_size=-16)


def test_mixmae_at_384_takes_its_official_windows(tmp_path: Path) -> None:
    shape = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 4), "num_classes": 0}
    encoder = MixMAEEncoder(**shape, img_size=224, window_size=(14, 14, 14, 7))
    torch.save({"model": encoder.state_dict()}, tmp_path / "mixmae.pth")
    larger = load_published(tmp_path / "mixmae.pth", image_size=384)
    assert [stage.blocks[0].window_size[0] for stage in larger.layers] == [16, 16, 24, 12]


def test_the_state_of_the_whole_model_gives_its_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = UniEmoX(build_encoder("vit_tiny_patch16_224", 64, embed_dim=48, depth=2, num_heads=3), ModelConfig()).eval()
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    start = load_start(tmp_path / "model.pth", heads=3)
    assert start.report.method == "uniemox"
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(start.forward_features(x), model.encoder.forward_features(x), rtol=0, atol=0)


def test_our_own_encoder_loads_here_and_in_timm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny_patch16_224", 64, embed_dim=48, depth=3, num_heads=3).eval()
    save_encoder(encoder, tmp_path / "encoder.safetensors")
    assert set(load_file(tmp_path / "encoder.safetensors")) == set(encoder.state_dict())
    assert not list(tmp_path.glob("*.partial"))
    x = torch.randn(2, 3, 64, 64)
    start = load_start(tmp_path / "encoder.safetensors").eval()
    torch.testing.assert_close(start.forward_features(x), encoder.forward_features(x), rtol=0, atol=0)
    published = load_published(tmp_path / "encoder.safetensors")
    assert published.report.method == "uniemox"
    mean = torch.nn.functional.layer_norm(
        encoder.blocks(encoder._pos_embed(encoder.patch_embed(x)))[:, 1:].mean(1), (48,)
    )
    torch.testing.assert_close(published(x), mean, rtol=1e-4, atol=1e-5)
    options = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 0}
    timms = timm.create_model(
        "vit_tiny_patch16_224", checkpoint_path=str(tmp_path / "encoder.safetensors"), **options
    ).eval()
    torch.testing.assert_close(timms(x), encoder(x), rtol=0, atol=0)


def test_timm_files_without_a_container_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5).eval()
    save_file(vit.state_dict(), tmp_path / "timm.safetensors")
    torch.save(vit.state_dict(), tmp_path / "timm.pth")
    x = torch.randn(2, 3, 32, 32)
    expected = vit.forward_head(vit.forward_features(x), pre_logits=True)
    for name in ("timm.safetensors", "timm.pth"):
        encoder = load_published(tmp_path / name)
        assert encoder.report.method == "timm"
        assert encoder.report.mean_std is None
        torch.testing.assert_close(encoder(x), expected, rtol=1e-5, atol=1e-6)


def test_networks_of_timm_are_refused_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without network the published weights can't be fetched: an error, not random weights."""
    with pytest.raises(CheckpointError, match="no model 'resnet_nope'"):
        load_published("timm:resnet_nope")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="timm:resnet18 could not be built with its weights"):
        load_published("timm:resnet18")
    with pytest.raises(CheckpointError, match="timm:vit_tiny_patch16_224"):
        load_start("timm:vit_tiny_patch16_224")


@pytest.mark.parametrize("answers", [False, True])
def test_unreachable_hub_fails_in_seconds_with_advice(answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that nobody listens on, and one that takes connections and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if answers:
            silent.listen()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr(timm_networks, "HUB_TIMEOUT_S", 1)
        began = time.monotonic()
        with pytest.raises(CheckpointError, match=r"timm:test_vit.*can't be reached.*@FILE.*--init embedded"):
            load_published("timm:test_vit")
        assert time.monotonic() - began < 5


def test_a_hub_that_responds_passes_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any answer counts, also a refusal: what follows is the hub client's own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        timm_networks.check_hub("test_vit")
        server.shutdown()


def test_a_swin_without_config_and_masks_needs_the_image_size(golden: Path, tmp_path: Path) -> None:
    state = read_weight_file(file_of(golden, "simmim_swin")).content["model"]
    torch.save({"model": state}, tmp_path / "masks.pth")
    assert load_published(tmp_path / "masks.pth").report.image_size == 128  # from its masks
    torch.save({"model": {k: v for k, v in state.items() if "attn_mask" not in k}}, tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="pass image_size="):
        load_published(tmp_path / "nothing.pth")
    stored = load_npz(golden / "simmim_swin" / "expected.npz")
    encoder = load_published(tmp_path / "nothing.pth", image_size=128)
    torch.testing.assert_close(encoder(stored["x"]), stored["features"], rtol=1e-5, atol=1e-5)


def test_pre_training_refuses_a_cae_fine_tuned_with_relative_positions(golden: Path, tmp_path: Path) -> None:
    encoder = load_published(file_of(golden, "cae"), heads=3)
    torch.nn.init.ones_(encoder.blocks[1].attn.relative_position_bias_table)
    save_encoder(encoder, tmp_path / "tuned.safetensors", method="cae")
    with pytest.raises(CheckpointError, match="fine-tuned with relative positions"):
        load_start(tmp_path / "tuned.safetensors")


def test_foreign_files_are_refused(golden: Path, tmp_path: Path) -> None:
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "mlp.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    torch.save({"model": argparse.Namespace(a=1), "w": 1}, tmp_path / "namespace.pth")
    torch.save({}, tmp_path / "empty.pth")
    for path, message in [
        (tmp_path / "mlp.pth", "of no method that uniemox knows; its first names are fc.weight"),
        (tmp_path / "epoch.pth", "'epoch' is a int"),
        (tmp_path / "tensor.pth", "holds a Tensor"),
        (tmp_path / "namespace.pth", "is a Namespace"),
        (tmp_path / "empty.pth", "has no weights"),
        (golden / "clip" / "checkpoint.pth", "is a CLIP model"),
    ]:
        with pytest.raises(CheckpointError, match=message) as error:
            load_published(path)
        assert path.name in str(error.value)
    with pytest.raises(CheckpointError, match="no method 'made'; choose one of auto, moco_v3"):
        load_published(file_of(golden, "mae"), method="made")
    with pytest.raises(CheckpointError, match=r"holds no encoder of moco_v3|not whole"):
        load_published(file_of(golden, "cae"), method="moco_v3", heads=3)


@pytest.mark.parametrize("size", [None, 48, 64])
def test_torchvisions_vits_are_loaded_under_timms_names(size: int | None, tmp_path: Path) -> None:
    """Features before the head equal those of torchvision's own network, which is not ours (float32, 1e-5)."""
    from torchvision.models.vision_transformer import VisionTransformer as Theirs
    from torchvision.models.vision_transformer import interpolate_embeddings

    torch.manual_seed(0)
    options = {"patch_size": 16, "num_layers": 2, "num_heads": 3, "hidden_dim": 192, "mlp_dim": 768, "num_classes": 5}
    theirs = Theirs(image_size=32, **options).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    torch.save(theirs.state_dict(), tmp_path / "vit.pth")
    encoder: Any = load_published(tmp_path / "vit.pth", image_size=size)
    assert encoder.report.method == "torchvision"
    assert encoder.report.mean_std == (IMAGENET_MEAN, IMAGENET_STD)
    assert (encoder.report.new, set(encoder.report.dropped)) == ((), {"heads.head.weight", "heads.head.bias"})
    x = torch.randn(2, 3, size or 32, size or 32)
    theirs.heads = torch.nn.Identity()
    if size is not None:
        state = interpolate_embeddings(size, 16, OrderedDict(theirs.state_dict()))
        theirs = Theirs(image_size=size, **options).eval()
        theirs.heads = torch.nn.Identity()
        theirs.load_state_dict(state)
    torch.testing.assert_close(encoder(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert encoder(x).shape == (2, 192)
    start: Any = load_start(tmp_path / "vit.pth")
    torch.testing.assert_close(start.norm.weight, theirs.encoder.ln.weight)
    convert(tmp_path / "vit.pth", tmp_path / "vit.safetensors")
    again: Any = load_published(tmp_path / "vit.safetensors", image_size=size)
    torch.testing.assert_close(again(x), encoder(x))


@pytest.mark.parametrize("size", [32, 96, 240])
def test_a_plain_vit_of_timm_is_resized_as_timm_does(size: int, tmp_path: Path) -> None:
    """A file alone and timm:NAME@FILE give the same features; timm filters a table that it shrinks."""
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    torch.nn.init.normal_(network.pos_embed)
    path = tmp_path / "vit.safetensors"
    save_file(network.state_dict(), path)
    plain: Any = load_published(path, image_size=size)
    named: Any = load_published(f"timm:vit_tiny_patch16_224@{path}", image_size=size)
    torch.testing.assert_close(plain.pos_embed, named.pos_embed)
    x = torch.randn(2, 3, size, size)
    torch.testing.assert_close(plain(x), named(x), rtol=1e-4, atol=1e-5)


def test_a_local_folder_of_the_hub_is_loaded_offline(tmp_path: Path) -> None:
    """config.json and weights, as a repository of timm's on the Hugging Face hub has them; its own pixels count."""
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=5)
    pixels = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    config = {"architecture": "test_vit", "num_classes": 5, "pretrained_cfg": {"tag": "x", **pixels}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=says(tmp_path, "has no weights; expected model.safetensors or")):
        load_published(f"timm:local-dir:{tmp_path}")
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    loaded = load_published(f"timm:local-dir:{tmp_path}")
    assert loaded.report.mean_std == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    x = torch.randn(2, 3, 160, 160)
    expected = network.eval().forward_head(network.forward_features(x), pre_logits=True)
    torch.testing.assert_close(loaded(x), expected, rtol=0, atol=0)
    assert describe_encoder(loaded).name == "test_vit"
    tower = open_teacher(f"timm:local-dir:{tmp_path}")
    assert tower.width == network.num_features
    assert weight_paths(f"timm:local-dir:{tmp_path}") == [tmp_path]
    (tmp_path / "config.json").write_text('{"architecture": "os.system"}')
    with pytest.raises(CheckpointError, match=r"names the architecture 'os\.system', which timm does not have"):
        load_published(f"timm:local-dir:{tmp_path}")
    with pytest.raises(
        CheckpointError, match=r"/nowhere/config\.json can't be read .*; give a folder like a repository of timm's"
    ):
        load_published("timm:local-dir:/nowhere")


@torch.no_grad()
def test_a_start_of_timm_gives_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pre-training embeds this token, whatever the network pools."""
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool="avg", fc_norm=False)
    monkeypatch.setattr("uniemox.checkpoints.published.load_timm", lambda *_: network)
    pixels = torch.randn(2, 3, 224, 224)
    start = load_start("timm:vit_tiny_patch16_224")
    torch.testing.assert_close(start(pixels), network.forward_features(pixels)[:, 0])
