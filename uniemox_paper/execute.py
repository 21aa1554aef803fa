"""Executes the missing runs of a plan: in order, some in parallel, each once, even if stopped and repeated."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from uniemox.errors import ConfigError, DataError, StoppedError
from uniemox.io import StopRequest, open_appending, parse_json, read_limited, refuse_special, write_file
from uniemox_paper.plan import ONE_MACHINE, PlannedRun
from uniemox_paper.results import is_done

LOCKS = "locks"
JOURNAL = "journal.jsonl"
POLL_INTERVAL_S = 0.2
# Starting and ending a command takes about as long as this number of images in a small network.
START_IMAGES = 4000
# Lines of a failed run's log that are shown.
LOG_TAIL_LINES = 4


@dataclass(slots=True)
class RunOutcome:
    """Outcome of a plan."""

    done: list[PlannedRun] = field(default_factory=list)
    """Runs that are done, now or before."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reason by key: the last lines of the run's log, or the failed run that it needs."""
    seconds: float = 0.0


@dataclass(slots=True)
class _Started:
    run: PlannedRun
    process: subprocess.Popen[bytes]
    lock: BinaryIO
    began: float
    gpus: tuple[str, ...]


def execute(
    runs: Sequence[PlannedRun],
    *,
    jobs: int = 1,
    gpus: int = 0,
    watch: Callable[[float, str], None] = lambda share, words: None,
) -> RunOutcome:
    """Execute every run of a plan that is not done, each after the runs that it needs.

    If a run fails, runs that need it are skipped and all others continue. If another process is already doing a run,
    this one waits for it, even if the command that started that process was killed. After Ctrl-C or SIGTERM the running
    commands save and end; then StoppedError is raised, and the same plan resumes from there.

    Args:
        runs: Runs in an order in which each follows those that it needs.
        jobs: Maximum number of runs in parallel.
        gpus: Number of this machine's GPUs to use; each command gets as many as it has processes, exclusively, and
            preparation of data gets none. 0: all commands share the GPUs that this process sees.
        watch: Called with the share of the work done, 0 to 1, and the current work.

    Raises:
        ConfigError: If a run has more processes than there are GPUs.
        StoppedError: After Ctrl-C or SIGTERM.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        free = [str(i) for i in range(gpus)]
    else:
        free = [name for name in visible.split(",") if name][:gpus]
    max_processes = max(map(gpus_of, runs), default=0)
    if gpus and max_processes > len(free):
        raise ConfigError(
            f"a run of this plan has {max_processes} processes, but there are {len(free)} GPUs; give fewer --gpus"
        )
    began = time.perf_counter()
    ahead = work_ahead(runs)
    total = sum(map(_weight, runs))
    waiting = sorted(to_do(runs), key=lambda run: -ahead[run.key])
    running = list[_Started]()
    open_keys = {run.key for run in waiting}
    outcome = RunOutcome(done=[run for run in runs if run.key not in open_keys])
    with StopRequest() as stop:
        while waiting or running:
            if stop.signal is not None:
                _stop(running, stop.signal)
            for started in [entry for entry in running if entry.process.poll() is not None]:
                running.remove(started)
                free += started.gpus
                _end(started, outcome)
            finished = {run.key for run in outcome.done}
            waiting = [run for run in waiting if not _needs_no_start(run, outcome, finished)]
            for run in [run for run in waiting if all(needed.key in finished for needed in run.needs)]:
                run_gpus = tuple(free[: gpus_of(run)]) if gpus else None
                if len(running) == jobs or (run_gpus is not None and len(run_gpus) < gpus_of(run)):
                    # The first run in line gets the next free GPUs, or runs with many GPUs would never start.
                    break
                if (started_run := _start(run, run_gpus)) is not None:
                    waiting.remove(run)
                    running.append(started_run)
                    free = free[len(run_gpus or ()) :]
            idle = "waiting for another process" if waiting else "no run is left"
            names = ", ".join(entry.run.name for entry in running) or idle
            watch(sum(map(_weight, outcome.done)) / total if total else 1.0, names)
            if waiting or running:
                time.sleep(POLL_INTERVAL_S)
    outcome.seconds = time.perf_counter() - began
    return outcome


def to_do(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the runs that are still needed: final runs that are not done, and everything that they need.

    A deleted intermediate result is only made again if a run needs it.
    """
    needed = {other.key for run in runs for other in run.needs}
    wanted = {run.key for run in runs if run.key not in needed}
    pending = []
    for run in reversed(runs):
        if run.key in wanted and not is_done(run):
            wanted |= {other.key for other in run.needs}
            pending.append(run)
    return pending[::-1]


def _weight(run: PlannedRun) -> int:
    return START_IMAGES + run.images


