"""The methods that relate regions: shapes, gradients, small cases by hand, and that ONNX computes the same."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from uniemox.checkpoints.classifier import load_classifier, save_classifier
from uniemox.checkpoints.detector_weights import load_detector_weights
from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import ConfigError
from uniemox.labels import CAER, MIKELS, LabelSet
from uniemox.losses.methods import multiplicative_loss
from uniemox.model.building import build_classifier
from uniemox.model.config import REGION_METHODS
from uniemox.model.detectors import CLASSES
from uniemox.model.methods.ccim import Ccim
from uniemox.model.methods.relation import Relation, build_method
from uniemox.model.regions import GRID, MAX_DETECTIONS, Regions
from uniemox.network_spec import EncoderSpec, NetworkSpec
from uniemox.views.patches import normalise
from uniemox_paper.methods.eap import TEMPERATURE, Eap
from uniemox_paper.methods.emoticon import proximity
from uniemox_paper.methods.solver import EmotionGraph, Solver

NAMES = tuple(REGION_METHODS)
WIDTH = 6
# With fewer channels a ReLU may cut all of them off.
CHANNELS = 64
SIZE = 64


def regions(method: Relation, seed: int, count: int = 3) -> dict:
    """Random regions in place of those of the method's reader."""
    draw = torch.Generator().manual_seed(seed)
    counts = {"cells": GRID**2, "body": GRID**2, "objects": MAX_DETECTIONS, "people": MAX_DETECTIONS}
    groups = {}
    for group in method.groups:
        shape = (count, counts.get(group, 1))
        corners = torch.rand(*shape, 2, 2, generator=draw).sort(dim=2).values  # (N, T, 2, 2)
        groups[group] = Regions(
            torch.randn(*shape, WIDTH, generator=draw).requires_grad_(),
            torch.rand(*shape, CLASSES, generator=draw),
            corners.flatten(2),
            (torch.rand(shape, generator=draw) - 0.3).clamp(min=0),
        )
    return groups


def built(name: str, labels: LabelSet = MIKELS, skip: bool = True) -> Relation:
    torch.manual_seed(0)
    options = {"eap": {"word_counts": [len(labels), 5, 2]}, "stimuli": {"concatenates": True}}.get(name, {})
    return build_method(name, width=WIDTH, channels=CHANNELS, labels=labels.labels, skip=skip, **options)


