"""The data sets of a reproduction: what the user has, made ready by runs of their own, and what is missing."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from uniemox.data.people import PERSONS, TEXTS
from uniemox.data.sample import DataSet, ImageFile
from uniemox.data.shards import INDEX
from uniemox.data.source import open_data, parse_source
from uniemox.data.splits import PAPER_RECIPES
from uniemox.errors import ConfigError
from uniemox.io.files import SPLITS
from uniemox.labels import CAER, EKMAN, HECO, MIKELS, UBE, LabelSet
from uniemox.reproduce.datasets import EMBEDDED, describe_run, find_people_run, pack_run, splits_run
from uniemox.reproduce.plan import Run
from uniemox.training.run_folder import describe_data

COLUMNS: Mapping[str, str] = {  # of table III, by kind
    "ube": "UBE",
    "fi": "FI",
    "emotion6": "Emotion6",
    "emoset": "EmoSet",
    "emo8": "Emo8",
    "caer-s": "CAER-S",
    "heco": "HECO",
}
PAPER_SIZES: Mapping[str, tuple[int, float]] = {  # images, table II and section III-A; share of them that trains
    "UBE": (3046, 0.7),
    "FI": (23308, 0.8),
    "Emotion6": (1980, 0.7),
    "EmoSet": (118000, 0.8),
    "Emo8": (8930, 0.8),
    "CAER-S": (70000, 0.7),
    "HECO": (9385, 0.7),
}
PAPER_LABELS: Mapping[str, LabelSet] = {"UBE": UBE, "Emotion6": EKMAN, "CAER-S": CAER, "HECO": HECO}  # others: Mikels
SCENES, NEW_SCENES, SCENES_NAME = "synthetic:3072", "synthetic:512?seed=1", "Scenes"
SCENES_SHORT_SIDE_PX, OWN_SHORT_SIDE_PX = 144, 160
PRETRAINING, EMOSET_SHARES = "EmoSet", {"train": 0.8, "val": 0.05, "test": 0.15}  # the paper's, as published


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
    options: tuple[str, ...] = ()
    """Of the commands that open it."""
    people: tuple[str, ...] = ()
    """Options of the commands that look at people: where they were found."""
    exclude: tuple[str, ...] = ()
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
class Finders:
    """Detectors of people and objects for data without them."""

    detector: str | None = None
    """As --detector of `uniemox data persons`; None: the package's own in a demo, none at the scale of the paper."""
    objects: str | None = None
    """A network of timm that names objects, NAME or NAME@FILE; None: texts name people alone."""


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


def demo_targets(
    root: Path, given: Mapping[str, str], exclude: Mapping[str, Path], finders: Finders = Finders()
) -> list[Target]:
    """The data sets of a demo, packed small; synthetic scenes where none is given. Shards stay as they are."""
    if not given:
        return [_scenes(root, SCENES_NAME, SCENES)]
    targets = []
    for name, source in given.items():
        kind = parse_source(source)[0]
        if kind == "synthetic":
            targets.append(_scenes(root, name, source))
        else:
            without = exclude.get(name)
            is_packed = kind == "shards"
            made = (
                _as_published(root, name, source, without)
                if is_packed
                else _packed(root, name, source, without, finders)
            )
            targets.append(made)
    return targets


def paper_targets(
    root: Path, given: Mapping[str, str], exclude: Mapping[str, Path], finders: Finders = Finders()
) -> list[Target]:
    """The paper's seven, and whatever else is given; those that are not there are marked so."""
    targets = [
        _with_people(root, _as_published(root, name, given[name], exclude.get(name)), finders)
        if name in given
        else _absent(name)
        for name in PAPER_SIZES
    ]
    others = [name for name in given if name not in PAPER_SIZES]
    return targets + [
        _with_people(root, _as_published(root, name, given[name], exclude.get(name)), finders) for name in others
    ]


def _scenes(root: Path, name: str, source: str) -> Target:
    if parse_source(source)[2].get("seed") == "1":
        raise ConfigError(f"{source} draws the scenes that are scored ({NEW_SCENES}); choose another seed")
    data = open_data(source)
    train = sum(sample.split == "train" for sample in data.samples)
    packed = pack_run(root, name, source, (), (), SCENES_SHORT_SIDE_PX, ())
    ours = _source(name, data, packed, train)
    new = open_data(NEW_SCENES)
    packed_new = pack_run(root, f"new {name}", NEW_SCENES, (), (), SCENES_SHORT_SIDE_PX, ())
    return Target(data=ours, scored=_source(f"new {name}", new, packed_new, 0), split="all", scored_pictures=len(new))


