"""Cost of a plan: multiply-adds, hours, disk and network on 1, 8 and 64 GPUs."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from uniemox.checkpoints.classifier import load_classifier
from uniemox.errors import ConfigError
from uniemox.io.files import WEIGHTS, write_text
from uniemox.reproduce.execute import gpus_of, to_do, work_ahead
from uniemox.reproduce.plan import Run
from uniemox.reproduce.study import BATCH, PRETRAIN_BATCH, PRETRAIN_GFLOP, STAGES
from uniemox.training.run_folder import read_json

COST = "cost.json"
REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCost:
    """Cost of a fine-tuned classifier for one image."""

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
    """Work of unfinished runs."""

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
    """Cost of runs at the paper's scale.

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


BYTES = 4  # of a weight, a gradient, and each of AdamW's two moments
GPUS_OF_NODE, NVLINK_GB_S = 8, 400.0  # between its GPUs
CHECKPOINTS_WHILE_RUNNING = 4  # the newest two, the best, and one that is being written
FINISHED_COPIES = {"pretrain": 2, "finetune": 3}  # encoder and model; and an ONNX file


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """Simulation of a plan on a number of GPUs."""

    gpus: int
    hours: float
    """From the first run to the end of the last."""
    busy: float
    """Share of the GPUs' time in which they compute."""
    disk_gb: float
    """That finished runs take, and the checkpoints of those that run at a time."""
    loader_images_per_s: float
    """Images that all loaders have to give together when a run uses all GPUs."""
    network_gb_per_s: float
    """Of gradients, from each GPU, in the steps of a run that uses all of them."""


def simulate(runs: Sequence[Run], *, gpus: int, images_per_s: float) -> Simulated:
    """Simulate the runs of a plan on a number of GPUs, in the order in which they would start.

    images_per_s: what `uniemox bench step` measured on one of the GPUs: pre-training steps of ViT-L/16.
    """
    seconds = {run.key: step_seconds(run, images_per_s) * run.images / batch_of(run) for run in runs if run.gflop}
    total_s, busy_s, max_checkpoint_bytes = _schedule(runs, gpus, seconds)
    trained = {run.key: run for run in runs if run.gflop}.values()
    widest = max(trained, key=lambda run: (gpus_of(run), run.parameters_m), default=None)
    step = step_seconds(widest, images_per_s) if widest else 1.0
    return Simulated(
        gpus=gpus,
        hours=total_s / 3600,
        busy=busy_s / (gpus * total_s) if total_s else 0.0,
        disk_gb=(sum(finished_bytes(run) for run in trained) + max_checkpoint_bytes) / 1e9,
        loader_images_per_s=batch_of(widest) / step * gpus / gpus_of(widest) if widest else 0.0,
        network_gb_per_s=gradient_bytes(widest) / step / 1e9 if widest else 0.0,
    )


def need_disk(runs: Sequence[Run], *, gpus: int) -> float:
    """Bytes that are still to be written, at most. Raises ConfigError if the disk can't hold them."""
    left = [run for run in to_do(runs) if run.gflop and run.missing is None]
    at_once = sorted(map(checkpoint_bytes, left), reverse=True)[:gpus]
    there = sum(file.stat().st_size for run in left for file in run.folder.rglob("*") if file.is_file())
    needed = max(0.0, sum(map(finished_bytes, left)) + sum(at_once) - there)
    if left:
        place = next(folder for folder in (left[0].root, *left[0].root.absolute().parents) if folder.exists())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise ConfigError(
                f"{left[0].root} needs {needed / 1e9:,.0f} GB for {len(left)} runs, but {free / 1e9:,.0f} GB are free: "
                "make room, give another --out, or fewer --data or --seeds"
            )
    return needed


def batch_of(run: Run) -> int:
    """Images of a step."""
    return (PRETRAIN_BATCH if run.words[0] == "pretrain" else BATCH)["paper"]


def step_seconds(run: Run, images_per_s: float) -> float:
    """Computing, and then sending the gradients."""
    processes = gpus_of(run)
    computing = batch_of(run) * run.gflop / (images_per_s * PRETRAIN_GFLOP) / processes
    return computing + gradient_bytes(run) / (NVLINK_GB_S * 1e9)


def gradient_bytes(run: Run) -> float:
    """Return the bytes that each GPU sends in a step: a ring sends all gradients twice, except its own part."""
    processes = gpus_of(run)
    return 2 * (processes - 1) / processes * run.parameters_m * 1e6 * BYTES


def finished_bytes(run: Run) -> float:
    """Bytes that a finished run leaves, with the checkpoints that figure 9 shows."""
    checkpoints = 3 * STAGES if "--save.keep-every" in run.words else 0
    return (FINISHED_COPIES[run.words[0]] + checkpoints) * run.parameters_m * 1e6 * BYTES


def checkpoint_bytes(run: Run) -> float:
    """Return the bytes of a run's checkpoints: weights and two moments each."""
    return CHECKPOINTS_WHILE_RUNNING * 3 * run.parameters_m * 1e6 * BYTES


def _schedule(runs: Sequence[Run], gpus: int, seconds: Mapping[str, float]) -> tuple[float, float, float]:
    """Seconds until all is done, those in which GPUs compute, all together, and the maximum bytes of checkpoints."""
    ahead = work_ahead(runs)
    waiting = sorted({run.key: run for run in runs}.values(), key=lambda run: -ahead[run.key])
    running: list[tuple[float, Run]] = []
    finished: set[str] = set()
    now, busy, max_bytes = 0.0, 0.0, 0.0
    while waiting or running:
        free = gpus - sum(gpus_of(run) for _, run in running)
        for run in list(waiting):
            if not all(needed.key in finished for needed in run.needs):
                continue
            if gpus_of(run) > free:
                break  # what is first in line gets them first
            running.append((now + seconds.get(run.key, 0.0), run))
            waiting.remove(run)
            free -= gpus_of(run)
            busy += gpus_of(run) * seconds.get(run.key, 0.0)
        max_bytes = max(max_bytes, sum(checkpoint_bytes(run) for _, run in running))
        now, done = min(running, key=lambda entry: entry[0])
        running.remove((now, done))
        finished.add(done.key)
    return now, busy, max_bytes
