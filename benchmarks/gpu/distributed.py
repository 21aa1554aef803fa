"""Train one step plainly, in DistributedDataParallel and sharded (FSDP2), in a group of one process; save and load.

    torchrun --standalone --local-addr 127.0.0.1 -m benchmarks.gpu.distributed --device cuda --out results

One process exercises NCCL, hooks, sharding and gathering. It says nothing about several GPUs.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu.networks import pretraining_batch, pretraining_model
from benchmarks.gpu.reporting import Report, arguments
from uniemox.pretrain.step import pretrain_step
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import ready_to_train, setup_device
from uniemox.training.optimization import build_optimizer
from uniemox.training.processes import process_group, wait_for_all
from uniemox.training.sharding import copy_to_host, shard
from uniemox.training.state import Checkpoints, ResumePoint

STEPS = 3
IMAGES = 8


def train(kind: str, device: torch.device, folder: Path, *, tiny: bool) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train a few steps, saving after the first and loading again; return the losses and the final weights."""
    model = pretraining_model(tiny=tiny)
    batch = pretraining_batch(model, IMAGES)
    ready_to_train(model, device)
    if kind == "sharded":
        shard(model, device)
    runner: nn.Module = model
    if kind == "DDP":
        runner = DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    optimizer = build_optimizer(model, lr=1e-3)
    checkpoints = Checkpoints(folder / kind, keep=1)
    losses = []
    for step in range(STEPS):
        values = pretrain_step(runner, optimizer, [batch], precision="float32", max_grad_norm=1.0)
        losses.append(values["total"])
        if step == 0:
            path = checkpoints.save(ResumePoint(1), model, optimizer)
            checkpoints.wait()
            wait_for_all()
            checkpoints.load(path, model, optimizer)
    return losses, copy_to_host(model.state_dict())


def main() -> None:
    """Compare the three kinds of training."""
    device_type, out, tiny = arguments(__doc__)
    device = setup_device(HardwareConfig(device=device_type.type))  # type: ignore[arg-type] # Literal
    report = Report("distributed", out)
    with process_group(device), tempfile.TemporaryDirectory() as folder, report.attempt("one process"):
        plain, weights = train("plain", device, Path(folder), tiny=tiny)
        for kind in ("DDP", "sharded"):
            losses, others = train(kind, device, Path(folder), tiny=tiny)
            for step, (loss, expected) in enumerate(zip(losses, plain, strict=True), start=1):
                report.at_most(f"{kind}, loss of step {step}", abs(loss / expected - 1), 1e-4)
            result = torch.cat([value.flatten().float() for value in others.values()])
            reference = torch.cat([weights[name].flatten().float() for name in others])
            report.close(f"{kind}, weights after {STEPS} steps", result, reference, 1e-3)


if __name__ == "__main__":
    main()
