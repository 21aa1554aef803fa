"""Training a person finder on boxes that another detector found: `uniemox finder fit`."""

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from uniemox.data.order import BatchOrder
from uniemox.data.processes import loader_context
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.data.seen import hashes_of, seen_file, write_hashes
from uniemox.errors import ConfigError, DataError, ImageError, NonFiniteLossError
from uniemox.finder.export import FinderGraph, export_finder
from uniemox.finder.loss import build_targets, finder_loss
from uniemox.finder.network import FinderNetwork, load_body
from uniemox.finder.scores import FinderScores, Known, best_threshold
from uniemox.finder.views import FinderViews, collate_views, packed
from uniemox.model.precision import fast_precision
from uniemox.persons.box import Detection
from uniemox.persons.centres import decode_centres_map
from uniemox.persons.fitting import fit_images
from uniemox.persons.layouts import CENTRES, CENTRES_NMS_OVERLAP
from uniemox.persons.selection import select
from uniemox.training.hardware import ready_to_train
from uniemox.views.loader import BrokenCount
from uniemox.views.pixels import PixelStats, normalise

FEWEST = 20  # images with people, so that some can be held out
MIN_SCALE = 0.5  # of the training images, share of the finder's own size
SIDE_STEP = 32  # px; the coarsest map's stride
WARMUP = 0.05  # share of the steps
WEIGHT_DECAY, MAX_GRAD_NORM = 0.02, 5.0
LOOK_AT = 16  # held-out images at a time
SHOWN_FROM = 0.02  # heat from which held-out boxes are compared
MAX_PEOPLE = 100  # of an image
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class FinderConfig:
    """How a person finder is trained."""

    start: str
    """The network that it starts from: timm:NAME, or timm:NAME@FILE with the weights of a file."""
    size: int = 320
    """Side of the input that images are squashed to, px; a multiple of 32."""
    width: int = 96
    """Channels of neck and heads."""
    epochs: int = 10
    """Passes over the images."""
    batch_size: int = 16
    """Images of a step."""
    lr: float = 1e-3
    """Highest learning rate, of neck and heads."""
    start_lr_scale: float = 0.1
    """Share of it for the network that it starts from: its norms hold nothing back, and at 0.3 its last layers died."""
    min_confidence: float = 0.3
    """People whose boxes are less sure are neither found nor missed."""
    held_out: float = 0.1
    """Share of the images that are not trained on, 0 to 0.5: the minimum confidence is chosen on them."""
    seed: int = 0
    """Of the weights, the held-out images, the crops and the order."""
    workers: int = 1
    """Processes that read images; 0 reads in this one. No number changes the result."""
    max_unreadable: int = 20
    """So many images that can't be read are left out; one more stops the training."""

    def __post_init__(self) -> None:
        minimum_of = {"width": 1, "epochs": 1, "batch_size": 1, "seed": 0, "workers": 0, "max_unreadable": 0}
        for name, minimum in minimum_of.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} must be at least {minimum}, got {getattr(self, name)}")
        if self.size < 2 * SIDE_STEP or self.size % SIDE_STEP:
            raise ConfigError(f"size must be a multiple of {SIDE_STEP} px, at least two of them, got {self.size}")
        for name in ("lr", "start_lr_scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.min_confidence <= 1:
            raise ConfigError(f"min_confidence must be from 0 to 1, got {self.min_confidence}")
        if not 0 < self.held_out <= 0.5:
            raise ConfigError(f"held_out must be above 0 and at most 0.5, got {self.held_out}")


@dataclass(frozen=True, slots=True)
class FinderReport:
    """What came out of a training."""

    trained_on: int
    """Images."""
    held_out: int
    threshold: float
    """The heat that the file shows as a confidence of 0.5: it has the best F0.5 on the held-out images."""
    scores: FinderScores
    """On the held-out images, against the boxes that the training was given."""
    broken: int
    """Images that could not be read."""


def fit_finder(
    samples: Sequence[Sample], config: FinderConfig, out: Path, on_progress: Progress = lambda *_: None
) -> FinderReport:
    """Train a finder on images whose people are known, choose its minimum confidence, and write it to an ONNX file.

    samples: those without `persons` are left out; images that are the same file are taken once.
    on_progress: called with what is done, how much of it is done, and how much there is.
    Raises DataError with fewer than 20 images that have people, or too many that can't be read; CheckpointError if
    the start can't be had or the file can't be written; ConfigError if the images don't fill a batch;
    NonFiniteLossError.
    """
    broken = BrokenCount(config.max_unreadable)
    images = _distinct(samples, broken, on_progress)
    order = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(images)).tolist()
    held_out = [images[i] for i in order[: round(config.held_out * len(images))]]
    shown = [images[i] for i in order[len(held_out) :]]
    body, channels, mean, std = load_body(config.start)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = FinderNetwork(body, channels, config.width)
    stats = PixelStats(mean, std)
    _train(network, shown, config, stats, broken, on_progress)
    graph = FinderGraph(network, mean, std, threshold=0.5).eval()
    known, found = look_for_people(graph, held_out, config, broken, on_progress)
    threshold, scores = best_threshold(known, found)
    report = FinderReport(len(shown), len(known), threshold, scores, len(broken.found))
    name, has_file, file = config.start.partition("@")
    start = name + has_file + Path(file).name  # the file's folder is nobody's business
    about = {"config": asdict(config) | {"start": start}, "layout": "uniemox finder", **in_numbers(report)}
    export_finder(FinderGraph(network, mean, std, threshold), config.size, about, out)
    write_hashes(seen_file(out), hashes_of(images))
    return report


