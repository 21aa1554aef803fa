"""Executes the missing runs of a plan: in order, some in parallel, each once, even if stopped and repeated."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from uniemox.errors import ConfigError, DataError, StoppedError
from uniemox.io import (
    StopRequest,
    open_appending,
    parse_json,
    read_limited,
    refuse_special,
    safe_environment,
    try_lock,
    write_file,
)
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
    schedule = _Schedule(runs, jobs=jobs, free_gpus=free if gpus else None)
    with StopRequest() as stop:
        while not schedule.is_empty:
            if stop.signal is not None:
                _stop(schedule.running, stop.signal)
            schedule.collect_ended()
            schedule.settle_without_start()
            schedule.start_ready()
            watch(*schedule.progress())
            if not schedule.is_empty:
                time.sleep(POLL_INTERVAL_S)
    schedule.outcome.seconds = time.perf_counter() - began
    return schedule.outcome


class _Schedule:
    """Runs of a plan that wait, run or have ended.

    Args:
        runs: Runs in an order in which each follows those that it needs.
        jobs: Maximum number of runs in parallel.
        free_gpus: Names of the GPUs that commands get exclusively; None: all commands share those of this process.
    """

    def __init__(self, runs: Sequence[PlannedRun], *, jobs: int, free_gpus: list[str] | None) -> None:
        ahead = work_ahead(runs)
        self.jobs = jobs
        self.free_gpus = free_gpus
        self.work = sum(map(_weight, runs))
        self.waiting = sorted(to_do(runs), key=lambda run: -ahead[run.key])
        self.running = list[_Started]()
        waiting_keys = {run.key for run in self.waiting}
        self.outcome = RunOutcome(done=[run for run in runs if run.key not in waiting_keys])

    @property
    def is_empty(self) -> bool:
        """True if no run waits or runs."""
        return not (self.waiting or self.running)

    def collect_ended(self) -> None:
        """Record the commands that have ended, and free their GPUs."""
        for started in [entry for entry in self.running if entry.process.poll() is not None]:
            self.running.remove(started)
            if self.free_gpus is not None:
                self.free_gpus += started.gpus
            _end(started, self.outcome)

    def settle_without_start(self) -> None:
        """Remove runs that need no start: they can't be done, need a failed run, or another process did them."""
        still_waiting = []
        finished = {run.key for run in self.outcome.done}
        for run in self.waiting:
            if run.missing is not None:
                continue
            failed_run = next((needed for needed in run.needs if needed.key in self.outcome.failed), None)
            if failed_run is not None:
                self.outcome.failed[run.key] = f"it needs a failed run: {failed_run.name}"
            elif _can_start(run, finished) and is_done(run):
                self.outcome.done.append(run)
                finished.add(run.key)
            else:
                still_waiting.append(run)
        self.waiting = still_waiting

    def start_ready(self) -> None:
        """Start the runs whose needs are done, in order, as long as there are jobs and GPUs left."""
        finished = {run.key for run in self.outcome.done}
        for run in [run for run in self.waiting if _can_start(run, finished)]:
            run_gpus = None if self.free_gpus is None else tuple(self.free_gpus[: gpus_of(run)])
            if len(self.running) == self.jobs or (run_gpus is not None and len(run_gpus) < gpus_of(run)):
                # The first run in line gets the next free GPUs, or runs with many GPUs would never start.
                return
            started = _start(run, run_gpus)
            if started is None:
                continue
            self.waiting.remove(run)
            self.running.append(started)
            if self.free_gpus is not None:
                del self.free_gpus[: gpus_of(run)]

    def progress(self) -> tuple[float, str]:
        """Return the share of the work that is done, 0 to 1, and what runs now."""
        idle = "waiting for another process" if self.waiting else "no run is left"
        names = ", ".join(entry.run.name for entry in self.running) or idle
        return sum(map(_weight, self.outcome.done)) / self.work if self.work else 1.0, names


def _can_start(run: PlannedRun, finished: Collection[str]) -> bool:
    """Return True if all runs that a run needs are finished."""
    return all(needed.key in finished for needed in run.needs)


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
        try_lock(lock_file, lock)
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
            env={"OMP_WAIT_POLICY": "PASSIVE", **safe_environment(), "NO_COLOR": "1", **gpu_variables},
            # The command inherits the lock, which stays locked if this process is killed.
            pass_fds=() if sys.platform == "win32" else (lock_file.fileno(),),
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
    if sys.platform != "win32":
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
