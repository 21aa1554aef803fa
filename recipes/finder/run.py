"""Training a person finder on boxes that another detector found: `python -m recipes.finder fit`."""

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.finder.config import SIDE_STEP, FinderConfig
from recipes.finder.export import FinderGraph, export_finder
from recipes.finder.loss import build_targets, finder_loss
from recipes.finder.network import FinderNetwork, load_body
from recipes.finder.scores import FinderScores, Known, best_threshold
from recipes.finder.views import FinderViews, finder_loader, packed
from uniemox.data.order import RunOrder, steps_in_epoch
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.data.seen import hashes_of, seen_file, write_hashes
from uniemox.data.unreadable import UNREADABLE, describe_unreadable, write_unreadable
from uniemox.errors import DataError, ImageError
from uniemox.io.progress import Progress, silent
from uniemox.model.encoder import fast_precision
from uniemox.persons.box import Detection, Thresholds, select
from uniemox.persons.fitting import fit_images
from uniemox.persons.layouts import CENTRES, CENTRES_NMS_OVERLAP, decode_centres_map
from uniemox.training.hardware import ready_to_train
from uniemox.training.journal import Callback
from uniemox.training.optimization import parameter_groups_of, update, warmup_cosine
from uniemox.training.run_folder import begin_run
from uniemox.training.state import Checkpoints
from uniemox.training.trainer import Trainer
from uniemox.views.loader import BrokenCount
from uniemox.views.patches import PixelStats, normalise

FEWEST = 20  # images with people, so that some can be held out
MIN_SCALE = 0.5  # of the training images, share of the finder's own size
WARMUP = 0.05  # share of the steps
WEIGHT_DECAY = 0.02
MAX_GRAD_NORM = 5.0
LOOK_AT = 16  # held-out images at a time
SHOWN_FROM = 0.02  # heat from which held-out boxes are compared
MAX_PEOPLE = 100  # of an image


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
    samples: Sequence[Sample],
    config: FinderConfig,
    out: Path,
    *,
    resume: bool = False,
    callback: Callback | None = None,
) -> FinderReport:
    """Train a finder on images whose people are known, choose its minimum confidence, and write it to an ONNX file.

    The run itself is kept in OUT.run, from which it continues to the same bits if `resume`, however often it is killed.
    the start can't be had or the file can't be written; ConfigError if the images don't fill a batch;
    NonFiniteLossError; StoppedError after SIGTERM or Ctrl-C.

    Args:
        samples: Those without `persons` are left out; images that are the same file are taken once.

    Raises:
        DataError: With fewer than 20 images that have people, or too many that can't be read.
        CheckpointError: if.
    """
    callback = callback or Callback()
    run = out.with_name(f"{out.name}.run")
    broken = BrokenCount(config.max_unreadable)
    held_out, shown = divided(samples, config, broken, callback.progress)
    body, channels, mean, std = load_body(config.start, config.coarsest)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = FinderNetwork(body, channels, config.width)
    stats = PixelStats(mean, std)
    if out.is_file() and not resume:  # a finished one makes room
        shutil.rmtree(run, ignore_errors=True)
    steps_in_epoch(len(shown), config.batch_size)  # raises before anything is written
    with begin_run(run, "finder", config, shown, resume=resume):
        _train(network, shown, config, stats, run, broken, callback)
    graph = FinderGraph(network, mean, std, threshold=0.5).eval()
    known, found = look_for_people(graph, held_out, config, broken, callback.progress)
    threshold, scores = best_threshold(known, found)
    report = FinderReport(len(shown), len(known), threshold, scores, len(broken.reasons))
    name, has_file, file = config.start.partition("@")
    start = name + has_file + Path(file).name  # the file's folder is nobody's business
    about = {"config": asdict(config) | {"start": start}, "layout": "uniemox finder", **in_numbers(report)}
    export_finder(FinderGraph(network, mean, std, threshold), config.size, about, out)
    write_hashes(seen_file(out), hashes_of([*held_out, *shown]))
    listing = out.with_name(f"{out.name}.{UNREADABLE}")
    write_unreadable(listing, broken.reasons)
    for line in describe_unreadable(broken.reasons, listing):
        callback.note(line)
    return report


def divided(
    samples: Sequence[Sample], config: FinderConfig, broken: BrokenCount, on_progress: Progress = silent
) -> tuple[list[Sample], list[Sample]]:
    """Return the images that are held out, and those that the finder is trained on."""
    images = _distinct(samples, broken, on_progress)
    order = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(images)).tolist()
    count = round(config.held_out * len(images))
    return [images[i] for i in order[:count]], [images[i] for i in order[count:]]


def _distinct(samples: Sequence[Sample], broken: BrokenCount, on_progress: Progress) -> list[Sample]:
    """Images whose people are known, once each, whatever they are called.

    Raises:
        DataError: If there are too few.
    """
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
    run: Path,
    broken: BrokenCount,
    callback: Callback,
) -> None:
    """Train in place."""
    device = torch.device("cpu")
    ready_to_train(network, device)
    of_start = {id(parameter) for parameter in network.body.parameters()}
    new = [parameter for parameter in network.parameters() if id(parameter) not in of_start]
    groups = parameter_groups_of([(network.body.parameters(), config.start_lr_scale), (new, 1.0)], WEIGHT_DECAY)
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    batches = list(_places(len(samples), config))
    views = packed(FinderViews(samples, config.seed, config.min_confidence))
    trainer = Trainer(
        out=run,
        model=network,
        optimizer=optimizer,
        set_lr=warmup_cosine(optimizer, config.lr, steps=len(batches), warmup=WARMUP),
        checkpoints=Checkpoints(run, keep=1),
        callback=callback,
    )
    plan = trainer.plan_small_run("training", config, samples=len(samples))
    network.train()
    loader = iter(finder_loader(views, batches[plan.done :], config.workers))
    with closing(trainer.steps(plan, broken.readable(loader))) as steps:
        for step in steps:
            [batch] = step.batches
            stacked = np.stack([view.pixels for view in batch.samples])
            pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2)  # (N, 3, S, S)
            with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision("cpu") == "bfloat16"):
                heat, distances = network(normalise(pixels, device, stats))
            loss = finder_loss(heat, distances, build_targets(batch.samples, pixels.shape[-1]))["total"]
            optimizer.zero_grad()
            loss.backward()
            values = update(network, optimizer, {"loss": loss.detach()}, MAX_GRAD_NORM)
            step.report(values | {"lr": optimizer.param_groups[-1]["lr"]})
    network.eval()


def _places(samples: int, config: FinderConfig) -> Iterator[list[tuple[int, int, int]]]:
    """Batches as (epoch, index, side of the view in px); each batch has one side, drawn at random."""
    rng = np.random.Generator(np.random.PCG64([config.seed, 1]))
    sides = range(config.size, math.ceil(MIN_SCALE * config.size) - 1, -SIDE_STEP)
    steps = config.epochs * steps_in_epoch(samples, config.batch_size)
    for batch in RunOrder(samples, batch_size=config.batch_size, seed=config.seed, steps=steps):
        side = sides[int(rng.integers(len(sides)))]
        yield [(*place, side) for place in batch]


@torch.no_grad()
def look_for_people(
    graph: FinderGraph,
    samples: Sequence[Sample],
    config: FinderConfig,
    broken: BrokenCount,
    on_progress: Progress = silent,
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
    least = Thresholds(SHOWN_FROM, CENTRES_NMS_OVERLAP, MAX_PEOPLE)
    return [
        select(placement.back(of_one), heat, image.size, least)
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