def _distinct(samples: Sequence[Sample], broken: BrokenCount, on_progress: Progress) -> list[Sample]:
    """Images whose people are known, once each, whatever they are called. Raises DataError if there are too few."""
    known = {(str(sample.image), sample.image_key): sample for sample in samples if sample.persons is not None}
    distinct: dict[bytes, Sample] = {}
    for i, sample in enumerate(known.values()):
        try:
            distinct.setdefault(sha256(sample.image.read()).digest(), sample)
        except OSError as error:
            broken.add([Broken(sample.key, f"{sample.image}: can't be read ({error.strerror or error})")])
        on_progress("reading images", i + 1, len(known))
    with_people = sum(bool(sample.persons) for sample in distinct.values())
    if with_people < FEWEST:
        raise DataError(
            f"{with_people} different images have people whose boxes are known, a finder needs at least {FEWEST}; "
            "find them with another detector first: uniemox data persons KIND:PATH --detector FILE.onnx"
        )
    return list(distinct.values())


def _train(
    network: FinderNetwork,
    samples: Sequence[Sample],
    config: FinderConfig,
    stats: PixelStats,
    broken: BrokenCount,
    on_progress: Progress,
) -> None:
    """Train in place."""
    device = torch.device("cpu")
    ready_to_train(network, device)
    optimizer = _optimizer(network, config)
    views = packed(FinderViews(samples, config.seed, config.min_confidence))
    batches = list(_places(len(samples), config))
    loader: Any = DataLoader(
        views,
        batch_sampler=batches,
        num_workers=config.workers,
        collate_fn=collate_views,
        prefetch_factor=4 if config.workers else None,
        worker_init_fn=_leave_interrupts,
        multiprocessing_context=loader_context() if config.workers else None,
    )
    network.train()
    for step, (good, bad) in enumerate(loader):
        broken.add(bad)
        if not good:
            continue
        pixels = torch.from_numpy(np.stack([view.pixels for view in good])).permute(0, 3, 1, 2)  # (N, 3, S, S)
        targets = build_targets(good, pixels.shape[-1])
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision("cpu") == "bfloat16"):
            heat, distances = network(normalise(pixels, device, stats))
        loss = finder_loss(heat, distances, targets)["total"]
        if not torch.isfinite(loss):
            raise NonFiniteLossError(f"the loss of step {step} is {float(loss)}; lower lr, which is {config.lr}")
        _set_lr(optimizer, step, len(batches))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        on_progress("training", step + 1, len(batches))
    network.eval()


