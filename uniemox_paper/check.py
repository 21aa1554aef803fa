"""Dry runs of a plan: every command's own functions read settings, data and weights, up to the first step of work.

Networks are built on torch's meta device, without weights. A run that is not done yet is replaced by a stand-in in the
runs after it: a split, people and texts by small files, shards by the data in them, and a trained network by the
weights that its training starts from.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from warnings import catch_warnings, filterwarnings

from uniemox.checkpoints import TIMM
from uniemox.data import (
    FILES,
    PAPER_RECIPES,
    PERSONS,
    TEXTS,
    DataSet,
    Sidecar,
    open_data,
    paper_split,
    parse_source,
    people_header,
    split_samples,
    write_splits,
)
from uniemox.errors import DataError, UniemoxError
from uniemox.finetune import FinetuneConfig, check_parts
from uniemox.finetune import dry_run as dry_run_of_finetuning
from uniemox.insight import check_mae_decoder
from uniemox.io import SPLITS, Progress, silent, writing
from uniemox.labels import LabelSet, scored_labels
from uniemox.plurals import counted
from uniemox.predict import open_finder
from uniemox.pretrain import PretrainConfig
from uniemox.pretrain import dry_run as dry_run_of_pretraining
from uniemox.teacher import FitConfig, ObjectClassifier
from uniemox.teacher import dry_run as dry_run_of_fit
from uniemox_paper.execute import to_do
from uniemox_paper.plan import RUNS, PlannedRun
from uniemox_paper.sources import DEFAULT_RECIPE


class Checked(NamedTuple):
    """A run, and whether it can start."""

    run: PlannedRun
    parts: str
    """Description of the checked parts; empty if something is missing."""
    missing: str | None
    """Reason why it can't start; None if it can."""


def check_runs(runs: Sequence[PlannedRun], on_progress: Progress = silent) -> list[Checked]:
    """Check every run of a plan that is not done, each after the runs that it needs.

    Nothing is trained or fetched. Stand-ins are in a temporary folder next to the results, which is removed.

    Raises:
        DataError: If the results can't be written there.
    """
    pending = {run.key for run in to_do(runs)}
    checks = list[Checked]()
    failed = set[str]()
    with _folder_next_to(runs) as folder, catch_warnings():
        # Weights of a file are not copied to a network on the meta device.
        filterwarnings("ignore", message=".*copying from a non-meta parameter")
        dry_runs = _DryRuns(folder)
        for done, run in enumerate(runs):
            on_progress("checking", done, len(runs))
            before = next((needed.name for needed in run.needs if needed.key in failed), None)
            checked = ""
            missing = run.lacks or (None if before is None else f"the run before it: {before}")
            if missing is None and run.key not in pending:
                checked = "done, or no longer needed"
            elif missing is None:
                try:
                    checked = DRY_RUNS[run.kind](dry_runs, run)
                except UniemoxError as error:
                    missing = f"{type(error).__name__}: {error}".replace(str(folder), str(run.root / RUNS))
            if missing is not None:
                failed.add(run.key)
            checks.append(Checked(run, checked, missing))
    return checks


@contextmanager
def _folder_next_to(runs: Sequence[PlannedRun]) -> Iterator[Path]:
    """Yield a temporary folder where the results will be, which shows that they can be written."""
    root = runs[0].root.absolute() if runs else Path.cwd()
    with writing(root):
        existing = next(folder for folder in (root, *root.parents) if folder.exists())
        temporary = TemporaryDirectory(prefix=".check-", dir=existing)
    with temporary as folder:
        yield Path(folder)


