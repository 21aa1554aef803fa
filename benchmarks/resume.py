"""Kill tiny runs of pre-training and fine-tuning, resume them, and compare their files with undisturbed runs'.

    python -m benchmarks.resume --kills 20

Half of the kills wait for a file that is half written. Exits with 1 if a byte differs.
"""

import argparse
import hashlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any

import torch

from tools.commands import start_command
from uniemox.cli import run_and_report_errors
from uniemox.cli.console import progress_bar
from uniemox.data.prompts import distinct_texts
from uniemox.data.synthetic_scenes import synthetic
from uniemox.errors import StoppedError
from uniemox.io.files import PARTIAL
from uniemox.io.run_files import CHECKPOINTS, ENCODER, ONNX, WEIGHTS
from uniemox.teacher.features import save_features

BEFORE, BETWEEN, WRITING, AFTER = MOMENTS = (
    "before the first checkpoint",
    "between checkpoints",
    "while writing",
    "after the last step",
)
# Number of images, and channels of the teacher.
SCENES = 48
WIDTH = 16
# Interval between two checks of a running process.
POLL_INTERVAL_S = 0.002
SMALL: dict[str, object] = {
    "preset": "demo",
    "view.size": 32,
    "batch-size": 16,
    "schedule.epochs": 6,
    "save.every-steps": 4,
    "hardware.device": "cpu",
    "hardware.workers": 1,
    "hardware.threads": 1,
}
PRETRAINING = SMALL | {
    "data": f"synthetic:{SCENES}",
    "encoder.patch-size": 8,
    "encoder.embed-dim": 32,
    "encoder.depth": 2,
    "encoder.num-heads": 2,
    "model.decoder.width": 16,
    "model.decoder.depth": 1,
    "model.decoder.heads": 2,
}
FINETUNING = SMALL | {"data": "synthetic:64?seed=1", "ema-decay": 0.9, "augment.mixup": 0.2, "network.drop-path": 0.1}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeOutcome:
    """Result of killing and resuming one command."""

    command: str
    """pretrain or finetune."""
    undisturbed: Mapping[str, str]
    """sha256 by file of the run that was not killed."""
    disturbed: tuple[Mapping[str, str], ...]
    """sha256 by file of the runs that were killed and resumed until they were finished."""
    kills: Mapping[str, int]
    """Number of kills by moment, one of MOMENTS."""

    @property
    def is_same(self) -> bool:
        """True if all runs ended with the same bytes."""
        return bool(self.disturbed) and all(run == self.undisturbed for run in self.disturbed)

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome in JSON-serialisable form."""
        return {
            "command": self.command,
            "undisturbed": dict(self.undisturbed),
            "disturbed": [dict(run) for run in self.disturbed],
            "kills": dict(self.kills),
            "is_same": self.is_same,
        }


def bench_resume(folder: Path, *, kills: int, seed: int, on_kill: Callable[[], None]) -> list[ResumeOutcome]:
    """Pre-train and fine-tune undisturbed, then killed by SIGKILL and resumed until they are finished.

    Args:
        folder: Empty folder for the runs.
        kills: Number of kills over both commands, at least 2; every second one waits for a half-written file.
        seed: Random seed of the moments; the step at a moment depends on the machine.
        on_kill: Called after each kill.

    Raises:
        StoppedError: If a process ends with an error of its own.
    """
    teacher = folder / "teacher.npz"
    _write_teacher(teacher)
    fusion = {"model.fusion": "gated", "teacher.source": f"stored:{teacher}", "teacher.view": "whole"}
    pretraining = _Job("pretrain", PRETRAINING | fusion, (ENCODER,), folder)
    finetuning = _Job("finetune", FINETUNING | {"init": pretraining.run(0)}, (WEIGHTS, ONNX), folder)
    pretraining.run_undisturbed()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(pretraining.disturb, kills - kills // 2, Random(f"{seed}/pretrain"), on_kill)
        finetuning.run_undisturbed()
        second = finetuning.disturb(kills // 2, Random(f"{seed}/finetune"), on_kill)
        return [first.result(), second]


class _Job:
    """Command that is run several times, in folders of its own; number 0 is the undisturbed run."""

    def __init__(self, command: str, options: Mapping[str, object], files: tuple[str, ...], folder: Path) -> None:
        self.command = command
        self.options = options
        self.files = files
        self.folder = folder
        # Duration of the undisturbed run, and name of its last checkpoint.
        self.seconds = 0.0
        self.last_checkpoint = ""
        # Half-written files that earlier processes of a run left.
        self.partial_files: defaultdict[int, set[tuple[str, int]]] = defaultdict(set)

    def run(self, number: int) -> Path:
        """Return the folder of a run."""
        return self.folder / f"{self.command}-{number}"

    def run_undisturbed(self) -> None:
        """Execute run number 0."""
        started = time.perf_counter()
        process = self._started(0)
        process.join()
        self._check(process, 0)
        self.seconds = time.perf_counter() - started
        self.last_checkpoint = max(path.name for path in (self.run(0) / CHECKPOINTS).iterdir())

    def disturb(self, kills: int, rng: Random, on_kill: Callable[[], None]) -> ResumeOutcome:
        """Execute runs that are killed a number of times, all together, and finished."""
        counts: Counter[str] = Counter(dict.fromkeys(MOMENTS, 0))
        number = 1
        while True:
            remaining = kills - counts.total()
            moment = rng.uniform(0, self.seconds) if remaining else None
            process = self._started(number)
            if self._killed(process, number, moment, is_writing=remaining % 2 == 0):
                counts[self._moment_of(number)] += 1
                on_kill()
                continue
            self._check(process, number)
            if not remaining:
                break
            number += 1
        hashes = [self._hashes(i) for i in range(number + 1)]
        return ResumeOutcome(command=self.command, undisturbed=hashes[0], disturbed=tuple(hashes[1:]), kills=counts)

    def _started(self, number: int) -> BaseProcess:
        """Start a process that begins or resumes a run; its output goes to a file next to the run."""
        options = {"out": self.run(number), **self.options}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        log = self._log(number)
        return start_command([self.command, "--resume", *words], out=log, err=log, environment={"NO_COLOR": "1"})

    def _killed(self, process: BaseProcess, number: int, moment: float | None, *, is_writing: bool) -> bool:
        """Kill the process and its loaders at a moment; return False if it ended before.

        Args:
            process: The process.
            number: Number of the run.
            moment: Seconds from now; None: never.
            is_writing: From then on, wait for the next half-written file.
        """
        end = time.perf_counter() + (float("inf") if moment is None else moment)
        earlier = self.partial_files[number]
        try:
            while process.exitcode is None:
                if time.perf_counter() > end and (not is_writing or self._half_written(number) - earlier):
                    break
                time.sleep(POLL_INTERVAL_S)
        finally:
            # The process is killed after Ctrl-C too.
            if process.pid is not None and process.exitcode is None:
                # It may not have a session of its own yet.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.kill()
                process.join()
        return process.exitcode == -signal.SIGKILL

    def _moment_of(self, number: int) -> str:
        """Return the moment at which the process was killed, judged by its files."""
        checkpoints = self.run(number) / CHECKPOINTS
        earlier, self.partial_files[number] = self.partial_files[number], self._half_written(number)
        if self.partial_files[number] - earlier:
            return WRITING
        if not checkpoints.is_dir() or not any(checkpoints.iterdir()):
            return BEFORE
        if (checkpoints / self.last_checkpoint).exists():
            return AFTER
        return BETWEEN

    def _half_written(self, number: int) -> set[tuple[str, int]]:
        """Return names and times of half-written files."""
        files = set()
        run = self.run(number)
        for path in [*run.glob(f"*{PARTIAL}"), *run.glob(f"checkpoints/*{PARTIAL}")]:
            # The file may be complete by now, and have its final name.
            with suppress(FileNotFoundError):
                files.add((path.name, path.stat().st_mtime_ns))
        return files

    def _check(self, process: BaseProcess, number: int) -> None:
        if process.exitcode:
            last_line = self._log(number).read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise StoppedError(
                f"uniemox {self.command} ended with {process.exitcode}: {''.join(last_line)}", exit_code=1
            )

    def _log(self, number: int) -> Path:
        return self.folder / f"{self.command}-{number}.log"

    def _hashes(self, number: int) -> dict[str, str]:
        return {name: hashlib.sha256((self.run(number) / name).read_bytes()).hexdigest() for name in self.files}


def _write_teacher(path: Path) -> None:
    """Write random features of the scenes and of their texts."""
    data = synthetic(SCENES)
    keys = [sample.key for sample in data.samples]
    texts = distinct_texts(data.samples, with_emotion=True)
    features = torch.randn(len(keys) + len(texts), WIDTH, generator=torch.Generator().manual_seed(0))
    image_features = features[: len(keys)]
    text_features = features[len(keys) :]
    save_features(path, image_keys=keys, image_features=image_features, texts=texts, text_features=text_features)


def main() -> None:
    """Kill, resume, compare and print the digests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="processes to kill, over both commands; at least 2")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    if args.kills < 2:
        parser.error("--kills must be at least 2")
    with tempfile.TemporaryDirectory(prefix="uniemox-resume-") as folder, progress_bar() as progress:
        task = progress.add_task("kills", total=args.kills)
        outcomes = bench_resume(
            Path(folder), kills=args.kills, seed=args.seed, on_kill=lambda: progress.update(task, advance=1)
        )
    is_same = all(outcome.is_same for outcome in outcomes)
    for outcome in outcomes:
        print(f"{outcome.command}: kills {', '.join(f'{name} {count}' for name, count in outcome.kills.items())}")
        for name, digest in outcome.undisturbed.items():
            print(f"  {name} undisturbed {digest}")
            for other in sorted({run[name] for run in outcome.disturbed}):
                print(f"  {' ' * len(name)} resumed     {other}")
    print("PASS" if is_same else "FAIL")
    if not is_same:
        sys.exit(1)


if __name__ == "__main__":
    run_and_report_errors(main)
