"""Commands that measure speed, and check a machine before a long run."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from uniemox.cli.console import JsonFlag, JsonObject, need, progress_bar
from uniemox.errors import ConfigError

bench = App(name="bench", help="Measure the speed of uniemox on this machine.")


@bench.command
def step(
    *,
    model: str | None = None,
    batch_size: int | None = None,
    steps: int = 5,
    device: Literal["cpu", "cuda"] | None = None,
    as_json: JsonObject = False,
) -> None:
    """Time a pre-training step: images per second, and share of the machine's peak matrix-product speed.

    On the CPU: ViT-S/16, batch 32, precomputed teacher features. On a GPU: ViT-L/16, batch 256, compiled, and a CLIP
    ViT-B/16 teacher with random weights. Both use 224 px, mask ratio 0.75, decoder 512 x 8, both streams, bf16.

    Example: uniemox bench step --json

    Args:
        model: Another plain ViT of timm.
        batch_size: Number of images per step.
        steps: Number of timed steps, after one warm-up step.
        device: Device to run on. Default: a GPU if there is one.
    """
    need("torch", "timm", "open_clip", extra="train")
    import torch

    from uniemox.bench.step import bench_step

    if device is None:
        on_gpu = torch.cuda.is_available()
    else:
        on_gpu = device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here; use --device cpu")
    if batch_size is None:
        batch_size = 256 if on_gpu else 32
    default_model = "vit_large_patch16_224" if on_gpu else "vit_small_patch16_224"
    with progress_bar() as progress:
        result = bench_step(
            model=model or default_model,
            batch_size=batch_size,
            steps=steps,
            device=torch.device("cuda" if on_gpu else "cpu"),
            with_clip=on_gpu,
            compile_model=on_gpu,
            on_step=lambda done: progress.show("steps", done, steps),
        )
    words = (
        f"{result.images_per_s:.2f} images/s (median {result.median_images_per_s:.2f}), {result.model}, "
        f"batch {result.batch_size}, {result.precision}, on {result.device}\n"
        f"{result.mfu:.1%} of the {result.peak_tflops:.3g} TFLOP/s that a matrix product reaches here; "
        f"{result.gflop_per_image:.1f} GFLOP an image"
    )
    print(json.dumps(asdict(result)) if as_json else words)


@bench.command(name="data")
def bench_data_command(*, data: str, soak: int = 0, as_json: JsonObject = False) -> None:
    """Time the loading of samples in one process, from files and from shards: decoding, scene view, person view.

    Example: uniemox bench data --data emotion6:photos/emotion6 --json

    Args:
        data: KIND:PATH; all its images must be readable.
        soak: Number of further samples to load. Then print how much the process's memory has grown since the 2,000th,
            or since the middle of fewer than 4,000.
    """
    need("torch", "fsspec", extra="train")
    from uniemox.bench.data import bench_data
    from uniemox.data.source import open_data

    dataset = open_data(data)
    passes = 3
    total = 2 * passes * len(dataset) + soak
    with progress_bar() as progress:
        result = bench_data(
            dataset, passes=passes, soak=soak, on_progress=lambda done: progress.show("samples", done, total)
        )
    words = (
        f"{result.samples_per_s:.0f} samples/s from files, {result.shards_samples_per_s:.0f} from shards of 256 px "
        f"(one process, two views of 224 px, best of {passes} passes over {result.samples})"
    )
    words += _growth(result.memory_growth_mb, soak, "sample")
    print(json.dumps(asdict(result)) if as_json else words)


def _growth(growth_mb: float | None, soak: int, item: str) -> str:
    """Return a line about the memory growth of a process; an empty text if it was not measured."""
    from uniemox.training.counting import soak_start

    if growth_mb is None:
        return ""
    return f"\nmemory grew by {growth_mb:.1f} MB between {item} {soak_start(soak):,} and {item} {soak:,}"


@bench.command(name="predict")
def bench_predict_command(
    *,
    data: str | None = None,
    model: str | None = None,
    torch_run: Annotated[Path | None, Parameter(name="--torch")] = None,
    finder: str | None = "embedded",
    soak: int = 0,
    as_json: JsonObject = False,
) -> None:
    """Time prediction: many images, the same network in torch, and the first image in a new process.

    Times for many images include everything from file bytes to predictions, on all cores. Torch runs eagerly in float32
    and decodes one image after the other.

    Example: uniemox bench predict --model runs/fi --json

    Args:
        data: KIND:PATH; all its images must be readable. Default: 64 synthetic images.
        model: Model as for `uniemox predict`.
        torch_run: A run with the same weights. Default: the model itself if it is a run.
        finder: Person detector for new processes, soak and speed with people, or none.
        soak: Number of further images to predict. Then print how much memory has grown since the 2,000th, or since
            the middle of fewer than 4,000.
    """
    need("torch", "timm", extra="train")
    from uniemox.bench.predict import PASSES, bench_predict
    from uniemox.data.source import open_data

    dataset = open_data("synthetic:64" if data is None else data)
    with progress_bar() as progress:
        result = bench_predict(
            dataset,
            model=model,
            torch_run=torch_run,
            finder=None if finder == "none" else finder,
            soak=soak,
            on_progress=partial(progress.show, "images"),
        )
    if as_json:
        print(json.dumps(asdict(result)))
        return
    comparison = ""
    if result.ratio is not None:
        comparison = f", {result.ratio:.1f} times torch's {result.torch_images_per_s:.0f}"
    print(f"{result.images_per_s:.0f} images/s{comparison} (best of {PASSES} passes over {result.images})")
    if result.with_people_images_per_s is not None:
        print(f"{result.with_people_images_per_s:.0f} images/s with the people in them")
    print(f"{result.with_faces_images_per_s:.0f} images/s with the faces in them")
    memory = ""
    if result.peak_rss_mb is not None and result.folder_peak_rss_mb is not None:
        memory = (
            f", with {result.peak_rss_mb:.0f} MB\n"
            f"a process that answers all {result.images} has {result.folder_peak_rss_mb:.0f} MB"
        )
    in_torch = ""
    if result.torch_network_images_per_s is not None:
        in_torch = f", in torch {result.torch_network_images_per_s:.0f}"
    print(
        f"the network alone {result.network_images_per_s:.0f} images/s{in_torch}\n"
        f"first answer {result.start_s:.2f} s after a process starts{memory}"
        f"{_growth(result.memory_growth_mb, soak, 'image')}"
    )


def doctor(
    *, gpus: Annotated[int, Parameter(validator=Number(gte=1))] = 1, out: Path = Path(), as_json: JsonFlag = False
) -> None:
    """Check this machine before a long run: GPUs, compiler, memory, disk, loading. Takes about a minute.

    Each line is ok, a warning with advice, or the reason why something could not be checked.

    Example: uniemox doctor --gpus 8 --out /scratch/runs

    Args:
        gpus: Number of GPUs of this machine that the run will use.
        out: Folder that the run will write to.
        as_json: Print one JSON object per line.
    """
    need("torch", "timm", "open_clip", extra="train")
    from uniemox.bench.doctor import examine

    for finding in examine(gpus, out):
        if as_json:
            print(json.dumps(asdict(finding)), flush=True)
            continue
        print(f"{finding.state:<12} {finding.name}: {finding.found}", flush=True)
        if finding.remedy:
            print(f"{'':<12} -> {finding.remedy}", flush=True)
