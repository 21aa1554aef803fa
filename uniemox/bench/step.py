"""`uniemox bench step`: images per second of a pre-training step, and its share of the machine's peak speed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import open_clip
import torch
from torch import Tensor

from uniemox.errors import ConfigError
from uniemox.model.config import ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.step import PretrainBatch, pretrain_step
from uniemox.teacher.sources import ClipTeacher
from uniemox.training.counting import device_name, matmul_peak, multiply_adds, parameter_count, timed
from uniemox.training.hardware import fast_precision, ready_to_train, wrap
from uniemox.training.optimization import build_optimizer

# A training step costs three forward passes, because the backward pass does twice the work of one.
FORWARD_AND_BACKWARD = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBench:
    """Result of a measurement."""

    images_per_s: float  # of the best step, as measured for the plain reference
    median_images_per_s: float
    mfu: float  # model FLOPs utilisation of the best step: a fraction of peak_tflops
    peak_tflops: float  # TFLOP/s of the best bf16 matrix product, measured in this run
    gflop_per_image: float  # both streams, forward and twice that backward, plus the teacher's forward if it runs
    step_s: float  # of the best step
    peak_memory_mb: float | None  # maximum allocation on a GPU
    parameters_m: float
    model: str
    batch_size: int
    steps: int
    teacher: str  # "given": its features come with the batch; "clip": ViT-B/16 runs in the step
    compiled: bool
    precision: str
    device: str
    torch_version: str
    threads: int


def bench_step(
    *,
    model: str,
    batch_size: int,
    steps: int,
    device: torch.device,
    with_clip: bool,
    compile_model: bool,
    on_step: Callable[[int], None] = lambda step: None,
) -> StepBench:
    """Time whole pre-training steps on random images: both streams, all losses, bf16, including the optimiser.

    Args:
        model: A plain ViT of timm.
        batch_size: Number of images per step.
        steps: Number of timed steps, after one warm-up step.
        device: Device to run on.
        with_clip: A CLIP ViT-B/16 with random weights computes Ω in every step; otherwise the batch contains Ω and Λ.
        compile_model: Compile the networks with torch.compile.
        on_step: Called with the number of steps done.

    Raises:
        ConfigError: For sizes below 1.
        EncoderError: If the model is not a plain ViT of timm.
    """
    if batch_size < 1 or steps < 1:
        raise ConfigError(f"batch size and steps must be at least 1, got {batch_size} and {steps}")
    torch.manual_seed(0)
    network = UniEmoX(build_encoder(model), ModelConfig()).train()
    teacher = _random_teacher(compile_model) if with_clip else None
    # A multiply-add is two operations.
    flops = 2 * step_multiply_adds(network, None if teacher is None else teacher.model.visual)
    ready_to_train(network, device)
    optimizer = build_optimizer(network, lr=1e-4)
    runner = wrap(network, device, compiled=compile_model)
    if teacher is not None:
        teacher.model.to(device)
    batch = _random_batch(batch_size, network.image_size[0], ModelConfig().decoder.width, with_clip, device)
    precision = fast_precision(device.type)
    on_gpu = device.type == "cuda"
    step = partial(pretrain_step, runner, optimizer, [batch], teacher=teacher, precision=precision)
    # The peak is measured before and after the steps; the larger value counts.
    peak = matmul_peak(device, getattr(torch, precision))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    # The first step compiles the networks and allocates memory.
    step()
    seconds = []
    for done in range(1, steps + 1):
        seconds.append(timed(step, device))
        on_step(done)
    memory_mb = torch.cuda.max_memory_allocated(device) / 1e6 if on_gpu else None
    peak = max(peak, matmul_peak(device, getattr(torch, precision)))
    return StepBench(
        images_per_s=batch_size / min(seconds),
        median_images_per_s=batch_size / median(seconds),
        mfu=batch_size / min(seconds) * flops / peak,
        peak_tflops=peak / 1e12,
        gflop_per_image=flops / 1e9,
        step_s=min(seconds),
        peak_memory_mb=memory_mb,
        parameters_m=parameter_count(network) / 1e6,
        model=model,
        batch_size=batch_size,
        steps=steps,
        teacher="clip" if with_clip else "given",
        compiled=compile_model,
        precision=precision,
        device=device_name(device),
        torch_version=torch.__version__,
        threads=torch.get_num_threads(),
    )


def step_multiply_adds(network: UniEmoX, visual: Any | None) -> int:
    """Count an image's multiply-adds in a training step: both streams forward and backward, the teacher forward.

    Args:
        visual: open_clip's image tower; None: it does not run in the step.
    """
    width = network.config.teacher_width or network.config.decoder.width
    # Two images, because L2 compares the images of a batch with each other.
    views = torch.zeros(2, 3, *network.image_size)
    features = torch.zeros(2, width)
    student = multiply_adds(lambda: network(views, views, image_features=features, text_features=features)) // 2
    if visual is None:
        return FORWARD_AND_BACKWARD * student
    size = visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size,) * 2
    pixels = torch.zeros(1, 3, *size, device=next(visual.parameters()).device)
    return FORWARD_AND_BACKWARD * student + multiply_adds(lambda: visual(pixels))


def _random_teacher(compiled: bool) -> ClipTeacher:
    """Build a CLIP ViT-B/16 with random weights, its image tower compiled as in a run."""
    clip = random_clip("ViT-B-16")
    if compiled:
        clip.visual.compile()
    return ClipTeacher(clip, tokenizer=None)


def random_clip(architecture: str) -> Any:
    """Build a CLIP of open_clip with random weights."""
    return open_clip.create_model(architecture, load_weights=False, pretrained_text=False)


def _random_batch(count: int, size: int, width: int, with_clip: bool, device: torch.device) -> PretrainBatch:
    def images() -> Tensor:
        return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, device=device)

    text = torch.randn(count, width, device=device)
    image = torch.randn(count, width, device=device)
    return PretrainBatch(
        scene=images(), person=images(), image_features=None if with_clip else image, text_features=text
    )
