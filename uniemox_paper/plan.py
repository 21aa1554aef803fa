"""A plan: the runs that a table or figure needs, and the layout of their results.

A run is one command. Its folder is named by a hash of its settings, data and versions, so that tables share equal runs,
and no run is done twice.
"""

import hashlib
import json
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from uniemox.finetune import PRESETS as FINETUNINGS
from uniemox.finetune import FinetuneConfig
from uniemox.io import Html
from uniemox.pretrain import PRESETS as PRETRAININGS
from uniemox.pretrain import PretrainConfig
from uniemox.training import PACKAGES
from uniemox_paper.config import Scale
from uniemox_paper.protocol import Protocol

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Config = TypeVar("Config", bound="DataclassInstance")
# Placeholders in a run's arguments and options: its folder, and its hash.
OUT = "{out}"
KEY = "{key}"
# The name of the scores and the variable of the API key do not change results.
NOT_HASHED = ("name", "key_from")
RUNS = "runs"
MARKS = "done"
LOGS = "logs"
# Options of torchrun. Without an address, processes meet at the machine's name, which not every machine can resolve.
ONE_MACHINE = ("--standalone", "--local-addr", "127.0.0.1")


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One command."""

    name: str = field(compare=False)
    """Description for people; tables may use another name for the same run."""
    kind: str
    """Command after `uniemox`, such as finetune or data split."""
    arguments: tuple[str | Path, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options by name, dotted and with _ as in configs; several values are a tuple, None is "none"."""
    root: Path
    """Folder of all runs of the table."""
    digests: tuple[str, ...] = ()
    """Hashes of its inputs, except other runs' folders, whose names contain their hashes."""
    makes: str | None = None
    """Last file that it writes, in its folder; None: a mark records that it is done."""
    model: "PlannedRun | None" = None
    """Run that it evaluates, to whose folder the scores go."""
    scores: tuple[str, str] | None = None
    """Data and split of an evaluating run."""
    needs: tuple["PlannedRun", ...] = ()
    """Runs that must be done before."""
    images: int = 0
    """Images that pass through a network, over all epochs, used to estimate the time."""
    gflop: float = 0.0
    """GFLOP per image, if known; multiplications and additions count separately."""
    parameters_m: float = 0.0
    """Trained parameters in millions, if known."""
    processes: int = 1
    """Number of processes; started with torchrun if there are several."""
    lacks: str | None = None
    """Missing requirement that prevents the run; None if there is none."""

    @property
    def missing(self) -> str | None:
        """Requirement that this run or its dependencies lack; None if nothing is missing."""
        return self.lacks or next((run.missing for run in self.needs if run.missing), None)

    @cached_property
    def config(self) -> PretrainConfig | FinetuneConfig:
        """Settings of a training run: its preset, changed by its options.

        Raises:
            ConfigError: If an option has a value that the config refuses.
        """
        preset: Any = (PRETRAININGS if self.kind == "pretrain" else FINETUNINGS)[self.options["preset"]]()
        names = {part.name for part in fields(preset)}
        return changed(preset, {name: value for name, value in self.options.items() if name.split(".")[0] in names})

    @cached_property
    def key(self) -> str:
        """Hash of command, data and versions, independent of root and name."""
        words = [word.replace(f"{self.root / RUNS}/", "") for word in self._words(without=NOT_HASHED)]
        inputs = {"words": words, "data": sorted(self.digests), "versions": _versions()}
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        """Folder that it writes to."""
        if self.model:
            return self.model.folder
        return self.root / RUNS / f"{self.kind.replace(' ', '-')}-{self.key}"

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Words after `uniemox` on the command line."""
        folder = str(self.folder)
        key = self.key
        return tuple(word.replace(OUT, folder).replace(KEY, key) for word in self._words())

    def _words(self, without: Collection[str] = ()) -> Iterator[str]:
        """Yield the words with placeholders for folder and hash."""
        yield from (*self.kind.split(), *map(str, self.arguments))
        for name, value in self.options.items():
            if name not in without:
                yield from option_words(name, value)

    @property
    def command(self) -> str:
        """Line for a shell or a scheduler."""
        start = ["uniemox"]
        if self.processes > 1:
            start = ["torchrun", *ONE_MACHINE, "--nproc-per-node", str(self.processes), "-m", "uniemox"]
        return shlex.join([*start, *self.words])

    @property
    def mark(self) -> Path:
        """File that records that it is done."""
        return self.root / MARKS / self.key

    @property
    def log(self) -> Path:
        """File with its output."""
        return self.root / LOGS / f"{self.key}.log"


def option_words(name: str, value: Any) -> Iterator[str]:
    """Return an option as words of a command.

    >>> [*option_words("teacher.with_emotion", False), *option_words("split", ("train", "val"))]
    ['--teacher.no-with-emotion', '--split', 'train', '--split', 'val']
    """
    section, dot, last = name.replace("_", "-").rpartition(".")
    option = f"--{section}{dot}{'no-' if value is False else ''}{last}"
    values = value if isinstance(value, tuple) else (value,)
    for single in values:
        yield option
        # A Boolean is in the option's name.
        if single is None:
            yield "none"
        elif isinstance(single, float):
            yield f"{single:g}"
        elif not isinstance(single, bool):
            yield str(single)


def changed(config: Config, options: Mapping[str, Any]) -> Config:
    """Return a config with other values, by dotted names.

    Raises:
        ConfigError: If the config refuses a value.

    >>> changed(FinetuneConfig(), {"network.fusion": "gated", "seed": 3}).network.fusion
    'gated'
    """
    values: dict[str, Any] = {name: value for name, value in options.items() if "." not in name}
    for section in dict.fromkeys(name.split(".")[0] for name in options if "." in name):
        section_options = {
            name.partition(".")[2]: value for name, value in options.items() if name.startswith(f"{section}.")
        }
        values[section] = changed(getattr(config, section), section_options)
    return replace(config, **values)


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


@dataclass(frozen=True, slots=True)
class Cell:
    """Cell of a table: one method on one data set."""

    paper: float | None = None
    """The paper's figure, percent."""
    runs: tuple[PlannedRun, ...] = ()
    """Evaluations for our figure, one per seed."""
    why: str = ""
    """Reason why there are no runs."""
    protocol: Protocol | None = None
    """Description of what the runs compute; None without runs."""
    paper_from: str = ""
    """Table of the paper that its figure is taken from, if it is another one."""

    @property
    def citation(self) -> str:
        """The paper's figure in words; an empty text without one."""
        if self.paper is None:
            return ""
        source = f"the paper's {self.paper_from}" if self.paper_from else "the paper"
        return f"{source} has {self.paper:.2f} %"


