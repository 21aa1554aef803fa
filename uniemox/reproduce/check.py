"""Check that the runs of a plan could start: settings, data, starts, networks and one batch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from uniemox.checkpoints.reading import read_weight_file, state_of
from uniemox.data.order import steps_in_epoch
from uniemox.data.sample import DataSet
from uniemox.data.source import FILES, combine, open_data, parse_source, split_sources
from uniemox.data.splits import PAPER_RECIPES, Scheme, paper_split, parse_ratio, split_samples
from uniemox.errors import CheckpointError, ConfigError, DataError, UniemoxError
from uniemox.evaluate.run import map_to_data
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.network import SavedFusion
from uniemox.finetune.samples import split_for_training
from uniemox.model.encoder import FEATURES
from uniemox.persons.detector import load_detector
from uniemox.predict.opening import finder_file
from uniemox.pretrain.config import PretrainConfig
from uniemox.reproduce.check_networks import (
    Trained,
    finetuning_network,
    pretraining_encoder,
    pretraining_network,
    pretraining_shapes,
    start_key,
)
from uniemox.reproduce.plan import Run
from uniemox.teacher.attributes import ObjectClassifier
from uniemox.teacher.config import FitConfig
from uniemox.views.transforms import TrainViews

Words = tuple[str, ...]
Read = Callable[[Words], PretrainConfig | FinetuneConfig]
"""From the words of a command that trains to its settings. Raises ConfigError."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A run, and whether it could start."""

    run: Run
    found: str
    """What was resolved, in words; empty where something is missing."""
    missing: str | None
    """Why it could not start."""


@dataclass(slots=True)
class _World:
    """Outputs of the checked runs."""

    read: Read
    data: dict[str, DataSet] = field(default_factory=dict)
    """By source: shards that will be written, and what was opened."""
    schemes: dict[str, Scheme] = field(default_factory=dict)
    """By file of splits."""
    made: set[str] = field(default_factory=set)
    """Other files and folders that will be there."""
    teachers: dict[str, FitConfig] = field(default_factory=dict)
    trained: dict[str, Trained] = field(default_factory=dict)
    networks: dict[str, tuple[tuple[int, ...], Trained, str]] = field(default_factory=dict)
    """By `start_key`, what `finetuning_network` found."""
    labels: dict[str, DataSet] = field(default_factory=dict)
    """By folder of a fine-tuning run: what it is trained on."""


def check_runs(
    runs: Sequence[Run], read: Read, on_progress: Callable[[str], None] = lambda name: None
) -> list[Checked]:
    """Look at every run of a plan, each after those that it needs.

    read: see `Read`.  on_progress: called with the name of each.  Nothing is written, fetched or trained.
    """
    world, result = _World(read), list[Checked]()
    failed: dict[str, str] = {}
    for run in runs:
        on_progress(run.name)
        before = next((needed.name for needed in run.needs if needed.key in failed), None)
        found, missing = "", run.lacks or (None if before is None else f"the run before it: {before}")
        if missing is None:
            try:
                found = _check(run, world)
            except UniemoxError as error:
                missing = f"{type(error).__name__}: {error}"
        if missing is not None:
            failed[run.key] = missing
        result.append(Checked(run, found, missing))
    return result


def _check(run: Run, world: _World) -> str:
    words = run.words
    name = "-".join(words[:2]) if words[0] in ("data", "teacher", "reproduce") else words[0]
    return CHECKS[name](run, world)


def _option(words: Words, name: str, default: str = "") -> str:
    return words[words.index(name) + 1] if name in words else default