@pytest.mark.thorough
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 4))
@settings(max_examples=10)
def test_all_parameters_and_regions_get_gradients(name: str, skip: bool, seed: int, count: int) -> None:
    method = built(name, skip=skip)
    groups = regions(method, seed, count)
    # All regions are present, because absent ones get no gradient.
    for group, part in groups.items():
        groups[group] = part._replace(presence=torch.ones_like(part.presence))
    features = method(groups)
    assert features.shape == (count, method.width)
    target = torch.eye(len(MIKELS))[torch.arange(count) % len(MIKELS)]
    logits = torch.nn.Linear(method.width, len(MIKELS))(features)
    words = torch.ones(count, sum(method.kinds)) if name == "eap" else None
    base = logits.square().sum()
    loss = base + method.loss(base, logits=logits, features=features, target=target, batch_targets=words).sum()
    assert torch.isfinite(loss)
    loss.backward()
    for parameter in method.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    for group, part in groups.items():
        # Without the skip these methods read only the scene's cells or objects.
        if group == "scene" and not skip and name in ("mdan", "rrla", "emoticon"):
            assert part.features.grad is None
            continue
        assert part.features.grad is not None, group
        assert (part.features.grad.abs().sum(dim=(1, 2)) > 0).all(), group


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=5)
def test_features_of_an_image_do_not_depend_on_its_batch(name: str, seed: int) -> None:
    method = built(name).eval()
    together = regions(method, seed)
    with torch.no_grad():
        features = method(together)
        for i in range(3):
            alone = {group: Regions(*(value[i : i + 1] for value in part)) for group, part in together.items()}
            torch.testing.assert_close(method(alone), features[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_skip_is_the_normed_features_of_whole_views(name: str) -> None:
    """With it they come first, so that a head on them is a linear probe; without it they are not among the features."""
    method = built(name)
    without_skip = built(name, skip=False)
    groups = regions(method, 0)
    with torch.no_grad():
        features = method(groups)
        assert without_skip(groups).shape == (3, without_skip.width)
    assert (method.linear > 0, method.linear % WIDTH, without_skip.linear) == (True, 0, 0)
    skipped = features[:, : method.linear].unflatten(1, (-1, WIDTH)).sort(dim=1).values
    views = [groups[group].features[:, 0] for group in ("scene", "person") if group in groups]
    normed = torch.stack([torch.nn.functional.layer_norm(view, (WIDTH,)) for view in views], dim=1).sort(dim=1).values
    torch.testing.assert_close(skipped, normed, rtol=1e-4, atol=1e-4)


def test_stimuli_aware_concatenates_its_branches() -> None:
    """Image, objects and face change their own features alone; older files have the state of one LSTM over all."""
    method = built("stimuli", skip=False).eval()
    groups = regions(method, 0)
    groups = {name: part._replace(presence=torch.ones_like(part.presence)) for name, part in groups.items()}
    with torch.no_grad():
        before = method(groups)
        assert before.shape == (3, 3 * CHANNELS)
        for branch, name in enumerate(("scene", "objects", "face")):
            other = groups[name]._replace(features=groups[name].features + torch.randn(WIDTH))
            changed = (method({**groups, name: other}) != before).any(dim=0).unflatten(0, (3, CHANNELS)).any(dim=1)
            assert changed.nonzero().flatten().tolist() == [branch]
        older = build_method("stimuli", width=WIDTH, channels=CHANNELS, labels=MIKELS.labels, skip=False)
        assert older(groups).shape == (3, CHANNELS)


def test_emoticon_trains_mainly_the_certain_modality() -> None:
    """The loss of its modalities is the multiplicative loss; contexts are concatenated."""
    method = built("emoticon", skip=False)
    assert method.width == 4 * CHANNELS + 2 * len(MIKELS)
    target = torch.eye(len(MIKELS))[:1]
    logits = torch.zeros(2, len(MIKELS))
    # The face predicts the label, the person another one.
    logits[0, 0] = 2.0
    logits[1, 1] = 6.0
    logits.requires_grad_()
    features = torch.cat([torch.zeros(4 * CHANNELS), *logits])[None]
    loss = method.loss(torch.zeros(()), logits=logits[:1], features=features, target=target)
    torch.testing.assert_close(loss, multiplicative_loss(logits[None], target))
    loss.backward()
    face_gradient, person_gradient = logits.grad.abs().sum(dim=1)
    assert face_gradient > 50 * person_gradient > 0


@pytest.mark.parametrize("name", ["solver", "rrla", "emoticon"])
def test_absent_regions_have_no_influence(name: str) -> None:
    method = built(name).eval()
    groups = regions(method, 0)
    group = "people" if name == "emoticon" else "objects"
    part = groups[group]
    presence = torch.zeros_like(part.presence)
    presence[:, 0] = 0.9
    other = part._replace(presence=presence, features=part.features.clone())
    other.features[:, 1:] = 100.0
    with torch.no_grad():
        before = method({**groups, group: part._replace(presence=presence)})
        torch.testing.assert_close(method({**groups, group: other}), before, rtol=1e-3, atol=1e-3)


def test_graph_of_two_nodes_by_hand() -> None:
    """φ = ψ = identity, W doubles: edges softmax(v_i · v_j / √2), messages twice the weighted mean."""
    graph = EmotionGraph(2)
    with torch.no_grad():
        for layer in (graph.source, graph.target):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
        graph.message.weight.copy_(2 * torch.eye(2))
        nodes = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
        updated = graph(nodes, torch.ones(1, 2))[0]
        # Edges from the first and the second node to themselves.
        a, b = (1 / (1 + np.exp(-score / np.sqrt(2))) for score in (1.0, 4.0))
        np.testing.assert_allclose(updated[0], [1 + 2 * a, 0 + 2 * (1 - a) * 2], rtol=1e-5)
        np.testing.assert_allclose(updated[1], [0 + 2 * (1 - b), 2 + 2 * b * 2], rtol=1e-5)
        # Now the second node is absent.
        alone = graph(nodes, torch.tensor([[1.0, 0.0]]))[0]
        np.testing.assert_allclose(alone[0], [3.0, 0.0], atol=1e-4)


def test_only_near_people_are_neighbours() -> None:
    boxes = torch.tensor([[[0, 0, 0.2, 0.2], [0.3, 0, 0.5, 0.2], [0.8, 0.8, 1, 1], [0, 0, 0.2, 0.2]]])
    people = Regions(torch.zeros(1, 4, 2), torch.zeros(1, 4, CLASSES), boxes, torch.tensor([[0.9, 0.8, 0.7, 0.0]]))
    edges = proximity(people)[0]
    near = np.exp(-0.3)
    np.testing.assert_allclose(edges[0], np.array([1, near, 0, 0]) / (1 + near), atol=1e-5)
    np.testing.assert_allclose(edges[2], [0, 0, 1, 0], atol=1e-6)
    # The fourth person is absent.
    assert edges[:3, 3].abs().sum() == 0


def test_ccim_with_two_confounders_by_hand() -> None:
    """Σ_i λ_i z_i P(z_i), times the number of confounders; λ from the product of queries and keys over √Z."""
    head = Ccim(width=1, outputs=2, confounders=2, confounder_width=4)
    z = torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0]])
    shares = torch.tensor([0.75, 0.25])
    head.set_dictionary(z, shares)
    with torch.no_grad():
        head.query.weight.zero_()
        head.query.weight[0] = 1
        head.key.weight.zero_()
        # The first confounder's key is 2, the second's 0.
        head.key.weight[0, 0] = 2.0
        h = torch.tensor([[3.0]])
        first = 1 / (1 + np.exp(-3 * 2 / np.sqrt(4)))
        expected = [2 * first * 0.75 * 1, 2 * (1 - first) * 0.25 * 2, 0, 0]
        np.testing.assert_allclose(head.expected(h)[0], expected, rtol=1e-5)
        head.of_confounders.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
        head.of_features.weight.copy_(torch.tensor([[1.0], [0.0]]))
        np.testing.assert_allclose(head(h)[0], [3 + expected[0], expected[1]], rtol=1e-5)