def _leave_interrupts(_: int) -> None:
    """Ctrl-C reaches all processes of a terminal; the first one stops those that load."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _places(samples: int, config: FinderConfig) -> Iterator[list[tuple[int, int, int]]]:
    """Batches as (epoch, index, side of the view in px); each batch has one side, drawn at random."""
    rng = np.random.Generator(np.random.PCG64([config.seed, 1]))
    sides = range(config.size, math.ceil(MIN_SCALE * config.size) - 1, -SIDE_STEP)
    for epoch in range(config.epochs):
        for batch in BatchOrder(samples, batch_size=config.batch_size, seed=config.seed, epoch=epoch):
            side = sides[int(rng.integers(len(sides)))]
            yield [(*place, side) for place in batch]


def _optimizer(network: FinderNetwork, config: FinderConfig) -> torch.optim.AdamW:
    groups = []
    of_start = {id(parameter) for parameter in network.body.parameters()}
    for is_start in (True, False):
        for is_matrix in (True, False):
            chosen = [
                p
                for p in network.parameters()
                if p.requires_grad and (id(p) in of_start) == is_start and (p.ndim > 1) == is_matrix
            ]
            lr = config.lr * (config.start_lr_scale if is_start else 1.0)
            groups.append({"params": chosen, "weight_decay": WEIGHT_DECAY if is_matrix else 0.0, "highest": lr})
    return torch.optim.AdamW(groups, lr=0.0, fused=True)


def _set_lr(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """A linear warm-up, then half a cosine down to 0."""
    warmup = max(1, round(WARMUP * steps))
    late = (step - warmup) / max(1, steps - warmup)
    share = (step + 1) / warmup if step < warmup else (1 + math.cos(math.pi * late)) / 2
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * share


@torch.no_grad()
def look_for_people(
    graph: FinderGraph,
    samples: Sequence[Sample],
    config: FinderConfig,
    broken: BrokenCount,
    on_progress: Progress = lambda *_: None,
) -> tuple[list[Known], list[tuple[Detection, ...]]]:
    """Who is known to be in images, and the boxes that the network finds there, however unsure."""
    known: list[Known] = []
    found: list[tuple[Detection, ...]] = []
    for start in range(0, len(samples), LOOK_AT):
        images = []
        for sample in samples[start : start + LOOK_AT]:
            try:
                image, full = decode_sample(sample)
            except ImageError as error:
                broken.add([Broken(sample.key, str(error))])
                continue
            people = sample.persons or ()
            sure = tuple(one for one in people if one.confidence >= config.min_confidence)
            known.append(Known(*full, sure, tuple(one for one in people if one.confidence < config.min_confidence)))
            images.append(image)
        if images:
            found += _detect(graph, images, config.size)
        on_progress("looking at held-out images", min(start + LOOK_AT, len(samples)), len(samples))
    return known, found


def _detect(graph: FinderGraph, images: Sequence[Any], size: int) -> list[tuple[Detection, ...]]:
    pixels, placements = fit_images(images, (size, size), CENTRES)
    boxes, confidences = decode_centres_map([graph(torch.from_numpy(pixels)).numpy()], (size, size))
    return [
        select(
            placement.back(of_one),
            heat,
            image.size,
            confidence=SHOWN_FROM,
            nms_overlap=CENTRES_NMS_OVERLAP,
            max_detections=MAX_PEOPLE,
        )
        for image, placement, of_one, heat in zip(images, placements, boxes, confidences, strict=True)
    ]


def in_numbers(report: FinderReport) -> dict[str, Any]:
    """A report as JSON has it."""
    scores = report.scores
    return asdict(report) | {
        "recall": scores.recall,
        "large_recall": scores.large_recall,
        "precision": scores.precision,
        "f_half": scores.f_half,
    }
