"""The data sets of a reproduction: what the user has, made ready by runs of their own, and what is missing."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from uniemox.data.sample import DataSet, PictureFile
from uniemox.data.shards import INDEX
from uniemox.data.source import open_data, parse_source
from uniemox.data.splits import PAPER_RECIPES
from uniemox.errors import ConfigError
from uniemox.labels import CAER, EKMAN, HECO, MIKELS, UBE, LabelSet
from uniemox.reproduce.plan import OUT, Run, plan_run
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
PAPER_SIZES: Mapping[str, tuple[int, float]] = {  # pictures, table II and section III-A; share of them that trains
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
TRAINED_BY_DEFAULT = 0.8  # where splits are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Data that commands open."""

    name: str
    """Its column."""
    source: str
    """KIND:PATH."""
    origin: str
    """What the user gave; `source` may be what was made of it."""
    labels: LabelSet
    train: int
    """Pictures to train on."""
    options: tuple[str, ...] = ()
    """Of the commands that open it."""
    exclude: tuple[str, ...] = ()
    """Of the commands that open `origin`: what is left out of it."""
    needs: tuple[Run, ...] = ()
    """What makes it ready."""
    digests: tuple[str, ...] = ()
    """Of what the user gave."""
    has_people: bool = False
    is_synthetic: bool = False
    missing: str | None = None
    """What is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A data set on which methods are compared."""

    data: Source
    scored: Source
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


def demo_targets(root: Path, given: Mapping[str, str], exclude: Mapping[str, Path]) -> list[Target]:
    """The data sets of a demo, packed small; synthetic scenes where none is given. Shards stay as they are."""
    if not given:
        return [_scenes(root, SCENES_NAME, SCENES)]
    targets = []
    for name, source in given.items():
        kind = parse_source(source)[0]
        if kind == "synthetic":
            targets.append(_scenes(root, name, source))
        else:
            prepare = _as_published if kind == "shards" else _packed
            targets.append(prepare(root, name, source, exclude.get(name)))
    return targets


def paper_targets(root: Path, given: Mapping[str, str], exclude: Mapping[str, Path]) -> list[Target]:
    """The paper's seven, and whatever else is given; those that are not there are marked so."""
    targets = [
        _as_published(root, name, given[name], exclude.get(name)) if name in given else _absent(name)
        for name in PAPER_SIZES
    ]
    others = [name for name in given if name not in PAPER_SIZES]
    return targets + [_as_published(root, name, given[name], exclude.get(name)) for name in others]


def _scenes(root: Path, name: str, source: str) -> Target:
    if parse_source(source)[2].get("seed") == "1":
        raise ConfigError(f"{source} draws the scenes that are scored ({NEW_SCENES}); choose another seed")
    data = open_data(source)
    train = sum(sample.split == "train" for sample in data.samples)
    packed = _pack(root, name, source, (), (), SCENES_SHORT_SIDE_PX, ())
    ours = _source(name, data, packed, train)
    new = open_data(NEW_SCENES)
    packed_new = _pack(root, f"new {name}", NEW_SCENES, (), (), SCENES_SHORT_SIDE_PX, ())
    return Target(data=ours, scored=_source(f"new {name}", new, packed_new, 0), split="all", scored_pictures=len(new))


def _packed(root: Path, name: str, source: str, exclude: Path | None) -> Target:
    """Splits and texts where there are none, then shards."""
    data = open_data(source, exclude=exclude)
    digest = (_digest(data, source),)
    options = [*_excluding(exclude)]
    needs: list[Run] = []
    splits, train, split, scored = _splits(root, name, source, data, digest, options, ("--ratio", "80/10/10"))
    if splits is not None:
        needs.append(splits)
        options += ["--splits", str(splits.folder / "splits.json")]
    if all(sample.text is None for sample in data.samples):
        words = ["data", "describe", source, "--out", f"{OUT}/texts.jsonl"]
        described = plan_run(root, f"describe {name}", words, makes=None, data=digest)
        needs.append(described)
        options += ["--texts", str(described.folder / "texts.jsonl")]
    packed = _pack(root, name, source, options, digest, OWN_SHORT_SIDE_PX, needs)
    ours = replace(_source(name, data, packed, train), digests=digest, exclude=_excluding(exclude))
    return Target(data=ours, scored=ours, split=split, scored_pictures=scored)


