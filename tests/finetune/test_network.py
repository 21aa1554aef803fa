"""The initial classifier of fine-tuning: loaded weights are the run's, random ones are not."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import DropPath
from torch import Tensor

from tests.data.tree import says
from tests.export.networks import info_of
from tests.runs import BOTH, SIZE, finetuned, pretrained
from uniemox.checkpoints import load_published
from uniemox.checkpoints.classifier import describe_encoder, load_classifier, save_classifier
from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import CheckpointError, ConfigError, ShapeError, UniemoxError
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.network import BuiltNetwork, build_network, restart
from uniemox.io.run_record import required_field
from uniemox.network_spec import NetworkSpec
from uniemox.training.optimization import parameter_groups
from uniemox.views.patches import IMAGENET

SCENE = NetworkConfig()


def build(init: object, config: NetworkConfig = SCENE, seed: int = 0) -> BuiltNetwork:
    torch.manual_seed(seed)
    return build_network(str(init), config, size=SIZE, outputs=3)


def drawn(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that hold more than one number, and are no position table."""
    return {name: value for name, value in tensors.items() if value.std() > 0 and "pos_embed" not in name}


def test_a_runs_encoder_and_fusion_are_loaded() -> None:
    """Only the head and the norm before it are new."""
    saved = load_file(pretrained() / "model.safetensors")
    network = build(pretrained(), BOTH)
    ours = network.classifier.state_dict()
    assert [name for name in ours if name not in saved] == ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    for name in set(ours) & set(saved):
        assert torch.equal(ours[name], saved[name]), name
    assert sum(name.startswith("fusion.") for name in ours) > 5
    spec = network.spec
    assert (spec.feature_width, spec.outputs, spec.fused_width, spec.fusion, spec.fusion_heads) == (
        32,
        3,
        16,
        "gated",
        3,
    )
    assert network.classifier.training


def test_the_mean_of_tokens_has_a_new_norm() -> None:
    saved = load_file(pretrained() / "encoder.safetensors")
    ours = build(pretrained()).classifier.encoder.state_dict()
    assert torch.equal(ours["blocks.1.mlp.fc2.weight"], saved["blocks.1.mlp.fc2.weight"])
    assert not torch.equal(ours["fc_norm.weight"], saved["norm.weight"])


def test_another_fusion_has_new_weights() -> None:
    network = build(pretrained(), replace(BOTH, fusion="static", fused_width=24, fusion_heads=2))
    assert network.spec.fused_width == 24
    assert network.spec.fusion == "static"
    assert network.classifier.embed.weight.shape == (24, 32)
    # The fusion's own name keeps its pre-trained size.
    same = build(pretrained(), replace(BOTH, fusion="gated", fused_width=24))
    assert same.spec.fused_width == 16


@pytest.mark.parametrize("config", [SCENE, replace(BOTH, fusion="gated")])
def test_scratch_keeps_no_weight_of_the_run(config: NetworkConfig) -> None:
    ours, theirs = (build(init, config).classifier.state_dict() for init in (f"scratch:{pretrained()}", pretrained()))
    assert [name for name in ours if name.startswith("encoder")] == [n for n in theirs if n.startswith("encoder")]
    for name, value in drawn({name: value for name, value in theirs.items() if "encoder" in name}).items():
        assert not torch.equal(ours[name], value), name
    table = "encoder.pos_embed"
    assert torch.equal(ours[table], theirs[table])
    assert torch.equal(ours["encoder.blocks.0.norm1.weight"], torch.ones(32))


@pytest.mark.parametrize("method", ["dino", "moco_v3", "beit", "simmim", "simmim_swin", "cae", "mixmae"])
def test_scratch_keeps_no_weight_of_the_checkpoint(golden: Path, method: str) -> None:
    """Learned tables, LayerScale and the biases of q and v included; fixed sin-cos tables stay."""
    heads = {"dino": 3, "moco_v3": 4, "cae": 3}.get(method)
    published = load_published(golden / method / "checkpoint.pth", heads=heads)
    encoder = copy.deepcopy(published)
    torch.manual_seed(0)
    restart(encoder, NetworkSpec(encoders=(describe_encoder(published),)))
    before = dict(published.named_parameters())
    redrawn = 0
    for name, value in encoder.named_parameters():
        if before[name].std() > 0 and not (name.endswith("pos_embed") and method in ("moco_v3", "cae", "mixmae")):
            assert not torch.equal(value, before[name]), name
            redrawn += 1
    assert redrawn > 10


