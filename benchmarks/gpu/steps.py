"""Time pre-training steps of ViT-B and ViT-L with a CLIP teacher, in batches up to the memory's edge.

    python -m benchmarks.gpu.steps --device cuda --out results

Each measurement is written to steps.jsonl at once. MFU is a fraction of the matrix-product speed measured in the same
call.
"""

import gc
import json
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path

import torch

from benchmarks.gpu.reporting import Report, arguments
from uniemox.bench.step import StepBench, bench_step
from uniemox.errors import OutOfMemoryError

STEPS_FILE = "steps.jsonl"
MODELS = ("vit_large_patch16_224", "vit_base_patch16_224")  # the paper's first
BATCH_SIZES = (64, 128, 256, 512, 1024)
TINY_MODELS, TINY_SIZES = ("vit_tiny_patch16_224",), (2,)
MIN_MFU = 0.5
STEPS = 4


def measure(report: Report, device: torch.device, out: Path, *, is_compiled: bool, tiny: bool) -> None:
    """Time every model with growing batches until the memory is too small; report the fastest."""
    models = TINY_MODELS if tiny else MODELS
    sizes = TINY_SIZES if tiny else BATCH_SIZES
    for model in models:
        results: list[StepBench] = []
        for batch_size in takewhile(lambda size, r=results: _is_worth_trying(size, r), sizes):
            try:
                result = bench_step(
                    model=model,
                    batch_size=batch_size,
                    steps=1 if tiny else STEPS,
                    device=device,
                    with_clip=not tiny,
                    compile_model=is_compiled,
                )
            except (OutOfMemoryError, torch.OutOfMemoryError):
                report.note(f"{model}, batch of {batch_size}", "too large for the memory")
                break
            finally:
                gc.collect()
                torch.cuda.empty_cache()
                torch._dynamo.reset()
            results.append(result)
            with (out / STEPS_FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
            report.note(f"{model}, batch of {batch_size}, compiled={is_compiled}: images/s", result.images_per_s)
        if results:
            best = max(results, key=lambda result: result.mfu)
            name = f"{model}, compiled={is_compiled}: MFU lacks to {MIN_MFU:g}"
            if device.type == "cuda" and is_compiled:
                report.at_most(name, MIN_MFU - best.mfu, 0.0, f"MFU {best.mfu:.3f} at a batch of {best.batch_size}")
            else:
                report.note(name, MIN_MFU - best.mfu)


def _is_worth_trying(batch_size: int, results: list[StepBench]) -> bool:
    """Return False if the last, smaller batch used so much memory that this one can't fit."""
    if not results or results[-1].peak_memory_mb is None:
        return True
    free = torch.cuda.get_device_properties(0).total_memory / 1e6
    return results[-1].peak_memory_mb * batch_size / results[-1].batch_size < 1.1 * free


def main() -> None:
    """Run all measurements, compiled ones first: the figures that count."""
    device, out, tiny = arguments(__doc__)
    report = Report("steps", out)
    for is_compiled in (False,) if tiny else (True, False):
        with report.attempt(f"compiled={is_compiled}"):
            measure(report, device, out, is_compiled=is_compiled, tiny=tiny)


if __name__ == "__main__":
    main()
