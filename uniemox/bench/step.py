"""`uniemox bench step`: images per second of a pre-training step, and how much of the machine's peak that is."""

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import open_clip
import torch
from torch import Tensor

from uniemox.bench.counting import matmul_peak, multiply_adds, parameter_count, timed
from uniemox.errors import ConfigError
from uniemox.model.config import ModelConfig
from uniemox.model.encoder import build_encoder, fast_precision
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.step import PretrainBatch, pretrain_step
from uniemox.teacher.sources import ClipTeacher
from uniemox.training.hardware import ready_to_train, wrap
from uniemox.training.optimization import build_optimizer

TRAINING = 3  # a forward pass, and a backward pass of twice its work


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBench:
    """Result of a measurement."""

    images_per_s: float  # of the best step, as the plain reference is measured
    median_images_per_s: float
    mfu: float  # model FLOPs utilisation of the best step: a fraction of peak_tflops
    peak_tflops: float  # TFLOP/s of the best bf16 matrix product, measured in this run
    gflop_per_image: float  # both streams, forward and twice that backward, and the teacher's forward where it runs
    step_s: float  # of the best step
    peak_memory_mb: float | None  # on a GPU: allocated at most
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

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


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
    """Time whole pre-training steps on random images: both streams, all losses, bf16, optimiser included.

    model: a plain ViT of timm.  with_clip: a CLIP ViT-B/16 with random weights gives Ω in every step; else Ω and Λ come
    with the batch.  compile_model: torch.compile.  on_step: told the number of steps done.
    Raises ConfigError for sizes below 1, EncoderError for another model.
    """
    if batch_size < 1 or steps < 1:
        raise ConfigError(f"batch size and steps must be at least 1, got {batch_size} and {steps}")
    network, step = prepare_step(
        model=model, batch_size=batch_size, device=device, with_clip=with_clip, compile_model=compile_model
    )
    precision, on_gpu = fast_precision(device.type), device.type == "cuda"
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    peak = matmul_peak(device, dtype)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = time_steps(step, steps, device, on_step)
    memory_mb = torch.cuda.max_memory_allocated(device) / 1e6 if on_gpu else None
    peak = max(peak, matmul_peak(device, dtype))
    flops = 2 * step_multiply_adds(model, with_clip=with_clip)
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
        device=torch.cuda.get_device_name(device) if on_gpu else platform.processor() or "cpu",
        torch_version=torch.__version__,
        threads=torch.get_num_threads(),
    )


def prepare_step(
    *, model: str, batch_size: int, device: torch.device, with_clip: bool = False, compile_model: bool = False
) -> tuple[UniEmoX, Callable[[], None]]:
    """A model and one pre-training step of it; arguments as `bench_step`."""
    torch.manual_seed(0)
    network = UniEmoX(build_encoder(model), ModelConfig()).train()
    ready_to_train(network, device)
    optimizer = build_optimizer(network, lr=1e-4)
    runner = wrap(network, device, compiled=compile_model)
    teacher = ClipTeacher(_random_clip().to(device), tokenizer=None) if with_clip else None
    batch = _random_batch(batch_size, network.image_size[0], ModelConfig().decoder.width, with_clip, device)
    precision = fast_precision(device.type)

    def step() -> None:
        pretrain_step(runner, optimizer, [batch], teacher=teacher, precision=precision)

    return network, step


def time_steps(
    step: Callable[[], None], steps: int, device: torch.device, on_step: Callable[[int], None]
) -> list[float]:
    """Seconds of each step, after one to warm up.  on_step: told the number of steps done."""
    step()  # compilation, memory
    seconds = []
    for done in range(1, steps + 1):
        seconds.append(timed(step, device))
        on_step(done)
    return seconds


def step_multiply_adds(model: str, *, with_clip: bool = False) -> int:
    """Multiply-adds of an image in a training step: both streams forward and backward, and the teacher forward."""
    network, count = UniEmoX(build_encoder(model), ModelConfig()), 2  # images, because L2 compares them
    views, features = torch.zeros(count, 3, *network.image_size), torch.zeros(count, ModelConfig().decoder.width)
    student = multiply_adds(lambda: network(views, views, image_features=features, text_features=features)) // count
    if not with_clip:
        return TRAINING * student
    visual = _random_clip().visual
    return TRAINING * student + multiply_adds(lambda: visual(torch.zeros(1, 3, *visual.image_size)))


def _random_clip() -> Any:
    return open_clip.create_model("ViT-B-16", load_weights=False, pretrained_text=False)


def _random_batch(count: int, size: int, width: int, with_clip: bool, device: torch.device) -> PretrainBatch:
    def images() -> Tensor:
        return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, device=device)

    text, image = torch.randn(count, width, device=device), torch.randn(count, width, device=device)
    return PretrainBatch(
        scene=images(), person=images(), image_features=None if with_clip else image, text_features=text
    )
