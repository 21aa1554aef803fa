"""Runs commands a few at a time, each once, even if the experiment is stopped and repeated."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from experiments.does_it_help.plan import Job
from uniemox.errors import UniemoxError

JOURNAL = "journal.jsonl"


def run_jobs(jobs: Sequence[Job], root: Path, count: int) -> None:
    """Run every job that has no mark below ROOT/done, `count` in parallel, in order.

    Jobs whose names differ only in their first word ("train X", "probe X") run one after the other, and not at all if
    the outcome of the last is stored, even by another machine. After Ctrl-C the commands save and stop; the same call
    resumes.

    Raises:
        UniemoxError: If a command fails.
    """
    chains: dict[str, list[Job]] = {}
    for job in jobs:
        chains.setdefault(job.name.partition(" ")[2] or job.name, []).append(job)
    open_chains = [chain for chain in chains.values() if not _is_done(chain, root)]
    stop = Event()

    def run_chain(chain: Sequence[Job]) -> None:
        for job in chain:
            if not stop.is_set() and not (_mark(job, root).exists() and (job.outcome is None or job.is_stored)):
                _run(job, root, stop)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run_chain, chain) for chain in open_chains]
        try:
            for done, future in enumerate(futures, 1):
                future.result()
                sys.stderr.write(f"{done} of {len(futures)} done\n")
        except BaseException:
            stop.set()
            raise


def _run(job: Job, root: Path, stop: Event) -> None:
    log = root / "logs" / f"{_slug(job)}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    load_before = os.getloadavg()[0]
    module = [sys.executable, *job.command]
    if job.command[0] == "uniemox":
        module.insert(1, "-m")
    with log.open("ab") as file, (job.prints or log).open("wb" if job.prints else "ab") as output:
        environment = {**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(module, stdin=subprocess.DEVNULL, stdout=output, stderr=file, env=environment)
        while process.poll() is None:
            if stop.wait(0.2):
                # The command saves and ends.
                process.terminate()
                process.wait()
    line = {"name": job.name, "seconds": round(time.monotonic() - start, 1), "exit_code": process.returncode}
    # Other programs slow a run down, so compute is counted in steps, not in seconds.
    line["load_before"] = round(load_before, 2)
    with (root / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write(json.dumps(line) + "\n")
    if process.returncode:
        tail = " / ".join(log.read_text("utf-8", "replace").splitlines()[-3:])
        raise UniemoxError(f"{job.name} failed with exit code {process.returncode}: {tail} (all of it: {log})")
    _mark(job, root).parent.mkdir(parents=True, exist_ok=True)
    _mark(job, root).write_text(" ".join(job.command) + "\n", "utf-8")


def _is_done(chain: Sequence[Job], root: Path) -> bool:
    is_marked = all(_mark(job, root).exists() for job in chain)
    if chain[-1].outcome is None:
        return is_marked
    return chain[-1].is_stored


def _mark(job: Job, root: Path) -> Path:
    return root / "done" / _slug(job)


def _slug(job: Job) -> str:
    return job.name.replace("/", "--").replace(" ", "_")
