"""Measure the speed of a pre-training run on one device, and of its parts: loading, step, teacher, optimiser, saving.

    python -m benchmarks.train --preset paper --data shards:EmoSet --batch-size 128 > train.json
    python -m benchmarks.train --preset demo --data synthetic:512 --steps 10

Encoder and teacher have random weights. `uniemox reproduce --plan --images-per-s FILE` reads the output.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count, islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import open_clip
import torch

from uniemox.bench.step import step_multiply_adds
from uniemox.checkpoints.timm_networks import TIMM, TimmSource
from uniemox.cli import run_and_report_errors
from uniemox.cli.console import progress_bar
from uniemox.data.order import steps_in_epoch
from uniemox.data.prompts import distinct_texts
from uniemox.data.sample import DataSet
from uniemox.data.source import open_data
from uniemox.errors import ConfigError
from uniemox.pretrain.config import PretrainConfig
from uniemox.pretrain.presets import PRESETS
from uniemox.pretrain.run import build_model, build_trainer, move_and_compile, plan_run
from uniemox.pretrain.step import PretrainBatch, make_batch, pretrain_step, teacher_features
from uniemox.teacher.features import StoredTeacher, save_features
from uniemox.teacher.protocol import Teacher
from uniemox.teacher.sources import ClipTeacher
from uniemox.training.callback import Callback
from uniemox.training.config import SaveConfig, ScheduleConfig
from uniemox.training.counting import device_name, matmul_peak, parameter_count, timed
from uniemox.training.hardware import count_workers, precision_of, setup_device, wrap
from uniemox.training.journal import Journal
from uniemox.training.state import ResumePoint
from uniemox.training.trainer import Trainer, training_batches
from uniemox.views.loader import ViewBatch, ViewDataset
from uniemox.views.transforms import TrainViews

# Steps before the measurement.
WARMUP = 3
# Channels of a stored teacher.
WIDTH = 512
# Repetitions for each part.
PARTS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBench:
    """Medians. Parts are measured one after the other; in a run some overlap."""

    images_per_s: float
    """Speed of the whole run, from the end of one step to the end of the next."""
    waiting: float
    """Share of the run's time in which a step waits for its images."""
    mfu: float
    """Model FLOPs utilisation of the run: a fraction of peak_tflops."""
    step_images_per_s: float
    """Speed of bare steps on one batch: teacher, forward, backward, optimiser."""
    loading_images_per_s: float
    """Speed of the loader alone."""
    teacher_ms: float
    """Time for the features of one batch; 0 if they are stored."""
    optimizer_ms: float
    log_ms: float
    checkpoint_s: float
    """Time until it is on disk; a run writes it during its next steps."""
    peak_tflops: float
    """TFLOP/s of the best matrix product in the run's precision, measured here."""
    gflop_per_image: float
    """Forward and twice that backward, plus the teacher's forward if it runs in the step."""
    parameters_m: float
    batch_size: int
    steps: int
    workers: int
    compiled: bool
    precision: str
    device: str
    torch_version: str


def bench_train(
    config: PretrainConfig, data: DataSet, *, steps: int, on_step: Callable[[], None] = lambda: None
) -> TrainBench:
    """Time a pre-training run and its parts, on the run's device, in this process only.

    Encoder and teacher have random weights, so no files are needed; speed does not depend on the weights.

    Raises:
        ConfigError: If the number of steps is below 1.
        DataError: If the data do not fill a batch or can't be read.
    """
    if steps < 1:
        raise ConfigError(f"steps must be at least 1, got {steps}")
    device = setup_device(config.hardware)
    precision = precision_of(config.hardware)
    epochs = (steps + WARMUP) / steps_in_epoch(len(data), config.batch_size)
    config = replace(
        with_random_weights(config),
        schedule=ScheduleConfig(epochs=epochs, warmup_epochs=0),
        save=SaveConfig(every_steps=steps + WARMUP),
    )
    clock = _Clock(on_step)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    with tempfile.TemporaryDirectory(prefix="uniemox-train-") as folder:
        out = Path(folder)
        teacher = random_teacher(config, data, out, device)
        model = build_model(config, None if teacher is None else teacher.width)
        gflop = 2 * step_multiply_adds(model, _image_tower(teacher)) / 1e9
        move_and_compile(config, model, teacher, device)
        peak = matmul_peak(device, dtype)
        trainer = build_trainer(config, data, out, model, clock)
        runner = wrap(model, device, compiled=config.hardware.compile)
        plan = plan_run(config, data, trainer, teacher)
        patches = model.encoder.patch_embed.num_patches
        views = ViewDataset(data.samples, TrainViews(config.view, config.seed, patches))
        norm = config.optimizer.max_grad_norm
        batch_of = partial(make_batch, with_emotion=config.teacher.with_emotion)
        take_step = partial(
            pretrain_step, runner, trainer.optimizer, teacher=teacher, precision=precision, max_grad_norm=norm
        )
        with closing(trainer.steps(plan, training_batches(config, views, plan))) as timed_steps:
            for step in timed_steps:
                step.report(take_step([batch_of(views_batch) for views_batch in step.batches]))
        parts = _time_parts(config, trainer, teacher, training_batches(config, views, plan), take_step)
        peak = max(peak, matmul_peak(device, dtype))
    seconds = [end - start for start, end in pairwise(clock.ends[WARMUP - 1 :])]
    images_per_s = config.batch_size / median(seconds)
    return TrainBench(
        images_per_s=images_per_s,
        waiting=sum(clock.waits[WARMUP:]) / sum(seconds),
        mfu=images_per_s * gflop * 1e9 / peak,
        step_images_per_s=config.batch_size / parts["step"],
        loading_images_per_s=config.batch_size / parts["loading"],
        teacher_ms=1000 * parts["teacher"],
        optimizer_ms=1000 * parts["optimizer"],
        log_ms=1000 * parts["log"],
        checkpoint_s=parts["checkpoint"],
        peak_tflops=peak / 1e12,
        gflop_per_image=gflop,
        parameters_m=parameter_count(model) / 1e6,
        batch_size=config.batch_size,
        steps=steps,
        workers=count_workers(config.hardware, device),
        compiled=config.hardware.compile,
        precision=precision,
        device=device_name(device),
        torch_version=torch.__version__,
    )


