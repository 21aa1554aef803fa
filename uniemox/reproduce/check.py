"""Checks that the runs of a plan can start: settings, data, initial weights, networks and one batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from uniemox.checkpoints.reading import read_weight_file, state_of
from uniemox.data.order import steps_in_epoch
from uniemox.data.people import PERSONS, TEXTS
from uniemox.data.sample import DataSet
from uniemox.data.source import FILES, UNION, combine, joins_labels, open_data, parse_source, split_sources
from uniemox.data.splits import PAPER_RECIPES, Scheme, paper_split, parse_ratio, split_samples
from uniemox.errors import CheckpointError, DataError, UniemoxError
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.samples import split_for_training
from uniemox.io.files import SPLITS
from uniemox.io.progress import Progress, silent
from uniemox.labels import scored_labels
from uniemox.model.encoder import FEATURES
from uniemox.predict.opening import open_finder
from uniemox.pretrain.config import PretrainConfig
from uniemox.reproduce.check_networks import Trained, finetuning_network, pretraining_network, start_key
from uniemox.reproduce.plan import PlannedRun
from uniemox.teacher.attributes import ObjectClassifier
from uniemox.teacher.config import FitConfig
from uniemox.views.transforms import TrainViews


@dataclass(frozen=True, slots=True)
class Checked:
    """A run, and whether it can start."""

    run: PlannedRun
    found: str
    """Description of the checked parts; empty if something is missing."""
    missing: str | None
    """Reason why it can't start; None if it can."""


@dataclass(slots=True)
class _World:
    """Outputs that checked runs will have."""

    data: dict[str, DataSet] = field(default_factory=dict)
    """Opened data sets, and shards that will be written, by source."""
    schemes: dict[Path, Scheme] = field(default_factory=dict)
    """Splits by file."""
    made: set[Path] = field(default_factory=set)
    """Other files that will exist."""
    teachers: dict[str, FitConfig] = field(default_factory=dict)
    trained: dict[str, Trained] = field(default_factory=dict)
    networks: dict[str, tuple[int, Trained, str]] = field(default_factory=dict)
    """Results of `finetuning_network` by `start_key`."""
    labels: dict[Path, DataSet] = field(default_factory=dict)
    """Training data by folder of a fine-tuning run."""


def check_runs(runs: Sequence[PlannedRun], on_progress: Progress = silent) -> list[Checked]:
    """Check every run of a plan, each after the runs that it needs.

    Writes, fetches and trains nothing.
    """
    world = _World()
    result = list[Checked]()
    failed = set[str]()
    for done, run in enumerate(runs):
        on_progress("checking", done, len(runs))
        before = next((needed.name for needed in run.needs if needed.key in failed), None)
        summary = ""
        missing = run.lacks or (None if before is None else f"the run before it: {before}")
        if missing is None:
            try:
                summary = CHECKS[run.kind](run, world)
            except UniemoxError as error:
                missing = f"{type(error).__name__}: {error}"
        if missing is not None:
            failed.add(run.key)
        result.append(Checked(run, summary, missing))
    return result


def _open(source: str, files: Mapping[str, Any], world: _World) -> DataSet:
    """Open the data of a command, with existing files and those that earlier runs will write.

    Args:
        files: Options, of which those of `FILES` are used.
    """
    members = split_sources(source)
    if len(members) > 1:
        return combine([_open_member(member, world) for member in members], is_joined=joins_labels(members))
    given = {name: Path(files[name]) for name in FILES if name in files}
    there: Mapping[str, Any] = {
        name: file for name, file in given.items() if file not in world.schemes and file not in world.made
    }
    key = " ".join([source, *map(str, there.values())])
    data = world.data.get(source) or world.data.get(key)
    if data is None:
        data = world.data[key] = open_data(source, **there)
    if "splits" in given:
        scheme = world.schemes.get(given["splits"])
    else:
        scheme = None
    if scheme is None:
        return data
    samples = [replace(sample, split=scheme[sample.key]) for sample in data.samples if sample.key in scheme]
    return replace(data, samples=samples)


def _open_member(source: str, world: _World) -> tuple[str, DataSet]:
    """Return kind and data of one of several sources, whose files are in its own options."""
    kind, path, given = parse_source(source)
    files = {name: given.pop(name) for name in FILES if name in given}
    given.pop(UNION, None)  # of the union, not of this data set
    query = "&".join(f"{name}={value}" for name, value in given.items())
    return kind, _open(f"{kind}:{path}?{query}" if query else f"{kind}:{path}", files, world)


def _data_of(run: PlannedRun, world: _World) -> DataSet:
    return _open(run.options.get("data") or str(run.arguments[0]), run.options, world)


def _part(run: PlannedRun, world: _World) -> DataSet:
    """Return the samples of the run's split, or all."""
    data = _data_of(run, world)
    split = run.options.get("split", "all")
    return data if split == "all" else data.only(split)


def _labelled(run: PlannedRun, world: _World) -> DataSet:
    data = _part(run, world)
    if all(sample.label is None for sample in data.samples):
        raise DataError(f"{data.name}, split {run.options['split']}: nothing has a label")
    return data