def _as_published(root: Path, name: str, source: str, exclude: Path | None) -> Target:
    """The files as they are, divided as the paper divides them."""
    data = open_data(source, exclude=exclude)
    digest = (_digest(data, source),)
    options = [*_excluding(exclude)]
    how = ("--paper",) if parse_source(source)[0] in PAPER_RECIPES else ("--ratio", "80/10/10")
    splits, train, split, scored = _splits(root, name, source, data, digest, options, how)
    needs: tuple[Run, ...] = ()
    if splits is not None:
        needs = (splits,)
        options += ["--splits", str(splits.folder / "splits.json")]
    ours = Source(
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
    )
    return Target(data=ours, scored=ours, split=split, scored_pictures=scored)


def _absent(name: str) -> Target:
    pictures, share = PAPER_SIZES[name]
    kind = next(kind for kind, column in COLUMNS.items() if column == name)
    data = Source(
        name=name,
        source=f"{kind}:{name}",
        origin=f"{kind}:{name}",
        labels=PAPER_LABELS.get(name, MIKELS),
        train=round(pictures * share),
        has_people=True,
        missing=f"the data: --data {name}={kind}:PATH",
    )
    return Target(data=data, scored=data, split="test", scored_pictures=0)


def _splits(
    root: Path,
    name: str,
    source: str,
    data: DataSet,
    digest: tuple[str, ...],
    options: Sequence[str],
    how: tuple[str, ...],
) -> tuple[Run | None, int, str, int]:
    """The run that divides the data, None if they are divided; pictures to train on; split to score, its pictures."""
    sizes = {split: sum(sample.split == split for sample in data.samples) for split in ("train", "val", "test")}
    is_paper = how == ("--paper",)
    if sizes["train"] and (sizes["test"] or sizes["val"]) and not is_paper:
        split = "test" if sizes["test"] else "val"
        return None, sizes["train"], split, sizes[split]
    words = ["data", "split", source, f"{OUT}/splits.json", *how, *options]
    run = plan_run(root, f"split {name}", words, makes="splits.json", data=digest)
    recipe = PAPER_RECIPES.get(parse_source(source)[0]) if is_paper else None
    if is_paper and (recipe is None or recipe.of_split is not None):  # train stays as it was published
        return run, sizes["train"], "test", sizes["test"]
    shares = {"train": TRAINED_BY_DEFAULT, "test": (1 - TRAINED_BY_DEFAULT) / 2} if recipe is None else recipe.ratios
    return run, round(len(data) * shares["train"]), "test", round(len(data) * shares["test"])


def _pack(
    root: Path,
    name: str,
    source: str,
    options: Sequence[str],
    digest: tuple[str, ...],
    short_side_px: int,
    needs: Sequence[Run],
) -> Run:
    words = ["data", "shard", source, OUT, "--short-side", str(short_side_px), *options]
    return plan_run(root, f"pack {name}", words, makes="shards.json", needs=needs, data=digest)


def _source(name: str, data: DataSet, packed: Run, train: int) -> Source:
    return Source(
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
        if isinstance(sample.picture, PictureFile) and sample.picture.path.exists():
            digest.update(sample.picture.path.stat().st_size.to_bytes(8, "little"))
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


def weight_paths(name: str) -> list[Path]:
    """Files and folders that a name of weights means; none for what is fetched.

    >>> [str(path) for path in weight_paths("scratch:mae.pth,timm:vit_tiny_patch16_224@a.safetensors,timm:resnet50")]
    ['mae.pth', 'a.safetensors']
    """
    paths = []
    for part in name.split(","):
        word = part.removeprefix("scratch:")
        kind, _, rest = word.partition(":")
        if kind in ("fitted", "stored", "onnx"):
            paths.append(Path(rest))
        elif kind == "clip" and rest.startswith("local-dir:"):
            paths.append(Path(rest.removeprefix("local-dir:")))
        elif kind in ("clip", "timm"):
            paths += [Path(rest.partition("@")[2])] if "@" in rest else []
        else:
            paths.append(Path(word))
    return paths


@cache  # many runs start from one file, which may have a gigabyte
def _hash(file: Path, size: int, time_ns: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _has_people(data: DataSet) -> bool:
    return any(sample.persons or sample.target_box for sample in data.samples)


def pretraining_of(targets: Sequence[Target], *, is_demo: bool) -> Source:
    """What is pre-trained on: the first data set of a demo, EmoSet for the paper."""
    if is_demo:
        return targets[0].data
    data = next(target.data for target in targets if target.name == "EmoSet")
    if data.missing is None and not data.has_people:
        return replace(data, missing=f"the people in EmoSet: uniemox data persons {data.source} --detector yolov3.cfg")
    return data
