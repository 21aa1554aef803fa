"""Several data sets as one."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from uniemox.data.sample import DataSet, Part, Sample
from uniemox.errors import LabelError
from uniemox.labels import LabelMap, LabelSet, join_labels, label_map


def combine(members: Sequence[tuple[str, DataSet]], *, is_joined: bool = False) -> DataSet:
    """Join opened data sets into one.

    Keys and groups begin with the kind (`fi/awe/1.jpg`; the second of a kind is `fi2/...`), so that they never clash
    and do not depend on folders. Labels are mapped with `label_map` to those of the first data set that has labels; an
    image whose label has no counterpart stays, without a label.

    Args:
        members: Kind and samples of each data set.
        is_joined: Keep every label of all data sets instead (`join_labels`); every image keeps its label.

    Raises:
        LabelError: If labels are of different kinds (evoked, felt) or there is no map between them.
    """
    labelled = [data for _, data in members if data.labels.labels]
    if not labelled:
        labels = members[0][1].labels
    elif is_joined:
        labels = join_labels([data.labels for data in labelled])
    else:
        labels = labelled[0].labels
    samples: list[Sample] = []
    parts = []
    notes = list[str]()
    counts: Counter[str] = Counter()
    for kind, data in members:
        counts[kind] += 1
        name = kind if counts[kind] == 1 else f"{kind}{counts[kind]}"
        mapping = None
        if data.labels.labels:
            mapping = _map_to_joined(data.labels, labels) if is_joined else _map_to_first(data, labelled[0])
        samples += [_as_part(sample, name, mapping) for sample in data.samples]
        words = "no labels" if mapping is None else str(mapping)
        if mapping is not None and is_joined:
            words = f"{data.labels.name}: {len(data.labels)} of the {len(labels)} joined labels"
        parts.append(Part(name, data.name, len(data), words))
        notes += [str(parts[-1]), *(f"{name}: {note}" for note in data.notes)]
    sides = {data.short_side_px for _, data in members}
    return DataSet(
        ",".join(data.name for _, data in members),
        labels,
        samples,
        tuple(notes),
        short_side_px=sides.pop() if len(sides) == 1 else None,
        detector_seen=frozenset().union(*(data.detector_seen for _, data in members)),
        parts=tuple(parts),
    )


def _map_to_joined(ours: LabelSet, joined: LabelSet) -> LabelMap:
    """Map a set to joined labels, in which it has all its own words."""
    return LabelMap(ours, joined, {label: label for label in ours.labels})


def _map_to_first(data: DataSet, first: DataSet) -> LabelMap:
    """Map the labels of a data set to those of the first.

    Raises:
        LabelError: If they are of different kinds, or no map is known.
    """
    ours = data.labels
    theirs = first.labels
    # label_map would accept polarity of any kind.
    if ours.kind != theirs.kind:
        raise LabelError(
            f"{data.name} has {ours.kind} emotions, {first.name} {theirs.kind} ones: these are never trained on or "
            "scored as one; give data sets of one kind"
        )
    try:
        return label_map(ours, theirs)
    except LabelError as error:
        raise LabelError(
            f"{data.name} can't be mapped to the labels of {first.name}: {error}; give another data set first"
        ) from error


def _as_part(sample: Sample, name: str, mapping: LabelMap | None) -> Sample:
    """Return a sample of one of several data sets: key and group with its name in front, label and votes mapped."""
    label = sample.label
    categories = sample.categories
    distribution = sample.distribution
    if mapping is not None and label is not None:
        label = mapping(label)
    if mapping is not None and categories is not None:
        targets = {target for category in categories if (target := mapping(category)) is not None}
        categories = tuple(sorted(targets))
    if mapping is not None and distribution is not None:
        # Words without a counterpart stay, like words outside the labels.
        votes: Counter[str] = Counter()
        for word, share in distribution.items():
            votes[mapping.pairs.get(word) or word] += share  # type: ignore[assignment] # shares are floats
        distribution = dict(votes)
    return replace(
        sample,
        key=f"{name}/{sample.key}",
        group=None if sample.group is None else f"{name}/{sample.group}",
        label=label,
        categories=categories,
        distribution=distribution,
    )
