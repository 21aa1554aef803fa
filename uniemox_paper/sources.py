"""Data sets of a reproduction: the user's data, the runs that prepare them, and what is missing."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from uniemox.data import (
    INDEX,
    JOINS,
    PAPER_RECIPES,
    PERSONS,
    TEXTS,
    UNION,
    DataSet,
    ImageFile,
    Recipe,
    open_data,
    parse_source,
)
from uniemox.errors import ConfigError
from uniemox.io import SPLITS, weight_paths
from uniemox.labels import CAER, EKMAN, HECO, MIKELS, UBE, LabelSet, join_labels
from uniemox.network_spec import Streams
from uniemox.training import describe_data
from uniemox_paper.config import ReproduceConfig
from uniemox_paper.methods.eap import has_words
from uniemox_paper.plan import OUT, PlannedRun


class PaperSet(NamedTuple):
    """Data set of the paper, as table II and section III-A describe it."""

    kind: str
    """Kind of its data source."""
    images: int
    train_fraction: float
    """Share of the images that trains, 0 to 1."""
    labels: LabelSet


# By column of table III.
PAPER_SETS: Mapping[str, PaperSet] = {
    "UBE": PaperSet("ube", 3046, 0.7, UBE),
    "FI": PaperSet("fi", 23308, 0.8, MIKELS),
    "Emotion6": PaperSet("emotion6", 1980, 0.7, EKMAN),
    "EmoSet": PaperSet("emoset", 118000, 0.8, MIKELS),
    "Emo8": PaperSet("emo8", 8930, 0.8, MIKELS),
    "CAER-S": PaperSet("caer-s", 70000, 0.7, CAER),
    "HECO": PaperSet("heco", 9385, 0.7, HECO),
}
COLUMNS: Mapping[str, str] = {paper_set.kind: column for column, paper_set in PAPER_SETS.items()}
SCENES = "synthetic:3072"
NEW_SCENES = "synthetic:512?seed=1"
SCENES_NAME = "Scenes"
SCENES_SHORT_SIDE_PX = 144
OWN_SHORT_SIDE_PX = 160
# The paper pre-trains on EmoSet, in the splits that EmoSet's authors published.
PRETRAINING = "EmoSet"
EMOSET_SHARES = {"train": 0.8, "val": 0.05, "test": 0.15}
DEFAULT_RECIPE = Recipe(ratios={"train": 0.8, "val": (1 - 0.8) / 2, "test": (1 - 0.8) / 2})
# Name of the package's detector.
EMBEDDED = "embedded"
# End of the name of a further column.
WITH_PERSON = ", scene and person"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Data set of a comparison of methods, with its source as commands take it."""

    name: str
    """Name of the data set."""
    source: str
    """Source as KIND:PATH."""
    origin: str
    """Source as given by the user; `source` may be prepared data."""
    labels: LabelSet
    train: int
    """Number of training images."""
    split: str = "test"
    """Split to score."""
    scored_images: int = 0
    scored_source: "DataSource | None" = None
    """Other data to score; None: these."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Options of the commands that open it: splits, exclude."""
    streams: Streams = "scene"
    """Views that classifiers read at the paper's scale: the scene alone, as in the paper (section III-A)."""
    people: Mapping[str, Path] = field(default_factory=dict)
    """Options of the commands that read people: the file with their boxes; see `with_people`."""
    person_run: PlannedRun | None = None
    """Run that finds the people, for `with_people`; None if they are known or not needed."""
    lacks_people: str | None = None
    """Missing requirement of runs that read people; None if there is none."""
    exclude: Mapping[str, Path] = field(default_factory=dict)
    """Options of the commands that open `origin`: excluded images."""
    needs: tuple[PlannedRun, ...] = ()
    """Runs that prepare it."""
    digests: tuple[str, ...] = ()
    """Hashes of the user's data."""
    has_people: bool = False
    has_words: bool = True
    """True if its annotations name objects or attributes, or if that is not known yet."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Number of images by split, if the data set has splits."""
    is_synthetic: bool = False
    task: Literal["label", "multilabel"] = "label"
    """Task of classifiers: multilabel if samples have several labels, as in EMOTIC."""
    missing: str | None = None
    """Missing requirement; None if there is none."""

    @property
    def scored(self) -> "DataSource":
        """Data to score."""
        return self.scored_source or self

    def with_people(self) -> "DataSource":
        """Return these data for runs that read people, which are found first if they are unknown."""
        missing = self.missing or self.lacks_people
        if self.person_run is None:
            return replace(self, missing=missing)
        return replace(
            self,
            people={"persons": self.person_run.folder / PERSONS},
            needs=(*self.needs, self.person_run),
            missing=missing,
            person_run=None,
        )

    def with_person_stream(self) -> "DataSource":
        """Return these data for a further column, in which classifiers read the scene and the person."""
        return replace(self.with_people(), streams="both")

    @property
    def column(self) -> str:
        """Name of the column: that of the data, and the person if classifiers read it too."""
        if self.streams == "both":
            return f"{self.name}{WITH_PERSON}"
        return self.name

    def run(
        self,
        root: Path,
        name: str,
        kind: str,
        *arguments: str,
        needs: tuple[PlannedRun, ...] = (),
        digests: tuple[str, ...] = (),
        **fields: Any,
    ) -> PlannedRun:
        """Return a run that reads these data, after the runs that prepare them; it lacks what they lack.

        Args:
            root: Folder of all runs.
            name: Description for people.
            kind: Command after `uniemox`.
            arguments: Arguments of the command.
            needs: Further runs that it needs.
            digests: Hashes of further inputs.
            fields: Further fields of the run.
        """
        inputs: dict[str, Any] = {"needs": (*self.needs, *needs), "digests": (*self.digests, *digests)}
        return PlannedRun(name=name, kind=kind, arguments=arguments, root=root, lacks=self.missing, **inputs, **fields)


