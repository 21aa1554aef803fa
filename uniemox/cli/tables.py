"""Tables on the terminal."""

from collections import Counter
from collections.abc import Iterator
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from uniemox.data.audit import Audit
    from uniemox.data.sample import DataSet
    from uniemox.evaluate.groups import GroupScores
    from uniemox.evaluate.run import Evaluation

TEXT_LENGTH = 300  # of a sample, shown


def data_tables(data: "DataSet", examples: int) -> Iterator[Table | str]:
    """Classes by split, what is known of how many samples, notes, and a few samples."""
    order = {"train": 0, "val": 1, "test": 2}
    splits = sorted({sample.split or "" for sample in data.samples}, key=lambda split: (order.get(split, 3), split))
    counts = Counter((sample.label, sample.split or "") for sample in data.samples)
    yield f"{data.name}: {len(data)} samples, {data.labels.name} ({data.labels.kind})"
    table = Table()
    for heading in ("label", *(split or "all" for split in splits)):
        table.add_column(heading, justify="left" if heading == "label" else "right")
    for i, label in enumerate(data.labels.labels):
        table.add_row(Text(label), *(str(counts[i, split]) for split in splits))
    if any(label is None for label, _ in counts):
        table.add_row("(no label)", *(str(counts[None, split]) for split in splits))
    yield table
    known = {
        "distribution": sum(sample.distribution is not None for sample in data.samples),
        "valence, arousal": sum(sample.valence is not None for sample in data.samples),
        "text": sum(sample.text is not None for sample in data.samples),
        "people looked for": sum(sample.persons is not None for sample in data.samples),
        "target person": sum(sample.target_box is not None for sample in data.samples),
        "domain": sum(sample.domain is not None for sample in data.samples),
    }
    yield "known of samples: " + (
        ", ".join(f"{name} {count}" for name, count in known.items() if count) or "labels only"
    )
    yield from (f"note: {note}" for note in data.notes)
    for sample in data.samples[:examples]:
        label = data.label_of(sample) or "(no label)"
        yield f"  {sample.image}  {label}" + (f"  {shorten(sample.text, TEXT_LENGTH)}" if sample.text else "")


def audit_tables(found: "Audit") -> Iterator[Table | str]:
    """How much of each fault was found, with examples, and drift."""
    from uniemox.data.audit import GROUPS

    yield f"{found.name}: {found.count} samples"
    table = Table()
    for heading in ("", "groups", "images", "for example"):
        table.add_column(heading, justify="right" if heading in ("groups", "images") else "left")
    for name in GROUPS:
        _add_row(table, found, name)
    yield table
    sizes = sorted((sum(row.values()), label) for label, row in found.classes.items())
    if sizes:
        (fewest, rarest), (most, commonest) = sizes[0], sizes[-1]
        yield f"classes: from {fewest} ({rarest}) to {most} ({commonest}) samples"
    for drift in found.drift:
        names = " and ".join(drift.splits)
        judged = "more than by chance" if drift.distance > drift.by_chance else "as by chance"
        yield f"colours of {names} differ by {drift.distance:.3f} (chance {drift.by_chance:.3f}): {judged}"
    yield f"{len(found.exclude)} samples should be excluded: --json lists them (for --exclude), --html shows them"


def _add_row(table: Table, found: "Audit", name: str) -> None:
    groups = getattr(found, name)
    first = groups[0].members[0] if groups else None
    example = Text("" if first is None else f"{first.sample.key} {groups[0].reason}")
    table.add_row(name.replace("_", " "), str(len(groups)), str(sum(len(g.members) for g in groups)), example)


TRUST = {
    "coverage": "likely sets for 90 % that hold the label",
    "set_size": "labels in such a set",
    "flagged": "flagged as unfamiliar",
}


def score_tables(found: "Evaluation") -> Iterator[Table | str]:
    """Every score with its interval, the confusion matrix, and groups."""
    values = found.scores.as_dict()
    table = Table("score", "value", "95 % interval")
    for name, value, interval in _flat(values | dict(found.trust)):
        table.add_row(TRUST.get(name.replace(" ", "_"), name), value, interval)
    yield table
    if "confusion" in values:
        yield _confusion(values)
    if found.by is not None:
        yield _groups(found.by)
    yield f"{values['n']} samples"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, value and interval of every number."""
    for name, value in values.items():
        if name.endswith("interval") or name in ("n", "confusion", "labels"):
            continue
        if isinstance(value, dict):
            intervals = values.get(f"{name.removesuffix('_recall')}_interval", {})
            inner = value if name != "per_class_recall" else {f"recall of {k}": v for k, v in value.items()}
            bounds = {f"recall of {k}_interval": v for k, v in intervals.items()} if intervals else {}
            yield from _flat(inner | bounds, "" if name == "per_class_recall" else f"{name} ")
        else:
            low_high = values.get(f"{name}_interval")
            shown = "-" if value is None else f"{value:.4f}"
            yield f"{prefix}{name}".replace("_", " "), shown, "{:.4f} to {:.4f}".format(*low_high) if low_high else ""


def _confusion(values: dict[str, Any]) -> Table:
    table = Table("true \\ predicted", title="confusion")
    for label in values["labels"]:
        table.add_column(label[:4], justify="right")
    for label, row in zip(values["labels"], values["confusion"], strict=True):
        table.add_row(label, *(str(count) for count in row))
    return table


def _groups(by: "GroupScores") -> Table:
    worst = "" if by.worst is None else f"; worst: {by.worst}, {by.gap:.3f} from the best"
    table = Table("group", "n", by.measure, "95 % interval", title=f"by group{worst}")
    for name, scores in by.groups.items():
        line = scores.headline
        bounds = "{:.4f} to {:.4f}".format(*line.interval) if line.interval else ""
        table.add_row(Text(name), str(scores.n), "-" if line.value is None else f"{line.value:.4f}", bounds)
    return table
