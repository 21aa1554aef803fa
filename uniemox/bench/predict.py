"""Benchmark of prediction: many images, the same network in torch, and the first prediction of a process."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from uniemox.checkpoints.classifier import load_classifier
from uniemox.classifier_info import ClassifierInfo
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import DataError, UniemoxError
from uniemox.io.child_python import safe_environment
from uniemox.io.run_files import WEIGHTS
from uniemox.model.classifier import Classifier
from uniemox.predict.opening import load
from uniemox.predict.prediction import Failure
from uniemox.predict.predictor import Predictor
from uniemox.training.counting import memory_growth_mb
from uniemox.views.config import ViewConfig
from uniemox.views.loader import load_batches
from uniemox.views.patches import PixelStats, normalise
from uniemox.views.transforms import EvalViews

BATCH_SIZE = 16
PASSES = 3
FRESH_PROCESS = """
import json, os, sys, uniemox
predictor = uniemox.load(sys.argv[1] or None, finder=sys.argv[2] or None, threads=int(sys.argv[4]) or None)
predictor.predict(sys.argv[3])
peak_mb = None
if os.path.exists("/proc/self/status"):  # on Linux; getrusage counts what was there before exec
    peak_mb = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 2**10
print(json.dumps([peak_mb, "torch" in sys.modules]))
"""


@dataclass(frozen=True, slots=True)
class PredictBench:
    """Result of the measurement; speeds are the best of the passes."""

    images_per_s: float  # from a file's bytes to a Prediction, one image per core, without detecting people
    with_people_images_per_s: float | None  # the same with the detector; None without one
    with_faces_images_per_s: float  # without people, but with faces and their expressions
    torch_images_per_s: float | None
    """Images per second in eager float32 torch, decoded one after the other; None without the network's weights."""
    ratio: float | None  # of the two
    network_images_per_s: float  # only the ONNX network, on prepared views
    torch_network_images_per_s: float | None  # only the torch network
    images: int  # in a pass
    start_s: float  # from the start of a process to its first prediction, best of the passes
    peak_rss_mb: float | None  # of that process; None outside Linux
    folder_peak_rss_mb: float | None  # of a process that predicts all images of the pass; None outside Linux
    imports_torch: bool  # whether that process did
    memory_growth_mb: float | None  # between image 2,000, or the middle of fewer, and the last; None: not measured