def test_random_weights_are_drawn_from_the_seed() -> None:
    init = "scratch:timm:vit_tiny_patch16_224"
    first, same, other = (build(init, seed=seed).classifier.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert not torch.equal(first["encoder.blocks.0.attn.qkv.weight"], other["encoder.blocks.0.attn.qkv.weight"])


def test_a_file_gives_its_encoder(tmp_path: Path) -> None:
    shutil.copy(pretrained() / "encoder.safetensors", tmp_path / "weights.safetensors")
    file = build(tmp_path / "weights.safetensors")
    run = build(pretrained())
    for name, value in run.classifier.encoder.state_dict().items():
        if not name.startswith("fc_norm"):
            assert torch.equal(file.classifier.encoder.state_dict()[name], value)
    with pytest.raises(ConfigError, match=says("give --network.fusion, one of static")):
        build(tmp_path / "weights.safetensors", BOTH)


def test_timm_network_brings_its_own_normalisation() -> None:
    # test_vit has a mean of 0.5.
    assert tuple(build("scratch:timm:test_vit").stats) != tuple(IMAGENET)
    assert build(pretrained()).stats == IMAGENET


def test_a_fine_tuning_run_is_a_start_too(tmp_path: Path) -> None:
    """Its encoder and its fusion, and how its pixels are normalised."""
    saved = load_file(finetuned("both") / "model.safetensors")
    network = build(finetuned("both"), BOTH)
    for name, value in network.classifier.state_dict().items():
        if name.startswith(("encoder.", "embed.", "fusion.")):
            assert torch.equal(value, saved[name]), name
    assert network.stats == build(pretrained(), BOTH).stats
    assert network.spec.encoders == build(pretrained(), BOTH).spec.encoders
    again = build(f"scratch:{finetuned('both')}").classifier.state_dict()
    for name, value in drawn({name: value for name, value in saved.items() if "encoder" in name}).items():
        assert not torch.equal(again[name], value), name
    with pytest.raises(ConfigError, match=says("was fine-tuned at 32 px; give --view.size 32")):
        build_network(str(finetuned("both")), SCENE, size=64, outputs=3)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=says(tmp_path / "config.json", "there is no field config.view.size")):
        required_field(tmp_path, "config", "view", "size")
    with pytest.raises(ShapeError, match=says("was pre-trained at 32 px, which --view.size 32 (or its preset) sets")):
        build_network(str(pretrained()), SCENE, size=36, outputs=3)


def test_a_run_that_claims_a_large_fusion_is_refused_without_memory(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(pretrained(), run)
    config = json.loads((run / "config.json").read_text())
    # Γ3 of this width would take 1 PB.
    config["config"]["model"]["decoder"]["width"] = 10**7
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"in the file, but its header describes \(.*10000000"):
        build_network(str(run), NetworkConfig(streams="both"), size=SIZE, outputs=8)


def test_drop_path_grows_with_depth() -> None:
    encoder: Any = build(pretrained(), replace(SCENE, drop_path=0.3)).classifier.encoder
    assert isinstance(encoder.blocks[1].drop_path1, DropPath)
    assert encoder.blocks[1].drop_path1.drop_prob == pytest.approx(0.3)


def test_unfinished_and_foreign_starts_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("nothing")
    starts: list[tuple[object, type[UniemoxError], str]] = [
        ("", ConfigError, "--init is missing"),
        ("scratch:", ConfigError, "--init is missing"),
        (tmp_path, CheckpointError, "has no encoder.safetensors: is it a finished run?"),
        (tmp_path / "none.pth", CheckpointError, "there is no file"),
        (tmp_path / "text.pth", CheckpointError, "text.pth"),
        ("scratch:timm:vit_tinyy", CheckpointError, "timm has no model 'vit_tinyy'"),
    ]
    for init, error, message in starts:
        with pytest.raises(error, match=says(message)):
            build(init)
    with pytest.raises(UniemoxError):
        build_network(str(pretrained()), SCENE, size=33, outputs=3)


