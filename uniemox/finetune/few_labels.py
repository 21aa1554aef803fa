"""Curves of accuracy over the number of labelled images of each class, for light heads on one encoder.

Every seed draws images of the split train; its smaller draws are parts of its larger ones. Every image is encoded
once. The heads are then fitted in seconds, and scored on the images that `uniemox evaluate` would score. Only method
lora trains the encoder, and encodes the scored images again, for every draw.
"""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from uniemox.data.overlaps import OVERLAPS, read_overlaps, write_overlaps
from uniemox.data.sample import Broken, DataSet, Sample, units_of
from uniemox.data.splits import hash_of
from uniemox.data.unreadable import absent_classes
from uniemox.errors import DataError, StoppedError
from uniemox.evaluate.classifier_outputs import Reading, encode_samples
from uniemox.finetune.config import FinetuneConfig, NetworkConfig
from uniemox.finetune.few_labels_config import FewLabelsConfig
from uniemox.finetune.few_labels_heads import LORA, LORA_STEPS, ZERO_SHOT, Features, HeadFitter, check_adaptable
from uniemox.finetune.few_labels_page import MethodAccuracy, write_page
from uniemox.finetune.network import BuiltNetwork, build_network
from uniemox.finetune.overlaps import find_overlaps
from uniemox.finetune.parts import split_for_training
from uniemox.intervals import clip_to_share, interval_over_runs, share_interval
from uniemox.io.arrays import load_arrays
from uniemox.io.files import replacing, write_file, write_rows
from uniemox.io.progress import Progress
from uniemox.io.stopping import StopRequest
from uniemox.io.typed import read_json_lines
from uniemox.labels import LabelSet
from uniemox.plurals import counted
from uniemox.training.callback import Callback
from uniemox.training.config import HardwareConfig
from uniemox.training.hardware import count_workers, setup_device
from uniemox.training.run_folder import FEATURES_FOLDER, begin_run
from uniemox.training.run_notes import name_unknown_pixels
from uniemox.views.config import ViewConfig
from uniemox.views.loader import BrokenCount

ANSWERS = "answers.jsonl"
"""Predicted label of every scored image, a line for each fitted head."""
CURVE = "curve.csv"
# Number of images whose features are in one file.
CHUNK = 128


@dataclass(frozen=True, slots=True)
class FittedHead:
    """Predictions of one head; a line of `ANSWERS`."""

    method: str
    images: int
    """Number of training images of each class; 0 for zero-shot."""
    seed: int
    predicted: tuple[int, ...]
    """Index of the predicted label for every scored image."""


@dataclass(frozen=True, slots=True)
class _Work:
    """Settings and folder of a curve, and its ties to the caller."""

    config: FewLabelsConfig
    out: Path
    stop: StopRequest
    callback: Callback

    def stop_if_requested(self) -> None:
        """Raise StoppedError if the process was asked to stop; everything that is done has been written."""
        if self.stop.signal is not None:
            raise StoppedError(
                f"stopped; what was done is saved in {self.out}, and the same command with --resume continues",
                exit_code=128 + self.stop.signal,
            )

    def progress_from(self, start: int, total: int) -> Progress:
        """Return a function that reports encoded images after the first `start` of them."""
        return lambda _, done, __: self.callback.progress("encoding images", start + done, total)


def few_labels(
    config: FewLabelsConfig, data: DataSet, out: Path, *, resume: bool = False, callback: Callback | None = None
) -> list[MethodAccuracy]:
    """Fit every method on every number of images with every seed, and write the curve.

    Args:
        config: Settings.
        data: Labelled data set; without splits it is divided 80/10/10.
        out: Folder for results: a new one, or one to continue if `resume`.
        resume: Continue the work in `out`; saved features and heads are not computed again.
        callback: Receives the progress; None: nothing does.

    Returns:
        Points of the curves; the trivial baselines come first.

    Raises:
        ConfigError: If `out` has other settings or data.
        DataError: If a class has too few training images, if no image of a draw can be read, or if none can be scored.
        CheckpointError: If the encoder can't be opened.
        StoppedError: After SIGTERM or Ctrl-C, when all is saved.
    """
    callback = callback or Callback()
    device = setup_device(HardwareConfig(device=config.device))
    with begin_run(out, "few-labels", config, data, resume=resume), StopRequest() as stop:
        work = _Work(config, out, stop, callback)
        pool, scored = _split_for_draws(work, data)
        draws = [draw_images(pool, max(config.images), seed, data.labels) for seed in range(config.seeds)]
        # For scratch: weights.
        torch.manual_seed(0)
        network = build_network(config.init, NetworkConfig(), size=config.size, outputs=len(data.labels))
        name_unknown_pixels(network.classifier.encoder, callback)
        network.classifier.to(device)
        check_adaptable(network.classifier, config)
        drawn = {sample.key: sample for draw in draws for members in draw.values() for sample in members}
        features = _encode(work, network, [*scored, *drawn.values()])
        unreadable = {key for key in drawn if key not in features.rows}
        if unreadable:
            lacking = sorted({str(data.label_of(drawn[key])) for key in unreadable})
            callback.note(
                f"{counted(len(unreadable), 'drawn image')} can't be read: draws with such an image have fewer images "
                f"of {', '.join(lacking)} than the table says; to draw others instead, exclude these (--exclude)"
            )
            pool = [sample for sample in pool if sample.key not in unreadable]
        scored = [sample for sample in scored if sample.key in features.rows]
        if not scored:
            raise DataError(f"{data.name}: no image that should be scored can be read")
        fitter = HeadFitter(
            config=config,
            labels=data.labels,
            network=network,
            features=features,
            scored=scored,
            workers=_workers(config, device),
        )
        heads = _fit_all(work, fitter, draws)
        points = [*_baselines(data, pool, scored), *_points(config, heads, scored)]
        _write(points, config, data, scored, out)
    return points