class _DryRuns:
    """Dry runs by command, and the stand-ins that they leave for later ones.

    Args:
        folder: Folder for stand-ins.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Text in later commands that names an output, and the text that replaces it.
        self.stand_ins: dict[str, str] = {}
        # Option of the fusion that a trained network has and its stand-in lacks, by the run's folder.
        self.fusions: dict[str, Mapping[str, Any]] = {}
        self.labels: dict[Path, LabelSet] = {}
        # Seeds and data sets share data, and networks of the same settings.
        self.open_data = cache(open_data)
        # Origin of the initial weights.
        self.networks: dict[tuple[object, ...], str] = {}

    def images(self, run: PlannedRun) -> str:
        """Open the data of a command that needs nothing else."""
        return counted(len(self._part(run)), "image")

    def labelled(self, run: PlannedRun) -> str:
        """Open the data of a command that compares answers with labels."""
        data = self._part(run)
        if not any(sample.classes for sample in data.samples):
            raise DataError(f"{data.name}, split {run.options['split']}: nothing has a label")
        if run.folder not in self.labels:
            return counted(len(data), "image")
        return f"{counted(len(data), 'image')}; labels {scored_labels(self.labels[run.folder], data.labels).of_model}"

    def split(self, run: PlannedRun) -> str:
        """Draw a split. Colours are not compared: all schemes of a recipe have the same sizes."""
        data = self._data(run)
        kind = parse_source(str(run.arguments[0]))[0]
        recipe = PAPER_RECIPES.get(kind) if "paper" in run.options else DEFAULT_RECIPE
        if recipe is not None and (recipe is DEFAULT_RECIPE or recipe.schemes > 1):
            scheme = split_samples(data.samples, recipe.ratios, 0)
        else:
            scheme, _ = paper_split(kind, data, 0)
        write_splits(self._stand_in(run) / SPLITS, scheme, source=data.name, how="stand-in")
        return ", ".join(f"{name} {size}" for name, size in sorted(Counter(scheme.values()).items()))

    def persons(self, run: PlannedRun) -> str:
        """Open the detector. Its stand-in names no person."""
        detector = open_finder(run.options["detector"])
        data = self._data(run)
        # An empty sidecar is closed at once.
        with Sidecar(self._stand_in(run) / PERSONS, people_header(detector, data)):
            pass
        return f"{counted(len(data), 'image')}; detector {detector.name}"

    def describe(self, run: PlannedRun) -> str:
        """Open the network that names objects. Its stand-in has the same text for all images."""
        data = self._data(run, with_texts=False)
        name = run.options.get("classifier")
        file = run.options.get("classifier_weights")
        if name and file:
            ObjectClassifier(name, Path(file))
        with Sidecar(self._stand_in(run) / TEXTS, {"classifier": name}) as sidecar:
            for key in dict.fromkeys(sample.image_key for sample in data.samples):
                sidecar.append(key, {"text": "A photo."})
        return f"{counted(len(data), 'image')}; objects by {name or 'nothing'}"

    def shard(self, run: PlannedRun) -> str:
        """Open the data to pack, which stand in for the shards."""
        data = self._data(run)
        source = str(run.arguments[0])
        files = [f"{name}={self._replaced(run.options[name])}" for name in FILES if name in run.options]
        if files:
            source += ("&" if parse_source(source)[2] else "?") + "&".join(files)
        self.stand_ins[f"shards:{run.folder}"] = source
        return counted(len(data), "image")

    def teacher(self, run: PlannedRun) -> str:
        """Build the teacher, which stands in with its random weights."""
        config = FitConfig(
            image_size=run.options["image_size"], with_emotion=not run.options.get("without_emotion", False)
        )
        images = dry_run_of_fit(config, self._data(run), self._stand_in(run))
        return f"{counted(images, 'image')} with texts"

    def pretrain(self, run: PlannedRun) -> str:
        """Build the model on its initial weights, which stand in for the trained ones."""
        config = self._on_stand_ins(run).config
        assert isinstance(config, PretrainConfig)
        data = self._data(run).to_train(*run.options["split"])
        ready = dry_run_of_pretraining(config, data)
        self.stand_ins[str(run.folder)] = config.encoder.start or f"{TIMM}{config.encoder.name}"
        self.fusions[str(run.folder)] = {"network.fusion": config.model.fusion}
        teacher = "none"
        if ready.teacher_width is not None:
            teacher = f"{run.options['teacher.source']}, {ready.teacher_width} channels"
        return (
            f"{counted(ready.images, 'image')}, {counted(ready.steps_per_epoch, 'step')} an epoch; "
            f"start {ready.start}; teacher {teacher}"
        )

    def finetune(self, run: PlannedRun) -> str:
        """Divide the data and build the network. Its initial weights stand in for the trained ones."""
        config = self._on_stand_ins(run).config
        assert isinstance(config, FinetuneConfig)
        config = config.resolved()
        data = self._data(run, with_texts=config.reads_texts)
        parts = check_parts(config, data)
        # Only region methods depend on the labels themselves.
        labels = data.labels.labels if config.region_method else len(data.labels)
        key = (config.init, config.method, config.network, config.view.size, labels)
        if key not in self.networks:
            self.networks[key] = dry_run_of_finetuning(config, data, parts)
        self.labels[run.folder] = data.labels
        self.stand_ins[str(run.folder)] = config.init
        self.fusions[str(run.folder)] = {"network.fusion": config.network.fusion}
        planned = next((needed for needed in run.needs if str(needed.folder) == run.options.get("init")), None)
        start = self.networks[key] if planned is None else f"the run {planned.name}"
        return (
            f"{counted(len(parts.train), 'image')} to train on, {len(parts.held_out)} held out; start {start}; "
            f"{len(data.labels)} labels"
        )

    def explain(self, run: PlannedRun) -> str:
        """Find the models of a figure: runs of the plan, or files of MAE with its decoder."""
        planned = {str(needed.folder) for needed in run.needs}
        models = [str(model) for model in run.options["model"]]
        for model in models:
            if model in planned:
                continue
            check_mae_decoder(model)
        return counted(len(models), "model")

    def _data(self, run: PlannedRun, **more: Any) -> DataSet:
        """Open the data of a run as its command does."""
        options = self._on_stand_ins(run).options
        source = options.get("data") or str(run.arguments[0])
        return self.open_data(source, **{name: options[name] for name in FILES if name in options}, **more)

    def _part(self, run: PlannedRun) -> DataSet:
        data = self._data(run)
        split = run.options.get("split", "all")
        return data if split == "all" else data.only(split)

    def _stand_in(self, run: PlannedRun) -> Path:
        """Return a folder that stands in for the run's own."""
        folder = self.folder / run.folder.name
        folder.mkdir()
        self.stand_ins[str(run.folder)] = str(folder)
        return folder

    def _on_stand_ins(self, run: PlannedRun) -> PlannedRun:
        """Return the run with stand-ins in its options, and the fusion of its initial weights."""
        options = {name: self._replaced(value) for name, value in run.options.items()}
        if options.get("network.streams") == "both" and "network.fusion" not in options:
            options |= self.fusions.get(str(run.options["init"]), {})
        return replace(run, options=options)

    def _replaced(self, value: Any) -> Any:
        if not isinstance(value, str | Path):
            return value
        text = str(value)
        for output, stand_in in self.stand_ins.items():
            text = text.replace(output, stand_in)
        return type(value)(text)


DRY_RUNS: Mapping[str, Callable[[_DryRuns, PlannedRun], str]] = {
    "pretrain": _DryRuns.pretrain,
    "finetune": _DryRuns.finetune,
    "evaluate": _DryRuns.labelled,
    "data split": _DryRuns.split,
    "data persons": _DryRuns.persons,
    "data describe": _DryRuns.describe,
    "data shard": _DryRuns.shard,
    "teacher fit": _DryRuns.teacher,
    "reproduce zero-shot": _DryRuns.labelled,
    "reproduce images": _DryRuns.images,
    "explain": _DryRuns.explain,
    "ask": _DryRuns.labelled,
}
"""Dry run of each command of a plan."""
