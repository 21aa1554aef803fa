"""The command line: parse, call, print. Nothing heavy is imported before a command needs it."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uniemox import __version__
from uniemox.errors import ConfigError, MissingPackageError, UniemoxError

EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
out, err = Console(), Console(stderr=True)

app = App(
    name="uniemox",
    help="Emotions of whole scenes, and of the people in them (after UniEmoX, arXiv 2409.18877).",
    version=__version__,
    suppress_keyboard_interrupt=False,
    help_epilogue="Tab completion: `uniemox --install-completion`.",
)
app.register_install_completion_command()
bench = App(name="bench", help="Measure the speed of this machine with uniemox.")
app.command(bench)

JsonFlag = Annotated[bool, Parameter(name="--json", negative="")]


@app.command
def convert(
    source: Path,
    target: Path,
    /,
    *,
    method: str = "auto",
    heads: int | None = None,
    image_size: int | None = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn a published checkpoint into safetensors under timm's names, without running code from it.

    Example: uniemox convert mae_pretrain_vit_base.pth mae.safetensors

    Parameters
    ----------
    source
        A weight file of MoCo v3, DINO, BEiT, MAE, SimMIM, TinyMIM, SiameseIM, MixMAE, dBOT or CAE.
    target
        The file to write, ending in .safetensors.
    method
        Whose file it is, if it should not be recognised: moco_v3, dino, beit, mae, simmim, simmim_swin, tinymim,
        siameseim, mixmae, dbot, cae, uniemox or timm.
    heads
        Attention heads, where neither the file nor the published sizes tell.
    image_size
        Side of the input in px; position tables are resized as the method's own fine-tuning does it.
    as_json
        Print the report as JSON.
    """
    _need("torch", "timm", "safetensors", extra="train")
    from dataclasses import asdict

    from uniemox.checkpoints.saving import convert as convert_file

    report, line = convert_file(source, target, method=method, heads=heads, image_size=image_size)
    if as_json:
        print(json.dumps({**asdict(report), "written": str(target), "load_with": line}))
        return
    print(report)
    print(f"  wrote {target}; load it with\n    {line}")


@app.command
def models(*methods: str, as_json: JsonFlag = False) -> None:
    """Measure every network of the paper's table III on this machine's CPU; the paper's figures stand beside ours.

    The six methods that the paper cites from elsewhere have no code here and nothing to measure. All others take about
    two minutes.

    Example: uniemox models MAE UniEmoX

    Parameters
    ----------
    methods
        Rows of the table, by the paper's names; all of them if none is given.
    as_json
        Print a JSON object a row.
    """
    _need("torch", "timm", extra="train")
    from uniemox.bench.models import measure_models
    from uniemox.bench.tables import models_tables

    rows = []
    with _progress() as progress:
        task = progress.add_task("measuring", total=len(methods) or None)
        for row in measure_models(methods):
            progress.update(task, advance=1, description=f"measured {row.method}")
            rows.append(row)
            if as_json:
                print(json.dumps(row.as_dict()), flush=True)
    if not as_json:
        for table in models_tables(rows):
            out.print(table)


@bench.command
def step(
    *,
    model: str | None = None,
    batch_size: int | None = None,
    steps: int = 5,
    device: Literal["cpu", "cuda"] | None = None,
    as_json: JsonFlag = False,
) -> None:
    """Time a pre-training step: pictures per second, and the share of this machine's matrix-product peak that it uses.

    On the CPU: ViT-S/16, batch 32, the teacher's features given. On a GPU: ViT-L/16, batch 256, compiled, with a CLIP
    ViT-B/16 teacher of random weights in every step. Both: 224 px, mask 0.75, decoder 512 x 8, both streams, bf16.

    Example: uniemox bench step --json

    Parameters
    ----------
    model
        A plain ViT of timm instead.
    batch_size
        Pictures in a step instead.
    steps
        Timed steps, after one to warm up.
    device
        Where to run; a GPU if there is one.
    as_json
        Print one JSON object.
    """
    _need("torch", "timm", "open_clip", extra="train")
    import torch

    from uniemox.bench.step import bench_step

    on_gpu = torch.cuda.is_available() if device is None else device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here; use --device cpu")
    with _progress() as progress:
        task = progress.add_task("steps", total=steps)
        result = bench_step(
            model=("vit_large_patch16_224" if on_gpu else "vit_small_patch16_224") if model is None else model,
            batch_size=(256 if on_gpu else 32) if batch_size is None else batch_size,
            steps=steps,
            device=torch.device("cuda" if on_gpu else "cpu"),
            with_clip=on_gpu,
            compile_model=on_gpu,
            on_step=lambda done: progress.update(task, completed=done),
        )
    if as_json:
        print(json.dumps(result.as_dict()))
        return
    print(
        f"{result.images_per_s:.2f} images/s (median {result.median_images_per_s:.2f}), {result.model}, "
        f"batch {result.batch_size}, {result.precision}, on {result.device}\n"
        f"{result.mfu:.1%} of the {result.peak_tflops:.3g} TFLOP/s that a matrix product reaches here; "
        f"{result.gflop_per_image:.1f} GFLOP an image"
    )


def _progress() -> Progress:
    """A progress bar on standard error, with the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False)


def _need(*packages: str, extra: str) -> None:
    """Raise MissingPackageError unless all packages are installed."""
    from importlib.util import find_spec

    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"this command needs {', '.join(missing)}; run: pip install 'uniemox[{extra}]'")


def main() -> None:
    """Run the command line; errors that bad input causes become one line on standard error and exit code 1."""
    try:
        app()
    except UniemoxError as error:
        err.print(f"[bold red]error:[/] {type(error).__name__}:", end=" ")
        err.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(EXIT_INTERRUPTED)
