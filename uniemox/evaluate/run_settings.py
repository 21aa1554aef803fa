"""Settings of runs: runs that are taken for seeds of one setting must differ in nothing else."""

import filecmp
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uniemox.errors import ConfigError
from uniemox.io.run_files import CONFIG, ONNX
from uniemox.io.run_record import read_json_object

# Settings that name runs, whose own settings count instead of their folders.
RUNS_IN_SETTINGS = ("init", "encoder.start", "distillation.teacher")
# Settings that change where and how a run is computed and stored, not what it learns.
NO_SETTINGS = ("hardware", "save", "max_unreadable")
SEED = "seed"
# Initial weights of initial weights, and so on, that are followed.
MAX_DEPTH = 4
Settings = Mapping[str, str]
"""Values by dotted name."""


def settings_of(run: Path, depth: int = MAX_DEPTH) -> dict[str, str] | None:
    """Return the settings of a run, its training data, and those of the runs that it started from; seeds included.

    Returns:
        The settings; None for a folder without a record of settings, such as that of the scores of a model in the
        package.

    Raises:
        ConfigError: If the record can't be read.
    """
    if not (run / CONFIG).is_file():
        return None
    record = read_json_object(run / CONFIG)
    config = record.get("config")
    data = record.get("data")
    if not isinstance(config, dict):
        return None
    settings = _flat(config)
    if isinstance(data, dict):
        # One folder has several spellings, so its content counts; that of the images is not in the record.
        settings["names and labels of the training data"] = str(data.get("sha256"))[:8]
    for name in RUNS_IN_SETTINGS:
        runs = settings.get(name, "").split(",")
        of_runs = [_settings_of_start(run, depth) for run in runs]
        if None in of_runs:
            continue
        del settings[name]
        for number, of_run in enumerate(of_runs, start=1):
            part = name if len(runs) == 1 else f"{name} {number}"
            settings |= {f"{part}: {setting}": value for setting, value in (of_run or {}).items()}
    return settings


def _settings_of_start(name: str, depth: int) -> dict[str, str] | None:
    """Return the settings of a run, or of the one with a file of weights; None if the name is none of a run."""
    path = Path(name)
    if not name or not depth:
        return None
    if not path.is_file():
        return settings_of(path, depth - 1)
    settings = settings_of(path.parent, depth - 1)
    return None if settings is None else settings | {"file": path.name}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return the values of a nested configuration as text, by dotted name."""
    values: dict[str, str] = {}
    for name, value in config.items():
        if not prefix and name in NO_SETTINGS:
            continue
        if isinstance(value, dict):
            values |= _flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = "none" if value is None else str(value)
    return values


def _is_seed(name: str) -> bool:
    return name == SEED or name.endswith(f": {SEED}")


def check_seeds(side: str, runs: Sequence[Path], *, allow_mixed: bool = False) -> None:
    """Refuse runs of one side of a comparison that are not several seeds of one setting.

    Args:
        side: Name of the side, for messages.
        runs: Folders of its runs. Folders without a record are only compared by their path.
        allow_mixed: Other settings than the seed may differ, too.

    Raises:
        ConfigError: If a run is given twice, also as a copy; if two seeds give the same model; or if settings differ.
    """
    resolved = [run.resolve() for run in runs]
    for number, run in enumerate(resolved):
        if run in resolved[:number]:
            raise ConfigError(f"{side} names {runs[number]} twice; a run counts once: give runs of several seeds")
    records = [(run, settings) for run in runs if (settings := settings_of(run)) is not None]
    for number, (run, settings) in enumerate(records):
        for other, other_settings in records[:number]:
            if settings == other_settings:
                raise ConfigError(
                    f"{side}: {other} and {run} have the same settings and the same seed, so they are copies of one "
                    "run; give runs of several seeds"
                )
            if _is_same_model(run, other):
                raise ConfigError(
                    f"{side}: {other} and {run} are the same model, although their seeds differ, and it counts once: "
                    "give one of them"
                )
            differing = [words for name, words in differences(other_settings, settings) if not _is_seed(name)]
            if differing and not allow_mixed:
                raise ConfigError(
                    f"{side}: {other} and {run} differ in more than the seed ({'; '.join(differing)}), so they are not "
                    "seeds of one setting; compare them with each other, or give --mixed (allow_mixed=True in Python)"
                )


def _is_same_model(first: Path, second: Path) -> bool:
    models = (first / ONNX, second / ONNX)
    return all(model.is_file() for model in models) and filecmp.cmp(*models, shallow=False)


def differences(first: Settings, second: Settings) -> list[tuple[str, str]]:
    """Return the names of the settings that differ, and their values in words.

    >>> differences({"epochs": "3", "seed": "0"}, {"epochs": "5", "seed": "0"})
    [('epochs', 'epochs 3 and 5')]
    """
    names = dict.fromkeys((*first, *second))
    return [
        (name, f"{name} {first.get(name, 'none')} and {second.get(name, 'none')}")
        for name in names
        if first.get(name, "none") != second.get(name, "none")
    ]


def differing_settings(ours: Sequence[Path], theirs: Sequence[Path]) -> tuple[str, ...]:
    """Return the settings in which the first runs of two sides differ, in words; without seeds."""
    first = _first_settings(ours)
    second = _first_settings(theirs)
    if first is None or second is None:
        return ()
    return tuple(words for name, words in differences(first, second) if not _is_seed(name))


def _first_settings(runs: Sequence[Path]) -> Settings | None:
    """Return the settings of the first run that has a record of them; None if no run has."""
    for run in runs:
        settings = settings_of(run)
        if settings is not None:
            return settings
    return None