def _values(words: Words, name: str) -> Words:
    """All that follows an option, until the next."""
    if name not in words:
        return ()
    rest = words[words.index(name) + 1 :]
    end = next((i for i, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[:end]


def _open(words: Words, world: _World, source: str | None = None) -> DataSet:
    """The data of a command, with the files that exist and what will be in those that don't."""
    source = source or _option(words, "--data")
    if len(split_sources(source)) > 1:
        return combine([_open_member(one, world) for one in split_sources(source)])
    files = {name: _option(words, f"--{name}") for name in FILES}
    planned = {"", *world.schemes, *world.made}
    there: Mapping[str, Any] = {name: Path(file) for name, file in files.items() if file not in planned}
    key = " ".join([source, *map(str, there.values())])
    if source in world.data:
        data = world.data[source]
    else:
        data = world.data[key] = world.data.get(key) or open_data(source, **there)
    scheme = world.schemes.get(files["splits"])
    if scheme is None:
        return data
    samples = [replace(sample, split=scheme[sample.key]) for sample in data.samples if sample.key in scheme]
    return replace(data, samples=samples)


def _open_member(source: str, world: _World) -> tuple[str, DataSet]:
    """Kind and data of one of several sources, whose files are in its own options."""
    kind, path, given = parse_source(source)
    files = [word for name in FILES if name in given for word in (f"--{name}", given.pop(name))]
    query = "&".join(f"{name}={value}" for name, value in given.items())
    return kind, _open(tuple(files), world, f"{kind}:{path}?{query}" if query else f"{kind}:{path}")


def _part(words: Words, world: _World) -> DataSet:
    """The samples of --split that have a label."""
    data, split = _open(words, world), _option(words, "--split", "all")
    data = data if split == "all" else data.only(split)
    if all(sample.label is None for sample in data.samples):
        raise DataError(f"{data.name}, split {split}: nothing has a label")
    return data


def _pretrain(run: Run, world: _World) -> str:
    config = world.read(run.words)
    assert isinstance(config, PretrainConfig)
    data = _open(run.words, world).to_train(*_values(run.words, "--split"))
    steps = steps_in_epoch(len(data), config.batch_size)
    views = TrainViews(config.view, config.seed)(data.samples[0], 0)
    model, start = pretraining_network(config, world.teachers)
    shapes = pretraining_shapes(model, config.batch_size // config.accumulation // run.processes)
    fusion = model.config.fusion
    left = SavedFusion(fusion, model.config.fusion_heads, model.config.decoder.width) if fusion else None
    key = f"{config.encoder} {left} {config.view.size}"
    world.trained[str(run.folder)] = Trained(partial(pretraining_encoder, config), left, key)
    return (
        f"{len(data)} images, {steps} steps an epoch; start {start}; teacher {config.teacher.source}; {shapes}; "
        f"views {tuple(views.scene.shape)}"
    )


def _finetune(run: Run, world: _World) -> str:
    config = world.read(run.words)
    assert isinstance(config, FinetuneConfig)
    data = _open(run.words, world)
    parts = split_for_training(data, config, None)
    train = parts.train
    if config.trains_in_steps:
        steps_in_epoch(len(train), config.batch_size)
    views = TrainViews(config.view, config.seed)(train[0], 0)
    if config.method == "histogram":  # nothing is built, and nothing starts from it
        width, start = FEATURES, "no weights"
    else:
        key = f"{start_key(config, world.trained)} {len(data.labels)}"
        if key not in world.networks:  # seeds and data sets share it
            world.networks[key] = finetuning_network(config, world.trained, data.labels.labels)
        (_, width), world.trained[str(run.folder)], start = world.networks[key]
    world.labels[str(run.folder)] = data
    batch, outputs = config.batch_size // config.accumulation // run.processes, len(data.labels)
    sees_person = config.region_method is not None or config.network.streams == "both"
    person = f" and person ({views.person_source})" if sees_person else ""
    return (
        f"{len(train)} images to train on, {len(parts.samples) - len(train)} held out; start {start}; batch "
        f"{(batch, *views.scene.shape)} of scene{person}, features {(batch, width)}, logits {(batch, outputs)}"
    )


def _evaluate(run: Run, world: _World) -> str:
    data, model = _part(run.words, world), _option(run.words, "--model")
    trained_on = world.labels[model]
    return f"{len(data)} images; labels {map_to_data(trained_on.labels, data.labels)}"


def _split(run: Run, world: _World) -> str:
    words = run.words
    data, kind = _open(words, world, words[2]), parse_source(words[2])[0]
    recipe = PAPER_RECIPES.get(kind)
    if "--paper" in words and (recipe is None or recipe.schemes == 1):
        scheme, _ = paper_split(kind, data, 0)
    else:  # of several schemes the colours choose one, but all have these sizes
        shares = recipe.ratios if "--paper" in words and recipe else parse_ratio(_option(words, "--ratio", "80/10/10"))
        scheme = split_samples(data.samples, shares, 0)
    world.schemes[words[3]] = scheme
    sizes = {name: list(scheme.values()).count(name) for name in sorted(set(scheme.values()))}
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def _persons(run: Run, world: _World) -> str:
    detector = load_detector(finder_file(_option(run.words, "--detector")))
    world.made.add(_option(run.words, "--out"))
    return f"{len(_open(run.words, world, run.words[2]))} images; detector {detector.name}"


def _describe(run: Run, world: _World) -> str:
    network, file = _option(run.words, "--classifier"), _option(run.words, "--classifier-weights")
    if network and file:
        ObjectClassifier(network, Path(file))
    world.made.add(_option(run.words, "--out"))
    return f"{len(_open(run.words, world, run.words[2]))} images; objects by {network or 'nothing'}"


def _shard(run: Run, world: _World) -> str:
    data = _open(run.words, world, run.words[2])
    if "--texts" in run.words and _option(run.words, "--texts") in world.made:
        data = replace(data, samples=[replace(sample, text=sample.text or "A photo.") for sample in data.samples])
    world.data[f"shards:{run.words[3]}"] = data
    return f"{len(data)} images"


def _teacher(run: Run, world: _World) -> str:
    data = _open(run.words, world).to_train()
    count = sum(sample.text is not None for sample in data.samples)
    if not count:
        raise DataError(f"{data.name} has no texts to fit a teacher on; uniemox data describe makes some")
    config = FitConfig(image_size=int(_option(run.words, "--image-size", "96")))
    world.teachers[str(run.folder)] = config
    return f"{count} images with texts"


def _counted(run: Run, world: _World) -> str:
    """Zero-shot answers and questions: labelled images of a split."""
    return f"{len(_part(run.words, world))} images"


def _images(run: Run, world: _World) -> str:
    data, split = _open(run.words, world), _option(run.words, "--split", "all")
    return f"{len(data if split == 'all' else data.only(split))} images"


def _explain(run: Run, world: _World) -> str:
    """Models are runs of the plan, or files of MAE with its decoder."""
    models = [run.words[i + 1] for i, word in enumerate(run.words) if word == "--model"]
    for model in models:
        if model not in world.trained and Path(model).is_dir():
            raise ConfigError(f"{model} is no run of this plan")
        is_file = model not in world.trained
        if is_file and "decoder_pred.weight" not in state_of(read_weight_file(model, mapped=True)):
            raise CheckpointError(f"{model} has no decoder; take MAE's mae_visualize_vit_*.pth")
    return f"{len(models)} models"


CHECKS: Mapping[str, Callable[[Run, _World], str]] = {
    "pretrain": _pretrain,
    "finetune": _finetune,
    "evaluate": _evaluate,
    "data-split": _split,
    "data-persons": _persons,
    "data-describe": _describe,
    "data-shard": _shard,
    "teacher-fit": _teacher,
    "reproduce-zero-shot": _counted,
    "reproduce-images": _images,
    "explain": _explain,
    "ask": _counted,
}