def draw_images(pool: Sequence[Sample], count: int, seed: int, labels: LabelSet) -> dict[int, list[Sample]]:
    """Draw images of every class; the first n of them are those of a draw of n.

    Args:
        pool: Labelled images.
        count: Number of images of each class.
        seed: Random seed; the draw depends only on the seed and the images' keys.
        labels: Label set of the images.

    Returns:
        Images by index of their class.

    Raises:
        DataError: If a class has fewer images.
    """
    classes: dict[int, dict[str, Sample]] = {}
    for sample in sorted(pool, key=lambda sample: hash_of(sample.key, seed)):
        if sample.label is not None:
            # One image of a group: copies of an image add nothing.
            classes.setdefault(sample.label, {}).setdefault(sample.group or sample.key, sample)
    for label, members in sorted(classes.items()):
        if len(members) < count:
            raise DataError(
                f"{labels.labels[label]} has {counted(len(members), 'different training image')}, and {count} of each "
                f"class are needed: give --images up to {len(members)}, or leave the class out"
            )
    return {label: list(classes[label].values())[:count] for label in sorted(classes)}


def _split_for_draws(work: _Work, data: DataSet) -> tuple[list[Sample], list[Sample]]:
    """Return the images to draw from, and the images to score.

    Raises:
        DataError: If no image is left to score.
    """
    init = work.config.init
    settings = FinetuneConfig(init=init, method="probe")
    if (work.out / OVERLAPS).exists():
        overlaps = read_overlaps(work.out)
    else:
        overlaps = find_overlaps(data, settings, work.callback.progress)
        write_overlaps(work.out, overlaps)
    data = replace(data, samples=overlaps.join(data.samples))
    parts = split_for_training(data, settings, work.out)
    refused = {*overlaps.scored_copies, *overlaps.seen_scored.get(init, ())}
    scored = [sample for sample in parts.scored if sample.key not in refused]
    if refused:
        split = f"of split {overlaps.scored_split}"
        work.callback.note(
            f"{counted(len(refused), f'image {split} is', f'images {split} are')} not scored: training images of "
            f"{init}, or copies of images that may be drawn"
        )
    if not scored:
        raise DataError(
            f"{data.name} has no image to score: give data with a split test, or another --init if its training "
            "images are those of the split"
        )
    absent = absent_classes(parts.train, data.labels)
    if absent:
        work.callback.note(f"{data.name} has no training image of {', '.join(absent)}: heads don't learn these labels")
    return parts.train, scored


def _encode(work: _Work, network: BuiltNetwork, samples: Sequence[Sample]) -> Features:
    """Return the encoder's features of the samples; every `CHUNK` of them is saved when it is done.

    Raises:
        DataError: If more images are unreadable than allowed.
        StoppedError: If it was asked to stop.
    """
    config = work.config
    workers = _workers(config, next(network.classifier.parameters()).device)
    broken = BrokenCount(config.max_unreadable)
    rows: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(samples), CHUNK):
        chunk = samples[start : start + CHUNK]
        path = work.out / FEATURES_FOLDER / f"{start // CHUNK:05d}.npz"
        if not path.exists():
            reading = Reading(stats=network.stats, workers=workers, on_progress=work.progress_from(start, len(samples)))
            outputs = encode_samples(network.classifier, chunk, ViewConfig(size=config.size), reading)
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as partial, partial.open("wb") as file:
                np.savez(
                    file,
                    keys=np.array([sample.key for sample in outputs.samples]),
                    values=outputs.values[:, 0],
                    unreadable=np.array([image.key for image in outputs.broken], dtype=str),
                    reasons=np.array([image.reason for image in outputs.broken], dtype=str),
                )
        saved = load_arrays(path)
        rows |= dict(zip(saved["keys"].tolist(), saved["values"], strict=True))
        pairs = zip(saved["unreadable"].tolist(), saved["reasons"].tolist(), strict=True)
        unreadable = [Broken(key, reason) for key, reason in pairs]
        broken.add(unreadable)
        for image in unreadable:
            work.callback.note(f"left out: {image.reason}")
        work.stop_if_requested()
    return Features(rows)