def _pretrain(run: PlannedRun, world: _World) -> str:
    config = run.config
    assert isinstance(config, PretrainConfig)
    data = _data_of(run, world).to_train(*run.options["split"])
    steps = steps_in_epoch(len(data), config.batch_size)
    views = TrainViews(config.view, config.seed)(data.samples[0], 0)
    batch = config.batch_size // config.accumulation // run.processes
    shapes, world.trained[str(run.folder)], start = pretraining_network(config, world.teachers, batch)
    return (
        f"{len(data)} images, {steps} steps an epoch; start {start}; teacher {config.teacher.source}; {shapes}; "
        f"views {tuple(views.scene.shape)}"
    )


def _finetune(run: PlannedRun, world: _World) -> str:
    config = run.config
    assert isinstance(config, FinetuneConfig)
    data = _data_of(run, world)
    parts = split_for_training(data, config, None)
    train = parts.train
    if config.trains_in_steps:
        steps_in_epoch(len(train), config.batch_size)
    views = TrainViews(config.view, config.seed)(train[0], 0)
    if config.method == "histogram":  # it builds no network, and no run starts from it
        width = FEATURES
        start = "no weights"
    else:
        # a region method is built for its labels
        if config.region_method is None:
            count = 0
        else:
            count = len(data.labels)
        key = f"{start_key(config, world.trained)} {count}"
        if key not in world.networks:  # shared by seeds and data sets
            world.networks[key] = finetuning_network(config, world.trained, data.labels.labels)
        width, world.trained[str(run.folder)], start = world.networks[key]
    world.labels[run.folder] = data
    batch = config.batch_size // config.accumulation // run.processes
    outputs = len(data.labels)
    sees_person = config.region_method is not None or config.network.streams == "both"
    if sees_person:
        person = f" and person ({views.person_source})"
    else:
        person = ""
    return (
        f"{len(train)} images to train on, {len(parts.samples) - len(train)} held out; start {start}; batch "
        f"{(batch, *views.scene.shape)} of scene{person}, features {(batch, width)}, logits {(batch, outputs)}"
    )


def _evaluate(run: PlannedRun, world: _World) -> str:
    data = _labelled(run, world)
    scored = scored_labels(world.labels[run.folder].labels, data.labels)
    return f"{len(data)} images; labels {scored.of_model}"


def _split(run: PlannedRun, world: _World) -> str:
    data = _data_of(run, world)
    kind = parse_source(str(run.arguments[0]))[0]
    recipe = PAPER_RECIPES.get(kind)
    if "paper" in run.options and (recipe is None or recipe.schemes == 1):
        scheme, _ = paper_split(kind, data, 0)
    else:  # colours choose one of several schemes, all with these sizes
        if "paper" in run.options and recipe:
            shares = recipe.ratios
        else:
            shares = parse_ratio("80/10/10")
        scheme = split_samples(data.samples, shares, 0)
    world.schemes[run.folder / SPLITS] = scheme
    sizes = {name: list(scheme.values()).count(name) for name in sorted(set(scheme.values()))}
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def _persons(run: PlannedRun, world: _World) -> str:
    detector = open_finder(run.options["detector"])
    world.made.add(run.folder / PERSONS)
    return f"{len(_data_of(run, world))} images; detector {detector.name}"


def _describe(run: PlannedRun, world: _World) -> str:
    network, file = (run.options.get(name) for name in ("classifier", "classifier_weights"))
    if network and file:
        ObjectClassifier(network, Path(file))
    world.made.add(run.folder / TEXTS)
    return f"{len(_data_of(run, world))} images; objects by {network or 'nothing'}"


def _shard(run: PlannedRun, world: _World) -> str:
    data = _data_of(run, world)
    if run.options.get("texts") in world.made:
        data = replace(data, samples=[replace(sample, text=sample.text or "A photo.") for sample in data.samples])
    world.data[f"shards:{run.folder}"] = data
    return f"{len(data)} images"


def _teacher(run: PlannedRun, world: _World) -> str:
    data = _data_of(run, world).to_train()
    count = sum(sample.text is not None for sample in data.samples)
    if not count:
        raise DataError(f"{data.name} has no texts to fit a teacher on; uniemox data describe makes some")
    world.teachers[str(run.folder)] = FitConfig(image_size=run.options["image_size"])
    return f"{count} images with texts"


def _explain(run: PlannedRun, world: _World) -> str:
    """Check the models of a figure: runs of the plan, or files of MAE with its decoder."""
    models = [str(model) for model in run.options["model"]]
    for model in models:
        if model not in world.trained and "decoder_pred.weight" not in state_of(read_weight_file(model, mapped=True)):
            raise CheckpointError(f"{model} has no decoder; use MAE's mae_visualize_vit_*.pth")
    return f"{len(models)} models"


CHECKS: Mapping[str, Callable[[PlannedRun, _World], str]] = {
    "pretrain": _pretrain,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "data split": _split,
    "data persons": _persons,
    "data describe": _describe,
    "data shard": _shard,
    "teacher fit": _teacher,
    "reproduce zero-shot": lambda run, world: f"{len(_labelled(run, world))} images",
    "reproduce images": lambda run, world: f"{len(_part(run, world))} images",
    "explain": _explain,
    "ask": lambda run, world: f"{len(_labelled(run, world))} images",
}
