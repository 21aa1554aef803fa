"""Results of the checks, one JSON object a line, written at once so that an interrupted run does not lose them."""

import argparse
import json
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

CHECKS = "checks.jsonl"
# Limits of a machine that is lent for a call, for the folder of results that it returns.
MAX_FILES = 8
MAX_FILE_MIB = 16
MAX_FOLDERS = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One result."""

    part: str
    name: str
    value: float | str | None
    """Measured value; a text for a remark; None if the check failed with an error."""
    bound: float | None = None
    """The value must not be larger; None: only reported."""
    note: str = ""

    @property
    def state(self) -> str:
        """State of the check: ok, FAILED, or - for a value without a bound."""
        if self.value is None:
            return "FAILED"
        if self.bound is None:
            return "-"
        assert isinstance(self.value, float)
        # NaN fails too.
        if self.value <= self.bound:
            return "ok"
        return "FAILED"

    def __str__(self) -> str:
        value = f"{self.value:.3g}" if isinstance(self.value, float) else str(self.value)
        bound = "" if self.bound is None else f"  (at most {self.bound:g})"
        note = f"  {self.note}" if self.note else ""
        return f"{self.state:6}  {self.part:12}  {self.name}: {value}{bound}{note}"


class Report:
    """Collects the results of one part.

    Args:
        part: Name of the part.
        out: Folder of the results.
    """

    def __init__(self, part: str, out: Path) -> None:
        self.part = part
        self.path = out / CHECKS
        out.mkdir(parents=True, exist_ok=True)

    def at_most(self, name: str, value: float, bound: float, note: str = "") -> None:
        """Record a value that must not be larger than a bound."""
        self._write(Line(self.part, name, float(value), bound, note))

    def close(self, name: str, result: Tensor, reference: Tensor, bound: float) -> None:
        """Record ‖result - reference‖ / ‖reference‖, which must not be larger than a bound."""
        self.at_most(name, relative_error(result, reference), bound)

    def note(self, name: str, value: float | str) -> None:
        """Record a value without a bound."""
        self._write(Line(self.part, name, value))

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Record an error inside the context as a failed check, and continue after it."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the next checks may still succeed
            traceback.print_exc()
            self._write(Line(self.part, name, None, note=f"{type(error).__name__}: {error}"[:300]))

    def _write(self, line: Line) -> None:
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(line)) + "\n")


def check_size(report: Report, out: Path) -> None:
    """Check that all results can be brought back: few files, each small, in few folders."""
    files = [path for path in out.rglob("*") if path.is_file()]
    names = ", ".join(sorted(str(path.relative_to(out)) for path in files)[: 2 * MAX_FILES])
    report.at_most("files of results", len(files), MAX_FILES, names)
    largest_mib = max((path.stat().st_size for path in files), default=0) / 2**20
    report.at_most("largest file of results, MiB", largest_mib, MAX_FILE_MIB)
    depth = max((len(path.relative_to(out).parts) - 1 for path in files), default=0)
    report.at_most("folders above a file of results", depth, MAX_FOLDERS)


def relative_error(result: Tensor, reference: Tensor) -> float:
    """Return ‖result - reference‖ / ‖reference‖, computed in float64 on the CPU."""
    expected = reference.detach().cpu().double()
    return float((result.detach().cpu().double() - expected).norm() / expected.norm())


def read_lines(out: Path) -> list[Line]:
    """Read all results in a folder."""
    path = out / CHECKS
    if not path.exists():
        return []
    return [Line(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def arguments(description: str | None) -> tuple[torch.device, Path, bool]:
    """Parse the options that all parts have: device, folder of the results, and True for tiny sizes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--tiny", action="store_true", help="use sizes that take seconds on a CPU")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.exit(1, "there is no CUDA device here\n")
    return torch.device(args.device), args.out, args.tiny


def main() -> None:
    """Check the size of a folder of results and print them, failed ones last; exit with 1 if one has failed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    check_size(Report("results", out), out)
    lines = read_lines(out)
    for line in sorted(lines, key=lambda line: line.state == "FAILED"):
        print(line)
    failed = sum(line.state == "FAILED" for line in lines)
    print(f"{len(lines)} results, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
