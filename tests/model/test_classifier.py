"""The classifier: input of the head, names of its state, drop path, neighbours. tests/export tests it as ONNX."""

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from uniemox.errors import ConfigError, ShapeError
from uniemox.model.building import build_classifier, with_fitted
from uniemox.model.classifier import Classifier, NeighbourHead, Streams, set_drop_path
from uniemox.model.encoder import build_encoder, encode_visible
from uniemox.model.fusion import build_fusion
from uniemox.network_spec import NetworkSpec
from uniemox.views.patches import patchify


def vit(**options: object) -> VisionTransformer:
    return build_encoder("vit_tiny_patch16_224", 32, **{"embed_dim": 16, "depth": 2, "num_heads": 2, **options})


def classifier(streams: Streams, outputs: int = 4) -> Classifier:
    """A small classifier whose head has weights that matter."""
    torch.manual_seed(0)
    parts = {"embed": nn.Linear(16, 8), "fusion": build_fusion("attention", 8)} if streams == "both" else {}
    model = Classifier(vit(), feature_width=16, outputs=outputs, streams=streams, **parts).eval()
    nn.init.normal_(model.head.weight)
    return model


def views(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_with_one_stream_the_head_reads_the_encoders_features(count: int) -> None:
    scene, person = views(count)
    for streams, view in (("scene", scene), ("person", person)):
        model = classifier(streams)
        logits = model(scene, person)
        assert logits.shape == (count, 4)
        # The other view is ignored.
        assert torch.equal(logits, model(**{streams: view}))
        torch.testing.assert_close(logits, model.head(model.encoder(view)))
        names = {f"encoder.{name}" for name in model.encoder.state_dict()}
        assert set(model.state_dict()) == names | {"head.weight", "head.bias"}


@pytest.mark.parametrize("name", ["static", "dynamic", "attention", "gated"])
@torch.no_grad()
def test_the_norm_gives_small_fused_features_a_deviation_of_one(name: str) -> None:
    """Υ of Γ2 at 512 channels has a deviation of some thousandths; with an eps of 1e-6 the norm gave 0.78."""
    torch.manual_seed(0)
    parts = {"embed": nn.Linear(16, 512), "fusion": build_fusion(name, 512)}
    nn.init.xavier_uniform_(parts["embed"].weight)
    model = Classifier(vit(), feature_width=16, outputs=4, streams="both", **parts).eval()
    features = model.fuse(torch.randn(32, 2, 16))
    torch.testing.assert_close(features.std(dim=1, correction=0), torch.ones(32), rtol=1e-3, atol=0)


@pytest.mark.parametrize("count", [0, 1, 3])
@torch.no_grad()
def test_both_streams_are_fused_as_in_pre_training(count: int) -> None:
    model = classifier("both")
    scene, person = views(count)
    alpha, beta = (model.embed(model.encoder(view)) for view in (scene, person))
    expected = model.norm(model.fusion(alpha, beta))
    torch.testing.assert_close(model.features(scene, person), expected)
    torch.testing.assert_close(model(scene, person), model.head(expected))
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == {"encoder", "embed", "fusion", "norm", "head"}


def test_both_streams_are_encoded_in_one_batch_and_all_parameters_get_gradients() -> None:
    model = classifier("both").train()
    sizes = []
    model.encoder.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    model(*views(3)).square().sum().backward()
    assert sizes == [6]
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_bf16_fuses_in_float32() -> None:
    model = classifier("both")
    scene, person = views(2)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.features(scene, person).dtype == torch.float32
        assert model(scene, person).dtype == torch.bfloat16


def test_the_head_is_initialised_as_maes() -> None:
    torch.manual_seed(0)
    head = Classifier(nn.Flatten(), feature_width=4000, outputs=5, streams="scene").head
    assert head.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert not head.bias.any()


def test_views_that_do_not_fit_are_refused() -> None:
    scene, person = views(2)
    for streams, given_views, message in [
        ("scene", (None, person), "scene view is missing.*streams='scene'"),
        ("person", (scene, None), "person view is missing"),
        ("both", (scene, None), "person view is missing"),
        ("both", (scene, person[:1]), "must have one shape"),
        ("scene", (scene.to(torch.uint8),), r"normalised floats.*uint8"),
        ("scene", (scene[0],), r"\(N, 3, H, W\)"),
    ]:
        with pytest.raises(ShapeError, match=message):
            classifier(streams)(*given_views)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"streams": "all"}, "scene, person, both"),
        ({"outputs": 0}, "at least 1"),
        ({"feature_width": 0}, "at least 1"),
        ({"streams": "both"}, "only then"),
        ({"streams": "both", "embed": nn.Linear(16, 8)}, "only then"),
        ({"streams": "both", "fusion": build_fusion("static", 8)}, "only then"),
        ({"embed": nn.Linear(16, 8), "fusion": build_fusion("static", 8)}, "only then"),
        ({"streams": "both", "embed": nn.Linear(12, 8), "fusion": build_fusion("static", 8)}, "12 channels"),
    ],
)
def test_parts_that_do_not_fit_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Classifier(nn.Identity(), **{"feature_width": 16, "outputs": 2, "streams": "scene", **settings})


@torch.no_grad()
def test_the_feature_of_an_encoder_is_the_token_that_pre_training_embeds() -> None:
    encoder = vit()
    scene, _ = views(3)
    tokens = encode_visible(encoder, patchify(scene, 16), torch.arange(4).expand(3, 4))
    encoder.reset_classifier(0, "token")
    torch.testing.assert_close(encoder(scene), tokens[:, 0], rtol=1e-5, atol=1e-6)