def _image_tower(teacher: Teacher | None) -> Any | None:
    """Return the CLIP's network that runs in every step; None for features from a file."""
    clip = teacher.of_images if isinstance(teacher, StoredTeacher) else teacher
    if isinstance(clip, ClipTeacher):
        return clip.model.visual
    return None


def with_random_weights(config: PretrainConfig) -> PretrainConfig:
    """Return the settings of the same network without pre-trained weights."""
    start = config.encoder.start or ""
    name = TimmSource.parse(start).name if start.startswith(TIMM) else config.encoder.name
    return replace(config, encoder=replace(config.encoder, start=None, name=name))


def random_teacher(config: PretrainConfig, data: DataSet, out: Path, device: torch.device) -> Teacher | None:
    """Return a CLIP of the same size, or stored features if the run would use them; None if no loss needs a teacher."""
    if not config.model.needs_image_features:
        return None
    clip = None
    keys = [sample.key for sample in data.samples]
    width = WIDTH
    kind, _, name = config.teacher.source.partition(":")
    if kind == "clip" and config.teacher.view == "augmented" and not name.startswith("local-dir:"):
        architecture = name.partition("@")[0]
        network = open_clip.create_model(architecture, load_weights=False, pretrained_text=False)
        clip = ClipTeacher(network.to(device), open_clip.get_tokenizer(architecture))
        if not config.model.needs_text_features:
            return clip
        keys = []
        width = clip.width
    texts = distinct_texts(data.samples, config.teacher.with_emotion)
    image_features = torch.randn(len(keys), width)
    text_features = torch.randn(len(texts), width)
    path = out / "teacher.npz"
    save_features(path, image_keys=keys, image_features=image_features, texts=texts, text_features=text_features)
    return StoredTeacher(path, clip)


def _time_parts(
    config: PretrainConfig,
    trainer: Trainer,
    teacher: Teacher | None,
    loader: Iterable[ViewBatch],
    take_step: Callable[[Sequence[PretrainBatch]], object],
) -> dict[str, float]:
    """Return the median seconds of each part of a step."""
    device = next(trainer.model.parameters()).device
    remaining = iter(loader)
    batches = [
        make_batch(views, with_emotion=config.teacher.with_emotion) for views in islice(remaining, config.accumulation)
    ]
    start = time.perf_counter()
    count = sum(1 for _ in remaining)
    loading = (time.perf_counter() - start) / count

    def median_of(call: Callable[[], object]) -> float:
        return median(timed(call, device) for _ in range(PARTS))

    def ask() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision_of(config.hardware) == "bfloat16"):
            for batch in batches:
                teacher_features(batch, teacher, config.model, device)

    def save() -> None:
        trainer.checkpoints.save(ResumePoint(1), trainer.model, trainer.optimizer)
        trainer.checkpoints.wait()

    is_asked = _image_tower(teacher) is not None
    with Journal(trainer.out, 0) as journal:
        log = median_of(partial(journal.write, 1, {"total": 1.0, "lr": 1.0, "grad_norm": 1.0}))
    return {
        "loading": loading * config.accumulation,
        "step": median_of(lambda: take_step(batches)),
        "teacher": median_of(ask) if is_asked else 0.0,
        "optimizer": median_of(trainer.optimizer.step),
        "log": log,
        "checkpoint": median_of(save),
    }


class _Clock(Callback):
    """Callback that records the end of every step, and its time of waiting for images."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self.on_step = on_step
        self.ends: list[float] = []
        self.waits: list[float] = []

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Record the end of a step and its waiting time."""
        self.ends.append(time.perf_counter())
        self.waits.append(values["wait_s"])
        self.on_step()


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="KIND:PATH")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="paper", help="preset of pretrain")
    parser.add_argument("--steps", type=int, default=50, help="number of timed steps, after three warm-up steps")
    parser.add_argument("--batch-size", type=int, help="images per step; default: the preset's")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="use torch.compile; default: the preset's"
    )
    args = parser.parse_args()
    config = PRESETS[args.preset]()
    if args.compile is not None:
        config = replace(config, hardware=replace(config.hardware, compile=args.compile))
    config = replace(config, batch_size=args.batch_size or config.batch_size)
    done = count(1)
    with progress_bar() as progress:
        total = args.steps + WARMUP
        result = bench_train(
            config, open_data(args.data), steps=args.steps, on_step=lambda: progress.show("steps", next(done), total)
        )
    print(json.dumps(asdict(result)))


if __name__ == "__main__":
    run_and_report_errors(main)
