"""Stratified splits that keep groups together."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from uniemox.data.grouping import groups_by_traits
from uniemox.data.sample import DataSet, Sample
from uniemox.errors import ConfigError
from uniemox.plurals import counted
from uniemox.spelling import spelled

Scheme = dict[str, str]
"""Split by key."""
# Difference between a requested and a reached share from which it is explained.
MAX_SHARE_ERROR = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Split of a data set.

    Only Emo8's ratios are in the paper (section IV); the others are our choices (docs/paper-vs-code.md).
    """

    ratios: Mapping[str, float]
    """Share of train, val and test."""
    by_domain: bool = False
    """Stratify by label and domain (UBE's sub-folders) instead of only the label."""
    of_split: str | None = None
    """Only this official split is divided; the others stay unchanged."""
    schemes: int = 1
    """Number of schemes to draw; the one with the most similar colours is used (figure 6; the paper has no number)."""


PAPER_RECIPES: Mapping[str, Recipe | None] = {
    "emoset": None,  # as published
    "emotion6": Recipe(ratios={"train": 0.7, "val": 0.1, "test": 0.2}),
    "ube": Recipe(ratios={"train": 0.7, "val": 0.1, "test": 0.2}, by_domain=True),
    "heco": Recipe(ratios={"train": 0.7, "val": 0.1, "test": 0.2}),
    "fi": Recipe(ratios={"train": 0.8, "val": 0.05, "test": 0.15}),
    "caer-s": Recipe(ratios={"test": 0.66, "val": 0.34}, of_split="test"),
    "emo8": Recipe(ratios={"train": 0.8, "val": 0.1, "test": 0.1}, schemes=100),
}
"""Split of each of the paper's seven data sets in our reproduction; None: the official one."""


def split_samples(
    samples: Sequence[Sample],
    ratios: Mapping[str, float],
    seed: int,
    stratum: Callable[[Sample], Hashable] = lambda sample: sample.label,
    *,
    fill_splits: bool = False,
) -> Scheme:
    """Assign each sample a split. Each stratum has the given ratios to within a few samples; groups stay together.

    The draw depends only on the keys and the seed, not on the order of the samples. Each stratum is ordered by a hash
    of seed and key, and its first part goes to the first split. An added or removed image moves at most one other image
    at each border between two splits of its stratum. A new stratum can move one image at each border of later strata.

    Args:
        ratios: Split to share, with sum 1.
        stratum: Function that returns a sample's stratum; each is spread evenly. Default: the label.
        fill_splits: Give every split a group of each stratum that has enough, even if its share is below one.

    Raises:
        ConfigError: If a ratio is not above 0, or they don't add up to 1.

    >>> from uniemox.data.synthetic_scenes import synthetic
    >>> scheme = split_samples(synthetic(64).samples, {"train": 0.75, "test": 0.25}, seed=0)
    >>> sorted(scheme.values()).count("test")
    16
    """
    if not ratios or any(share <= 0 for share in ratios.values()) or not math.isclose(sum(ratios.values()), 1):
        raise ConfigError(f"shares of splits must be above 0 and add up to 1, got {dict(ratios)}")
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.key):
        groups[f"group {sample.group}" if sample.group else sample.key].append(sample)
    strata: dict[str, list[str]] = defaultdict(list)
    for name, group in groups.items():
        strata[repr(stratum(group[0]))].append(name)

    scheme: Scheme = {}
    # By length first, so that a label with a higher number comes last and does not change the offsets of the others.
    for number, name in enumerate(sorted(strata, key=lambda name: (len(name), name)), start=1):
        units = sorted(strata[name], key=lambda unit: hash_of(unit, seed))
        counts = _unit_counts([len(groups[unit]) for unit in units], ratios, _offset(number))
        if fill_splits and len(units) >= len(ratios):
            _fill(counts)
        splits = (split for split, count in zip(ratios, counts, strict=True) for _ in range(count))
        for unit, split in zip(units, splits, strict=True):
            scheme |= dict.fromkeys((sample.key for sample in groups[unit]), split)
    return scheme


