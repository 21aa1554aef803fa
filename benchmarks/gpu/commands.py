"""Run the command line as users do: pre-train, stop, kill, resume, fine-tune, evaluate on the device and on the CPU.

python -m benchmarks.gpu.commands --device cuda --out results
"""

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.reporting import Report, arguments
from tools.commands import start_command
from uniemox.data.prompts import distinct_texts
from uniemox.data.synthetic_scenes import synthetic
from uniemox.io.run_files import CONFIG
from uniemox.teacher.features import save_features
from uniemox.training.journal import read_metrics

SCENES = 64
CHANNELS = 32
# Time limit of one command.
LIMIT_S = 240
STOPPED = 128 + signal.SIGTERM
# Interval between two checks of a running command.
POLL_INTERVAL_S = 0.02
# A GPU may do all steps of the shorter run before the first check, and the signal would come too late.
EPOCHS = {"cpu": 6, "cuda": 60}
# Rounding differs on a GPU and grows from step to step, so only steps near the interruption are compared.
COMPARED_STEPS = {"cpu": 24, "cuda": 100}
PRETRAINING: dict[str, object] = {
    "preset": "demo",
    "data": f"synthetic:{SCENES}",
    "view.size": 64,
    "batch-size": 16,
    "encoder.patch-size": 16,
    "encoder.depth": 2,
    "save.every-steps": 4,
    "teacher.view": "whole",
}
FINETUNING: dict[str, object] = {
    "preset": "demo",
    "data": "synthetic:96?seed=1",
    "view.size": 64,
    "batch-size": 16,
    "network.streams": "both",
    "schedule.epochs": 2,
    "schedule.warmup-epochs": 0,
    "ema-decay": 0.9,
}


def options(values: Mapping[str, object]) -> list[str]:
    """Return the words of a command for options and their values."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


class Commands:
    """Starts commands of uniemox and saves their output.

    Args:
        folder: Folder of their output.
        environment: Changes of this process's environment.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self._started: list[BaseProcess] = []

    def start(self, name: str, *words: str, environment: Mapping[str, str] = {}) -> BaseProcess:
        """Start a command.

        Args:
            name: Name of the files with its output.
            words: Arguments of the command.
            environment: Further changes of the environment.
        """
        process = start_command(
            words,
            out=self.folder / f"{name}.out",
            err=self.folder / f"{name}.err",
            environment={**self.environment, **environment},
        )
        self._started.append(process)
        return process

    def kill_on_sigterm(self) -> None:
        """Let SIGTERM end this process and all commands, with their own processes.

        A command runs in a session of its own, which the signal of `timeout` does not reach: it would use the GPU
        beside the parts that follow.
        """

        def kill_all(*_: object) -> None:
            for process in self._started:
                if process.is_alive():
                    assert process.pid is not None
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    # It may not have its session yet.
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
            shutil.rmtree(self.folder, ignore_errors=True)
            # Threads that wait for a command would start the next one.
            os._exit(STOPPED)

        signal.signal(signal.SIGTERM, kill_all)

    def run(self, name: str, *words: str, environment: Mapping[str, str] = {}) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            RuntimeError: If it fails.
        """
        process = self.start(name, *words, environment=environment)
        self.finish(name, process, expected=0)
        return (self.folder / f"{name}.out").read_text("utf-8")

    def finish(self, name: str, process: BaseProcess, *, expected: int) -> None:
        """Wait for the end of a command.

        Raises:
            RuntimeError: If the exit code is not the expected one.
        """
        process.join(LIMIT_S)
        if process.exitcode != expected:
            process.kill()
            errors = (self.folder / f"{name}.err").read_text("utf-8", "replace")
            raise RuntimeError(f"{name} ended with {process.exitcode}, expected {expected}: {errors[-1500:]}")


def wait_for_step(run: Path, step: int, process: BaseProcess) -> None:
    """Wait until a run has recorded a step, or has ended."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.exitcode is None:
        if (run / "metrics.jsonl").exists() and any(line["step"] >= step for line in read_metrics(run)):
            return
        time.sleep(POLL_INTERVAL_S)


def write_teacher(path: Path) -> None:
    """Write random features of a teacher for the scenes and their texts."""
    samples = synthetic(SCENES).samples
    texts = distinct_texts(samples, True)
    generator = torch.Generator().manual_seed(0)
    save_features(
        path,
        image_keys=[sample.key for sample in samples],
        image_features=torch.randn(len(samples), CHANNELS, generator=generator),
        texts=texts,
        text_features=torch.randn(len(texts), CHANNELS, generator=generator),
    )


