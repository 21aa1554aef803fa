"""Size, cost and speed of every row of table III on this machine's CPU, next to the paper's figures.

    python -m benchmarks.models MAE UniEmoX     some rows; without names all of them, in about two minutes
    python -m benchmarks.models --json          a JSON object a row

The six methods that the paper cites from elsewhere get the backbone of ours, with their detectors.
"""

import argparse
import json
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Literal

import timm
import torch
from rich.table import Table
from torch import nn

from benchmarks import containers
from uniemox.cli import run_and_report_errors
from uniemox.cli.console import out, progress_bar
from uniemox.errors import ConfigError, UniemoxError
from uniemox.labels import MIKELS
from uniemox.model.building import build_classifier
from uniemox.model.config import ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.encoders import MixMAEEncoder
from uniemox.model.uniemox import UniEmoX
from uniemox.network_spec import NetworkSpec
from uniemox.paper import paper_tables
from uniemox.spelling import similar_name
from uniemox.training.counting import multiply_adds, parameter_count, timed

# Mikels' emotions; the paper's counts include that head.
CLASSES = 8
IMAGE_SIZE = 224
# Number of CCIM's confounders, as in its paper for CAER-S.
CONFOUNDERS = 128
REPEATS = 3
Build = Callable[[], nn.Module]
Part = Literal["encoder", "container"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Cost of one network for one image of 224 px."""

    parameters_m: float  # millions, frozen ones included
    multiply_adds_g: float  # billions, of matrix products and convolutions in a forward pass
    latency_ms: float  # of a forward pass, float32, batch of one: the median of three after one to warm up
    peak_memory_mb: float | None  # of that pass, weights included; None where the system can't tell


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRow:
    """Row of table III. Methods that relate regions use the backbone of ours, with their detectors."""

    method: str
    backbone: str
    encoder: Cost | None  # as fine-tuned, with a head of 8 classes
    container: Cost | None  # all modules of its pre-training; None for supervised training
    paper_parameters_m: float | None
    paper_multiply_adds_g: float | None

    def as_dict(self) -> dict[str, object]:
        """Return the row in JSON-serialisable form."""
        return asdict(self)


def vit(name: str) -> Build:
    """Return a function that builds a classifier of timm."""
    return lambda: timm.create_model(name, num_classes=CLASSES)


def beit() -> nn.Module:
    """Return BEiT for fine-tuning, with a table of relative positions per block."""
    return timm.create_model("beit_base_patch16_224", num_classes=CLASSES)


def cae() -> nn.Module:
    """Return CAE for fine-tuning, with absolute positions, and tables of relative ones that start at zero."""
    return timm.create_model("beit_base_patch16_224", num_classes=CLASSES, use_abs_pos_emb=True)


def mixmae() -> nn.Module:
    """Return MixMAE's large network, which the paper's row counts."""
    return MixMAEEncoder(
        embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=(14, 14, 14, 7), num_classes=CLASSES
    )


class UniEmoXPass(nn.Module):
    """Our pre-training model on one image that is both scene and person, with given features."""

    def __init__(self) -> None:
        super().__init__()
        self.model = UniEmoX(build_encoder("vit_large_patch16_224"), ModelConfig())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the total loss of images (N, 3, 224, 224)."""
        features = torch.ones(len(images), self.model.config.decoder.width)
        return self.model(images, images, image_features=features, text_features=features).total


class RegionPass(nn.Module):
    """Method that relates regions, on ViT-L, with detectors; one image is both scene and person."""

    def __init__(self, name: str) -> None:
        super().__init__()
        encoder: Any = timm.create_model(VIT_L, num_classes=0, global_pool="token")
        spec = NetworkSpec(
            feature_width=encoder.embed_dim,
            outputs=CLASSES,
            labels=MIKELS.labels,
            method=name,
            method_options={"concatenates": True} if name == "stimuli" else {},
            has_detector=True,
            has_face_finder=True,
            confounders=(CONFOUNDERS, encoder.embed_dim) if name == "emoticon" else None,
        )
        self.classifier = build_classifier(spec, encoder)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, 8) of images (N, 3, 224, 224)."""
        return self.classifier(images, images)


VIT_B = "vit_base_patch16_224"
VIT_L = "vit_large_patch16_224"
# Backbone, classifier and container by the paper's names.
ROWS: dict[str, tuple[str, Build, Build | None]] = {
    "ViT from scratch": ("ViT-L", vit(VIT_L), None),
    "VGG-16": ("VGG-16", vit("vgg16"), None),
    "ResNet-50": ("ResNet-50", vit("resnet50"), None),
    "DenseNet-121": ("DenseNet-121", vit("densenet121"), None),
    "ViT": ("ViT-L", vit(VIT_L), None),
    "MoCoV3": ("ViT-B", vit(VIT_B), containers.MoCoV3),
    "DINO": ("ViT-B", vit(VIT_B), containers.Dino),
    "BEiT": ("ViT-B", beit, containers.BeitContainer),
    "MAE": ("ViT-L", vit(VIT_L), containers.Mae),
    "SimMIM": ("ViT-B", beit, containers.SimMim),
    "TinyMIM": ("ViT-B", vit(VIT_B), containers.TinyMim),
    "SiameseIM": ("ViT-B", vit(VIT_B), containers.SiameseIm),
    "MixMAE": ("MixMIM-L", mixmae, containers.MixMae),
    "dBOT": ("ViT-L", vit(VIT_L), containers.Dbot),
    "CAE": ("ViT-B", cae, containers.Cae),
    "SOLVER": ("ViT-L", partial(RegionPass, "solver"), None),
    "Stimuli-aware": ("ViT-L", partial(RegionPass, "stimuli"), None),
    "MDAN": ("ViT-L", partial(RegionPass, "mdan"), None),
    "EAP": ("ViT-L", partial(RegionPass, "eap"), None),
    "RRLA": ("ViT-L", partial(RegionPass, "rrla"), None),
    "EmotiCon + CCIM": ("ViT-L", partial(RegionPass, "emoticon"), None),
    "UniEmoX": ("ViT-L", vit(VIT_L), UniEmoXPass),
}


def measure_models(methods: tuple[str, ...] = ()) -> Iterator[ModelRow]:
    """Measure the rows of table III one after another, in the paper's order.

    Args:
        methods: Some of the paper's names, in any case; none for all. Nothing is fetched: weights are random.

    Raises:
        ConfigError: If the table has no such name.
    """
    table = {row["method"]: row for row in paper_tables()["table3"]}
    names = {name.lower(): name for name in table}
    for name in methods:
        if name.lower() not in names:
            similar = similar_name(name.lower(), names)
            hint = f"it has {', '.join(table)}" if similar is None else f"did you mean {names[similar]!r}?"
            raise ConfigError(f"table III has no row {name!r}; {hint}")
    chosen = dict.fromkeys(names[name.lower()] for name in methods) or table
    for name in chosen:
        yield ModelRow(
            method=name,
            backbone=ROWS[name][0],
            encoder=_measure_apart(name, "encoder"),
            container=_measure_apart(name, "container"),
            paper_parameters_m=table[name].get("params_m"),
            paper_multiply_adds_g=table[name].get("flops_g"),
        )


def _measure_apart(name: str, part: Part) -> Cost | None:
    """Call `measure` in a new process, which ends with this one; return None if the row has no such part."""
    if _build_of(name, part) is None:
        return None
    context: Any = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
    if sys.platform != "win32":
        # A forked process has all modules imported, so it starts at once.
        context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_cost, args=(sender, name, part), daemon=True)
    try:
        with _deferred_interrupts():
            process.start()
        sender.close()
        return receiver.recv()
    except EOFError as error:
        raise UniemoxError(f"measuring {name} ended early, for want of memory perhaps; close other programs") from error
    finally:
        if process.pid is not None:
            process.kill()
            process.join()


def _send_cost(sender: Connection, name: str, part: Part) -> None:
    # Ctrl-C is for the first process, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The function is found by name, because a closure can't be sent to another process.
    build = _build_of(name, part)
    assert build is not None
    cost = measure(build)
    # The first process may have ended.
    with suppress(BrokenPipeError):
        sender.send(cost)


@contextmanager
def _deferred_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the end of the context, because half-started processes print errors."""
    # Only the main thread gets signals.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def _build_of(name: str, part: Part) -> Build | None:
    _, encoder, container = ROWS[name]
    return encoder if part == "encoder" else container


