"""Measure prediction: many images, against the same network in torch, and the first answer of a process."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from uniemox.bench.counting import memory_mb
from uniemox.checkpoints.classifier import load_classifier
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import DataError, UniemoxError
from uniemox.io.files import WEIGHTS
from uniemox.model.classifier import Classifier
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure
from uniemox.predict.predictor import Predictor
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewDataset, collate
from uniemox.views.patches import PixelStats, normalise
from uniemox.views.transforms import EvalViews

BATCH = 16
PASSES = 3
SOAK_FROM = 2000
FRESH = """
import sys, uniemox
predictor = uniemox.load(sys.argv[1] or None, finder=sys.argv[2] or None, threads=int(sys.argv[4]) or None)
predictor.predict(sys.argv[3])
status = open("/proc/self/status").read().split("VmHWM:")[1]  # getrusage counts what was there before exec
print(int(status.split()[0]) / 2**10, "torch" in sys.modules)
"""


@dataclass(frozen=True, slots=True)
class PredictBench:
    """Result of the measurement; speeds are the best of the passes."""

    images_per_s: float
    """From a file's bytes to a Prediction, one image a core, without looking for people."""
    with_people_images_per_s: float | None
    """The same with the finder; None without one."""
    torch_images_per_s: float | None
    """The same network in float32 torch eager, its images decoded one after the other; None without its weights."""
    ratio: float | None
    """Of the two."""
    network_images_per_s: float
    """The ONNX network alone, on views that are ready."""
    torch_network_images_per_s: float | None
    """The torch network alone."""
    images: int
    """In a pass."""
    start_s: float
    """From the start of a process to its first answer, best of the passes."""
    peak_rss_mb: float
    """Of that process."""
    folder_peak_rss_mb: float
    """Of a process that answers all images of the pass."""
    imports_torch: bool
    """Whether that process did."""
    memory_growth_mb: float | None
    """Between the 2,000th image and the last; None where nobody asked, or can tell."""

    def as_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def bench_predict(
    data: DataSet,
    *,
    model: str | None = None,
    torch_run: Path | None = None,
    finder: str | None = None,
    soak: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PredictBench:
    """Answer the images of a data set several times over.

    model: as `load`.  torch_run: a run, or its model.safetensors, with the same network's weights; None: the model, if
    that is a run.  finder: for the fresh process and the soak; None: nobody looks.  soak: number of further images over
    which the growth of memory is measured.  on_progress: called with the numbers of images answered and to answer.
    Raises DataError for an image that can't be read, else as `load`.
    """
    images = [sample.image.read() for sample in data.samples]
    predictor = load(model, finder=None, threads=1)
    weights = _weights(model, torch_run)
    passes = PASSES * (1 + (finder is not None) + (weights is not None))
    done, total = 0, passes * len(images) + soak

    def count(answered: int) -> None:
        nonlocal done
        done += answered
        on_progress(done, total)

    ours = max(_pass(predictor, images, count) for _ in range(PASSES))
    with_people = None
    if finder is not None:
        finding = load(model, finder=finder, threads=1)
        with_people = max(_pass(finding, images, count) for _ in range(PASSES))
    predictor = load(model, finder=None)
    views = _views(data.samples, predictor)
    network = max(_network_speed(lambda pixels: predictor.network.logits(*pixels), views) for _ in range(PASSES))
    theirs = theirs_network = None
    if weights is not None:
        classifier, _ = load_classifier(weights)
        theirs = max(_torch_pass(classifier, predictor, data.samples, count) for _ in range(PASSES))
        theirs_network = max(
            _network_speed(lambda pixels: _torch_logits(classifier, pixels), views) for _ in range(PASSES)
        )
    fresh = [_fresh_process(model, finder, images[:1]) for _ in range(PASSES)]
    _, folder_peak_rss_mb, _ = _fresh_process(model, finder, images)
    growth = _soak(load(model, finder=finder, threads=1), images, soak, count) if soak else None
    return PredictBench(
        images_per_s=ours,
        with_people_images_per_s=with_people,
        torch_images_per_s=theirs,
        ratio=None if theirs is None else ours / theirs,
        network_images_per_s=network,
        torch_network_images_per_s=theirs_network,
        images=len(images),
        start_s=min(seconds for seconds, _, _ in fresh),
        peak_rss_mb=max(rss for _, rss, _ in fresh),
        folder_peak_rss_mb=folder_peak_rss_mb,
        imports_torch=any(has_torch for _, _, has_torch in fresh),
        memory_growth_mb=growth,
    )


Pixels = tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]


