"""Every trained parameter is in one group, with timm's scale for its layer and its weight decay."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from tests.networks import small_model
from uniemox.errors import ConfigError
from uniemox.model.classifier import Classifier, set_drop_path
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.model.fusion import build_fusion
from uniemox.training.optimization import build_grouped_optimizer, build_optimizer, freeze_layers, parameter_groups
from uniemox.views.patches import IMAGENET

VIT = {"embed_dim": 16, "depth": 3, "num_heads": 2}
NETWORKS = {
    "vit_tiny_patch16_224": VIT,
    "beit_base_patch16_224": VIT,
    "swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 1, 1, 1)},
    "mobilenetv2_100": {},
}


def classifier(name: str = "vit_tiny_patch16_224", *, both: bool = False, **options: object) -> Classifier:
    with torch.device("meta"):
        encoder = timm.create_model(name, num_classes=0, **NETWORKS[name], **options)
    width = encoder.num_features if name != "mobilenetv2_100" else 1280
    if both:
        parts = {"embed": nn.Linear(width, 8), "fusion": build_fusion("gated", 8)}
    else:
        parts = {}
    return Classifier(encoder, feature_width=width, outputs=3, streams="both" if both else "scene", **parts)


def settings_of(model: nn.Module, groups: list[dict]) -> dict[str, tuple[float, float]]:
    """(lr_scale, weight_decay) of every parameter, by name; each must be there once."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = [(names[id(p)], (g["lr_scale"], g["weight_decay"])) for g in groups for p in g["params"]]
    assert len(settings) == len(dict(settings))
    return dict(settings)


def test_layers_of_each_of_several_encoders_are_counted_from_the_head() -> None:
    """The last layer of a shallow encoder beside a deep one trains as fast as alone; its first one is frozen first."""
    with torch.device("meta"):
        deep, shallow = (
            timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**VIT, "depth": depth}) for depth in (6, 2)
        )
    encoder = ConcatEncoder([deep, shallow], [IMAGENET, IMAGENET])
    model = Classifier(encoder, feature_width=32, outputs=3, streams="scene")
    scales = {name: scale for name, (scale, _) in settings_of(model, parameter_groups(model, 0.05, 0.5)).items()}
    for i, depth in enumerate((6, 2)):
        for block in range(depth):
            scale = scales[f"encoder.encoders.{i}.blocks.{block}.mlp.fc1.weight"]
            assert scale == 0.5 ** (depth - block), (i, block)
    assert scales["head.weight"] == 1
    set_drop_path(encoder, 0.1)
    for network in (deep, shallow):
        assert network.blocks[-1].drop_path1.drop_prob == pytest.approx(0.1)
    freeze_layers(encoder, 1)
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert {name.removeprefix("encoders.0.") for name in frozen if name.startswith("encoders.0.")} == {
        name.removeprefix("encoders.1.") for name in frozen if name.startswith("encoders.1.")
    }
    assert "encoders.1.patch_embed.proj.weight" in frozen


@pytest.mark.thorough
@pytest.mark.parametrize("options", [{"global_pool": "avg"}, {"global_pool": "token"}])
@pytest.mark.parametrize("name", NETWORKS)
def test_layers_have_the_same_rate_beside_another_encoder_as_alone(name: str, options: dict[str, str]) -> None:
    """Also where timm does not name a tensor, such as the norm after the mean of a ViT."""
    options = options if name == "vit_tiny_patch16_224" else {}
    alone = classifier(name, **options)
    beside = classifier(name, **options)
    with torch.device("meta"):
        other = timm.create_model("vit_tiny_patch16_224", num_classes=0, **{**VIT, "depth": 9})
    encoder = ConcatEncoder([beside.encoder, other], [IMAGENET, IMAGENET])
    joined = Classifier(encoder, feature_width=99, outputs=3, streams="scene")
    settings = settings_of(joined, parameter_groups(joined, 0.05, 0.5))
    for key, (scale, _) in settings_of(alone, parameter_groups(alone, 0.05, 0.5)).items():
        if key.startswith("encoder."):
            assert settings[key.replace("encoder.", "encoder.encoders.0.", 1)][0] == scale, key