def _workers(config: FewLabelsConfig, device: torch.device) -> int:
    """Return the number of processes that decode images."""
    return count_workers(HardwareConfig(workers=config.workers), device)


def _fit_all(work: _Work, fitter: HeadFitter, draws: Sequence[Mapping[int, Sequence[Sample]]]) -> list[FittedHead]:
    """Fit every head that is not in `ANSWERS` yet, and add its line there.

    Raises:
        DataError: If no image of a draw can be read.
        StoppedError: If it was asked to stop.
    """
    path = work.out / ANSWERS
    heads = []
    if path.exists():
        remedy = "delete the file, and give --resume"
        heads = [head for _, head in read_json_lines(path, FittedHead, remedy=remedy, may_be_cut=True)]
    done = {(head.method, head.images, head.seed) for head in heads}
    # A killed process may have left half of a line.
    write_file(path, "".join(_line(head) for head in heads))
    plan = _plan(work.config)
    trainings = sum(head[0] == LORA and head not in done for head in plan)
    if trainings:
        work.callback.note(
            f"lora: {counted(trainings, 'training')} of {LORA_STEPS} steps; each encodes "
            f"{counted(len(fitter.scored), 'image')} again"
        )

    def on_step(steps: int) -> None:
        work.callback.progress("training low-rank changes", steps, LORA_STEPS)
        work.stop_if_requested()

    with path.open("a", encoding="utf-8") as file:
        for number, (method, images, seed) in enumerate(plan):
            work.callback.progress("fitting heads", number, len(plan))
            if (method, images, seed) in done:
                continue
            train = [sample for members in draws[seed].values() for sample in members[:images]]
            train = [sample for sample in train if sample.key in fitter.features.rows]
            if images and not train:
                raise DataError(
                    f"no image of draw {seed} can be read, and {images} of each class are needed: leave out the "
                    "unreadable images, or give larger --images"
                )
            logits = fitter.logits(method, train, seed, on_step)
            head = FittedHead(method, images, seed, tuple(logits.argmax(axis=1).tolist()))
            heads.append(head)
            file.write(_line(head))
            file.flush()
            work.stop_if_requested()
        work.callback.progress("fitting heads", len(plan), len(plan))
    return heads


def _plan(config: FewLabelsConfig) -> list[tuple[str, int, int]]:
    """Return method, number of images of each class and seed of every head."""
    heads: list[tuple[str, int, int]] = [
        (method, images, seed)
        for method in config.methods
        for images in sorted(config.images)
        for seed in range(config.seeds)
    ]
    if "prototypes" in config.methods:
        return [(ZERO_SHOT, 0, 0), *heads]
    return heads


def _baselines(data: DataSet, pool: Sequence[Sample], scored: Sequence[Sample]) -> list[MethodAccuracy]:
    """Return the accuracy of chance, and of always predicting the most frequent class of the training images."""
    counts = Counter(sample.label for sample in pool)
    commonest = max(sorted(label for label in counts if label is not None), key=counts.__getitem__)
    hits = np.array([sample.label == commonest for sample in scored])
    low, high = share_interval(hits, units_of(scored))
    always = f"always {data.labels.labels[commonest]}"
    return [
        MethodAccuracy("chance", None, 0, 1 / len(data.labels), None, None),
        MethodAccuracy(always, None, 0, float(hits.mean()), low, high),
    ]


def _points(config: FewLabelsConfig, heads: Sequence[FittedHead], scored: Sequence[Sample]) -> list[MethodAccuracy]:
    """Return a point for each method and number of images: the mean over seeds, with its interval."""
    truth = np.array([sample.label for sample in scored])
    points = []
    for method in (ZERO_SHOT, *config.methods):
        for images in (0, *sorted(config.images)):
            runs = [head for head in heads if (head.method, head.images) == (method, images)]
            if not runs:
                continue
            runs.sort(key=lambda head: head.seed)
            hits = np.array([head.predicted for head in runs]) == truth  # (S, N)
            # Student's t does not know that an accuracy is a share.
            low, high = clip_to_share(interval_over_runs(hits, units_of(scored))) or (None, None)
            points.append(MethodAccuracy(method, images, len(runs), float(hits.mean()), low, high))
    return points


def _write(
    points: Sequence[MethodAccuracy], config: FewLabelsConfig, data: DataSet, scored: Sequence[Sample], out: Path
) -> None:
    """Write the table, the drawing and the page."""
    table = io.StringIO()
    write_rows(table, [[field.name for field in fields(MethodAccuracy)], *map(astuple, points)])
    write_file(out / CURVE, table.getvalue())
    write_page(points, config, data.name, len(scored), out)


def _line(head: FittedHead) -> str:
    return json.dumps(asdict(head)) + "\n"