def _pass(predictor: Predictor, images: Sequence[bytes], count: Callable[[int], None]) -> float:
    """Images per second of one pass."""
    start = time.perf_counter()
    for result in predictor.predict_each(images):
        if isinstance(result, Failure):
            raise DataError(f"speed is measured on images that can be read: {result.error}")
        count(1)
    return len(images) / (time.perf_counter() - start)


def _torch_pass(
    classifier: Classifier, predictor: Predictor, samples: Sequence[Sample], count: Callable[[int], None]
) -> float:
    """Images per second of the plain form: decode, cut, collate, normalise, forward."""
    start = time.perf_counter()
    for pixels in _batches(samples, predictor):
        count(len(_torch_logits(classifier, pixels).argmax(axis=1)))
    return len(samples) / (time.perf_counter() - start)


def _views(samples: Sequence[Sample], predictor: Predictor) -> list[Pixels]:
    """Batches of views, normalised, of at most 64 images."""
    return list(_batches(samples[: 4 * BATCH], predictor))


def _batches(samples: Sequence[Sample], predictor: Predictor) -> Iterator[Pixels]:
    info = predictor.network.info
    config = ViewConfig(size=info.size, crop_fraction=info.crop_fraction, person=info.person)
    dataset, stats = ViewDataset(samples, EvalViews(config)), PixelStats(info.mean, info.std)
    for i in range(0, len(samples), BATCH):
        batch = collate([dataset[0, j] for j in range(i, min(i + BATCH, len(samples)))])
        if batch.broken:
            raise DataError(f"speed is measured on images that can be read: {batch.broken[0].reason}")
        views = {"scene": batch.scene, "person": batch.person}
        pixels = {name: normalise(views[name], torch.device("cpu"), stats).numpy() for name in info.views}
        yield pixels.get("scene"), pixels.get("person")


def _network_speed(forward: Callable[[Pixels], Any], batches: Sequence[Pixels]) -> float:
    start = time.perf_counter()
    for pixels in batches:
        forward(pixels)
    images = sum(len(view) for pixels in batches for view in pixels[:1] if view is not None)
    images = images or sum(len(pixels[1]) for pixels in batches if pixels[1] is not None)
    return images / (time.perf_counter() - start)


@torch.no_grad()
def _torch_logits(classifier: Classifier, pixels: Pixels) -> NDArray[np.float32]:
    scene, person = (None if view is None else torch.from_numpy(view) for view in pixels)
    return classifier(scene=scene, person=person).numpy()


def _weights(model: str | None, torch_run: Path | None) -> Path | None:
    """The file with the torch network's weights, where one is known."""
    run = torch_run or (Path(model) if model is not None else None)
    if run is not None and run.is_dir():
        run = run / WEIGHTS
    if torch_run is not None and run is not None:
        return run
    return run if run is not None and run.suffix == ".safetensors" and run.is_file() else None


def _fresh_process(model: str | None, finder: str | None, images: Sequence[bytes]) -> tuple[float, float, bool]:
    """Seconds to the last answer, peak memory in MB (as Linux tells it), and whether torch was imported."""
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            (Path(folder) / f"{i:05}.jpg").write_bytes(image)  # whatever it is: the ending only has to be an image's
        is_one = len(images) == 1
        path, threads = (f"{folder}/00000.jpg", "0") if is_one else (folder, "1")
        command = [sys.executable, "-c", FRESH, model or "", finder or "", path, threads]
        start = time.perf_counter()
        answered = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
    if answered.returncode:
        raise UniemoxError(f"a fresh process failed: {answered.stderr.strip().splitlines()[-1]}")
    rss, has_torch = answered.stdout.split()
    return seconds, float(rss), has_torch == "True"


def _soak(predictor: Predictor, images: Sequence[bytes], soak: int, count: Callable[[int], None]) -> float | None:
    """MB by which the memory of this process grows between the 2,000th image and the last."""
    before = None
    for i, _ in enumerate(predictor.predict_each(islice(cycle(images), soak)), start=1):
        count(1)
        if i == min(SOAK_FROM, max(1, soak // 2)):
            before = memory_mb()
    after = memory_mb()
    return None if before is None or after is None else after - before
