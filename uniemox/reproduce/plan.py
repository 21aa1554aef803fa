"""A plan: the runs of this program that a table or figure needs, and how what they find is laid out.

A run is one plain command. Its folder is named by a hash of its settings, data and versions, so that tables share what
is the same in them, and nothing is done twice.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.presets import PRESETS as FINETUNINGS
from uniemox.io.html import Html
from uniemox.pretrain.config import PretrainConfig
from uniemox.pretrain.presets import PRESETS as PRETRAININGS
from uniemox.reproduce.config import Scale

OUT, KEY = "{out}", "{key}"  # in arguments and options of a run: its folder, and its hash
PACKAGES = ("uniemox", "torch", "timm", "numpy", "pillow")
NOT_HASHED = ("name", "key_from")  # how scores are called; where the key of an endpoint lies changes no answer
RUNS, MARKS, LOGS = "runs", "done", "logs"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One command."""

    name: str = field(compare=False)
    """What it does, for people; a table may call the same run otherwise."""
    kind: str
    """What follows `uniemox`, such as finetune or data split."""
    arguments: tuple[str | Path, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """By name, dotted and with _ as in configs; several values are a tuple, and None is none."""
    root: Path
    """Where all runs of the table lie."""
    digests: tuple[str, ...] = ()
    """Hashes of what it reads besides the folders of other runs, whose own hashes are in their names."""
    makes: str | None = None
    """What it writes last, in its folder; None: a mark says that it is done."""
    model: "Run | None" = None
    """The run that it evaluates, to whose folder scores go."""
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

    @cached_property
    def config(self) -> PretrainConfig | FinetuneConfig:
        """Settings of a run that trains: its preset, changed by its options. Raises ConfigError."""
        preset: Any = (PRETRAININGS if self.kind == "pretrain" else FINETUNINGS)[self.options["preset"]]()
        known = {part.name for part in fields(preset)}
        return changed(preset, {name: value for name, value in self.options.items() if name.split(".")[0] in known})

    @cached_property
    def key(self) -> str:
        """Hash of command, data and versions; where the root lies and what the run is called do not matter."""
        words = [word.replace(f"{self.root / RUNS}/", "") for word in self._words(without=NOT_HASHED)]
        known = {"words": words, "data": sorted(self.digests), "versions": _versions()}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Return where it writes."""
        return self.model.folder if self.model else self.root / RUNS / f"{self.kind.replace(' ', '-')}-{self.key}"

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Words after `uniemox` on the command line."""
        folder, key = str(self.folder), self.key
        return tuple(word.replace(OUT, folder).replace(KEY, key) for word in self._words())

    def _words(self, without: Collection[str] = ()) -> Iterator[str]:
        """Words with placeholders for folder and hash."""
        yield from (*self.kind.split(), *map(str, self.arguments))
        for name, value in self.options.items():
            if name not in without:
                yield from option_words(name, value)

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


def option_words(name: str, value: Any) -> Iterator[str]:
    """Return an option as words of a command.

    >>> [*option_words("teacher.with_emotion", False), *option_words("split", ("train", "val"))]
    ['--teacher.no-with-emotion', '--split', 'train', '--split', 'val']
    """
    section, dot, last = name.replace("_", "-").rpartition(".")
    option = f"--{section}{dot}{'no-' if value is False else ''}{last}"
    for one in value if isinstance(value, tuple) else (value,):
        yield option
        if not isinstance(one, bool):
            yield "none" if one is None else f"{one:g}" if isinstance(one, float) else str(one)


def changed(config: Any, options: Mapping[str, Any]) -> Any:
    """A config with other values, by dotted names. Raises ConfigError for what it does not take.

    >>> changed(FinetuneConfig(), {"network.fusion": "gated", "seed": 3}).network.fusion
    'gated'
    """
    values: dict[str, Any] = {name: value for name, value in options.items() if "." not in name}
    for section in dict.fromkeys(name.split(".")[0] for name in options if "." in name):
        inner = {name.partition(".")[2]: value for name, value in options.items() if name.startswith(f"{section}.")}
        values[section] = changed(getattr(config, section), inner)
    return replace(config, **values)


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
    parts: tuple[Callable[[], Html], ...] = ()
    """What stands below the table, made when the runs are done."""

    @property
    def runs(self) -> list[Run]:
        """Every run once, each after those that it needs."""
        wanted = [run for row in self.rows for cell in row.cells.values() for run in cell.runs]
        return list({run.key: run for last in [*wanted, *self.more] for run in _with_needs(last)}.values())


def _with_needs(run: Run) -> Iterator[Run]:
    """All that a run needs, then the run; some may come twice."""
    for needed in run.needs:
        yield from _with_needs(needed)
    yield run