@dataclass(frozen=True, slots=True)
class TableRow:
    """Row of a table: one method."""

    name: str
    cells: Mapping[str, Cell]
    """Cells by column."""
    network: str = ""
    """Network that is really used, if the name does not tell."""
    is_cited: bool = False
    """True if the paper only cites it, so there is nothing to run."""
    baseline: str | None = None
    """Row of the colour histogram to compare with."""
    paper_costs: tuple[float | None, float | None] = (None, None)
    """The paper's parameters in millions and multiply-adds in billions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything for one page."""

    name: str
    """Name such as table4."""
    title: str
    scale: Scale
    about: tuple[str, ...]
    """Paragraphs about the method and the meaning of the results."""
    columns: tuple[str, ...] = ()
    rows: tuple[TableRow, ...] = ()
    reference: str | None = None
    """Row to which the others are compared, image by image."""
    is_curve: bool = False
    """True if the columns are points on one axis, drawn as one line per row."""
    more: tuple[PlannedRun, ...] = ()
    """Runs without a cell."""
    parts: tuple[Callable[[], Html], ...] = ()
    """Functions that make the parts below the table after the runs."""

    @property
    def runs(self) -> list[PlannedRun]:
        """Every run once, each after the runs that it needs."""
        wanted = [run for row in self.rows for cell in row.cells.values() for run in cell.runs]
        return list({run.key: run for last in [*wanted, *self.more] for run in with_needs(last)}.values())


def with_needs(run: PlannedRun) -> Iterator[PlannedRun]:
    """Yield everything that a run needs, then the run; some may repeat."""
    for needed in run.needs:
        yield from with_needs(needed)
    yield run
