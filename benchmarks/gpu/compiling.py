"""Compare compiled with eager training, and count what is compiled after the first step.

    python -m benchmarks.gpu.compiling --device cuda --out results

With --tiny, graphs are traced but not translated to machine code, so that a rehearsal takes seconds.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch._dynamo.utils import counters

from benchmarks.gpu.commands import CHANNELS, write_teacher
from benchmarks.gpu.networks import PLAIN, classifier, finetuning_batch, pretraining_batch, pretraining_model, side_px
from benchmarks.gpu.reporting import Report, arguments
from uniemox.data.sample import DataSet, ImageFile
from uniemox.data.synthetic_scenes import synthetic
from uniemox.evaluate.classifier_outputs import Reading, outputs_of
from uniemox.finetune import presets as finetuning
from uniemox.finetune.config import NetworkConfig
from uniemox.finetune.run import finetune
from uniemox.finetune.step import Objective, finetune_step
from uniemox.io.run_files import ONNX
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.pretrain import presets as pretraining
from uniemox.pretrain.config import EncoderConfig, TeacherConfig
from uniemox.pretrain.run import pretrain
from uniemox.pretrain.step import pretrain_step
from uniemox.training.config import HardwareConfig, SaveConfig, ScheduleConfig
from uniemox.training.hardware import ready_to_train, setup_device, wrap
from uniemox.training.journal import read_metrics
from uniemox.training.optimization import build_optimizer
from uniemox.views.config import ViewConfig
from uniemox.views.patches import IMAGENET

STEPS = 20
IMAGES = 8
SCENES = 64
BATCH = 16


def graphs() -> int:
    """Return the number of graphs that torch has compiled in this process."""
    return int(counters["stats"]["unique_graphs"])


def trace_only() -> None:
    """Let torch trace graphs and differentiate them, but run them without a compiler."""

    def compile_module(module: nn.Module) -> None:
        module._compiled_call_impl = torch.compile(module._call_impl, backend="aot_eager")

    nn.Module.compile = compile_module  # type: ignore[method-assign,assignment]


def check_steps(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Train 20 steps eagerly and compiled, in float32, from equal weights."""
    losses: dict[bool, list[float]] = {}
    for is_compiled in (False, True):
        model = pretraining_model(tiny=tiny)
        batch = pretraining_batch(model, IMAGES)
        ready_to_train(model, device)
        runner = wrap(model, device, compiled=is_compiled)
        optimizer = build_optimizer(model, lr=1e-3)
        step = partial(pretrain_step, runner, optimizer, [batch], precision="float32")
        losses[is_compiled] = [step()["total"]]
        compiled_at_first = graphs()
        losses[is_compiled] += [step()["total"] for _ in range(STEPS - 1)]
        if is_compiled:
            report.note("graphs of the first step", float(compiled_at_first))
            report.at_most("graphs compiled after it", graphs() - compiled_at_first, 0)
    first = abs(losses[True][0] / losses[False][0] - 1)
    worst = max(abs(a / b - 1) for a, b in zip(losses[True], losses[False], strict=True))
    report.at_most("first loss, compiled against eager", first, 1e-5)
    report.at_most(f"losses of {STEPS} steps, compiled against eager", worst, 1e-2)


def check_scoring(report: Report, device: torch.device, *, tiny: bool) -> None:
    """Count the graphs that scoring compiles, after a training step of a compiled classifier."""
    side = side_px(tiny=tiny)
    model = classifier("scene", tiny=tiny)
    ready_to_train(model, device)
    runner = wrap(model, device, compiled=True)
    before = graphs()
    finetune_step(
        runner,
        build_optimizer(model, lr=1e-4),
        [finetuning_batch(IMAGES, side)],
        objective=Objective(task="label"),
        augment=PLAIN,
        stats=IMAGENET,
        precision="float32",
    )
    step_graphs = graphs() - before
    report.note("graphs of a fine-tuning step", float(step_graphs))
    reading = Reading(stats=IMAGENET, workers=0)
    outputs_of(model, synthetic(SCENES).samples, ViewConfig(size=side), reading)
    report.at_most("graphs compiled by scoring", graphs() - before - step_graphs, 0)