@pytest.mark.parametrize("layer_decay", [None, 0.5, 1.0])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_that_trains_is_in_one_group(name: str, both: bool, layer_decay: float | None) -> None:
    model = classifier(name, both=both)
    frozen = next(model.encoder.parameters())
    frozen.requires_grad_(False)
    settings = settings_of(model, parameter_groups(model, 0.05, layer_decay))
    assert set(settings) == {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    tables = ("cls_token", "pos_embed", "relative_position_bias_table")
    for key, (scale, decay) in settings.items():
        flat = model.get_parameter(key).ndim == 1 or key.endswith(tables)
        assert decay == (0 if flat else 0.05), key
        assert 0 < scale <= 1
        if layer_decay != 0.5 or not key.startswith("encoder."):
            assert scale == 1, key
    assert not frozen.requires_grad


@pytest.mark.parametrize(("options", "norm"), [({}, "norm"), ({"global_pool": "avg"}, "fc_norm")])
def test_scales_of_a_vit_are_maes(options: dict[str, object], norm: str) -> None:
    """Embeddings are layer 0, block i layer i + 1, everything else 1 (facebookresearch/mae, util/lr_decay.py).

    The final norm of timm's token ViTs belongs to the last block.
    """
    model = classifier(both=True, **options)
    settings = settings_of(model, parameter_groups(model, 0.05, 0.5))
    for key, (scale, _) in settings.items():
        part, *path = key.removeprefix("encoder.").split(".")
        if not key.startswith("encoder.") or part == "fc_norm":
            expected = 1.0
        elif part == "blocks":
            expected = 0.5 ** (3 - int(path[0]))
        else:
            expected = {"norm": 0.5}.get(part, 0.5**4)
        assert scale == expected, key
    assert f"encoder.{norm}.weight" in settings


@pytest.mark.parametrize("name", NETWORKS)
def test_scales_are_those_of_timms_whole_network(name: str) -> None:
    """timm's groups of the same network with a classifier of its own."""
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=3, **NETWORKS[name])
    groups = param_groups_layer_decay(
        network, 0.05, network.no_weight_decay() if name[0] != "m" else (), layer_decay=0.7
    )
    expected = settings_of(network, groups)
    model = classifier(name)
    settings = settings_of(model, parameter_groups(model, 0.05, 0.7))
    heads = {key for key in expected if key.split(".")[0] in ("head", "classifier")}
    assert {expected[key][0] for key in heads} == {1.0}
    encoders = {key.removeprefix("encoder."): value for key, value in settings.items() if key.startswith("encoder.")}
    assert encoders == {key: value for key, value in expected.items() if key not in heads}


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_head_lr_scale_does_not_change_the_encoder(layer_decay: float | None) -> None:
    model = classifier(both=True, global_pool="avg")
    before = settings_of(model, parameter_groups(model, 0.05, layer_decay))
    after = settings_of(model, parameter_groups(model, 0.05, layer_decay, head_lr_scale=10))
    for key, (scale, decay) in before.items():
        assert after[key] == (scale if key.startswith("encoder.") else 10, decay)


def test_register_tokens_are_not_decayed() -> None:
    model = classifier(reg_tokens=2)
    for layer_decay in (None, 0.5):
        settings = settings_of(model, parameter_groups(model, 0.05, layer_decay))
        assert settings["encoder.reg_token"][1] == 0


def test_parts_decay_only_matrices() -> None:
    layer = nn.Linear(2, 3)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    scale = nn.Parameter(torch.zeros(()))
    parts = [(layer.parameters(), 1.0), ([*frozen.parameters(), scale], 0.5)]
    groups = build_grouped_optimizer(parts, weight_decay=0.05).param_groups
    settings = [(group["params"], group["weight_decay"], group["lr_scale"]) for group in groups]
    assert settings == [([layer.weight], 0.05, 1.0), ([layer.bias], 0.0, 1.0), ([scale], 0.0, 0.5)]


def test_adamw_accepts_the_groups() -> None:
    model = classifier("mobilenetv2_100")
    for layer_decay in (None, 0.75):
        optimizer = torch.optim.AdamW(parameter_groups(model, 0.05, layer_decay), lr=1e-3)
        assert {"lr_scale", "weight_decay"} <= set(optimizer.param_groups[0])


def test_impossible_layer_decay_is_refused() -> None:
    for value in (0.0, -0.5, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            parameter_groups(classifier(), 0.05, value)
    plain = Classifier(nn.Flatten(), feature_width=4, outputs=2, streams="scene")
    assert set(settings_of(plain, parameter_groups(plain, 0.05, None))) == {"head.weight", "head.bias"}
    with pytest.raises(ConfigError, match="Flatten"):
        parameter_groups(plain, 0.05, 0.5)


def test_frozen_layers_are_the_first_as_layer_decay_counts_them() -> None:
    encoder = timm.create_model("mobilenetv2_050", num_classes=0)
    freeze_layers(encoder, 14)
    trained = {name.rpartition(".")[0] for name, p in encoder.named_parameters() if p.requires_grad}
    tops = {".".join(name.split(".")[:2]) for name in trained}
    assert tops == {"blocks.5", "blocks.6", "conv_head", "bn2"}


def test_impossible_numbers_of_frozen_layers_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs an encoder of timm"):
        freeze_layers(nn.Linear(2, 2), 1)
    encoder = timm.create_model("mobilenetv2_050", num_classes=0)
    for layers in (-1, 99):
        with pytest.raises(ConfigError, match="between 0 and 18"):
            freeze_layers(encoder, layers)
    freeze_layers(nn.Linear(2, 2), 0)


def test_pre_training_decays_the_layers_of_its_encoder_alone() -> None:
    model = small_model()
    settings = settings_of(model, build_optimizer(model, lr=1.0, layer_decay=0.5).param_groups)
    assert set(settings) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    scales = {name: scale for name, (scale, _) in settings.items()}
    assert [scales[f"encoder.blocks.{i}.mlp.fc1.weight"] for i in range(3)] == [0.125, 0.25, 0.5]
    assert scales["encoder.patch_embed.proj.weight"] == 0.0625
    assert {scale for name, scale in scales.items() if not name.startswith("encoder.")} == {1.0}
    assert all(group["lr"] == 1.0 for group in build_optimizer(model, lr=1.0).param_groups)
