"""Γ1 to Γ4 against stored values (float64, rtol 1e-9), finite differences and their own properties."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.func import functional_call

from uniemox.errors import ConfigError, ShapeError
from uniemox.model.fusion import build_fusion
from uniemox.model.uniemox import fused_diagnostics

NAMES = ("static", "dynamic", "attention", "gated")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_equals_stored_values(name: str, equations: dict[str, Tensor]) -> None:
    scene = equations["scene"]
    person = equations["person"]
    heads = equations["attention.scene_proj"].shape[0]
    fusion = build_fusion(name, channels=scene.shape[1], heads=heads).double()
    weights = {key.removeprefix(f"{name}."): value for key, value in equations.items() if key.startswith(f"{name}.")}
    expected = weights.pop("out")
    fusion.load_state_dict(weights)  # strict: the stable names, all of them
    torch.testing.assert_close(fusion(scene, person), expected, rtol=1e-9, atol=1e-12)


def test_scaled_attention_distinguishes_images_where_the_offset_dominates_attention() -> None:
    """With ε as large as features are, Γ2's products, C times smaller, are negligible; ours keep their scale."""
    torch.manual_seed(0)
    scene = draw(64, 512)
    person = draw(64, 512, seed=1)
    shares = {}
    cosines = {}
    for name in ("attention", "scaled_attention"):
        fusion = build_fusion(name, channels=512).double()
        torch.nn.init.constant_(fusion.bias, 0.1)
        diagnostics = fused_diagnostics(fusion(scene, person), fusion.bias)
        shares[name] = diagnostics["offset_share"].item()
        cosines[name] = diagnostics["fused_cosine"].item()
    assert shares["attention"] > 0.98
    assert cosines["attention"] > 0.98
    assert shares["scaled_attention"] < 0.5
    assert cosines["scaled_attention"] < 0.7


def test_scaled_attention_is_attention_with_scaled_products() -> None:
    torch.manual_seed(0)
    scaled = build_fusion("scaled_attention", 8, heads=2).double()
    plain = build_fusion("attention", 8, heads=2).double()
    plain.load_state_dict(scaled.state_dict())
    plain.scale = 8 / 2
    scene = draw(3, 8)
    person = draw(3, 8, seed=1)
    torch.testing.assert_close(scaled(scene, person), plain(scene, person), rtol=0, atol=0)


def test_diagnostics_of_one_direction_and_of_orthogonal_features() -> None:
    same = torch.ones(3, 4)
    orthogonal = torch.eye(4)
    assert fused_diagnostics(same, torch.ones(4))["fused_cosine"].item() == pytest.approx(1)
    assert fused_diagnostics(same, torch.ones(4))["offset_share"].item() == pytest.approx(1)
    assert fused_diagnostics(orthogonal, None).keys() == {"fused_cosine"}
    assert fused_diagnostics(orthogonal, None)["fused_cosine"].item() == pytest.approx(0)
    assert fused_diagnostics(same[:1], None)["fused_cosine"].item() == pytest.approx(0)
    of_zeros = fused_diagnostics(torch.zeros(3, 4), torch.ones(4))
    assert all(value.isfinite() for value in of_zeros.values())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_match_finite_differences(name: str) -> None:
    torch.manual_seed(1)
    fusion = build_fusion(name, channels=4, heads=2).double()
    names = [name for name, _ in fusion.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in fusion.parameters()]
    views = [draw(3, 4, seed=i).requires_grad_() for i in range(2)]

    def call(scene: Tensor, person: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(fusion, dict(zip(names, parameters, strict=True)), (scene, person))

    assert gradcheck(call, (*views, *values))


@pytest.mark.parametrize("name", NAMES)
def test_each_image_is_fused_alone_and_depends_on_both_streams(name: str) -> None:
    """Γ2's softmax runs over the channels of one sample, not over the batch."""
    torch.manual_seed(0)
    fusion = build_fusion(name, channels=8).double()
    scene = draw(5, 8)
    person = draw(5, 8, seed=1)
    fused = fusion(scene, person)
    alone = torch.cat([fusion(scene[i : i + 1], person[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(fused, alone, rtol=1e-12, atol=1e-12)
    assert fusion(scene[:0], person[:0]).shape == (0, 8)
    assert not torch.allclose(fused, fusion(draw(5, 8, seed=2), person))
    assert not torch.allclose(fused, fusion(scene, draw(5, 8, seed=2)))


def test_initial_weights_have_the_documented_distributions() -> None:
    torch.manual_seed(0)
    static = build_fusion("static", 512)
    dynamic = build_fusion("dynamic", 512)
    attention = build_fusion("attention", 512)
    gated = build_fusion("gated", 512)
    assert not list(static.parameters())
    assert torch.equal(static.weight, torch.ones(512))
    for weight in (dynamic.scene_weight, dynamic.person_weight):
        assert weight.shape == (3, 512)
        assert weight.mean().item() == pytest.approx(1 / 3, abs=0.003)
        assert weight.std().item() == pytest.approx(0.02, abs=0.002)
    for fusion in (attention, gated):
        for proj in (fusion.scene_proj, fusion.person_proj):
            assert proj.shape == (3, 512, 512)
            assert proj.std().item() == pytest.approx(512**-0.5, rel=0.02)
    for fusion in (dynamic, attention, gated):
        assert torch.equal(fusion.bias, torch.full((512,), 1e-5))


@pytest.mark.parametrize("channels", [64, 512])
@pytest.mark.parametrize("name", NAMES)
def test_initial_features_of_unrelated_samples_differ(name: str, channels: int) -> None:
    """Mean cosine of Υ between samples: near 0, and 1/π after Γ3's ReLU. It was 0.99 with torch's default biases."""
    torch.manual_seed(0)
    with torch.no_grad():
        fused = build_fusion(name, channels)(torch.randn(64, channels), torch.randn(64, channels))
    cosines = torch.nn.functional.normalize(fused, dim=1) @ torch.nn.functional.normalize(fused, dim=1).T
    mean = float((cosines.sum() - 64) / (64 * 63))
    assert mean < (0.35 if name == "gated" else 0.01)
    # Differences between samples are larger than the offset ε that all share.
    assert fused.std() > 20 * 1e-5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shapes", [((2, 8), (2, 7)), ((2, 8), (3, 8)), ((2, 7), (2, 7)), ((8,), (8,))])
def test_widths_that_do_not_fit_are_refused(name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match=r"must both be \(N, 8\)"):
        build_fusion(name, channels=8)(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_other_names_and_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="static, dynamic, attention, gated"):
        build_fusion("sum", channels=8)
    with pytest.raises(ConfigError, match="heads=0"):
        build_fusion("gated", channels=8, heads=0)
