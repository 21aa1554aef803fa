"""A plan: the runs of this program that a table or figure needs, and how what they find is laid out.

A run is one plain command. Its folder is named by a hash of its settings, data and versions, so that tables share what
is the same in them, and nothing is done twice.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

from uniemox.io.html import Html
from uniemox.reproduce.names import Scale

OUT = "{out}"  # in the words of a run: its folder
PACKAGES = ("uniemox", "torch", "timm", "numpy", "pillow")
RUNS, MARKS, LOGS = "runs", "done", "logs"
GROUPS = ("data", "teacher", "reproduce")  # commands of several


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One command."""

    name: str = field(compare=False)
    """What it does, for people; a table may call the same run otherwise."""
    words: tuple[str, ...]
    """What follows `uniemox`."""
    root: Path
    """Where all runs of the table lie."""
    key: str
    """Hash of settings, data and versions."""
    folder: Path
    """Where it writes; scores go to the folder of the run that is scored."""
    makes: str | None
    """What it writes last, in its folder; None: a mark says that it is done."""
    scores: tuple[str, str] | None = None
    """Data and split, of a run that evaluates."""
    needs: tuple["Run", ...] = ()
    """What must be done before."""
    images: int = 0
    """Images that go through a network, all epochs together: by them the time is told."""
    gflop: float = 0.0
    """Of each of them, where it is known, multiplications and additions counted separately."""
    parameters_m: float = 0.0
    """Millions of parameters that it trains, where that is known."""
    processes: int = 1
    """Started under torchrun where there are several."""
    lacks: str | None = None
    """What is not there, so that it can't be run."""

    @property
    def missing(self) -> str | None:
        """Return what this run or its dependencies lack."""
        return self.lacks or next((run.missing for run in self.needs if run.missing), None)

    @property
    def command(self) -> str:
        """The line that a shell or a scheduler starts."""
        start = ["uniemox"]
        if self.processes > 1:
            start = ["torchrun", "--standalone", "--nproc-per-node", str(self.processes), "-m", "uniemox"]
        return shlex.join([*start, *self.words])

    @property
    def mark(self) -> Path:
        """The file that says that it is done."""
        return self.root / MARKS / self.key

    @property
    def log(self) -> Path:
        """Return its output."""
        return self.root / LOGS / f"{self.key}.log"


def plan_run(
    root: Path,
    name: str,
    words: Sequence[str | Path],
    *,
    makes: str | None,
    needs: Sequence[Run] = (),
    data: Sequence[str] = (),
) -> Run:
    """A run with a folder of its own, which replaces OUT in its words.

    data: hashes of what it reads besides the folders of other runs, whose own hashes are in their names. Where the
    root lies, what the run is called, and with how many processes it is run do not change the hash.
    """
    key = _key(root, words, data)
    kind = "-".join(str(word) for word in words[: 2 if words[0] in GROUPS else 1])
    folder = root / RUNS / f"{kind}-{key}"
    filled = tuple(str(word).replace(OUT, str(folder)) for word in words)
    return Run(name=name, words=filled, root=root, key=key, folder=folder, makes=makes, needs=tuple(needs))


def plan_evaluation(
    model: Run,
    *,
    data: str,
    split: str,
    options: Sequence[str | Path] = (),
    needs: Sequence[Run] = (),
    digests: Sequence[str] = (),
) -> Run:
    """The evaluation of a fine-tuning run on a split of a data set; `all` is all of it."""
    words = ["evaluate", "--model", model.folder, "--data", data, "--split", split, *options]
    key = _key(model.root, words, digests)
    return Run(
        name=f"score {model.name}",
        words=(*map(str, words), "--name", key),
        root=model.root,
        key=key,
        folder=model.folder,
        makes=None,
        scores=(data, split),
        needs=(model, *needs),
    )


def _key(root: Path, words: Sequence[str | Path], data: Sequence[str]) -> str:
    plain = [str(word).replace(f"{root / RUNS}/", "") for word in words]
    known = {"words": plain, "data": sorted(data), "versions": _versions()}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:12]


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


@dataclass(frozen=True, slots=True)
class Cell:
    """Cell of a table: one method on one data set."""

    paper: float | None = None
    """The paper's figure, percent."""
    runs: tuple[Run, ...] = ()
    """Evaluations that give ours, one a seed."""
    why: str = ""
    """Why there are no runs."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A method."""

    name: str
    cells: Mapping[str, Cell]
    """By column."""
    network: str = ""
    """What was really run, where the name alone does not say it."""
    is_cited: bool = False
    """The paper cites it from elsewhere; there is nothing to run."""
    baseline: str | None = None
    """The row of the colour histogram that it is compared with."""
    paper_costs: tuple[float | None, float | None] = (None, None)
    """The paper's millions of parameters and billions of multiply-adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that one page needs."""

    name: str
    """table4"""
    title: str
    scale: Scale
    about: tuple[str, ...]
    """Paragraphs: what was done, and what it can tell."""
    columns: tuple[str, ...] = ()
    rows: tuple[TableRow, ...] = ()
    reference: str | None = None
    """The row that the others are compared with, image by image."""
    is_curve: bool = False
    """Whether the columns are points on one axis, which are drawn as a line for each row."""
    more: tuple[Run, ...] = ()
    """Runs that fill no cell."""
    parts: tuple[Callable[[], Html], ...] = field(default=())
    """What stands below the table, made when the runs are done."""

    @property
    def runs(self) -> list[Run]:
        """Every run once, each after those that it needs."""
        found: dict[str, Run] = {}
        for row in self.rows:
            for cell in row.cells.values():
                for run in cell.runs:
                    found |= {run.key: run for run in with_needs(run)}
        for other in self.more:
            found |= {run.key: run for run in with_needs(other)}
        return list(found.values())


def with_needs(run: Run) -> Iterator[Run]:
    """All that a run needs, then the run; some may come twice."""
    for needed in run.needs:
        yield from with_needs(needed)
    yield run