def parse_sources(texts: Sequence[str]) -> dict[str, str]:
    """Parse KIND:PATH or NAME=KIND:PATH into sources by column.

    Raises:
        ConfigError: If a text has another form, or a name is repeated.

    >>> parse_sources(["fi:photos/fi", "mine=folder:photos?kind=felt"])
    {'FI': 'fi:photos/fi', 'mine': 'folder:photos?kind=felt'}
    """
    sources: dict[str, str] = {}
    for text in texts:
        match = re.match(r"([^:=]+)=(.+)", text)
        source = match.group(2) if match else text
        kind, path, _ = parse_source(source)
        if match:
            name = match.group(1)
        else:
            name = COLUMNS.get(kind, SCENES_NAME if kind == "synthetic" else Path(path).name)
        columns = {column.lower(): column for column in COLUMNS.values()}
        name = columns.get(name.lower(), name)
        if name in sources:
            raise ConfigError(f"--data names {name} twice; write NAME=KIND:PATH with another name")
        sources[name] = source
    return sources


def targets_of(
    config: ReproduceConfig, sources: Mapping[str, str], exclude: Mapping[str, Path]
) -> tuple[DataSource, ...]:
    """Return the data sets of a demo, synthetic scenes by default; or the paper's seven and further given ones.

    Args:
        config: Settings of the reproduction.
        sources: Sources by column.
        exclude: Files of images to leave out, by column.
    """
    if config.is_demo:
        demo_sources = sources or {SCENES_NAME: SCENES}
        return tuple(_packed_small(config, name, source, exclude.get(name)) for name, source in demo_sources.items())
    targets = []
    for name in dict.fromkeys([*PAPER_SETS, *sources]):
        if name in sources:
            data, _ = _split_as_paper(config, name, sources[name], exclude.get(name))
            targets.append(_find_missing_people(config, data))
        else:
            targets.append(_missing_data(name))
    return tuple(targets)