def rates(network: nn.Module) -> list[float]:
    """Drop rates of all blocks that can be skipped, in order; two drop paths of a block must agree."""
    rates_of_blocks = []
    for module in network.modules():
        layers = [getattr(module, name) for name in ("drop_path1", "drop_path2", "drop_path") if hasattr(module, name)]
        values = {layer.drop_prob if isinstance(layer, DropPath) else 0.0 for layer in layers}
        assert len(values) <= 1
        rates_of_blocks += values
    return rates_of_blocks


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"embed_dim": 16, "depth": 5, "num_heads": 2}),
        ("beit_base_patch16_224", {"embed_dim": 16, "depth": 5, "num_heads": 2}),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": (2, 2, 1, 1), "num_heads": (1, 1, 1, 1)}),
    ],
)
def test_drop_rates_equal_timms(name: str, options: dict[str, object]) -> None:
    with torch.device("meta"):
        ours = timm.create_model(name, num_classes=0, **options)
        timms = timm.create_model(name, num_classes=0, drop_path_rate=0.3, **options)
    names = list(ours.state_dict())
    set_drop_path(ours, 0.3)
    assert rates(ours) == pytest.approx(rates(timms))
    assert rates(ours)[0] == 0
    assert rates(ours)[-1] == pytest.approx(0.3)
    assert list(ours.state_dict()) == names
    set_drop_path(ours, 0)
    assert not any(rates(ours))


def test_drop_path_of_a_convolutional_network() -> None:
    with torch.device("meta"):
        network = timm.create_model("mobilenetv2_100", num_classes=0)
    set_drop_path(network, 0.2)
    assert rates(network) == pytest.approx(np.linspace(0, 0.2, 17).tolist())


def test_drop_path_drops_samples_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = vit()
    scene, _ = views(1)
    scene = scene.expand(64, -1, -1, -1)
    set_drop_path(encoder, 0.5)
    # In the last block, each of attention and MLP is on or off.
    assert len(encoder.train()(scene).round(decimals=4).unique(dim=0)) == 4
    assert len(encoder.eval()(scene).round(decimals=4).unique(dim=0)) == 1


def test_drop_path_is_refused_without_blocks_and_out_of_range() -> None:
    set_drop_path(nn.Linear(2, 2), 0)
    with pytest.raises(ConfigError, match="Linear has no blocks"):
        set_drop_path(nn.Linear(2, 2), 0.1)
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="at least 0 and below 1"):
            set_drop_path(vit(), rate)


@given(
    count=st.integers(1, 4),
    bank_size=st.integers(1, 9),
    classes=st.integers(1, 4),
    neighbours=st.integers(1, 12),
    temperature=st.floats(0.02, 5),
    seed=st.integers(0, 99),
)
def test_neighbour_head_equals_its_plain_form_in_numpy(
    count: int, bank_size: int, classes: int, neighbours: int, temperature: float, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    bank = draw.normal(size=(bank_size, 5))
    queries = draw.normal(size=(count, 5))
    targets = draw.dirichlet(np.ones(classes), size=bank_size)
    head = NeighbourHead(torch.from_numpy(bank), torch.from_numpy(targets), neighbours, temperature)
    logits = head(torch.from_numpy(queries))
    assert logits.shape == (count, classes)
    for query, row in zip(queries, logits.exp().numpy() - 1e-6, strict=True):
        cosines = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines)[:neighbours]
        expected = softmax(cosines[nearest] / temperature) @ targets[nearest]
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


def test_an_image_of_the_bank_gets_its_own_label() -> None:
    bank = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    head = NeighbourHead(bank, nn.functional.one_hot(labels, 3), neighbours=1)
    assert torch.equal(head(7 * bank).argmax(dim=1), labels)
    assert list(head.parameters()) == []
    assert set(head.state_dict()) == {"bank", "targets"}


def test_spec_with_fitted_neighbours_rebuilds_the_head() -> None:
    model = classifier("scene")
    spec = NetworkSpec(feature_width=16, outputs=4)
    assert with_fitted(spec, model) == spec
    model.head = NeighbourHead(torch.randn(12, 16), torch.eye(4).repeat(3, 1), temperature=0.1)
    fitted = with_fitted(spec, model)
    assert (fitted.head, fitted.bank, fitted.neighbours, fitted.vote_temperature) == ("neighbours", 12, 12, 0.1)
    assert build_classifier(fitted, nn.Identity()).head.state_dict().keys() == model.head.state_dict().keys()


@pytest.mark.parametrize(
    ("bank", "targets", "settings", "error"),
    [
        (torch.zeros(0, 4), torch.zeros(0, 2), {}, ShapeError),
        (torch.zeros(3, 4), torch.zeros(2, 2), {}, ShapeError),
        (torch.zeros(3, 4), torch.zeros(3), {}, ShapeError),
        (torch.zeros(3, 4), torch.zeros(3, 2), {"neighbours": 0}, ConfigError),
        (torch.zeros(3, 4), torch.zeros(3, 2), {"temperature": 0.0}, ConfigError),
    ],
)
def test_banks_that_do_not_fit_are_refused(
    bank: Tensor, targets: Tensor, settings: dict[str, float], error: type[Exception]
) -> None:
    with pytest.raises(error):
        NeighbourHead(bank, targets, **settings)