def hash_of(key: str, seed: int) -> bytes:
    """Return a hash that orders keys at random, the same for each spelling of a key."""
    return hashlib.sha256(f"{seed} {spelled(key)}".encode("utf-8", "surrogatepass")).digest()


def _unit_counts(sizes: Sequence[int], ratios: Mapping[str, float], offset: float) -> list[int]:
    """Return the number of ordered units for each split, in the order of the ratios.

    Args:
        sizes: Samples of each unit.
        offset: 0 to 1; 0.5 rounds a border to the nearest sample. A unit across a border goes to the split that holds
            its middle.
    """
    ends = np.cumsum(sizes)
    middles = ends - np.array(sizes) / 2
    shares = np.cumsum(list(ratios.values()))
    # Rounded first, because 0.7 + 0.1 times 100 is 79.999...
    borders = np.floor(np.round(shares * ends[-1], 6) + offset)
    borders[-1] = ends[-1]
    below = np.searchsorted(middles, borders)
    return np.diff(below, prepend=0).tolist()


def _offset(number: int) -> float:
    """Return the offset of the number-th stratum: 1/2, 1/4, 3/4, 1/8, ... (van der Corput).

    With one offset, all strata of equal size would round in the same direction, and small splits would stay empty.
    """
    bits = f"{number:b}"[::-1]
    return int(bits, 2) / 2 ** len(bits)


def _fill(counts: list[int]) -> None:
    """Take a unit from the largest split for each empty one, in place."""
    while 0 in counts:
        counts[counts.index(max(counts))] -= 1
        counts[counts.index(0)] += 1


def join_copies(samples: Sequence[Sample], hashes: Sequence[str]) -> list[Sample]:
    """Return the samples, where groups that share an image file are one group.

    Args:
        hashes: The sha256 of every file; empty for an unreadable one.
    """
    units = [f"group {sample.group}" if sample.group else f"key {sample.key}" for sample in samples]
    # An unreadable file is like no other.
    traits = [digest or object() for digest in hashes]
    group_of = groups_by_traits(zip(units, traits, strict=True))
    groups = [group_of[unit] for unit in units]
    sizes = Counter(groups)
    return [
        replace(sample, group=group) if sizes[group] > 1 else sample
        for sample, group in zip(samples, groups, strict=True)
    ]


def count_copies_across_splits(samples: Sequence[Sample], hashes: Sequence[str], scheme: Mapping[str, str]) -> int:
    """Return the number of samples that have an exact copy in another split.

    Args:
        hashes: The sha256 of every file; empty for an unreadable one.
        scheme: Split by key; samples that it lacks are ignored.
    """
    splits: dict[str, set[str]] = defaultdict(set)
    pairs = [
        (scheme[sample.key], digest) for sample, digest in zip(samples, hashes, strict=True) if sample.key in scheme
    ]
    for split, digest in pairs:
        splits[digest].add(split)
    return sum(len(splits[digest]) > 1 for _, digest in pairs if digest)