def _packed_small(config: ReproduceConfig, name: str, source: str, exclude: Path | None) -> DataSource:
    """Pack a data set at a small size, adding people and texts if there are none. Shards stay unchanged."""
    kind, _, query = parse_source(source)
    if kind == "synthetic":
        if query.get("seed") == "1":
            raise ConfigError(f"{source} draws the scored scenes ({NEW_SCENES}); choose another seed")
        scored_scenes = _scenes(config.out, f"new {name}", NEW_SCENES)
        prepared = _scenes(config.out, name, source)
        count = len(open_data(NEW_SCENES))
        return replace(prepared, scored_source=scored_scenes, split="all", scored_images=count)
    prepared, data = _split_as_paper(config, name, source, exclude)
    if kind == "shards":
        return prepared
    unsplit = replace(prepared, needs=())
    files = dict(prepared.files)
    detections = tuple[PlannedRun, ...]()
    needs = prepared.needs
    if all(sample.persons is None and sample.target_box is None for sample in data.samples):
        detections = (_find_people(config.out, unsplit, config.detector or EMBEDDED),)
        files["persons"] = detections[0].folder / PERSONS
    if all(sample.text is None for sample in data.samples):
        needs += (*detections, _describe(config, unsplit, detections))
        files["texts"] = needs[-1].folder / TEXTS
    else:
        needs += detections
    packed = _pack(config.out, replace(unsplit, needs=needs), OWN_SHORT_SIDE_PX, files)
    return replace(prepared, source=f"shards:{packed.folder}", files={}, needs=(packed,), has_people=True, sizes={})


def _scenes(root: Path, name: str, source: str) -> DataSource:
    """Return synthetic scenes."""
    data = open_data(source)
    scenes = DataSource(
        name=name,
        source=source,
        origin=source,
        labels=data.labels,
        train=sum(sample.split == "train" for sample in data.samples),
        has_people=_has_people(data),
        is_synthetic=True,
    )
    packed = _pack(root, scenes, SCENES_SHORT_SIDE_PX, {})
    return replace(scenes, source=f"shards:{packed.folder}", needs=(packed,))


def _split_as_paper(
    config: ReproduceConfig, name: str, source: str, exclude: Path | None
) -> tuple[DataSource, DataSet]:
    """Return the files unchanged, split as in the paper, or 80/10/10 if they have no splits.

    Splits that the source names, as in `fi:FI?splits=FOLDER`, are used as they are.
    """
    data = open_data(source, exclude=exclude)
    kind, _, reader_options = parse_source(source)
    exclusion = {} if exclude is None else {"exclude": exclude}
    sizes = Counter(sample.split for sample in data.samples if sample.split)
    split = "test" if sizes["test"] or not sizes["val"] else "val"
    is_paper = kind in PAPER_RECIPES and not config.is_demo and "splits" not in reader_options
    prepared = DataSource(
        name=name,
        source=source,
        origin=source,
        labels=data.labels,
        train=sizes["train"],
        split=split,
        scored_images=sizes[split],
        files=exclusion,
        digests=(_digest(data, source),),
        exclude=exclusion,
        has_people=_has_people(data),
        has_words=has_words(data.samples) or (config.is_demo and config.objects is not None),
        sizes=sizes,
        task="multilabel" if any(sample.categories for sample in data.samples) else "label",
    )
    if not is_paper and sizes["train"] and sizes[split]:
        return prepared, data
    split_options: dict[str, Any] = {"paper": True} if is_paper else {"ratio": "80/10/10"}
    file = f"{OUT}/{SPLITS}"
    run = prepared.run(
        config.out, f"split {name}", "data split", source, file, options={**split_options, **exclusion}, makes=SPLITS
    )
    recipe = PAPER_RECIPES[kind] if is_paper else DEFAULT_RECIPE
    prepared = replace(prepared, split="test", scored_images=sizes["test"], needs=(run,))
    # A recipe that divides one published split leaves train as published.
    if recipe is not None and recipe.of_split is None:
        train, test = (round(len(data) * recipe.ratios[part]) for part in ("train", "test"))
        prepared = replace(prepared, train=train, scored_images=test)
    return replace(prepared, files={**exclusion, "splits": run.folder / SPLITS}), data


def _find_missing_people(config: ReproduceConfig, data: DataSource) -> DataSource:
    """Plan to find people where runs may need them: EmoSet's pre-training uses them, and felt emotions are theirs."""
    if data.has_people or not (data.name == PRETRAINING or data.labels.kind == "felt"):
        return data
    if config.detector is None:
        line = "--detector yolov3.cfg, or run uniemox data persons first"
        return replace(data, lacks_people=f"the people in {data.name}: {line}")
    run = _find_people(config.out, replace(data, needs=()), config.detector)
    return replace(data, person_run=run, has_people=True)


