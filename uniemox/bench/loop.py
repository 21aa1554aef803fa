"""`uniemox bench loop`: what a training run makes of the speed of its steps, from shards and from files."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from uniemox.bench.step import prepare_step, time_steps
from uniemox.data.order import steps_in_epoch
from uniemox.data.prompts import distinct_texts
from uniemox.data.sample import DataSet
from uniemox.data.shard_writing import ShardConfig, write_shards
from uniemox.data.shards import read_shards
from uniemox.errors import ConfigError
from uniemox.model.config import ModelConfig
from uniemox.pretrain.config import EncoderConfig, PretrainConfig, TeacherConfig
from uniemox.pretrain.run import pretrain
from uniemox.teacher.stored import save_features
from uniemox.training.callbacks import NullCallback
from uniemox.training.config import SaveConfig, ScheduleConfig
from uniemox.training.hardware import setup_device

SHORT_SIDE_PX = 256  # of the shards
WARMUP = 3  # steps of a run that are not counted


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopBench:
    """Medians over steps; a run's step lasts from the end of one to the end of the next, whatever happens between."""

    step_images_per_s: float
    """Of bare steps, as `uniemox bench step` times them."""
    shards_images_per_s: float
    """Of a pre-training run that reads shards of images with a short side of 256 px."""
    files_images_per_s: float
    """Of one that reads the files."""
    shards_ratio: float
    """Of its speed to that of the bare steps."""
    files_ratio: float
    model: str
    batch_size: int
    steps: int

    def as_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def bench_loop(
    data: DataSet, *, model: str, batch_size: int, steps: int, on_step: Callable[[], None] = lambda: None
) -> LoopBench:
    """Time bare steps, a run from shards, a run from files, and bare steps again, on the device that a run would take.

    model: a plain ViT of timm.  The teacher's features are given, as in `bench_step` on a CPU.
    Raises ConfigError for sizes below 1, DataError for data that do not fill a batch or can't be read.
    """
    if batch_size < 1 or steps < 1:
        raise ConfigError(f"batch size and steps must be at least 1, got {batch_size} and {steps}")
    device = setup_device(PretrainConfig().hardware)

    def bare() -> float:
        _, step = prepare_step(model=model, batch_size=batch_size, device=device)
        return batch_size / median(time_steps(step, steps, device, lambda _: on_step()))

    with tempfile.TemporaryDirectory(prefix="uniemox-loop-") as folder:
        place = Path(folder)
        write_shards(data, place / "shards", ShardConfig(short_side_px=SHORT_SIDE_PX))
        _draw_features(data, place / "teacher.npz")
        config = PretrainConfig(
            encoder=EncoderConfig(name=model),
            teacher=TeacherConfig(source=f"stored:{place / 'teacher.npz'}"),
            schedule=ScheduleConfig(
                epochs=(steps + WARMUP) / steps_in_epoch(len(data), batch_size), warmup_epochs=0, min_lr=0
            ),
            save=SaveConfig(every_steps=steps + WARMUP),
            batch_size=batch_size,
        )
        before = bare()
        shards = _run(config, read_shards(str(place / "shards")), place / "from_shards", on_step)
        files = _run(config, data, place / "from_files", on_step)
        step = (before + bare()) / 2
    return LoopBench(
        step_images_per_s=step,
        shards_images_per_s=shards,
        files_images_per_s=files,
        shards_ratio=shards / step,
        files_ratio=files / step,
        model=model,
        batch_size=batch_size,
        steps=steps,
    )


class _Clock(NullCallback):
    """When every step ended."""

    def __init__(self, on_step: Callable[[], None]) -> None:
        self.on_step = on_step
        self.ends: list[float] = []

    def step(self, done: int, values: Mapping[str, float]) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())
        self.on_step()


def _run(config: PretrainConfig, data: DataSet, out: Path, on_step: Callable[[], None]) -> float:
    """Images per second of a run."""
    clock = _Clock(on_step)
    pretrain(config, data, out, callback=clock)
    ends = clock.ends[WARMUP - 1 :]
    return config.batch_size / median(end - start for start, end in pairwise(ends))


def _draw_features(data: DataSet, path: Path) -> None:
    """A stored teacher with random features for every image and text."""
    keys, texts = [sample.key for sample in data.samples], distinct_texts(data.samples, with_emotion=True)
    width = ModelConfig().decoder.width
    save_features(
        path,
        image_keys=keys,
        image_features=torch.randn(len(keys), width),
        texts=texts,
        text_features=torch.randn(len(texts), width),
    )
