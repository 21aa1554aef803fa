"""The data sets of a reproduction: what the user has, made ready by runs of their own, and what is missing."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from uniemox.data.people import PERSONS, TEXTS
from uniemox.data.sample import DataSet, ImageFile
from uniemox.data.shards import INDEX
from uniemox.data.source import open_data, parse_source
from uniemox.data.splits import PAPER_RECIPES, Recipe
from uniemox.errors import ConfigError
from uniemox.io.files import SPLITS
from uniemox.io.weight_names import weight_paths
from uniemox.labels import CAER, EKMAN, HECO, MIKELS, UBE, LabelSet
from uniemox.reproduce.config import ReproduceConfig
from uniemox.reproduce.plan import OUT, Run
from uniemox.training.run_folder import describe_data

COLUMNS: Mapping[str, str] = {  # of table III, by kind
    **{"ube": "UBE", "fi": "FI", "emotion6": "Emotion6", "emoset": "EmoSet", "emo8": "Emo8"},
    **{"caer-s": "CAER-S", "heco": "HECO"},
}
PAPER_SIZES: Mapping[str, tuple[int, float]] = {  # images, table II and section III-A; share of them that trains
    **{"UBE": (3046, 0.7), "FI": (23308, 0.8), "Emotion6": (1980, 0.7), "EmoSet": (118000, 0.8), "Emo8": (8930, 0.8)},
    **{"CAER-S": (70000, 0.7), "HECO": (9385, 0.7)},
}
PAPER_LABELS: Mapping[str, LabelSet] = {"UBE": UBE, "Emotion6": EKMAN, "CAER-S": CAER, "HECO": HECO}  # others: Mikels
SCENES, NEW_SCENES, SCENES_NAME = "synthetic:3072", "synthetic:512?seed=1", "Scenes"
SCENES_SHORT_SIDE_PX, OWN_SHORT_SIDE_PX = 144, 160
PRETRAINING, EMOSET_SHARES = "EmoSet", {"train": 0.8, "val": 0.05, "test": 0.15}  # the paper's, as published
DEFAULT_RECIPE = Recipe(ratios={"train": 0.8, "val": (1 - 0.8) / 2, "test": (1 - 0.8) / 2})
EMBEDDED = "embedded"  # the detector that comes with the package


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Data that commands open."""

    name: str
    """Its column."""
    source: str
    """KIND:PATH."""
    origin: str
    """What the user gave; `source` may be what was made of it."""
    labels: LabelSet
    train: int
    """Images to train on."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Options of the commands that open it: splits, exclude."""
    people: Mapping[str, Path] = field(default_factory=dict)
    """Options of the commands that look at people: where they were found."""
    exclude: Mapping[str, Path] = field(default_factory=dict)
    """Of the commands that open `origin`: what is left out of it."""
    needs: tuple[Run, ...] = ()
    """What makes it ready."""
    digests: tuple[str, ...] = ()
    """Of what the user gave."""
    has_people: bool = False
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Images by split, where the data set brings its splits."""
    is_synthetic: bool = False
    missing: str | None = None
    """What is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A data set on which methods are compared."""

    data: DataSource
    scored: DataSource
    split: str
    """Of `scored`: what is scored."""
    scored_pictures: int

    @property
    def name(self) -> str:
        """Its column."""
        return self.data.name


def parse_given(texts: Sequence[str]) -> dict[str, str]:
    """Sources by column, of KIND:PATH or NAME=KIND:PATH. Raises ConfigError for one that is none, or named twice.

    >>> parse_given(["fi:photos/fi", "mine=folder:photos?kind=felt"])
    {'FI': 'fi:photos/fi', 'mine': 'folder:photos?kind=felt'}
    """
    found: dict[str, str] = {}
    for text in texts:
        named = re.match(r"([^:=]+)=(.+)", text)
        source = named.group(2) if named else text
        kind, path, _ = parse_source(source)
        name = named.group(1) if named else COLUMNS.get(kind, SCENES_NAME if kind == "synthetic" else Path(path).name)
        known = {column.lower(): column for column in COLUMNS.values()}
        name = known.get(name.lower(), name)
        if name in found:
            raise ConfigError(f"--data names {name} twice; write NAME=KIND:PATH with another name")
        found[name] = source
    return found


def targets_of(config: ReproduceConfig, given: Mapping[str, str], exclude: Mapping[str, Path]) -> tuple[Target, ...]:
    """The data sets of a demo, synthetic scenes if none is given; or the paper's seven and whatever else is given.

    given, exclude: sources, and files of what is left out of them, by column.
    """
    if config.is_demo:
        sources = given or {SCENES_NAME: SCENES}
        return tuple(_small(config, name, source, exclude.get(name)) for name, source in sources.items())
    return tuple(
        _with_people(config, _divided(config, name, given[name], exclude.get(name))[0])
        if name in given
        else _absent(name)
        for name in dict.fromkeys([*PAPER_SIZES, *given])
    )


def _small(config: ReproduceConfig, name: str, source: str, exclude: Path | None) -> Target:
    """A data set packed small, with people and texts where there are none. Shards stay as they are."""
    kind, _, query = parse_source(source)
    if kind == "synthetic":
        if query.get("seed") == "1":
            raise ConfigError(f"{source} draws the scenes that are scored ({NEW_SCENES}); choose another seed")
        ours, _ = _scenes(config.out, name, source)
        new, count = _scenes(config.out, f"new {name}", NEW_SCENES)
        return Target(data=ours, scored=new, split="all", scored_pictures=count)
    target, data = _divided(config, name, source, exclude)
    if kind == "shards":
        return target
    ours = target.data
    files, needs, found = dict(ours.files), ours.needs, tuple[Run, ...]()
    if all(sample.persons is None and sample.target_box is None for sample in data.samples):
        found = (_find_people(config.out, ours, config.detector or EMBEDDED),)
        files["persons"] = found[0].folder / PERSONS
    needs += found
    if all(sample.text is None for sample in data.samples):
        described = _describe(config, ours, found)
        files["texts"] = described.folder / TEXTS
        needs += (described,)
    packed = _pack(config.out, name, source, OWN_SHORT_SIDE_PX, files=files, needs=needs, digests=ours.digests)
    ours = replace(ours, source=f"shards:{packed.folder}", files={}, needs=(packed,), has_people=True, sizes={})
    return replace(target, data=ours, scored=ours)


def _scenes(root: Path, name: str, source: str) -> tuple[DataSource, int]:
    """Drawn scenes, and how many they are."""
    data, packed = open_data(source), _pack(root, name, source, SCENES_SHORT_SIDE_PX)
    scenes = DataSource(
        name=name,
        source=f"shards:{packed.folder}",
        origin=source,
        labels=data.labels,
        train=sum(sample.split == "train" for sample in data.samples),
        needs=(packed,),
        has_people=_has_people(data),
        is_synthetic=True,
    )
    return scenes, len(data)


def _divided(config: ReproduceConfig, name: str, source: str, exclude: Path | None) -> tuple[Target, DataSet]:
    """The files as they are, divided as the paper divides them, or 80/10/10 where they have no splits."""
    data, kind = open_data(source, exclude=exclude), parse_source(source)[0]
    left_out = {} if exclude is None else {"exclude": exclude}
    sizes = Counter(sample.split for sample in data.samples if sample.split)
    is_paper = kind in PAPER_RECIPES and not config.is_demo
    ours = DataSource(
        name=name,
        source=source,
        origin=source,
        labels=data.labels,
        train=sizes["train"],
        files=left_out,
        digests=(_digest(data, source),),
        exclude=left_out,
        has_people=_has_people(data),
        sizes=sizes,
    )
    split = "test" if sizes["test"] or not sizes["val"] else "val"
    if not is_paper and sizes["train"] and sizes[split]:
        return Target(data=ours, scored=ours, split=split, scored_pictures=sizes[split]), data
    run = Run(
        name=f"split {name}",
        kind="data split",
        arguments=(source, f"{OUT}/{SPLITS}"),
        options={**({"paper": True} if is_paper else {"ratio": "80/10/10"}), **left_out},
        root=config.out,
        makes=SPLITS,
        digests=ours.digests,
    )
    recipe, scored = PAPER_RECIPES.get(kind) if is_paper else DEFAULT_RECIPE, sizes["test"]
    if recipe is not None and recipe.of_split is None:  # else train stays as it was published
        shares = recipe.ratios
        ours, scored = replace(ours, train=round(len(data) * shares["train"])), round(len(data) * shares["test"])
    ours = replace(ours, files={**left_out, "splits": run.folder / SPLITS}, needs=(run,))
    return Target(data=ours, scored=ours, split="test", scored_pictures=scored), data


def _with_people(config: ReproduceConfig, target: Target) -> Target:
    """The people found where they are needed and not there: EmoSet is pre-trained on them, what is felt is theirs."""
    data = target.data
    if data.has_people or not (data.name == PRETRAINING or data.labels.kind == "felt"):
        return target
    if config.detector is None:
        line = "--detector yolov3.cfg, or uniemox data persons beforehand"
        ours = replace(data, missing=f"the people in {data.name}: {line}")
    else:
        run = _find_people(config.out, data, config.detector)
        people = {"persons": run.folder / PERSONS}
        ours = replace(data, people=people, needs=(*data.needs, run), has_people=True)
    return replace(target, data=ours, scored=ours)


def _absent(name: str) -> Target:
    images, share = PAPER_SIZES[name]
    source = f"{next(kind for kind, column in COLUMNS.items() if column == name)}:"
    data = DataSource(
        name=name,
        source=source + name,
        origin=source + name,
        labels=PAPER_LABELS.get(name, MIKELS),
        train=round(images * share),
        has_people=True,
        sizes={split: round(images * part) for split, part in EMOSET_SHARES.items()} if name == PRETRAINING else {},
        missing=f"the data: --data {name}={source}PATH",
    )
    return Target(data=data, scored=data, split="test", scored_pictures=0)


def _pack(
    root: Path,
    name: str,
    source: str,
    short_side_px: int,
    *,
    files: Mapping[str, Path] | None = None,
    needs: tuple[Run, ...] = (),
    digests: tuple[str, ...] = (),
) -> Run:
    """Shards of the data, images scaled to a short side."""
    return Run(
        name=f"pack {name}",
        kind="data shard",
        arguments=(source, OUT),
        options={"short_side": short_side_px, **(files or {})},
        root=root,
        makes=INDEX,
        needs=needs,
        digests=digests,
    )


def _find_people(root: Path, data: DataSource, detector: str) -> Run:
    """A file of the people in all images."""
    return Run(
        name=f"find the people in {data.name}",
        kind="data persons",
        arguments=(data.origin,),
        options={"detector": detector, "out": f"{OUT}/{PERSONS}"},
        root=root,
        digests=(*data.digests, *(digest_of_weights(detector) if detector != EMBEDDED else ())),
    )


def _describe(config: ReproduceConfig, data: DataSource, found: tuple[Run, ...]) -> Run:
    """A file of texts.  found: the run that finds the people, if there is one."""
    network, _, file = (config.objects or "").partition("@")
    options = {
        "persons": found[0].folder / PERSONS if found else None,
        "classifier": network,
        "classifier_weights": file,
    }
    return Run(
        name=f"describe {data.name}" + ("" if network else ", without objects (--objects names them)"),
        kind="data describe",
        arguments=(data.origin,),
        options={"out": f"{OUT}/{TEXTS}", **{name: value for name, value in options.items() if value}},
        root=config.out,
        needs=found,
        digests=(*data.digests, *(digest_of_weights(file) if file else ())),
    )


def _digest(data: DataSet, source: str) -> str:
    """Changes with what is known of any sample, with the size of any file, and with the index of shards."""
    digest = hashlib.sha256(describe_data(data)["sha256"].encode())
    for sample in data.samples:
        if isinstance(sample.image, ImageFile) and sample.image.path.exists():
            digest.update(sample.image.path.stat().st_size.to_bytes(8, "little"))
    kind, path, _ = parse_source(source)
    if kind == "shards" and (Path(path) / INDEX).exists():
        digest.update((Path(path) / INDEX).read_bytes())
    return digest.hexdigest()


def digest_of_weights(name: str) -> tuple[str, ...]:
    """Hashes of the files that a name such as mae.pth, timm:NAME@FILE or fitted:FOLDER means, if there are any."""
    files: list[Path] = []
    for path in weight_paths(name):
        files += sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    return tuple(_hash(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


@cache  # many runs start from one file, which may have a gigabyte
def _hash(file: Path, size: int, time_ns: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def union_of(targets: Sequence[Target]) -> Target:
    """Join data sets to train on as one; each keeps its own splits and exclusions, and people where they are meant.

    targets: at least one, labels of one kind. Labels become those of the first, through the label maps.
    """
    members = [target.data for target in targets]
    sources = []
    for data in members:
        files = {**data.files, **(data.people if data.labels.kind == "felt" else {})}
        mark = "" if not files else "&" if parse_source(data.source)[2] else "?"
        sources.append(f"{data.source}{mark}{'&'.join(f'{name}={file}' for name, file in files.items())}")
    joined = DataSource(
        name=" + ".join(data.name for data in members),
        source=",".join(sources),
        origin=",".join(data.origin for data in members),
        labels=members[0].labels,
        train=sum(data.train for data in members),
        needs=tuple(run for data in members for run in data.needs),
        digests=tuple(digest for data in members for digest in data.digests),
        has_people=all(data.has_people for data in members),
        missing=next((data.missing for data in members if data.missing), None),
    )
    return Target(data=joined, scored=joined, split="test", scored_pictures=0)


def _has_people(data: DataSet) -> bool:
    return any(sample.persons or sample.target_box for sample in data.samples)