def work_ahead(runs: Sequence[PlannedRun]) -> dict[str, int]:
    """Return the work of the longest chain that begins with each run. Long chains go first."""
    after: dict[str, int] = {}
    for run in reversed(runs):
        after[run.key] = _weight(run) + after.get(run.key, 0)
        for needed in run.needs:
            after[needed.key] = max(after.get(needed.key, 0), after[run.key])
    return after


def _needs_no_start(run: PlannedRun, outcome: RunOutcome, finished: set[str]) -> bool:
    """Return True if a run needs no action: it can't be done, needs a failed run, or another process did it."""
    if run.missing is not None:
        return True
    failed_run = next((needed for needed in run.needs if needed.key in outcome.failed), None)
    if failed_run is not None:
        outcome.failed[run.key] = f"it needs a failed run: {failed_run.name}"
    elif all(needed.key in finished for needed in run.needs) and is_done(run):
        outcome.done.append(run)
        finished.add(run.key)
    else:
        return False
    return True


def gpus_of(run: PlannedRun) -> int:
    """Return the number of GPUs of a command; preparation of data uses none."""
    return 0 if run.kind.startswith("data ") else run.processes


def _start(run: PlannedRun, gpus: tuple[str, ...] | None = None) -> _Started | None:
    """Start a command that holds the run's lock while it lives; None if another process holds the lock.

    Args:
        gpus: GPUs that the command sees; None: all that this process sees.
    """
    lock = run.root / LOCKS / f"{run.key}.lock"
    folders = lock.parent, run.log.parent, run.mark.parent, run.folder.parent
    for path in (*folders, run.folder, lock, run.log, run.root / JOURNAL):
        refuse_special(path)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    lock_file = open_appending(lock)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock_file.close()
        return None
    if is_done(run):
        # Another process has done it in the meantime.
        lock_file.close()
        return None
    if run.makes is None and run.scores is None:
        # Such a command writes a growing file to its folder, and does not create the folder.
        run.folder.mkdir(parents=True, exist_ok=True)
    gpu_variables = {} if gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    start = [sys.executable, "-m"]
    if run.processes > 1:
        start += ["torch.distributed.run", *ONE_MACHINE, f"--nproc-per-node={run.processes}", "-m"]
    with open_appending(run.log) as log:
        log.write(f"$ {run.command}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [*start, "uniemox", *run.words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Waiting threads leave the core to other commands.
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "NO_COLOR": "1", **gpu_variables},
            # The command inherits the lock, which stays locked if this process is killed.
            pass_fds=(lock_file.fileno(),),
            # In its own session the command gets no Ctrl-C from the terminal; this process forwards it, once.
            start_new_session=True,
        )
    return _Started(run, process, lock_file, time.perf_counter(), gpus or ())


def _end(started: _Started, outcome: RunOutcome) -> None:
    """Record how a command ended."""
    run = started.run
    code = started.process.returncode
    if code == 0:
        write_file(run.mark, run.command + "\n")
    _clear(started)
    if code == 0 and is_done(run):
        outcome.done.append(run)
        return
    explanation = "" if code else "; it ended without an error, but did not write its output"
    lines = [line.strip() for line in read_limited(run.log).decode("utf-8", "replace").splitlines() if line.strip()]
    outcome.failed[run.key] = (
        f"exit code {code}{explanation}: {' / '.join(lines[-LOG_TAIL_LINES:])} (all of it: {run.log})"
    )


def _clear(started: _Started) -> None:
    """Record a command that has ended, and keep its leftovers from holding the lock forever."""
    with suppress(ProcessLookupError):
        os.killpg(started.process.pid, signal.SIGKILL)
    started.lock.close()
    run = started.run
    line = {
        "name": run.name,
        "key": run.key,
        "command": run.command,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started.began, 1),
        "exit_code": started.process.returncode,
    }
    with open_appending(run.root / JOURNAL) as journal:
        journal.write(json.dumps(line).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class EndedCommand:
    """Fields of a line of the journal that `seconds_of` adds up."""

    key: str
    seconds: float


def seconds_of(root: Path) -> dict[str, float]:
    """Return the time of every run by key, over all its starts, from the journal.

    Raises:
        DataError: If the journal can't be read.
    """
    path = root / JOURNAL
    seconds = dict[str, float]()
    refuse_special(path)
    try:
        lines = read_limited(path).splitlines() if path.exists() else []
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}); remove it") from error
    for line in lines:
        # A killed process may leave an incomplete line.
        with suppress(DataError):
            entry = parse_json(line, EndedCommand, str(path), remedy="remove the line")
            seconds[entry.key] = seconds.get(entry.key, 0.0) + entry.seconds
    return seconds


def _stop(running: Sequence[_Started], number: int) -> None:
    """Let the running commands save and end, and raise StoppedError."""
    for started in running:
        started.process.send_signal(signal.SIGTERM)
    for started in running:
        started.process.wait()
        _clear(started)
    raise StoppedError(
        f"stopped, and {len(running)} running commands with it; progress is saved; repeat the command to resume",
        exit_code=128 + number,
    )
