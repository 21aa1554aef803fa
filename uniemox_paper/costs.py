"""Cost of a classifier, and of a plan: hours, disk and network on 1, 8 and 64 GPUs."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch

from uniemox.checkpoints import load_classifier
from uniemox.errors import ConfigError
from uniemox.io import WEIGHTS, read_json_object, write_file
from uniemox.plurals import counted
from uniemox.training import multiply_adds, parameter_count, timed
from uniemox_paper.execute import gpus_of, to_do, work_ahead
from uniemox_paper.plan import PlannedRun
from uniemox_paper.study import BATCH, PRETRAIN_BATCH, PRETRAIN_GFLOP, STAGES

COST = "cost.json"
REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCost:
    """Cost of a fine-tuned classifier for one image."""

    parameters_m: float
    """Parameters in millions."""
    multiply_adds_g: float
    """Multiply-adds in billions, for matrix products and convolutions in a forward pass of all its streams."""
    latency_ms: float
    """Time of that pass on the CPU in float32, ms: median of five after one warm-up."""
    size_px: int
    streams: str


def measure_run(run: Path) -> NetworkCost:
    """Measure a fine-tuning run's classifier, or read an earlier measurement. Raises CheckpointError."""
    path = run / COST
    if path.exists():
        try:
            return NetworkCost(**read_json_object(path))
        except TypeError as error:
            raise ConfigError(f"{path} is of another version ({error}); remove it") from error
    classifier, info = load_classifier(run / WEIGHTS)
    classifier.eval()
    pixels = torch.zeros(1, 3, info.size, info.size)
    look = partial(classifier, pixels, pixels)
    with torch.inference_mode():
        seconds = [timed(look, pixels.device) for _ in range(1 + REPEATS)]
    cost = NetworkCost(
        parameters_m=parameter_count(classifier) / 1e6,
        multiply_adds_g=multiply_adds(look) / 1e9,
        latency_ms=median(seconds[1:]) * 1e3,
        size_px=info.size,
        streams=info.streams,
    )
    write_file(path, json.dumps(asdict(cost)) + "\n")
    return cost


BYTES = 4  # per weight, gradient, and each of AdamW's two moments
# bandwidth between its GPUs
GPUS_OF_NODE = 8
NVLINK_GB_S = 400.0
CHECKPOINTS_WHILE_RUNNING = 4  # two recent ones, the best, and one being written
FINISHED_COPIES = {"pretrain": 2, "finetune": 3}  # encoder and model; plus an ONNX file


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """Simulation of a plan on a number of GPUs."""

    gpus: int
    hours: float
    """Time from the first run's beginning to the last run's end."""
    busy: float
    """Share of the GPUs' time in which they compute."""
    disk_gb: float
    """Size of finished runs, and of the checkpoints of simultaneous runs."""
    loader_images_per_s: float
    """Images per second that all loaders must provide if a run uses all GPUs."""
    network_gb_per_s: float
    """Gradient traffic of each GPU, in the steps of a run that uses all GPUs."""


def simulate(runs: Sequence[PlannedRun], *, gpus: int, images_per_s: float) -> Simulated:
    """Simulate the runs of a plan on a number of GPUs, in the order in which they would start.

    Args:
        images_per_s: Speed of pre-training a ViT-L/16, measured by `python -m benchmarks.train` on one of the GPUs.
    """
    trained = [run for run in runs if run.gflop]
    seconds = {run.key: step_seconds(run, images_per_s) * run.images / batch_of(run) for run in trained}
    ahead = work_ahead(runs)
    finished = set[str]()
    running = list[tuple[float, PlannedRun]]()
    waiting = sorted(runs, key=lambda run: -ahead[run.key])
    now = 0.0
    busy_s = 0.0
    max_checkpoint_bytes = 0.0
    while waiting or running:
        free = gpus - sum(gpus_of(run) for _, run in running)
        for run in [run for run in waiting if all(needed.key in finished for needed in run.needs)]:
            if gpus_of(run) > free:
                break  # the first in line gets them first
            running.append((now + seconds.get(run.key, 0.0), run))
            waiting.remove(run)
            free -= gpus_of(run)
            busy_s += gpus_of(run) * seconds.get(run.key, 0.0)
        max_checkpoint_bytes = max(max_checkpoint_bytes, sum(checkpoint_bytes(run) for _, run in running))
        now, done = min(running, key=lambda entry: entry[0])
        running.remove((now, done))
        finished.add(done.key)
    widest = max(trained, key=lambda run: (gpus_of(run), run.parameters_m), default=None)
    loader_images_per_s = 0.0
    network_gb_per_s = 0.0
    if widest is not None:
        step = step_seconds(widest, images_per_s)
        loader_images_per_s = batch_of(widest) / step * gpus / gpus_of(widest)
        network_gb_per_s = gradient_bytes(widest) / step / 1e9
    return Simulated(
        gpus=gpus,
        hours=now / 3600,
        # A plan without work takes no time.
        busy=busy_s / max(gpus * now, 1e-9),
        disk_gb=(sum(map(finished_bytes, trained)) + max_checkpoint_bytes) / 1e9,
        loader_images_per_s=loader_images_per_s,
        network_gb_per_s=network_gb_per_s,
    )


def need_disk(runs: Sequence[PlannedRun], *, gpus: int) -> float:
    """Return the maximum number of bytes still to be written.

    Raises:
        ConfigError: If the disk is too small.
    """
    waiting = [run for run in to_do(runs) if run.gflop and run.missing is None]
    if not waiting:
        return 0.0
    at_once = sorted(map(checkpoint_bytes, waiting), reverse=True)[:gpus]
    there = sum(file.stat().st_size for run in waiting for file in run.folder.rglob("*") if file.is_file())
    needed = max(0.0, sum(map(finished_bytes, waiting)) + sum(at_once) - there)
    root = waiting[0].root
    free = shutil.disk_usage(next(folder for folder in (root, *root.absolute().parents) if folder.exists())).free
    if needed > free:
        raise ConfigError(
            f"{root} needs {needed / 1e9:,.0f} GB for {counted(len(waiting), 'run')}, but {free / 1e9:,.0f} GB are "
            "free: make room, give another --out, or fewer --data or --seeds"
        )
    return needed


def batch_of(run: PlannedRun) -> int:
    """Return the images per step."""
    return (PRETRAIN_BATCH if run.kind == "pretrain" else BATCH)["paper"]


def step_seconds(run: PlannedRun, images_per_s: float) -> float:
    """Return the time of a step: computation, then sending the gradients."""
    computing = batch_of(run) * run.gflop / (images_per_s * PRETRAIN_GFLOP) / run.processes
    return computing + gradient_bytes(run) / (NVLINK_GB_S * 1e9)


def gradient_bytes(run: PlannedRun) -> float:
    """Return the bytes that each GPU sends in a step: a ring sends all gradients twice, except its own part."""
    return 2 * (run.processes - 1) / run.processes * run.parameters_m * 1e6 * BYTES


def finished_bytes(run: PlannedRun) -> float:
    """Return the bytes of a finished run, including the checkpoints that figure 9 shows."""
    if "save.keep_every" in run.options:
        checkpoints = 3 * STAGES
    else:
        checkpoints = 0
    return (FINISHED_COPIES[run.kind] + checkpoints) * run.parameters_m * 1e6 * BYTES


def checkpoint_bytes(run: PlannedRun) -> float:
    """Return the bytes of a run's checkpoints: weights and two moments each."""
    return CHECKPOINTS_WHILE_RUNNING * 3 * run.parameters_m * 1e6 * BYTES
