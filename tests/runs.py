"""Tiny runs that several tests look at: made once for all processes of the tests, in seconds, on one thread."""

import fcntl
import hashlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.drawn import Stored, jpeg_of
from tests.emotic import write_release
from tools.commands import start_command
from uniemox.data.prompts import distinct_texts
from uniemox.data.sample import DataSet, Sample
from uniemox.data.source import open_data
from uniemox.data.synthetic_scenes import synthetic
from uniemox.export.onnx import export_classifier
from uniemox.finetune.config import AugmentConfig, FinetuneConfig, NetworkConfig
from uniemox.finetune.run import finetune
from uniemox.labels import MIKELS
from uniemox.losses.config import LossWeights
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.pretrain.config import EncoderConfig, PretrainConfig, TeacherConfig
from uniemox.pretrain.presets import demo
from uniemox.pretrain.run import pretrain
from uniemox.teacher.features import save_features
from uniemox.training.callback import Callback, RunPlan
from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig, ScheduleConfig
from uniemox.training.journal import read_metrics
from uniemox.views.config import ViewConfig
from uniemox_paper.plan import ONE_MACHINE

SCENES = 16
CHANNELS = 16
SIZE = 32
CPU = HardwareConfig(device="cpu", precision="float32", workers=0)
L1 = LossWeights(contrastive_feature_alignment=0.0, semantic_visual_alignment=0.0)
PLAIN = AugmentConfig(randaugment=None, mixup=0.0, cutmix=0.0, smoothing=0.0, erasing=0.0)
COLOURS = {"amusement": (220, 30, 30), "awe": (30, 200, 40), "contentment": (30, 40, 220), "excitement": (230, 220, 40)}
PLAIN_OUTPUT = {"NO_COLOR": "1", "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}
DIAGNOSTICS = ("clipped", "fused_cosine", "offset_share")  # the last two depend on how images fall into batches
BESIDE_LOSSES = ("images_per_s", "wait_s", "with_person", *DIAGNOSTICS)


_OWN = tempfile.TemporaryDirectory(prefix="uniemox-tests-")  # of a process that pytest has not started


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A file or folder that is made once for all processes of the tests, which only read it."""
    path = Path(os.environ.get("UNIEMOX_TESTS_MADE", _OWN.name)) / name
    done = path.with_name(f"{name}.done")
    with path.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(path)
            done.touch()
    return path


def scenes(count: int = SCENES) -> DataSet:
    """Synthetic scenes."""
    return synthetic(count)


@cache
def teacher() -> Path:
    """Random features of the scenes and of their texts."""
    return once("teacher.npz", _write_teacher)


def _write_teacher(path: Path) -> None:
    data = scenes(64)
    keys = [sample.key for sample in data.samples]
    texts = [*distinct_texts(data.samples, True), *distinct_texts(data.samples, False)]
    texts = list(dict.fromkeys(texts))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(len(keys), CHANNELS, generator=generator)
    of_texts = torch.randn(len(texts), CHANNELS, generator=generator)
    save_features(path, image_keys=keys, image_features=images, texts=texts, text_features=of_texts)


def tiny_pretraining(**changes: object) -> PretrainConfig:
    """4 steps of 8 images, two epochs, all losses, with a stored teacher."""
    config = replace(
        demo(),
        encoder=EncoderConfig(name="vit_tiny_patch16_224", patch_size=8, embed_dim=32, depth=2, num_heads=2),
        model=ModelConfig(fusion="gated", decoder=DecoderConfig(width=16, depth=1, heads=2)),
        view=ViewConfig(size=SIZE, min_area=0.5),
        teacher=TeacherConfig(source=f"stored:{teacher()}", view="whole"),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=1),
        hardware=CPU,
        save=SaveConfig(every_steps=2),
        batch_size=8,
    )
    return replace(config, **changes)


def tiny_finetuning(init: object, **changes: object) -> FinetuneConfig:
    """One epoch from a run, on the scene alone, without augmentation."""
    config = FinetuneConfig(
        init=str(init),
        network=NetworkConfig(),
        view=ViewConfig(size=SIZE, min_area=0.5),
        augment=PLAIN,
        optimizer=OptimizerConfig(base_lr=0.05, betas=(0.9, 0.999)),
        schedule=ScheduleConfig(epochs=2, warmup_epochs=0),
        hardware=CPU,
        batch_size=8,
    )
    return replace(config, **changes)


@cache
def pretrained() -> Path:
    """A finished pre-training run of `tiny_pretraining`."""
    return once("pretrained", lambda out: pretrain(tiny_pretraining(), scenes(), out))


def colours(each: int = 8, *, seed: int = 0, splits: Mapping[str, int] | None = None) -> DataSet:
    """Images of nearly one colour, which is their label, in memory.

    splits: of each class so many are of this split, in order, whatever `each` is; None: no splits.
    """
    draw = random.Random(seed)
    samples = []
    if splits is None:
        names = [None] * each
    else:
        names = [name for name, count in splits.items() for _ in range(count)]
    for emotion in COLOURS:
        for i, split in enumerate(names):
            known = {"label": MIKELS.index(emotion), "split": split}
            samples.append(colour_sample(f"{emotion}/{i}.jpg", emotion, draw, **known))
    return DataSet("colours", MIKELS, samples)


def colour_sample(key: str, colour: str, draw: random.Random, **known: object) -> Sample:
    """An image of nearly the colour."""
    shade = tuple(min(max(value + draw.randint(-20, 20), 0), 255) for value in COLOURS[colour])
    image = Image.new("RGB", (40, 40), shade)
    image.putpixel((draw.randrange(40), draw.randrange(40)), tuple(draw.randrange(256) for _ in range(3)))
    return Sample(key=key, image=Stored(jpeg_of(image)), **known)  # type: ignore[arg-type]


def losses(run: Path) -> list[dict[str, float]]:
    """What a run wrote of every step, without its times and the scores of its epochs."""
    lines = [line for line in read_metrics(run) if "score" not in line]
    return [{name: value for name, value in line.items() if name not in BESIDE_LOSSES} for line in lines]


def sha256(path: Path) -> str:
    """Of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def uniemox(*words: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command, run to its end in a process that has torch already."""
    line = list(map(str, words))
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        err = Path(place) / "err"
        process = start_command(line, out=out, err=err, folder=folder, environment=PLAIN_OUTPUT)
        process.join(300)
        assert process.exitcode is not None, f"{line} does not end"
        return subprocess.CompletedProcess(line, process.exitcode, out.read_text(), err.read_text())


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    """The command as two processes of torchrun, to its end."""
    launcher = [sys.executable, "-m", "torch.distributed.run"]
    start = [*launcher, *ONE_MACHINE, "--nproc-per-node=2", "-m", "uniemox"]
    environment = os.environ | PLAIN_OUTPUT | {"OMP_NUM_THREADS": "1"}
    line = [*start, *map(str, words)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=300)


def two_forked(folder: Path, *words: object) -> tuple[int, str]:
    """The command as two processes, without torchrun and seconds sooner: the worst exit code, and what both say."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    plain = PLAIN_OUTPUT | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    plain |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    said = folder / "said"
    processes = []
    for rank in ("0", "1"):
        environment = plain | {"RANK": rank, "LOCAL_RANK": rank}
        processes.append(start_command(list(map(str, words)), out=said, err=said, environment=environment))
    for process in processes:
        process.join(300)
    return max(abs(process.exitcode or 0) for process in processes), said.read_text()


def uniemox_here(*words: object) -> subprocess.CompletedProcess[str]:
    """The command in this process, seconds faster: where what it prints is the point, and not its process."""
    from uniemox.cli import main

    given = sys.argv
    sys.argv = ["uniemox", *map(str, words)]
    out = io.StringIO()
    err = io.StringIO()
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = given
    return subprocess.CompletedProcess(list(map(str, words)), code, out.getvalue(), err.getvalue())


def pretrain_words(out: Path, **changes: object) -> list[str]:
    """`tiny_pretraining` as a command; changes by option, with _ for - and __ for a dot."""
    options = {
        "preset": "demo",
        "data": f"synthetic:{SCENES}",
        "out": out,
        "encoder.patch-size": 8,
        "encoder.embed-dim": 32,
        "encoder.depth": 2,
        "encoder.num-heads": 2,
        "model.decoder.width": 16,
        "model.decoder.depth": 1,
        "model.decoder.heads": 2,
        "teacher.source": f"stored:{teacher()}",
        "teacher.view": "whole",
        "view.size": SIZE,
        "batch-size": 8,
        "schedule.epochs": 2,
        "save.every-steps": 2,
        "hardware.device": "cpu",
        "hardware.precision": "float32",
        "hardware.workers": 0,
    } | {name.replace("__", ".").replace("_", "-"): value for name, value in changes.items()}
    return ["pretrain", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def write_votes(folder: Path, each: int) -> None:
    """A table of colours in files, with the votes for Ekman's six of each, and its valence and arousal."""
    folder.mkdir(parents=True)
    shares = {"amusement": (0, 0, 0, 8, 0, 2), "awe": (0, 0, 3, 3, 0, 4), "contentment": (1, 1, 1, 1, 5, 1)}
    rows = ["path,valence,arousal,split,anger,disgust,fear,joy,sadness,surprise"]
    draw = random.Random(0)
    for emotion, counts in shares.items():
        for i in range(each):
            name = f"{emotion}-{i}.jpg"
            split = ("train", "train", "val", "test")[i % 4]
            sample = colour_sample(name, emotion, draw)
            (folder / name).write_bytes(sample.image.read())
            affect = {"amusement": (8.5, 7), "awe": (6, 2), "contentment": (2, 4.5)}[emotion]
            rows.append(",".join(map(str, (name, *affect, split, *counts))))
    (folder / "votes.csv").write_text("\n".join(rows) + "\n")


SPLITS = {"train": 8, "val": 3, "test": 3}
BOTH = NetworkConfig(streams="both", pool="token", drop_path=0.1)
FINETUNINGS: Mapping[str, Callable[[], FinetuneConfig]] = {
    "both": lambda: tiny_finetuning(
        pretrained(),
        network=BOTH,
        schedule=ScheduleConfig(epochs=4, warmup_epochs=0),
        augment=replace(PLAIN, mixup=0.2, smoothing=0.1),
        layer_decay=0.75,
        ema_decay=0.9,
        class_weighting="balanced",
        probe_first=True,
        save=SaveConfig(every_steps=3),
    ),
    "knn": lambda: tiny_finetuning(pretrained(), method="knn"),
    "probe": lambda: tiny_finetuning(pretrained(), method="probe", task="distribution"),
    "affect": lambda: tiny_finetuning(
        pretrained(), task="affect", network=NetworkConfig(streams="person"), optimizer=OptimizerConfig(base_lr=0.1)
    ),
    "multilabel": lambda: tiny_finetuning(
        pretrained(), method="probe", task="multilabel", network=BOTH, class_weighting="balanced"
    ),
}


@cache
def finetuned(name: str) -> Path:
    """A finished run of `FINETUNINGS`, on colours or on votes."""
    return once(name, lambda out: _finetune(name, out))


def _finetune(name: str, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:  # the first test that wants this run may be one without_onnx
        patch.setattr("uniemox.finetune.run.export_classifier", export_classifier)
        finetune(FINETUNINGS[name](), data_of(name), out)


@cache
def data_of(name: str) -> DataSet:
    """What `finetuned` trains on."""
    if name in ("probe", "affect"):
        each = {"probe": 4, "affect": 8}[name]
        folder = once(f"votes-{name}", lambda folder: write_votes(folder, each))
        return open_data(f"csv:{folder}/votes.csv?labels=ekman")
    if name == "multilabel":
        return open_data(f"emotic:{once('emotic', write_release)}")
    return colours(splits=SPLITS)


class Killed(BaseException):
    """In place of a signal that can't be caught."""


class Dies(Callback):
    """Ends the process after a step, or before a classifier is written (None)."""

    def __init__(self, at: int | None) -> None:
        self.at = at

    def step(self, done: int, values: Mapping[str, float]) -> None:
        if done == self.at:
            raise Killed

    def progress(self, what: str, done: int, total: int | None) -> None:
        if self.at is None and what == "calibrating":
            raise Killed


class Told(Callback):
    """Remembers how far each kind of work was said to be, and interrupts after some steps if that is asked."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.last: dict[str, tuple[int, int]] = {}
        self.stop_after = stop_after
        self.plan = None

    def progress(self, what: str, done: int, total: int | None) -> None:
        self.last[what] = (done, total)

    def start(self, plan: RunPlan) -> None:
        self.plan = plan

    def step(self, done: int, values: Mapping[str, float]) -> None:
        self.last[self.plan.title] = (done, self.plan.steps)
        if done == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)  # noted, saved, then said
