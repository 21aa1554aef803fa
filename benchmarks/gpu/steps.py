"""Time pre-training steps of ViT-B and ViT-L with a CLIP teacher, in batches up to the memory's edge.

    python -m benchmarks.gpu.steps --device cuda --out results

Each measurement is written to steps.jsonl at once, and the most important ones come first: compiling takes about a
minute, so the time limit may end the list. MFU is a fraction of the matrix-product speed measured in the same call.
"""

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.gpu.reporting import Report, arguments
from uniemox.bench.step import StepBench, bench_step
from uniemox.errors import OutOfMemoryError

STEPS_FILE = "steps.jsonl"
VIT_L = "vit_large_patch16_224"
VIT_B = "vit_base_patch16_224"
TINY = "vit_tiny_patch16_224"
# 128 is the paper's batch on each of eight GPUs.
FIRST = ((VIT_L, 128), (VIT_B, 256), (VIT_L, 256))
LATER_SIZES = (512, 64, 1024)
MIN_MFU = 0.5
STEPS = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement."""

    model: str
    batch_size: int
    is_compiled: bool

    def __str__(self) -> str:
        return f"{self.model}, batch of {self.batch_size}, compiled={self.is_compiled}"


def first_cases() -> Iterator[Case]:
    """Yield the measurements that matter most: each compiled, then eager."""
    for model, batch_size in FIRST:
        yield Case(model, batch_size, is_compiled=True)
        yield Case(model, batch_size, is_compiled=False)


def later_cases() -> Iterator[Case]:
    """Yield the other sizes, up to the memory's edge."""
    for batch_size in LATER_SIZES:
        for model in (VIT_L, VIT_B):
            yield Case(model, batch_size, is_compiled=True)
            yield Case(model, batch_size, is_compiled=False)


def fits(case: Case, results: Mapping[Case, StepBench | None], memory_mb: float) -> bool:
    """Return False if a smaller batch shows that this one needs more memory than there is.

    Args:
        case: Measurement to try.
        results: Earlier measurements; None for those that ran out of memory.
        memory_mb: Memory of the GPU.
    """
    for other, result in results.items():
        is_smaller = other.batch_size < case.batch_size
        if (other.model, other.is_compiled) != (case.model, case.is_compiled) or not is_smaller:
            continue
        if result is None:
            return False
        # Memory grows a little slower than the batch, because weights and moments do not grow.
        needed_mb = (result.peak_memory_mb or 0.0) * case.batch_size / other.batch_size
        if needed_mb > 1.1 * memory_mb:
            return False
    return True


def measure(case: Case, report: Report, device: torch.device, out: Path, *, tiny: bool) -> StepBench | None:
    """Time the steps of a case; return None if the memory is too small."""
    try:
        result = bench_step(
            model=case.model,
            batch_size=case.batch_size,
            steps=1 if tiny else STEPS,
            device=device,
            with_clip=not tiny,
            compile_model=case.is_compiled,
        )
    except (OutOfMemoryError, torch.OutOfMemoryError):
        report.note(str(case), "too large for the memory")
        return None
    finally:
        gc.collect()
        torch.cuda.empty_cache()
        torch._dynamo.reset()
    with (out / STEPS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")
    report.note(f"{case}: images/s", result.images_per_s)
    report.note(f"{case}: MFU", result.mfu)
    return result


def check_mfu(report: Report, results: Sequence[StepBench]) -> None:
    """Compare the best MFU of each compiled model with the smallest acceptable one."""
    for model in (VIT_L, VIT_B):
        compiled = [result for result in results if result.model == model and result.compiled]
        if not compiled:
            continue
        best = max(compiled, key=lambda result: result.mfu)
        note = f"MFU {best.mfu:.3f} at a batch of {best.batch_size}"
        report.at_most(f"{model}, compiled: MFU lacks to {MIN_MFU:g}", MIN_MFU - best.mfu, 0.0, note)


def main() -> None:
    """Run all measurements; judge the MFU after the first ones, because the later ones may not be reached."""
    device, out, tiny = arguments(__doc__)
    report = Report("steps", out)
    results: dict[Case, StepBench | None] = {}
    memory_mb = torch.cuda.get_device_properties(0).total_memory / 1e6 if device.type == "cuda" else 0.0

    def run(cases: Iterator[Case]) -> None:
        for case in cases:
            if fits(case, results, memory_mb):
                with report.attempt(str(case)):
                    results[case] = measure(case, report, device, out, tiny=tiny)

    if tiny:
        run(iter([Case(TINY, 2, is_compiled=False)]))
        return
    run(first_cases())
    check_mfu(report, [result for result in results.values() if result is not None])
    run(later_cases())


if __name__ == "__main__":
    main()