def data_with_a_broken_image(folder: Path) -> DataSet:
    """Return synthetic scenes, one of which can't be read."""
    data = synthetic(SCENES)
    broken = folder / "broken.jpg"
    broken.write_bytes(b"this is no image")
    samples = list(data.samples)
    samples[5] = replace(samples[5], image=ImageFile(broken))
    return replace(data, samples=samples)


def check_runs(report: Report, device: torch.device, folder: Path, *, tiny: bool) -> None:
    """Pre-train compiled, with an unreadable image and diagnostics in every step; fine-tune compiled and export."""
    teacher = folder / "teacher.npz"
    write_teacher(teacher)
    hardware = HardwareConfig(device=device.type, compile=True, workers=0 if tiny else None)  # type: ignore[arg-type]
    config = replace(
        pretraining.demo(),
        encoder=EncoderConfig(name="vit_tiny_patch16_224", patch_size=16, embed_dim=48, depth=2, num_heads=3),
        model=ModelConfig(fusion="gated", decoder=DecoderConfig(width=CHANNELS, depth=1, heads=2)),
        view=ViewConfig(size=side_px(tiny=tiny), min_area=0.5),
        teacher=TeacherConfig(source=f"stored:{teacher}", view="whole"),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
        save=SaveConfig(every_steps=100),
        hardware=hardware,
        batch_size=BATCH,
        max_unreadable=1,
        diagnose_every=1,
    )
    before = graphs()
    pretrain(replace(config, schedule=ScheduleConfig(epochs=1, warmup_epochs=0)), synthetic(SCENES), folder / "whole")
    readable_graphs = graphs() - before
    torch._dynamo.reset()
    before = graphs()
    pretrain(config, data_with_a_broken_image(folder), folder / "broken")
    unreadable_graphs = graphs() - before
    report.at_most("graphs added by a batch with an unreadable image", unreadable_graphs - readable_graphs, 0)
    names = [name for name in read_metrics(folder / "broken")[0] if name.startswith("grad_norm_")]
    report.at_most("diagnosed losses that are missing", 4 - len(names), 0)
    torch._dynamo.reset()
    tuned = replace(
        finetuning.demo(),
        init=str(folder / "whole"),
        network=NetworkConfig(streams="both"),
        view=config.view,
        schedule=ScheduleConfig(epochs=1, warmup_epochs=0),
        hardware=hardware,
        batch_size=BATCH,
    )
    finetune(tuned, synthetic(96, seed=1), folder / "tuned")
    report.at_most("compiled fine-tuning without ONNX file", float(not (folder / "tuned" / ONNX).exists()), 0)


def check_attention(report: Report, device: torch.device) -> None:
    """List the kernels of attention that a step in bfloat16 runs."""
    if device.type != "cuda":
        report.note("kernels of attention", "only on a GPU")
        return
    model = pretraining_model(tiny=False)
    batch = pretraining_batch(model, IMAGES)
    ready_to_train(model, device)
    step: Callable[[], object] = partial(
        pretrain_step, model, build_optimizer(model, lr=1e-4), [batch], precision="bfloat16"
    )
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
    words = ("flash", "fmha", "attention", "efficient")
    kernels = sorted({event.key for event in profile.key_averages() if any(word in event.key for word in words)})
    report.note("kernels of attention", "; ".join(name[:80] for name in kernels) or "none: plain products")


def main() -> None:
    """Run all checks."""
    device, out, tiny = arguments(__doc__)
    device = setup_device(HardwareConfig(device=device.type))  # type: ignore[arg-type]
    if tiny:
        trace_only()
    report = Report("compile", out)
    with report.attempt("steps"):
        check_steps(report, device, tiny=tiny)
    with report.attempt("scoring"):
        check_scoring(report, device, tiny=tiny)
    with report.attempt("attention"):
        check_attention(report, device)
    with report.attempt("runs"), tempfile.TemporaryDirectory(prefix="uniemox-gpu-") as folder:
        check_runs(report, device, Path(folder), tiny=tiny)


if __name__ == "__main__":
    main()
