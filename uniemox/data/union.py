"""Several data sets as one: their samples under one label set, each with the name of where it comes from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from uniemox.data.sample import DataSet, Part, Sample
from uniemox.errors import LabelError
from uniemox.labels import LabelMap, label_map


def combine(members: Sequence[tuple[str, DataSet]]) -> DataSet:
    """The union of opened data sets.

    members: the kind of each, and its data.  Keys and groups begin with the kind (`fi/awe/1.jpg`; the second of a kind
    is `fi2/...`), so that they clash nowhere and stay the same wherever the data lie. Labels become those of the first
    data set that has labels, through `label_map`; an image whose label has no counterpart stays, without a label.
    Raises LabelError where labels are of different kinds (evoked, felt) or no map between them is known.
    """
    labelled = [data for _, data in members if data.labels.labels]
    labels = (labelled[0] if labelled else members[0][1]).labels
    samples: list[Sample] = []
    parts, notes = [], list[str]()
    seen: Counter[str] = Counter()
    for kind, data in members:
        seen[kind] += 1
        name = kind if seen[kind] == 1 else f"{kind}{seen[kind]}"
        mapping = _map(data, labelled[0]) if data.labels.labels else None
        samples += [_renamed(sample, name, mapping) for sample in data.samples]
        parts.append(Part(name, data.name, len(data), "no labels" if mapping is None else str(mapping)))
        notes += [str(parts[-1]), *(f"{name}: {note}" for note in data.notes)]
    sides = {data.short_side_px for _, data in members}
    source = ",".join(data.name for _, data in members)
    side = sides.pop() if len(sides) == 1 else None
    finders_saw = frozenset().union(*(data.detector_seen for _, data in members))
    return DataSet(
        source,
        labels,
        samples,
        tuple(notes),
        short_side_px=side,
        detector_seen=finders_saw,
        parts=tuple(parts),
    )


def _map(data: DataSet, first: DataSet) -> LabelMap:
    ours, theirs = data.labels, first.labels
    if ours.kind != theirs.kind:  # label_map lets polarity take any kind
        raise LabelError(
            f"{data.name} says what is {ours.kind}, {first.name} what is {theirs.kind}: these are never trained on or "
            "scored as one; name data sets of one kind"
        )
    try:
        return label_map(ours, theirs)
    except LabelError as error:
        raise LabelError(
            f"{data.name} can't be joined with {first.name}, whose labels all get: {error}; name another data set first"
        ) from error


def _renamed(sample: Sample, name: str, mapping: LabelMap | None) -> Sample:
    label, distribution = sample.label, sample.distribution
    if mapping is not None and label is not None:
        label = mapping(label)
    if mapping is not None and distribution is not None:
        votes: Counter[str] = Counter()  # words without a counterpart stay, as those beyond any labels do
        for word, share in distribution.items():
            votes[mapping.pairs.get(word) or word] += share  # type: ignore[assignment] # shares are floats
        distribution = dict(votes)
    return replace(
        sample,
        key=f"{name}/{sample.key}",
        group=None if sample.group is None else f"{name}/{sample.group}",
        label=label,
        distribution=distribution,
    )
