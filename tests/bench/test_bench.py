"""Counts of parameters and multiply-adds, against counts by hand."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import timm.layers.weight_init
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import containers
from benchmarks.models import ROWS, measure_models
from uniemox.bench.step import random_clip, step_multiply_adds
from uniemox.errors import ConfigError
from uniemox.model.config import ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.paper import paper_tables
from uniemox.training.counting import matmul_peak, multiply_adds, parameter_count

# Parameters and G multiply-adds worked out by hand from each method's code; see docs/models.md.
SIZES = {
    "MoCoV3": (containers.MoCoV3, 215_678_464, 70.340),
    "DINO": (containers.Dino, 108_937_216, 60.869),
    "BEiT": (containers.BeitContainer, 91_965_776, 18.035),
    "MAE": (containers.Mae, 329_541_888, 20.756),
    "SimMIM": (containers.SimMim, 86_256_720, 17.679),
    "TinyMIM": (containers.TinyMim, 85_798_656, 16.517),
    "SiameseIM": (containers.SiameseIm, 231_250_944, 37.616),
    "MixMAE": (containers.MixMae, 223_468_244, 38.500),
    "dBOT": (containers.Dbot, 329_673_216, 82.335),
    "CAE": (containers.Cae, 234_791_936, 24.215),
}


@pytest.fixture
def skip_initialisation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no initial weights: on the meta device they have no values, and drawing them takes seconds.

    Nothing is faked either, because nothing would be computed; `test_step_has_the_multiply_adds_of_the_reference` does.
    """
    monkeypatch.setattr(timm.layers.weight_init, "_trunc_normal_", lambda tensor, *_: tensor)
    monkeypatch.setattr("uniemox.training.counting.FakeTensorMode", lambda **_: nullcontext())


@pytest.mark.thorough
@pytest.mark.usefixtures("skip_initialisation")
@pytest.mark.parametrize("method", SIZES)
def test_containers_have_the_published_sizes(method: str) -> None:
    build, parameters, giga = SIZES[method]
    with torch.device("meta"):
        container = build().eval()
        images = torch.zeros(1, 3, 224, 224)
    assert parameter_count(container) == parameters
    assert multiply_adds(lambda: container(images)) / 1e9 == pytest.approx(giga, abs=1e-3)
    paper = next(row for row in paper_tables()["table3"] if row["method"] == method)
    assert parameters / 1e6 == pytest.approx(paper["params_m"], abs=0.006)
    # The paper's figure for MoCo v3 is that of two images.
    count = 2 if method == "MoCoV3" else 1
    # The paper counts norms too.
    assert giga * count == pytest.approx(paper["flops_g"], rel=0.004)


def test_layers_have_the_expected_multiply_adds() -> None:
    layer = nn.Linear(10, 20)
    x = torch.zeros(3, 10)
    assert multiply_adds(lambda: layer(x)) == 3 * 10 * 20
    conv = nn.Conv2d(2, 4, 3, padding=1)
    image = torch.zeros(1, 2, 8, 8)
    assert multiply_adds(lambda: conv(image)) == 8 * 8 * 4 * 2 * 9


@pytest.mark.thorough
def test_step_has_the_multiply_adds_of_the_reference() -> None:
    """78.1 GFLOP an image in the plain form, which embeds the hidden patches too."""
    network = UniEmoX(build_encoder("vit_small_patch16_224"), ModelConfig())
    giga = 2 * step_multiply_adds(network, None) / 1e9
    assert giga == pytest.approx(77.55, abs=0.01)
    # Embedding the hidden patches of both streams, once forward.
    hidden = 2 * 147 * 768 * 384 * 2 / 1e9
    assert giga + 3 * hidden == pytest.approx(78.1, abs=0.05)
    with_clip = step_multiply_adds(network, random_clip("ViT-B-16").visual)
    assert 2 * with_clip / 1e9 - giga == pytest.approx(2 * 17.56, rel=0.01)


def test_peak_is_the_speed_of_the_best_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of three sizes, two runs each, of which the second size's last is the fastest."""
    seconds = iter([1.0, 1.0, 2.0, 0.001, 4.0, 4.0])
    shapes = []

    def timed(call: Callable[[], torch.Tensor], device: torch.device) -> float:
        shapes.append(call().shape)
        return next(seconds)

    monkeypatch.setattr("uniemox.training.counting.timed", timed)
    monkeypatch.setattr("uniemox.training.counting.PEAK_SIZES", (10, 20, 40))
    assert matmul_peak(torch.device("cpu"), torch.float32, repeats=2) == 2 * 20**3 / 0.001
    assert shapes == [torch.Size([side, side]) for side in (10, 10, 20, 20, 40, 40)]


def test_models_benchmark_has_all_rows_of_table_three() -> None:
    table = [row["method"] for row in paper_tables()["table3"]]
    assert len(table) == 22
    assert set(ROWS) == set(table)


@pytest.mark.thorough
@pytest.mark.usefixtures("skip_initialisation")
@pytest.mark.parametrize("method", ["SOLVER", "Stimuli-aware", "MDAN", "EAP", "RRLA", "EmotiCon + CCIM"])
def test_region_methods_have_the_same_backbone(method: str) -> None:
    with torch.device("meta"):
        network = ROWS[method][1]().eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network.to_empty(device="cpu")
        assert network(torch.zeros(2, 3, 224, 224)).shape == (2, 8)
    assert 303.3 < parameter_count(network) / 1e6 < 320
    assert ROWS[method][0] == "ViT-L"


@pytest.mark.parametrize(("method", "parameters_m"), [("ResNet-50", 23.52), ("VGG-16", 134.29), ("DenseNet-121", 6.96)])
def test_supervised_rows_have_the_papers_sizes(method: str, parameters_m: float) -> None:
    with torch.device("meta"):
        assert parameter_count(ROWS[method][1]()) / 1e6 == pytest.approx(parameters_m, abs=0.006)


def test_unknown_row_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean 'DINO'"):
        next(measure_models(("DIN0",)))


@pytest.mark.thorough
@pytest.mark.long
def test_models_prints_a_row_with_the_papers_figures() -> None:
    command = [sys.executable, "-m", "benchmarks.models", "tinymim", "TinyMIM", "--json"]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    [tiny] = (json.loads(line) for line in process.stdout.splitlines())
    assert tiny["container"]["parameters_m"] == pytest.approx(85.798656)
    assert tiny["paper_parameters_m"] == 85.8
    assert tiny["encoder"]["latency_ms"] > 0
    if sys.platform == "linux":
        assert tiny["encoder"]["peak_memory_mb"] > 85.8 * 4