def measure(build: Build) -> Cost:
    """Build a network and measure it on the CPU. The memory is that of this process, so call it in a new one."""
    before = _resident_mb("VmRSS")
    network = build().eval()
    images = torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    with torch.inference_mode():
        seconds = [timed(lambda: network(images), images.device) for _ in range(1 + REPEATS)][1:]
    peak = _resident_mb("VmHWM")
    return Cost(
        parameters_m=parameter_count(network) / 1e6,
        multiply_adds_g=multiply_adds(lambda: network(images)) / 1e9,
        latency_ms=median(seconds) * 1e3,
        peak_memory_mb=None if before is None or peak is None else peak - before,
    )


def _resident_mb(field: str) -> float | None:
    """Return a line of Linux's process status in MB; None on other systems."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith(field)), None)
    if line is None:
        return None
    return int(line.split()[1]) * 1024 / 1e6


HEADINGS = ("M param", "G mult-add", "ms", "MB", "paper M", "paper G")


def models_tables(rows: Sequence[ModelRow]) -> tuple[Table, Table]:
    """Return two tables: encoders as fine-tuned, and all modules of pre-training.

    The paper's figures are in the row of the encoder for supervised methods, otherwise in that of the pre-training.
    """
    encoders = _table("Encoders as fine-tuned, with a head of 8 classes")
    containers = _table("Pre-training: all that it holds and runs")
    for row in rows:
        paper = (_figure(row.paper_parameters_m, 2), _figure(row.paper_multiply_adds_g, 2))
        encoder_paper = paper if row.container is None else ("", "")
        encoders.add_row(row.method, row.backbone, *_cells(row.encoder), *encoder_paper)
        if row.container is not None:
            containers.add_row(row.method, row.backbone, *_cells(row.container), *paper)
    return encoders, containers


def _table(title: str) -> Table:
    table = Table(title=title, padding=(0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("backbone", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _cells(cost: Cost | None) -> tuple[str, ...]:
    if cost is None:
        return ("-",) * 4
    figures = (cost.parameters_m, 2), (cost.multiply_adds_g, 2), (cost.latency_ms, 0), (cost.peak_memory_mb, 0)
    return tuple(_figure(value, digits) for value, digits in figures)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def main() -> None:
    """Measure the rows that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="rows of the table, by the paper's names")
    parser.add_argument("--json", action="store_true", help="print a JSON object a row")
    args = parser.parse_args()
    rows = []
    with progress_bar() as progress:
        task = progress.add_task("measuring", total=len(args.methods) or None)
        for row in measure_models(args.methods):
            progress.update(task, advance=1, description=f"measured {row.method}")
            rows.append(row)
            if args.json:
                print(json.dumps(row.as_dict()), flush=True)
    if not args.json:
        for table in models_tables(rows):
            out.print(table)


if __name__ == "__main__":
    run_and_report_errors(main)