def pretrain_in_three_ways(commands: Commands, folder: Path, epochs: int) -> dict[str, Path]:
    """Pre-train undisturbed, stopped by SIGTERM, and killed by SIGKILL; the last two resume.

    Returns:
        Folders of the runs by name.
    """
    teacher = folder / "teacher.npz"
    write_teacher(teacher)
    changes = {"teacher.source": f"stored:{teacher}", "schedule.epochs": epochs}
    words = ["pretrain", *options(PRETRAINING | changes)]

    def undisturbed(run: Path) -> None:
        commands.run(run.name, *words, "--out", str(run))

    def stopped(run: Path) -> None:
        process = commands.start(run.name, *words, "--out", str(run))
        wait_for_step(run, 3, process)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        commands.finish(run.name, process, expected=STOPPED)
        commands.run(run.name, *words, "--out", str(run), "--resume")

    def killed(run: Path) -> None:
        process = commands.start(run.name, *words, "--out", str(run))
        wait_for_step(run, 6, process)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        commands.run(run.name, *words, "--out", str(run), "--resume")

    ways = {"undisturbed": undisturbed, "stopped": stopped, "killed": killed}
    runs = {name: folder / name for name in ways}
    with ThreadPoolExecutor(len(ways)) as pool:
        futures = [pool.submit(way, runs[name]) for name, way in ways.items()]
        for future in futures:
            future.result()
    return runs


def check_resuming(report: Report, runs: Mapping[str, Path], *, compared_steps: int, bound: float) -> None:
    """Compare the first losses of the disturbed runs with those of the undisturbed one."""
    expected = losses_of(runs["undisturbed"])
    for name in ("stopped", "killed"):
        losses = losses_of(runs[name])
        report.at_most(f"{name} and resumed, missing steps", len(expected.keys() - losses.keys()), 0)
        worst = max(abs(losses[step] / value - 1) for step, value in expected.items() if step <= compared_steps)
        report.at_most(f"{name} and resumed, largest change of a loss", worst, bound)
    precision = json.loads((runs["undisturbed"] / CONFIG).read_text())["config"]["hardware"]["precision"]
    report.note("precision of the runs", precision)


def losses_of(run: Path) -> dict[int, float]:
    """Return the total loss by step."""
    return {int(line["step"]): line["total"] for line in read_metrics(run)}


def check_evaluation(report: Report, commands: Commands, start: Path, folder: Path) -> None:
    """Fine-tune both streams with EMA; compare scores on the device, on the CPU, and of the ONNX file."""
    run = folder / "finetuned"
    commands.run("finetune", "finetune", *options(FINETUNING | {"init": start, "out": run}))
    data = ["--data", "synthetic:96?seed=2", "--json"]
    device_output = commands.run("here", "evaluate", "--model", str(run), "--name", "here", *data)
    no_gpu = {"CUDA_VISIBLE_DEVICES": ""}
    cpu_output = commands.run("cpu", "evaluate", "--model", str(run), "--name", "cpu", *data, environment=no_gpu)
    onnx_output = commands.run("onnx", "evaluate", "--model", str(run / "model.onnx"), *data, environment=no_gpu)
    scores: dict[str, dict[str, Any]] = {
        "here": json.loads(device_output),
        "on the CPU": json.loads(cpu_output),
        "of the ONNX file": json.loads(onnx_output),
    }
    for name in ("on the CPU", "of the ONNX file"):
        for score in ("accuracy", "ece_calibrated", "log_loss"):
            if score in scores["here"]:
                difference = abs(scores[name][score] - scores["here"][score])
                report.at_most(f"{score} {name}, difference", difference, 0.02)


def main() -> None:
    """Run all commands."""
    device, out, _ = arguments(__doc__)
    report = Report("commands", out)
    environment = {"NO_COLOR": "1", "COLUMNS": "200"}
    if device.type == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory(prefix="uniemox-gpu-") as name:
        folder = Path(name)
        commands = Commands(folder, environment)
        commands.kill_on_sigterm()
        with report.attempt("resuming"):
            runs = pretrain_in_three_ways(commands, folder, EPOCHS[device.type])
            # On a GPU sums have no fixed order; on the CPU a resumed run repeats every bit.
            bound = 0.0 if device.type == "cpu" else 2e-2
            check_resuming(report, runs, compared_steps=COMPARED_STEPS[device.type], bound=bound)
        with report.attempt("evaluation"):
            check_evaluation(report, commands, folder / "undisturbed", folder)


if __name__ == "__main__":
    main()