def lacking_splits(data: DataSet, scheme: Mapping[str, str], names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return, by label, the splits (of these names) without an image of the label; complete labels are left out."""
    filled = {(word, scheme.get(sample.key)) for sample in data.samples for word in data.words_of(sample)}
    if not filled:
        # Votes and ratings have no classes.
        return {}
    lacking = {label: tuple(name for name in names if (label, name) not in filled) for label in data.labels.labels}
    return {label: missing for label, missing in lacking.items() if missing}


def note_on_shares(
    samples: Sequence[Sample],
    scheme: Mapping[str, str],
    ratios: Mapping[str, float],
    *,
    groups_of: str = "images that belong together",
) -> str:
    """Return a sentence about shares of a scheme that differ from the requested ones, and why; else an empty text.

    Args:
        samples: The samples that were divided.
        scheme: Split by key.
        ratios: Requested share by split, with sum 1.
        groups_of: Members of a group, in words.
    """
    sizes = Counter(scheme.values())
    reached = {split: sizes[split] / max(len(samples), 1) for split in ratios}
    largest_error = max(abs(reached[split] - share) for split, share in ratios.items())
    # One image more or less needs no explanation.
    if largest_error <= MAX_SHARE_ERROR or largest_error * len(samples) <= 1:
        return ""
    groups = Counter(sample.group for sample in samples if sample.group)
    members = [count for count in groups.values() if count > 1]
    reason = "each label is divided by itself, and its numbers are rounded"
    if members:
        reason = (
            f"{counted(sum(members), 'image')} are in {counted(len(members), 'group')} of {groups_of}, which are not "
            f"divided (the largest has {max(members)})"
        )
    return f"the splits have {_percentages(reached)} % of the images instead of {_percentages(ratios)} %: {reason}"


def _percentages(shares: Mapping[str, float]) -> str:
    return "/".join(f"{100 * share:.0f}" for share in shares.values())


def hold_out(samples: Sequence[Sample], count: int, seed: int) -> Scheme:
    """Return the samples' splits, with about this number of train moved to test, each class in proportion.

    Groups stay together, so the number may be missed by a few.

    Raises:
        ConfigError: Unless there are more training images than that, and no test split yet.
    """
    train = [sample for sample in samples if sample.split == "train"]
    if any(sample.split == "test" for sample in samples):
        raise ConfigError("there is already a test split; --hold-out makes one from a part of train")
    if not 0 < count < len(train):
        raise ConfigError(f"--hold-out must lie above 0 and below the {len(train)} training images, got {count}")
    share = count / len(train)
    drawn = split_samples(train, {"train": 1 - share, "test": share}, seed)
    return {sample.key: sample.split for sample in samples if sample.split} | drawn


def parse_ratio(text: str) -> dict[str, float]:
    """Parse shares of train, val and test, such as 80/10/10; two numbers are train and test.

    Raises:
        ConfigError: For anything else.

    >>> parse_ratio("70/10/20")
    {'train': 0.7, 'val': 0.1, 'test': 0.2}
    """
    names = {2: ("train", "test"), 3: ("train", "val", "test")}
    try:
        parts = [float(part) for part in text.split("/")]
        splits = names[len(parts)]
    except (ValueError, KeyError):
        raise ConfigError(f"expected shares of train, val and test such as 80/10/10, got {text!r}") from None
    if not all(part > 0 and math.isfinite(part) for part in parts):
        raise ConfigError(f"every share of {text!r} must be above 0")
    total = sum(parts)
    return {split: part / total for split, part in zip(splits, parts, strict=True)}


def keep_fraction(scheme: Scheme, samples: Sequence[Sample], fraction: float, seed: int) -> Scheme:
    """Return the scheme with only a part of train, see `take_fraction`; the other splits stay complete."""
    train = [sample for sample in samples if scheme.get(sample.key) == "train"]
    train_keys = {sample.key for sample in take_fraction(train, fraction, seed)}
    return {key: split for key, split in scheme.items() if split != "train" or key in train_keys}


def take_fraction(samples: Sequence[Sample], fraction: float, seed: int) -> list[Sample]:
    """Take a fraction of every class (figure 7), at least one sample; smaller fractions are subsets of larger ones.

    Args:
        fraction: Above 0, at most 1.

    Raises:
        ConfigError: If the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"a fraction must lie above 0 and be at most 1, got {fraction}")
    classes: dict[int | None, list[Sample]] = defaultdict(list)
    for sample in samples:
        classes[sample.label].append(sample)
    taken_keys = set()
    for members in classes.values():
        members.sort(key=lambda sample: hash_of(sample.key, seed))
        count = max(1, round(fraction * len(members)))
        taken_keys |= {sample.key for sample in members[:count]}
    return [sample for sample in samples if sample.key in taken_keys]