def _packed(root: Path, name: str, source: str, exclude: Path | None, finders: Finders) -> Target:
    """Splits, people and texts where there are none, then shards."""
    data = open_data(source, exclude=exclude)
    digest = (_digest(data, source),)
    options = [*_excluding(exclude)]
    needs: list[Run] = []
    splits, train, split, scored = splits_run(root, name, source, data, digest, options, ("--ratio", "80/10/10"))
    if splits is not None:
        needs.append(splits)
        options += ["--splits", str(splits.folder / SPLITS)]
    found: list[Run] = []
    if all(sample.persons is None and sample.target_box is None for sample in data.samples):
        found.append(find_people_run(root, name, source, finders.detector or EMBEDDED, digest))
        options += ["--persons", str(found[0].folder / PERSONS)]
    if all(sample.text is None for sample in data.samples):
        described = describe_run(root, name, source, finders.objects, digest, found)
        found.append(described)
        options += ["--texts", str(described.folder / TEXTS)]
    packed = pack_run(root, name, source, options, digest, OWN_SHORT_SIDE_PX, [*needs, *found])
    ours = replace(_source(name, data, packed, train), digests=digest, exclude=_excluding(exclude), has_people=True)
    return Target(data=ours, scored=ours, split=split, scored_pictures=scored)


def _with_people(root: Path, target: Target, finders: Finders) -> Target:
    """The people found where they are needed and not there: EmoSet is pre-trained on them, what is felt is theirs."""
    data = target.data
    if data.has_people or not (data.name == PRETRAINING or data.labels.kind == "felt"):
        return target
    if finders.detector is None:
        line = "--detector yolov3.cfg, or uniemox data persons beforehand"
        ours = replace(data, missing=f"the people in {data.name}: {line}")
    else:
        run = find_people_run(root, data.name, data.origin, finders.detector, data.digests)
        people = ("--persons", str(run.folder / PERSONS))
        ours = replace(data, people=people, needs=(*data.needs, run), has_people=True)
    return replace(target, data=ours, scored=ours)


def _as_published(root: Path, name: str, source: str, exclude: Path | None) -> Target:
    """The files as they are, divided as the paper divides them."""
    data = open_data(source, exclude=exclude)
    digest = (_digest(data, source),)
    options = [*_excluding(exclude)]
    how = ("--paper",) if parse_source(source)[0] in PAPER_RECIPES else ("--ratio", "80/10/10")
    splits, train, split, scored = splits_run(root, name, source, data, digest, options, how)
    needs: tuple[Run, ...] = ()
    if splits is not None:
        needs = (splits,)
        options += ["--splits", str(splits.folder / SPLITS)]
    ours = DataSource(
        name=name,
        source=source,
        origin=source,
        labels=data.labels,
        train=train,
        options=tuple(options),
        needs=needs,
        digests=digest,
        exclude=_excluding(exclude),
        has_people=_has_people(data),
        sizes=Counter(sample.split for sample in data.samples if sample.split),
    )
    return Target(data=ours, scored=ours, split=split, scored_pictures=scored)


def _absent(name: str) -> Target:
    images, share = PAPER_SIZES[name]
    kind = next(kind for kind, column in COLUMNS.items() if column == name)
    data = DataSource(
        name=name,
        source=f"{kind}:{name}",
        origin=f"{kind}:{name}",
        labels=PAPER_LABELS.get(name, MIKELS),
        train=round(images * share),
        has_people=True,
        sizes={split: round(images * part) for split, part in EMOSET_SHARES.items()} if name == PRETRAINING else {},
        missing=f"the data: --data {name}={kind}:PATH",
    )
    return Target(data=data, scored=data, split="test", scored_pictures=0)


def _source(name: str, data: DataSet, packed: Run, train: int) -> DataSource:
    return DataSource(
        name=name,
        source=f"shards:{packed.folder}",
        origin=data.name,
        labels=data.labels,
        train=train,
        needs=(packed,),
        has_people=_has_people(data),
        is_synthetic=data.name.startswith("synthetic:"),
    )


def _excluding(exclude: Path | None) -> tuple[str, ...]:
    return () if exclude is None else ("--exclude", str(exclude))


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


def union_of(targets: Sequence[Target]) -> Target:
    """Join data sets to train on as one; each keeps its own splits and exclusions, and people where they are meant.

    targets: at least one, labels of one kind. Labels become those of the first, through the label maps.
    """
    sources = []
    for data in (target.data for target in targets):
        words = (*data.options, *(data.people if data.labels.kind == "felt" else ()))
        files = "&".join(f"{name[2:]}={value}" for name, value in zip(words[::2], words[1::2], strict=True))
        mark = "" if not files else "&" if parse_source(data.source)[2] else "?"
        sources.append(f"{data.source}{mark}{files}")
    first = targets[0].data
    joined = DataSource(
        name=" + ".join(target.name for target in targets),
        source=",".join(sources),
        origin=",".join(target.data.origin for target in targets),
        labels=first.labels,
        train=sum(target.data.train for target in targets),
        needs=tuple(run for target in targets for run in target.data.needs),
        digests=tuple(digest for target in targets for digest in target.data.digests),
        has_people=all(target.data.has_people for target in targets),
        missing=next((target.data.missing for target in targets if target.data.missing), None),
    )
    return Target(data=joined, scored=joined, split="test", scored_pictures=0)


def _has_people(data: DataSet) -> bool:
    return any(sample.persons or sample.target_box for sample in data.samples)


def pretraining_of(targets: Sequence[Target], *, is_demo: bool) -> DataSource:
    """Return the data set of pre-training: the first of a demo, EmoSet for the paper."""
    if is_demo:
        return targets[0].data
    return next(target.data for target in targets if target.name == PRETRAINING)
