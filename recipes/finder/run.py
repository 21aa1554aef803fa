"""Train a person finder on boxes that another detector found: `python -m recipes.finder fit`."""

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
from torch import Tensor

from recipes.finder.config import SIDE_STEP, FinderConfig
from recipes.finder.export import FinderGraph, export_finder
from recipes.finder.loss import build_targets, finder_loss
from recipes.finder.network import FinderNetwork, load_body
from recipes.finder.scores import FinderScores, LabelledImage, best_threshold
from recipes.finder.views import FinderBatch, FinderViews, finder_loader, pack_samples
from uniemox.data.order import RunOrder, steps_in_epoch
from uniemox.data.sample import Broken, Sample, decode_sample
from uniemox.data.seen import hashes_of, seen_file, write_hashes
from uniemox.data.unreadable import UNREADABLE_FILE, describe_unreadable, write_unreadable
from uniemox.errors import DataError, ImageError
from uniemox.io.progress import Progress, silent
from uniemox.persons.box import Detection, Thresholds, select
from uniemox.persons.fitting import fit_images
from uniemox.persons.layouts import CENTRES, CENTRES_NMS_OVERLAP, decode_centres_map
from uniemox.training.callback import Callback
from uniemox.training.hardware import fast_precision, ready_to_train
from uniemox.training.optimization import build_grouped_optimizer, train_step
from uniemox.training.run_folder import begin_run
from uniemox.training.trainer import Trainer
from uniemox.views.loader import BrokenCount
from uniemox.views.patches import PixelStats, normalise

# With fewer images that have people, too few could be held out.
MIN_IMAGES_WITH_PEOPLE = 20
# Smallest side of training images, as a share of the finder's input size.
MIN_SCALE = 0.5
# Share of the steps in which the learning rate rises.
WARMUP = 0.05
WEIGHT_DECAY = 0.02
MAX_GRAD_NORM = 5.0
EVAL_BATCH_SIZE = 16
# Minimum heat of the boxes on held-out images, from which the threshold is chosen.
MIN_HEAT = 0.02
# Maximum number of boxes of an image.
MAX_PEOPLE = 100


@dataclass(frozen=True, slots=True)
class FinderReport:
    """Result of a training."""

    trained_on: int
    """Number of training images."""
    held_out: int
    """Number of held-out images."""
    threshold: float
    """Heat that becomes a confidence of 0.5 in the file: it has the best F0.5 on the held-out images."""
    scores: FinderScores
    """Scores on the held-out images, against the boxes of the labels."""
    broken: int
    """Number of images that could not be read."""


def fit_finder(
    samples: Sequence[Sample],
    config: FinderConfig,
    out: Path,
    *,
    resume: bool = False,
    callback: Callback | None = None,
) -> FinderReport:
    """Train a finder on images whose people are known, choose its minimum confidence, and write it to an ONNX file.

    The run is saved in OUT.run. With `resume` it continues from there to the same bits, however often it is killed.

    Args:
        samples: Training images. Those without `persons` are left out; equal files are used once.
        config: Settings of the training.
        out: ONNX file to write.
        resume: Continue the run in OUT.run, if there is one.
        callback: Gets progress and warnings.

    Raises:
        DataError: If fewer than 20 images have people, or too many can't be read.
        CheckpointError: If the initial network can't be loaded, or the file can't be written.
        ConfigError: If the images don't fill a batch.
        NonFiniteLossError: If the loss is not finite.
        StoppedError: After SIGTERM or Ctrl-C.
    """
    callback = callback or Callback()
    run = out.with_name(f"{out.name}.run")
    broken = BrokenCount(config.max_unreadable)
    held_out, training = split_images(samples, config, broken, callback.progress)
    body, channels, mean, std = load_body(config.start, config.coarsest)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = FinderNetwork(body, channels, config.width)
    stats = PixelStats(mean, std)
    # Without `resume`, the run of a finished file is replaced.
    if out.is_file() and not resume:
        shutil.rmtree(run, ignore_errors=True)
    # Raises before anything is written if there are too few images.
    steps_in_epoch(len(training), config.batch_size)
    with begin_run(run, "finder", config, training, resume=resume):
        _train(network, training, config, stats, run, broken, callback)
    graph = FinderGraph(network, mean, std, threshold=0.5).eval()
    labelled, detections = detect_persons(graph, held_out, config, broken, callback.progress)
    threshold, scores = best_threshold(labelled, detections)
    report = FinderReport(len(training), len(labelled), threshold, scores, len(broken.reasons))
    name, has_file, file = config.start.partition("@")
    # The folder of the weight file is private, so the metadata have only its name.
    start = name + has_file + Path(file).name
    about = {"config": asdict(config) | {"start": start}, "layout": "uniemox finder", **report_values(report)}
    export_finder(FinderGraph(network, mean, std, threshold), config.size, about, out)
    write_hashes(seen_file(out), hashes_of([*held_out, *training]))
    listing = out.with_name(f"{out.name}.{UNREADABLE_FILE}")
    write_unreadable(listing, broken.reasons)
    for line in describe_unreadable(broken.reasons, listing):
        callback.note(line)
    return report


def split_images(
    samples: Sequence[Sample], config: FinderConfig, broken: BrokenCount, on_progress: Progress = silent
) -> tuple[list[Sample], list[Sample]]:
    """Return the images that are held out, and those that the finder is trained on."""
    images = _distinct(samples, broken, on_progress)
    order = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(images)).tolist()
    count = round(config.held_out * len(images))
    return [images[i] for i in order[:count]], [images[i] for i in order[count:]]


