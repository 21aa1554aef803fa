"""Output of `uniemox reproduce --check`, and the settings of a command line."""

import json
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError

from uniemox.cli.console import progress_bar
from uniemox.errors import ConfigError

if TYPE_CHECKING:
    from uniemox.finetune.config import FinetuneConfig
    from uniemox.pretrain.config import PretrainConfig
    from uniemox.reproduce.plan import Plan

NO_SETTINGS = ("--data", "--out", "--persons", "--texts", "--splits", "--exclude")
"""Options of commands that train which say where things are."""


def check_plan(plan: "Plan", *, as_json: bool) -> bool:
    """Print a line for every run of a plan, or one JSON object; whether all of them could start."""
    from uniemox.reproduce.check import check_runs

    with progress_bar() as progress:
        task = progress.add_task("checking", total=len(plan.runs))
        found = check_runs(plan.runs, read_settings, lambda name: progress.update(task, advance=1))
    can_start = all(entry.missing is None for entry in found)
    if as_json:
        runs = [
            {
                "name": entry.run.name,
                "key": entry.run.key,
                "command": entry.run.command,
                "found": entry.found,
                "missing": entry.missing,
            }
            for entry in found
        ]
        print(json.dumps({"target": plan.name, "scale": plan.scale, "can_start": can_start, "runs": runs}))
        return can_start
    for entry in found:
        words = f"ok       {entry.run.name}: {entry.found}"
        print(words if entry.missing is None else f"missing  {entry.run.name}: needs {entry.missing}")
    lost = sum(entry.missing is not None for entry in found)
    print(f"{plan.title}: {len(found) - lost} of {len(found)} runs could start")
    return can_start


def read_settings(words: tuple[str, ...]) -> "PretrainConfig | FinetuneConfig":
    """The settings of a command that pre-trains or fine-tunes. Raises ConfigError for words that it does not take."""
    pairs = zip(("", *words), words, strict=False)
    return _settings(tuple("there" if before in NO_SETTINGS else word for before, word in pairs))


@cache  # runs of a plan mostly differ in their data; to parse so many options takes 30 ms
def _settings(words: tuple[str, ...]) -> "PretrainConfig | FinetuneConfig":
    try:
        app = _reader(words[0] == "pretrain", words[words.index("--preset") + 1])
        return app(list(words[1:]), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise ConfigError(f"the command does not take these words: {error}") from error


@cache  # one for all runs of a plan: it takes a while to make
def _reader(is_pretraining: bool, preset: str) -> App:
    """A command that takes the words of pretrain or finetune, and returns the settings."""
    module = import_module(f"uniemox.cli.{'pretrain' if is_pretraining else 'finetune'}")
    app = App(result_action="return_value")
    app.default(module.command_for(preset, act=lambda config, *_: config))
    return app