def test_methods_that_separate_polarities_need_two() -> None:
    # Neutral and surprise are neither positive nor negative.
    assert len(built("mdan", CAER).polarity) == 3
    for name in ("stimuli", "mdan"):
        with pytest.raises(ConfigError, match="separate negative from positive labels; a, b have one"):
            build_method(name, width=4, channels=4, labels=("a", "b"))
    assert isinstance(build_method("solver", width=4, channels=4, labels=("a", "b")), Solver)


@pytest.mark.thorough
@torch.no_grad()
def test_a_classifiers_file_contains_its_detectors(shared: Path, tmp_path: Path) -> None:
    """On photographs with faces and without; test_regions.py tests the regions in ONNX."""
    torch.manual_seed(1)
    encoder = timm.create_model("test_vit", num_classes=0, img_size=SIZE)
    width = encoder.num_features
    spec = NetworkSpec(
        encoders=(EncoderSpec(name="test_vit", options={"num_classes": 0, "img_size": SIZE}),),
        feature_width=width,
        outputs=8,
        labels=MIKELS.labels,
        streams="both",
        method="emoticon",
        fused_width=CHANNELS,
        has_detector=True,
        has_face_finder=True,
        confounders=(3, 5),
        head="ccim",
        skip=False,
    )
    info = ClassifierInfo(label_set="mikels", kind="evoked", size=SIZE, network=spec)
    model = build_classifier(spec, encoder).eval()
    method = model.method
    for detector, name in ((method.reader.detector, "yolox_nano"), (method.reader.face_finder, "yunet_n")):
        assert detector is not None
        load_detector_weights(detector, shared / "models" / f"{name}.onnx")
    model.head.set_dictionary(torch.randn(3, 5), torch.tensor([0.5, 0.3, 0.2]))
    files = sorted((shared / "data" / "coco_persons").rglob("*.jpg"))[:6]
    images = [np.array(Image.open(file).convert("RGB").resize((SIZE, SIZE))) for file in files]
    views = normalise(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.device("cpu"))
    groups = method.reader.split(method.reader(encoder, views, views))
    assert 0 < (groups["face"].presence > 0).sum() < len(files)
    assert (groups["people"].presence > 0).any()
    expected = model(views, views)
    save_classifier(model, info, tmp_path / "model.safetensors")
    loaded, _ = load_classifier(tmp_path / "model.safetensors")
    torch.testing.assert_close(loaded(views, views), expected)


def test_cosines_are_computed_in_float32_under_autocast() -> None:
    """In bfloat16, whose steps near 1 are 0.004, the logits of EAP would be wrong by up to 0.03."""
    torch.manual_seed(0)
    method = Eap(12, 8, MIKELS.labels, skip=True)
    features = torch.randn(6, 1, 12)
    scene = Regions(features, torch.zeros(6, 1, 0), torch.zeros(6, 1, 4), torch.ones(6, 1))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = method({"scene": scene})[:, method.linear :]
        vectors = method.project[0](method.norm(features[:, 0]))
    words = torch.nn.functional.normalize(method.words[0], dim=1)
    expected = torch.nn.functional.normalize(vectors.float(), dim=1) @ words.T / TEMPERATURE
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