def test_features_of_several_encoders_are_concatenated(tmp_path: Path) -> None:
    """Each sees its own normalisation; saved, loaded and fine-tuned layer by layer like one."""
    names = ("timm:test_vit", "timm:mobilenetv2_035?pad_type=same&mean=0.5&std=0.25")
    network = build_network(f"scratch:{','.join(names)}", NetworkConfig(), size=64, outputs=3)
    first, second = network.classifier.encoder.encoders
    classifier = network.classifier.eval()
    pixels = torch.rand(2, 3, 64, 64)
    views = (pixels - torch.tensor(IMAGENET.mean).view(3, 1, 1)) / torch.tensor(IMAGENET.std).view(3, 1, 1)
    stats = first.pretrained_cfg
    single_outputs = [
        (pixels - torch.tensor(m).view(3, 1, 1)) / torch.tensor(s).view(3, 1, 1)
        for m, s in ((stats["mean"], stats["std"]), ((0.5,) * 3, (0.25,) * 3))
    ]
    expected = torch.cat([first(single_outputs[0]), second(single_outputs[1])], dim=1)
    torch.testing.assert_close(classifier.features(views), expected, rtol=1e-4, atol=1e-5)
    assert network.spec.feature_width == expected.shape[1]

    info = ClassifierInfo(
        label_set="custom", kind="evoked", size=64, network=replace(network.spec, labels=("a", "b", "c"))
    )
    save_classifier(classifier, info, tmp_path / "model.safetensors")
    loaded, _ = load_classifier(tmp_path / "model.safetensors")
    assert torch.equal(loaded(views), classifier(views))
    groups = parameter_groups(classifier, 0.05, 0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(classifier.parameters()))
    assert max(group["lr_scale"] for group in groups) == 1


def test_a_vit_of_timm_can_give_the_mean_of_its_patch_tokens(tmp_path: Path) -> None:
    """Table III's ViT from scratch does so, like the other plain ViTs; the written model keeps it."""
    built = build_network("scratch:timm:test_vit?global_pool=avg", SCENE, size=64, outputs=3)
    encoder: Any = built.classifier.encoder.eval()
    views = torch.randn(2, 3, 64, 64)
    assert encoder.global_pool == "avg"
    with torch.no_grad():
        tokens = encoder.forward_features(views)
        expected = encoder.fc_norm(tokens[:, encoder.num_prefix_tokens :].mean(dim=1))
        assert torch.allclose(encoder(views), expected)
    assert describe_encoder(encoder).options["global_pool"] == "avg"


@pytest.mark.parametrize("source", ["timm:test_vit?depth=3", "timm:test_vit?mean=x"])
def test_unsupported_options_are_refused(source: str) -> None:
    with pytest.raises(CheckpointError, match="use pad_type, conv_head=none, global_pool=avg, mean or std"):
        build_network(source, NetworkConfig(), size=64, outputs=3)


def test_last_convolution_can_be_left_out(tmp_path: Path) -> None:
    """Files without it need this: features are the last block's channels, in the file of the classifier too."""
    full = timm.create_model("test_efficientnet", num_classes=0)
    state = {name: value for name, value in full.state_dict().items() if not name.startswith(("conv_head", "bn2"))}
    save_file(state, tmp_path / "body.safetensors")
    network = build_network(
        f"timm:test_efficientnet?conv_head=none@{tmp_path / 'body.safetensors'}", NetworkConfig(), size=64, outputs=3
    )
    pixels = torch.randn(2, 3, 64, 64)
    expected = full.eval().blocks(full.bn1(full.conv_stem(pixels))).mean(dim=(2, 3))
    classifier = network.classifier.eval()
    torch.testing.assert_close(classifier.features(scene=pixels), expected)
    assert network.spec.feature_width == expected.shape[1]
    info = info_of(64, network=network.spec, labels=("a", "b", "c"))
    save_classifier(classifier, info, tmp_path / "model.safetensors")
    torch.testing.assert_close(load_classifier(tmp_path / "model.safetensors")[0](scene=pixels), classifier(pixels))
    with pytest.raises(CheckpointError, match="no convolution conv_head"):
        build_network("scratch:timm:test_vit?conv_head=none", NetworkConfig(), size=64, outputs=3)