def _missing_data(name: str) -> DataSource:
    """Return one of the paper's data sets that was not given, with its published size."""
    published = PAPER_SETS[name]
    sizes = {}
    if name == PRETRAINING:
        sizes = {split: round(published.images * fraction) for split, fraction in EMOSET_SHARES.items()}
    return DataSource(
        name=name,
        source=f"{published.kind}:{name}",
        origin=f"{published.kind}:{name}",
        labels=published.labels,
        train=round(published.images * published.train_fraction),
        has_people=True,
        sizes=sizes,
        missing=f"the data: --data {name}={published.kind}:PATH",
    )


def _pack(root: Path, data: DataSource, short_side_px: int, files: Mapping[str, Path]) -> PlannedRun:
    """Return a run that packs the data into shards, images scaled to a short side."""
    options = {"short_side": short_side_px, **files}
    return data.run(root, f"pack {data.name}", "data shard", data.origin, OUT, options=options, makes=INDEX)


def _find_people(root: Path, data: DataSource, detector: str) -> PlannedRun:
    """Return a run that writes a file of the people in all images."""
    options = {"detector": detector, "out": f"{OUT}/{PERSONS}"}
    digests = () if detector == EMBEDDED else digest_of_weights(detector)
    name = f"find the people in {data.name}"
    return data.run(root, name, "data persons", data.origin, options=options, digests=digests)


def _describe(config: ReproduceConfig, data: DataSource, finders: tuple[PlannedRun, ...]) -> PlannedRun:
    """Return a run that writes a file of texts.

    Args:
        config: Settings of the reproduction.
        data: Data to describe.
        finders: The run that finds the people, if there is one.
    """
    network, _, file = (config.objects or "").partition("@")
    options: dict[str, Any] = {"out": f"{OUT}/{TEXTS}"}
    if finders:
        options["persons"] = finders[0].folder / PERSONS
    if network:
        options["classifier"] = network
    if file:
        options["classifier_weights"] = file
    name = f"describe {data.name}"
    if not network:
        name += ", without objects (--objects names them)"
    digests = digest_of_weights(file) if file else ()
    return data.run(config.out, name, "data describe", data.origin, options=options, needs=finders, digests=digests)


def _digest(data: DataSet, source: str) -> str:
    """Return a hash of all fields of the samples, all file sizes, and the index of shards."""
    digest = hashlib.sha256(describe_data(data)["sha256"].encode())
    for sample in data.samples:
        if isinstance(sample.image, ImageFile) and sample.image.path.exists():
            digest.update(sample.image.path.stat().st_size.to_bytes(8, "little"))
    kind, path, _ = parse_source(source)
    if kind == "shards" and (Path(path) / INDEX).exists():
        digest.update((Path(path) / INDEX).read_bytes())
    return digest.hexdigest()


def digest_of_weights(name: str) -> tuple[str, ...]:
    """Return hashes of the files in a name such as mae.pth, timm:NAME@FILE or fitted:FOLDER, if there are any."""
    files: list[Path] = []
    for path in weight_paths(name):
        files += sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    return tuple(_hash(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


# Many runs share one file, which may have a gigabyte.
@cache
def _hash(file: Path, size: int, time_ns: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def union_of(members: Sequence[DataSource]) -> DataSource:
    """Join data sets for training: with the labels of all of them, so that every test set keeps its own.

    Args:
        members: At least one, with labels of one kind and one task. Each keeps its own splits, exclusions and people.
    """
    sources = []
    for index, data in enumerate(members):
        options = {**data.files, **data.people}
        if index == 0 and len(members) > 1:
            # All other values are files.
            options[UNION] = JOINS  # type: ignore[assignment]
        source = data.source
        if options:
            mark = "&" if parse_source(source)[2] else "?"
            source += mark + "&".join(f"{name}={value}" for name, value in options.items())
        sources.append(source)
    return DataSource(
        name=" + ".join(data.name for data in members),
        source=",".join(sources),
        origin=",".join(data.origin for data in members),
        labels=join_labels([data.labels for data in members]),
        train=sum(data.train for data in members),
        task=members[0].task,
        needs=tuple(run for data in members for run in data.needs),
        digests=tuple(digest for data in members for digest in data.digests),
        has_people=all(data.has_people for data in members),
        missing=next((data.missing for data in members if data.missing), None),
    )


def _has_people(data: DataSet) -> bool:
    return any(sample.persons or sample.target_box for sample in data.samples)
