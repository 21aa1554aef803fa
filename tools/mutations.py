"""Insert small faults into a module, one at a time, and print which of them the tests of its area notice.

    python -m tools.mutations uniemox/persons/box.py --count 20 --seed 1

A fault is another comparison or operator, a number one too large, `any` for `all`, two arguments exchanged, a missing
statement, and so on (`tools/faults.py`). It is inserted into a copy of the working tree, in a temporary folder. The
tests are those of the folder with the module's name, tests/persons for uniemox/persons/box.py, and the module's
doctests; files that import the module run first. Some faults change no behaviour. Ctrl-C prints the share so far.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.faults import Fault, find_faults

ROOT = Path(__file__).resolve().parents[1]
# Exit codes of pytest.
PASSED = 0
FAILED = 1
NOT_COLLECTED = 2
NO_TESTS = 5
# Marks of the tests that run first and last; most faults are noticed by the first.
PHASES = ("not long", "long")
# Exit code of a command after Ctrl-C.
INTERRUPTED = 130
# Added to three times the usual duration, so that a busy machine is not taken for an endless loop.
GRACE_S = 30


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of an area's tests."""

    command: list[str]
    limit_s: float
    """Time after which a run counts as hanging."""


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Run the command in the tree of a root folder, and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutations", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="path of a module, such as uniemox/persons/box.py")
    parser.add_argument("--count", type=int, help="number of faults to draw from all modules together; default: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--tests", nargs="+", help="files or folders to run instead of the modules' own tests")
    options = parser.parse_args(arguments)
    faults = [(name, fault) for name in options.modules for fault in find_faults((root / name).read_bytes())]
    if options.count is not None and options.count < len(faults):
        faults = sorted(random.Random(options.seed).sample(faults, options.count))
    outcomes: list[str] = []
    try:
        with _copied(root) as copy:
            for name in options.modules:
                drawn = [fault for other, fault in faults if other == name]
                tests = options.tests or find_tests(copy, name)
                for fault, outcome in _try_each(copy, name, drawn, tests):
                    outcomes.append(outcome)
                    before, after = (
                        textwrap.shorten(code, 60, placeholder=" ...") for code in (fault.before, fault.after)
                    )
                    number = f"{len(outcomes)}/{len(faults)}"
                    print(f"{number:>9}  {outcome:11}  {name}:{fault.line}  {before}  ->  {after}", flush=True)
    except KeyboardInterrupt:
        print(f"stopped after {len(outcomes)} of {len(faults)} faults")
        print(_summary(outcomes))
        return INTERRUPTED
    print(_summary(outcomes))
    return 0


def find_tests(root: Path, module: str) -> list[str]:
    """Return the test files of a module's area, those that import the module first, and the module, for its doctests.

    Args:
        module: Path such as uniemox/persons/box.py, relative to the root.

    Raises:
        SystemExit: If there are no tests.
    """
    parts = Path(module).with_suffix("").parts
    folder = root / "tests" / parts[1]
    if len(parts) > 2:
        files = sorted(folder.rglob("test_*.py"))
    else:
        files = [folder.with_name(f"test_{parts[1]}.py")]
    files = [path for path in files if path.is_file()]
    if not files:
        raise SystemExit(f"there are no tests of {module} in {folder.parent}; name them with --tests")
    files.sort(key=lambda path: ".".join(parts) not in path.read_text())
    return [*(str(path.relative_to(root)) for path in files), module]


def _summary(outcomes: list[str]) -> str:
    """Return the share that was noticed; a test that never ends is noticed, too."""
    if not outcomes:
        return "no fault was tried"
    missed = outcomes.count("not noticed")
    noticed = len(outcomes) - missed
    share = 100 * noticed / len(outcomes)
    return f"{noticed} of {len(outcomes)} faults noticed ({share:.0f} %), {outcomes.count('timed out')} by their time"


@contextmanager
def _copied(root: Path) -> Iterator[Path]:
    """Copy the files of a tree that git does not ignore, next to a link to the folder of reference files."""
    with tempfile.TemporaryDirectory(prefix="uniemox-mutations-") as folder:
        copy = Path(folder) / "tree"
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
        for name in filter(None, listed.split("\0")):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        shared = root.parent / "shared"
        if shared.is_dir():
            (copy.parent / "shared").symlink_to(shared)
        yield copy


def _try_each(copy: Path, module: str, faults: list[Fault], tests: list[str]) -> Iterator[tuple[Fault, str]]:
    """Put each fault into the module of the copy, run the tests, and return the fault and its outcome."""
    if not faults:
        return
    phases = _phases(copy, tests)
    source = (copy / module).read_bytes()
    for fault in faults:
        (copy / module).write_bytes(fault.put_into(source))
        yield fault, _outcome(copy, phases)
    (copy / module).write_bytes(source)


def _phases(copy: Path, tests: list[str]) -> list[Phase]:
    """Run the tests without a fault, which also compiles all modules, and return how to run them again.

    Raises:
        SystemExit: If they fail.
    """
    phases = []
    for mark in PHASES:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", mark, *tests]
        begin = time.monotonic()
        exit_code, output = _run(command, copy, limit_s=None, may_compile=True)
        if exit_code == PASSED:
            phases.append(Phase(command, limit_s=GRACE_S + 3 * (time.monotonic() - begin)))
        elif exit_code != NO_TESTS:
            raise SystemExit(f"the tests fail without a fault: {' '.join(command)}\n{output}")
    if not phases:
        raise SystemExit(f"there is no test in {' '.join(tests)}")
    return phases


def _outcome(copy: Path, phases: list[Phase]) -> str:
    """Run the phases until one fails.

    Raises:
        RuntimeError: If pytest itself could not run.
    """
    for phase in phases:
        exit_code, output = _run(phase.command, copy, limit_s=phase.limit_s, may_compile=False)
        if exit_code is None:
            return "timed out"
        if exit_code in (FAILED, NOT_COLLECTED) or exit_code < 0:
            return "noticed"
        if exit_code != PASSED:
            raise RuntimeError(f"pytest ended with {exit_code}: {output}")
    return "not noticed"


def _run(command: list[str], folder: Path, *, limit_s: float | None, may_compile: bool) -> tuple[int | None, str]:
    """Run a command in a folder, and return its exit code and output; None after the time limit.

    Args:
        command: The command.
        folder: Working directory and folder of the modules.
        limit_s: Time limit; None: none.
        may_compile: Write compiled modules. Runs with a fault must not: Python compares time and size of a source
            file, and would take two faults of the same size within a second for one.
    """
    environment = os.environ | {"PYTHONPATH": str(folder)}
    if not may_compile:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        # Also the processes that a test has started, which would otherwise outlive a run that was stopped.
        _stop_group(process)
    return process.returncode, output


def _stop_group(process: subprocess.Popen[str]) -> None:
    """Stop a process and all processes of its session's group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        # All processes have ended.
        return
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