def bench_predict(
    data: DataSet,
    *,
    model: str | None = None,
    torch_run: Path | None = None,
    finder: str | None = None,
    soak: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> PredictBench:
    """Predict the images of a data set several times.

    Args:
        model: Model as for `load`.
        torch_run: A run, or its model.safetensors, with the weights of `model`, for the comparison with torch; None:
            use `model` if it is a run.
        finder: Person detector, for the speed with people, the start and the memory; None: detect no people.
        soak: Number of further images, for the growth of memory; 0: do not measure it.
        on_progress: Called with the number of images that are done, and of all images.

    Raises:
        DataError: If an image can't be read. `load` raises its own errors.
        UniemoxError: If a new process fails.
    """
    images = [sample.image.read() for sample in data.samples]
    weights = _weights(model, torch_run)
    # Always without people and with faces; with people and in torch only if possible.
    passes = PASSES * (2 + (finder is not None) + (weights is not None))
    done = 0
    total = passes * len(images) + soak

    def count(answered: int) -> None:
        nonlocal done
        done += answered
        on_progress(done, total)

    def fastest(measure: Callable[[], float]) -> float:
        return max(measure() for _ in range(PASSES))

    def speed(finder: str | None, faces: Literal["find"] | None = None) -> float:
        predictor = load(model, finder=finder, faces=faces, threads=1)
        return fastest(lambda: _pass(predictor, images, count))

    our_speed = speed(None)
    with_faces = speed(None, "find")
    with_people = None if finder is None else speed(finder)
    torch_speed = torch_network_speed = None
    network = load(model, finder=None).network
    views = list(_batches(data.samples[: 4 * BATCH_SIZE], network.info))
    network_speed = fastest(lambda: _speed(network.logits, views))
    if weights is not None:
        classifier, _ = load_classifier(weights)
        torch_network = partial(_torch_logits, classifier)
        torch_speed = fastest(lambda: _speed(torch_network, _batches(data.samples, network.info), count))
        torch_network_speed = fastest(lambda: _speed(torch_network, views))
    processes = [_fresh_process(model, finder, images[:1]) for _ in range(PASSES)]
    growth = _soak(load(model, finder=finder, threads=1), images, soak, count) if soak else None
    return PredictBench(
        images_per_s=our_speed,
        with_people_images_per_s=with_people,
        with_faces_images_per_s=with_faces,
        torch_images_per_s=torch_speed,
        ratio=None if torch_speed is None else our_speed / torch_speed,
        network_images_per_s=network_speed,
        torch_network_images_per_s=torch_network_speed,
        images=len(images),
        start_s=min(seconds for seconds, _, _ in processes),
        peak_rss_mb=max((rss for _, rss, _ in processes if rss is not None), default=None),
        folder_peak_rss_mb=_fresh_process(model, finder, images)[1],
        imports_torch=any(has_torch for _, _, has_torch in processes),
        memory_growth_mb=growth,
    )


Pixels = dict[str, NDArray[np.float32]]


def _pass(predictor: Predictor, images: Sequence[bytes], count: Callable[[int], None]) -> float:
    """Return the images per second of one pass."""
    start = time.perf_counter()
    for result in predictor.predict_each(images):
        if isinstance(result, Failure):
            raise DataError(f"speed is measured on images that can be read: {result.error}")
        count(1)
    return len(images) / (time.perf_counter() - start)


def _batches(samples: Sequence[Sample], info: ClassifierInfo) -> Iterator[Pixels]:
    """Yield views as the plain reference makes them: decoded, cropped, collated, normalised."""
    stats = PixelStats(info.mean, info.std)
    for batch in load_batches(samples, EvalViews(ViewConfig.of(info)), BATCH_SIZE):
        if batch.broken:
            raise DataError(f"speed is measured on images that can be read: {batch.broken[0].reason}")
        views = {"scene": batch.scene, "person": batch.person}
        yield {name: normalise(views[name], torch.device("cpu"), stats).numpy() for name in info.views}


def _speed(
    forward: Callable[[Pixels], NDArray[np.float32]],
    batches: Iterable[Pixels],
    count: Callable[[int], None] = lambda images: None,
) -> float:
    """Return the images per second of a network, including its views if they are made on the fly."""
    start = time.perf_counter()
    images = 0
    for pixels in batches:
        done = len(forward(pixels))
        images += done
        count(done)
    return images / (time.perf_counter() - start)


@torch.no_grad()
def _torch_logits(classifier: Classifier, pixels: Pixels) -> NDArray[np.float32]:
    return classifier(**{name: torch.from_numpy(view) for name, view in pixels.items()}).numpy()


def _weights(model: str | None, torch_run: Path | None) -> Path | None:
    """Return the file with the torch network's weights, if known."""
    run = torch_run or Path(model or "")
    file = run / WEIGHTS if run.is_dir() else run
    if torch_run or (model and file.suffix == ".safetensors" and file.is_file()):
        return file
    return None


def _fresh_process(model: str | None, finder: str | None, images: Sequence[bytes]) -> tuple[float, float | None, bool]:
    """Return the seconds to the last prediction, peak memory in MB, and whether torch was imported.

    Outside Linux, the memory is None.
    """
    with tempfile.TemporaryDirectory() as folder:
        for i, image in enumerate(images):
            # Any image ending works for any format.
            (Path(folder) / f"{i:05}.jpg").write_bytes(image)
        if len(images) == 1:
            path = f"{folder}/00000.jpg"
            threads = "0"
        else:
            path = folder
            threads = "1"
        command = [sys.executable, "-c", FRESH_PROCESS, model or "", finder or "", path, threads]
        start = time.perf_counter()
        process = subprocess.run(command, capture_output=True, text=True, check=False, env=safe_environment())
        seconds = time.perf_counter() - start
    if process.returncode:
        raise UniemoxError(f"a fresh process failed: {process.stderr.strip().splitlines()[-1]}")
    rss, has_torch = json.loads(process.stdout)
    return seconds, rss, has_torch


def _soak(predictor: Predictor, images: Sequence[bytes], soak: int, count: Callable[[int], None]) -> float | None:
    def work() -> Iterator[int]:
        for _ in predictor.predict_each(islice(cycle(images), soak)):
            count(1)
            yield 1

    return memory_growth_mb(work(), soak)