def _distinct(samples: Sequence[Sample], broken: BrokenCount, on_progress: Progress) -> list[Sample]:
    """Return the images whose people are known, equal files once.

    Raises:
        DataError: If there are too few images with people.
    """
    labelled = {(str(sample.image), sample.image_key): sample for sample in samples if sample.persons is not None}
    distinct: dict[bytes, Sample] = {}
    for i, sample in enumerate(labelled.values()):
        try:
            distinct.setdefault(sha256(sample.image.read()).digest(), sample)
        except OSError as error:
            broken.add([Broken(sample.key, f"{sample.image}: can't be read ({error.strerror or error})")])
        on_progress("reading images", i + 1, len(labelled))
    with_people = sum(bool(sample.persons) for sample in distinct.values())
    if with_people < MIN_IMAGES_WITH_PEOPLE:
        raise DataError(
            f"{with_people} different images have people whose boxes are known, a finder needs at least "
            f"{MIN_IMAGES_WITH_PEOPLE}; find them with another detector first: uniemox data persons KIND:PATH "
            "--detector FILE.onnx"
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
    """Train the network in place."""
    device = torch.device("cpu")
    ready_to_train(network, device)
    body_parameters = {id(parameter) for parameter in network.body.parameters()}
    new_parameters = [parameter for parameter in network.parameters() if id(parameter) not in body_parameters]
    parts = [(network.body.parameters(), config.start_lr_scale), (new_parameters, 1.0)]
    optimizer = build_grouped_optimizer(parts, weight_decay=WEIGHT_DECAY)
    batches = list(_batch_positions(len(samples), config))
    views = pack_samples(FinderViews(samples, config.seed, config.min_confidence))
    trainer = Trainer.of_single_process(config, run, network, optimizer, callback, samples=len(samples), warmup=WARMUP)
    plan = trainer.resume_single_process("training", config, samples=len(samples))
    network.train()
    loader = iter(finder_loader(views, batches[plan.done :], config.workers))

    def losses_of(batch: FinderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        stacked = np.stack([view.pixels for view in batch.samples])
        pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2)  # (N, 3, S, S)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision("cpu") == "bfloat16"):
            heat, distances = network(normalise(pixels, device, stats))
        loss = finder_loss(heat, distances, build_targets(batch.samples, pixels.shape[-1]))["total"]
        return loss, {"loss": loss}

    with closing(trainer.steps(plan, broken.readable(loader))) as steps:
        for step in steps:
            values = train_step(
                network, optimizer, step.batches, lambda batch: len(batch.samples), losses_of, MAX_GRAD_NORM
            )
            step.report(values | {"lr": optimizer.param_groups[-1]["lr"]})
    network.eval()


def _batch_positions(samples: int, config: FinderConfig) -> Iterator[list[tuple[int, int, int]]]:
    """Yield batches of (epoch, index, side of the view in px); each batch has one side, drawn at random."""
    rng = np.random.Generator(np.random.PCG64([config.seed, 1]))
    sides = range(config.size, math.ceil(MIN_SCALE * config.size) - 1, -SIDE_STEP)
    steps = config.epochs * steps_in_epoch(samples, config.batch_size)
    for batch in RunOrder(samples, batch_size=config.batch_size, seed=config.seed, steps=steps):
        side = sides[int(rng.integers(len(sides)))]
        yield [(*position, side) for position in batch]


@torch.no_grad()
def detect_persons(
    graph: FinderGraph,
    samples: Sequence[Sample],
    config: FinderConfig,
    broken: BrokenCount,
    on_progress: Progress = silent,
) -> tuple[list[LabelledImage], list[tuple[Detection, ...]]]:
    """Return the labelled people of images, and the boxes that the network detects there, however unsure."""
    labelled: list[LabelledImage] = []
    detections: list[tuple[Detection, ...]] = []
    for start in range(0, len(samples), EVAL_BATCH_SIZE):
        images = []
        for sample in samples[start : start + EVAL_BATCH_SIZE]:
            try:
                image, full = decode_sample(sample)
            except ImageError as error:
                broken.add([Broken(sample.key, str(error))])
                continue
            persons = sample.persons or ()
            certain = tuple(person for person in persons if person.confidence >= config.min_confidence)
            labelled.append(
                LabelledImage(
                    *full, certain, tuple(person for person in persons if person.confidence < config.min_confidence)
                )
            )
            images.append(image)
        if images:
            detections += _detect(graph, images, config.size)
        on_progress("looking at held-out images", min(start + EVAL_BATCH_SIZE, len(samples)), len(samples))
    return labelled, detections


def _detect(graph: FinderGraph, images: Sequence[Any], size: int) -> list[tuple[Detection, ...]]:
    pixels, placements = fit_images(images, (size, size), CENTRES)
    boxes, confidences = decode_centres_map([graph(torch.from_numpy(pixels)).numpy()], (size, size))
    thresholds = Thresholds(MIN_HEAT, CENTRES_NMS_OVERLAP, MAX_PEOPLE)
    return [
        select(placement.back(image_boxes), heat, image.size, thresholds)
        for image, placement, image_boxes, heat in zip(images, placements, boxes, confidences, strict=True)
    ]


def report_values(report: FinderReport) -> dict[str, Any]:
    """Return a report in JSON-serialisable form."""
    scores = report.scores
    return asdict(report) | {
        "recall": scores.recall,
        "large_recall": scores.large_recall,
        "precision": scores.precision,
        "f_half": scores.f_half,
    }
