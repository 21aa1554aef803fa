"""The pre-training model: MAE's numbers, what ablations leave out, shapes, precision and gradients."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.networks import load_npz, mae_model
from uniemox.errors import ConfigError, EncoderError, ShapeError
from uniemox.losses.config import LossWeights
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.uniemox import UniEmoX

L1_SCENE = "scene_reconstruction"
L1_PERSON = "person_reconstruction"
L2 = "contrastive_feature_alignment"
L3 = "semantic_visual_alignment"
Build = Callable[..., UniEmoX]


def only(*names: str) -> LossWeights:
    return LossWeights(**{name: float(name in names) for name in (L1_SCENE, L1_PERSON, L2, L3)})


def inputs(count: int = 4, width: int = 16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    draw = {"scene": (count, 3, 64, 64), "person": (count, 3, 64, 64)}
    draw |= {"image_features": (count, width), "text_features": (count, width)}
    draw |= {"scene_noise": (count, 16), "person_noise": (count, 16)}
    return {name: torch.rand(shape, generator=generator) for name, shape in draw.items()}


def calls_of(module: nn.Module) -> list[int]:
    """Batch sizes of all later calls of a module."""
    sizes: list[int] = []
    module.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return sizes


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("percent", [25, 50, 75, 85])
def test_prediction_loss_and_gradients_equal_maes(percent: int, norm_pix: bool, golden: Path) -> None:
    """Prediction, loss and gradients of golden/checkpoints/mae_pretrain (facebookresearch/mae, float32, 1e-5)."""
    stored = load_npz(golden / "mae_pretrain" / "expected.npz")
    model = mae_model(golden, percent, norm_pix=norm_pix)
    output = model(stored["x"], scene_noise=stored[f"noise_{percent}"])
    output.total.backward()

    assert torch.equal(output.scene_mask.hidden, stored[f"mask_{percent}"].float())
    tag = f"{percent}_npl{int(norm_pix)}"
    for value, name in [
        (output.scene_pred, f"pred_{percent}"),
        (output.losses[L1_SCENE], f"loss_{tag}"),
        (model.encoder.patch_embed.proj.weight.grad, f"grad_patch_embed_{tag}"),
        (model.decoder.mask_token.grad, f"grad_mask_token_{tag}"),
    ]:
        torch.testing.assert_close(value, stored[name].to(value.dtype), rtol=1e-5, atol=1e-5)


def test_all_losses_features_and_predictions_are_returned(build_model: Build) -> None:
    output = build_model()(**inputs())
    assert set(output.losses) == {L1_SCENE, L1_PERSON, L2, L3}
    assert output.total.item() == pytest.approx(sum(value.item() for value in output.losses.values()), rel=1e-6)
    for feature in (output.scene, output.person, output.fused):
        assert feature.shape == (4, 16)
    for pred in (output.scene_pred, output.person_pred):
        assert pred.shape == (4, 16, 768)
    assert output.scene_mask.hidden.sum().item() == output.person_mask.hidden.sum().item() == 4 * 12


def test_streams_do_not_leak_into_each_other(build_model: Build) -> None:
    """One batched pass of 2N gives the same as two passes of N."""
    model = build_model().eval()
    batch = inputs()
    output = model(**batch)
    swapped_batch = batch | {
        "scene": batch["person"],
        "person": batch["scene"],
        "scene_noise": batch["person_noise"],
        "person_noise": batch["scene_noise"],
    }
    swapped = model(**swapped_batch)
    torch.testing.assert_close(output.scene_pred, swapped.person_pred, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.scene, swapped.person, rtol=1e-4, atol=1e-5)
    single = model(**{name: value[1:2] for name, value in batch.items()})
    torch.testing.assert_close(output.scene_pred[1:2], single.scene_pred, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.fused[1:2], single.fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "views", "decoded", "fused"),
    [
        ({}, 2, 2, True),
        ({"losses": only(L2, L3)}, 2, 0, True),  # without L1
        ({"losses": only(L1_SCENE, L1_PERSON)}, 2, 2, False),  # without L2 and L3: no Υ, no teacher
        ({"losses": only(L1_SCENE)}, 1, 1, False),
        ({"losses": only(L1_PERSON)}, 2, 1, False),
        ({"losses": only(L1_SCENE, L2, L3)}, 2, 1, True),  # w = 0, as the released code
        ({"fusion": None, "losses": only(L1_SCENE, L2, L3)}, 1, 1, False),  # without fusion: no person view
        ({"fusion": None}, 2, 2, False),  # unless its reconstruction is on
        ({"fusion": None, "losses": only(L3)}, 1, 0, False),
    ],
)
def test_parts_that_are_off_are_neither_built_nor_computed(
    settings: dict[str, object], views: int, decoded: int, fused: bool, build_model: Build
) -> None:
    model = build_model(**settings)
    encoder_calls = calls_of(model.encoder.blocks)
    decoder_calls = [] if model.decoder is None else calls_of(model.decoder)
    output = model(**inputs())
    output.total.backward()
    assert encoder_calls == [4 * views]
    assert decoder_calls == ([4 * decoded] if decoded else [])
    assert (model.fusion is not None) == fused
    assert (output.person is not None) == (views == 2)
    # Every parameter is trained, so DistributedDataParallel finds no unused one.
    without_gradient = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without_gradient == []
    weights = model.config.losses
    assert set(output.losses) == {name for name in LossWeights.__slots__ if getattr(weights, name)}


def test_inputs_are_required_only_if_a_loss_needs_them(build_model: Build) -> None:
    batch = inputs()
    features = {name: batch.pop(name) for name in ("image_features", "text_features")}
    build_model(losses=only(L1_SCENE, L1_PERSON))(**batch)
    build_model(losses=only(L3), fusion=None)(batch["scene"], image_features=features["image_features"])
    for name, missing in (("image_features", "text_features"), ("text_features", "image_features")):
        with pytest.raises(ShapeError, match=f"teacher's {missing} are missing"):
            build_model()(**batch, **{name: features[name]})
    with pytest.raises(ShapeError, match="person view is missing"):
        build_model()(batch["scene"], **features)


def test_a_teacher_of_another_width_gets_a_projection(build_model: Build) -> None:
    model = build_model(teacher_width=24)
    output = model(**inputs(width=24))
    assert output.fused.shape == (4, 16)
    assert model.project.weight.shape == (24, 16)
    assert isinstance(build_model().project, nn.Identity)
    with pytest.raises(ShapeError, match=r"\(4, 16\) must be \(N, 24\).*teacher_width"):
        model(**inputs(width=16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scene": torch.zeros(4, 3, 32, 32)}, "encoder's input size"),
        ({"person": torch.zeros(3, 3, 64, 64)}, "encoder's input size"),
        ({"scene_noise": torch.zeros(4, 9)}, "mask noise"),
        ({"scene": torch.zeros(4, 3, 64, 64, dtype=torch.uint8)}, "normalised views of floats"),
        ({"image_features": torch.zeros(3, 16)}, "must both be"),
        ({"text_features": torch.zeros(4, 9)}, "width"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Tensor], message: str, build_model: Build) -> None:
    with pytest.raises(ShapeError, match=message):
        build_model()(**inputs() | change)


def test_settings_out_of_range_are_refused() -> None:
    for settings in ({"width": 30, "heads": 4}, {"width": 0}, {"depth": 0}, {"heads": 3}, {"heads": 0}):
        with pytest.raises(ConfigError, match=r"decoder\.width"):
            DecoderConfig(**settings)
    with pytest.raises(ConfigError, match="temperature"):
        ModelConfig(temperature=0.0)
    with pytest.raises(ConfigError, match="teacher_width"):
        ModelConfig(teacher_width=0)
    for settings in ({"fusion": "sum"}, {"fusion_heads": 0}):
        with pytest.raises(ConfigError, match="fusion"):
            ModelConfig(**settings)
    with pytest.raises(EncoderError, match="Linear"):
        UniEmoX(nn.Linear(2, 2), ModelConfig())


def test_checkpointed_blocks_run_twice_and_give_the_same_gradients(build_model: Build) -> None:
    """Encoder and decoder compute their activations again in the backward pass."""
    gradients = []
    for enable in (False, True):
        model = build_model()
        model.set_grad_checkpointing(enable)
        calls = [calls_of(block) for block in (model.encoder.blocks[0], model.decoder.blocks[0])]
        model(**inputs()).total.backward()
        assert calls == [[8] * (1 + enable)] * 2
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-7)


def test_position_tables_are_not_trained(build_model: Build) -> None:
    model = build_model()
    model(**inputs()).total.backward()
    assert model.encoder.pos_embed.grad is None
    assert "decoder.pos_embed" not in model.state_dict()


def test_bf16_fuses_and_compares_in_float32(build_model: Build) -> None:
    model = build_model()
    batch = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
    assert output.scene_pred.dtype == torch.bfloat16
    assert output.fused.dtype == output.losses[L2].dtype == output.losses[L3].dtype == torch.float32
    exact = model(**batch)
    assert output.total.item() == pytest.approx(exact.total.item(), rel=0.02)


def test_total_is_the_sum_of_the_losses_times_their_weights(build_model: Build) -> None:
    weights = LossWeights(person_reconstruction=0.5, contrastive_feature_alignment=0, semantic_visual_alignment=0.25)
    output = build_model()(**inputs(), weights=weights)
    parts = {name: value.item() for name, value in output.losses.items()}
    expected = parts[L1_SCENE] + 0.5 * parts[L1_PERSON] + 0.25 * parts[L3]
    assert output.total.item() == pytest.approx(expected)
    assert build_model()(**inputs()).total.item() == pytest.approx(sum(parts.values()))
