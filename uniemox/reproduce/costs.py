"""What a network of a run costs, measured; and what the plan of the paper's scale costs, computed."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from uniemox.checkpoints.classifier import load_classifier
from uniemox.errors import ConfigError
from uniemox.io.files import WEIGHTS, write_text
from uniemox.reproduce.plan import Run
from uniemox.reproduce.study import PRETRAIN_GFLOP
from uniemox.training.settings import read_json

COST = "cost.json"
REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCost:
    """Of a fine-tuned classifier and one image."""

    parameters_m: float
    """Millions."""
    multiply_adds_g: float
    """Billions, of matrix products and convolutions in a forward pass of all its streams."""
    latency_ms: float
    """Of that pass on the CPU, float32: the median of five after one to warm up."""
    size_px: int
    streams: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCost:
    """Of runs that are not done."""

    runs: int
    images_m: float
    """Millions of images through a network, all epochs together."""
    exaflop: float
    """Of training steps, in 10^18 multiplications and additions."""
    days: float | None
    """At the measured speed; None where none was measured."""


def measure_run(run: Path) -> NetworkCost:
    """Measure a fine-tuning run's classifier, or read what was measured before. Raises CheckpointError."""
    path = run / COST
    if path.exists():
        try:
            return NetworkCost(**read_json(path))
        except TypeError as error:
            raise ConfigError(f"{path} is of another version ({error}); remove it") from error
    classifier, info = load_classifier(run / WEIGHTS)
    classifier.eval()
    pixels = torch.zeros(1, 3, info.size, info.size)
    with torch.inference_mode():
        seconds = []
        for _ in range(1 + REPEATS):
            began = time.perf_counter()
            classifier(pixels, pixels)
            seconds.append(time.perf_counter() - began)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), FlopCounterMode(display=False) as counter:
        classifier(pixels, pixels)
    found = NetworkCost(
        parameters_m=sum(parameter.numel() for parameter in classifier.parameters()) / 1e6,
        multiply_adds_g=counter.get_total_flops() / 2e9,
        latency_ms=median(seconds[1:]) * 1e3,
        size_px=info.size,
        streams=info.streams,
    )
    write_text(path, json.dumps(asdict(found)) + "\n")
    return found


def plan_cost(runs: Sequence[Run], *, images_per_s: float | None, gpus: int) -> PlanCost:
    """What runs of the paper's scale cost.

    images_per_s: what `uniemox bench train` measured on one of the GPUs: pre-training steps of ViT-L/16. All other work
    is taken to run at the same multiplications and additions a second, and several GPUs to share it without loss.
    Raises ConfigError for a speed that is not above 0.
    """
    if images_per_s is not None and not images_per_s > 0:
        raise ConfigError(f"--images-per-s must be above 0, got {images_per_s}")
    gflop = sum(run.images * run.gflop for run in runs)
    seconds = None if images_per_s is None else gflop / (images_per_s * PRETRAIN_GFLOP) / gpus
    return PlanCost(
        runs=len(runs),
        images_m=sum(run.images for run in runs if run.gflop) / 1e6,
        exaflop=gflop / 1e9,
        days=None if seconds is None else seconds / 86400,
    )
