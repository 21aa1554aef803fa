"""Commands about data sets."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.table import Column, Table
from rich.text import Text

from uniemox.cli.console import (
    Files,
    Flag,
    JsonFlag,
    JsonObject,
    need,
    progress_bar,
    refuse_existing,
    refuse_other,
    say,
    say_notes,
    show_all,
)
from uniemox.cli.data_options import NO_FILES, Exclude, FileOptions, Pool, Splits, Texts
from uniemox.cli.data_preparation import describe, persons, shard
from uniemox.errors import ConfigError, DataError
from uniemox.io.parallel import ONE_A_CORE
from uniemox.plurals import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from uniemox.data.audit import Audit, TrainingImages
    from uniemox.data.sample import DataSet, Sample
    from uniemox.data.split_choice import Choice

# A sample's text is cut after this number of characters.
TEXT_LENGTH = 300
# Labels that a note names.
MAX_NAMED = 5
# Printed names of annotations, by field of `Sample`.
ANNOTATION_NAMES = {
    "distribution": "distribution",
    "valence": "valence, arousal",
    "text": "text",
    "persons": "people looked for",
    "target_box": "target person",
    "domain": "domain",
}
data = App(
    name="data",
    help=(
        "Inspect, check, split and pack data sets, detect the people in them, and describe the images in words.\n\n"
        "A data set is KIND:PATH, such as fi:photos/fi or csv:table.csv?labels=mikels; see `uniemox docs data`. "
        "Several separated by commas, emoset:EmoSet,fi:FI, are opened as one with the labels of the first."
    ),
)

for command in (persons, describe, shard):
    data.command(command)


@data.command
def show(
    source: str,
    /,
    *,
    limit: int | None = None,
    as_json: JsonFlag = False,
    files: FileOptions = NO_FILES,
    texts: Texts = None,
) -> None:
    """Show a data set: its classes, splits, annotations and a few samples.

    For example:

    - uniemox data show fi:photos/fi
    - uniemox data show 'emotion6:photos/emotion6?label=vote' --json

    Args:
        source: KIND:PATH.
        limit: Maximum number of samples to show, 0 or more. Default: 5; with --json all.
        as_json: Print one JSON object per sample: path, label, kind, distribution, boxes, confidences, target_box, key,
            valence, arousal, split, text, domain, group; null if unknown. Samples of EMOTIC also have categories and
            dominance.
    """
    if limit is not None and limit < 0:
        raise ConfigError(f"--limit must be at least 0, got {limit}")
    dataset = files.open(source, texts=texts)
    if as_json:
        for note in dataset.notes:
            say(note)
        for sample in dataset.samples[:limit]:
            print(json.dumps(_as_dict(dataset, sample)))
        return
    show_all(_data_tables(dataset, 5 if limit is None else limit))


@data.command
def check(
    source: str,
    /,
    *,
    against: str | None = None,
    html: Files = None,
    exclude: Exclude = None,
    splits: Splits = None,
    as_json: JsonFlag = False,
    pool: Pool = ONE_A_CORE,
) -> None:
    """Find broken files, duplicates, contradicting labels, placeholders, leaks between splits, and drift.

    Near duplicates are found even if they were re-encoded, scaled, mirrored or slightly cropped.

    For example:

    - uniemox data check fi:photos/fi --html fi.html
    - uniemox data check 'folder:archive?labels=none'
    - uniemox data check emoset:EmoSet,fi:FI --json > check.json
    - uniemox data check fi:photos/fi --against embedded
    - uniemox data check fi:photos/fi --json > check.json; uniemox data show fi:photos/fi --exclude check.json

    Args:
        source: KIND:PATH.
        against: A second data set, KIND:PATH, that must not share an image with this one, such as a test set; or a
            model (embedded, small, a run or a model file), on whose training images it must not be scored.
        html: HTML file to write: a page that shows the images with problems.
        as_json: Print the result as JSON. Save it to a file and give that file to --exclude of other commands.
    """
    refuse_other(html, ".html")
    need("sklearn", "scipy", extra="data")
    from uniemox.data.audit import audit, write_page
    from uniemox.data.source import open_data

    ours = open_data(source, exclude=exclude, splits=splits)
    theirs = None if against is None else _open_against(against)
    if folder_labels := _note_on_folders(source, ours):
        say(folder_labels)
    # Those of several data sets name the parts, too.
    for note in ours.notes:
        say(note)
    with progress_bar() as progress:
        report = audit(ours, theirs, pool=pool, on_progress=progress.show)
    if html is not None:
        write_page(report, html)
        say(f"wrote {html}")
    show_all([json.dumps(report.as_dict())] if as_json else _audit_tables(report))


def _open_against(name: str) -> "DataSet | TrainingImages":
    """Open a data set, or the hashes of a model's training images.

    Raises:
        DataError: For a model whose training images are not known.
    """
    from uniemox.data.audit import TrainingImages
    from uniemox.data.seen import SEEN, read_seen
    from uniemox.data.source import open_data
    from uniemox.io.weight_names import file_in_package

    path = file_in_package(Path(name))
    if not path.exists():
        return open_data(name)
    hashes = read_seen(path)
    if not hashes:
        raise DataError(
            f"--against {name}: its training images are not known, because there is no {SEEN} next to it; give the "
            "data set that it was trained on, KIND:PATH"
        )
    return TrainingImages(name, frozenset(hashes))


def _note_on_folders(source: str, data: "DataSet") -> str:
    """Return a sentence about folders whose names are labels of no published set; empty for other data.

    The folders of an archive, such as 2001 and 2002, are no labels, and copies across them no contradiction.
    """
    from uniemox.data.readers.folders import WITHOUT_LABELS
    from uniemox.data.source import parse_source
    from uniemox.labels import CUSTOM

    labels = data.labels.labels
    if data.parts or not labels or data.labels.name != CUSTOM:
        return ""
    kind, path, options = parse_source(source)
    if kind != "folder" or "labels" in options:
        return ""
    names = ", ".join(labels[:MAX_NAMED])
    if len(labels) > MAX_NAMED:
        names += f" and {len(labels) - MAX_NAMED} more"
    unlabelled = shlex.quote(f"folder:{path}?labels={WITHOUT_LABELS}")
    return f"the subfolders are read as labels: {names}. If they are not labels, check {unlabelled}"


@dataclass(frozen=True, kw_only=True)
class SchemeOptions:
    """Options for splitting a data set."""

    ratio: str | None = None
    """Shares of train, val and test, or of train and test, as any numbers. Default: 80/10/10."""
    seed: int = 0
    """Random seed; the same seed gives the same splits wherever the data are stored."""
    paper: Flag = False
    """Split as the authors of arXiv 2409.18877, with official splits, and ratios of their code, instead of --ratio."""
    schemes: int = 1
    """Number of random splits (schemes) to try; the one with the most similar colours is used (figure 6)."""
    hold_out: int | None = None
    """Keep the existing splits, but move this number of images from train to test."""
    together: Flag = False
    """Keep exact copies of an image in one split, like a group."""


@data.command
def split(
    source: str,
    file: Path,
    /,
    *,
    plot: Files = None,
    fraction: float | None = None,
    exclude: Exclude = None,
    as_json: JsonObject = False,
    scheme: Annotated[SchemeOptions, Parameter(name="*")] = SchemeOptions(),
) -> None:
    """Split a data set into train, val and test. Each class has the same ratio; images of one group stay together.

    For example:

    - uniemox data split emotion6:photos/emotion6 emotion6.json --ratio 70/10/20
    - uniemox data split emo8:photos/emo8 emo8.json --schemes 100 --plot emo8.png
    - uniemox data split caer-s:photos/caer caer.json --paper

    Args:
        source: KIND:PATH.
        file: JSON file to write, which must not exist; commands read it with --splits.
        plot: Plot the colour differences of the tried --schemes to this file, such as .png, .svg or .pdf.
        fraction: Keep only this share of every class of train (figure 7). Smaller shares are part of larger ones.
    """
    refuse_other(file, ".json")
    refuse_existing(file)
    need("sklearn", "matplotlib", extra="data")
    from uniemox.data import split_choice, splits
    from uniemox.data.hashes import fingerprints, hashes_of_copies
    from uniemox.data.source import open_data
    from uniemox.data.split_files import write_splits

    _check_plot(plot)
    dataset = open_data(source, exclude=exclude)
    say_notes(dataset)
    with progress_bar() as progress:
        hashed, _ = fingerprints(dataset.samples, progress.show)
    hashes = [fingerprint.sha256 for fingerprint in hashed]
    if scheme.together:
        dataset = replace(dataset, samples=splits.join_copies(dataset.samples, hashes_of_copies(hashed)))
    description, assignment, choice = _draw(dataset, source, scheme)
    if plot is not None:
        if choice is None:
            raise ConfigError("--plot shows the choice among schemes: give --schemes 100 too")
        split_choice.plot_choice(choice, dataset, plot)
        say(f"wrote {plot}")
    if fraction is not None:
        description += f", {fraction:g} of train"
        assignment = splits.keep_fraction(assignment, dataset.samples, fraction, scheme.seed)
    digest = write_splits(file, assignment, source=source, how=description)
    copies = splits.count_copies_across_splits(dataset.samples, hashes, assignment)
    if copies:
        remedy = "exclude them (uniemox data check --json, --exclude)"
        if not scheme.together:
            remedy += ", or give --together to keep copies in one split"
        say(f"{counted(copies, 'image has', 'images have')} an exact copy in another split: {remedy}")
    sizes = dict(sorted(Counter(assignment.values()).items()))
    for label, names in splits.lacking_splits(dataset, assignment, sizes).items():
        say(f"{label} has no image in {' and '.join(names)}: scores there leave out this class; add images of it")
    words = (
        f"wrote {file}: {', '.join(f'{name} {size}' for name, size in sizes.items())} ({description}), sha256 {digest}"
    )
    values = {"file": str(file), "sha256": digest, "how": description, "sizes": sizes, "straddling_copies": copies}
    print(json.dumps(values) if as_json else words)


def _check_plot(plot: Path | None) -> None:
    """Raise ConfigError for a file that matplotlib can't write."""
    if plot is not None and plot.suffix:
        from matplotlib.backend_bases import FigureCanvasBase

        if plot.suffix[1:].lower() not in FigureCanvasBase.filetypes:
            raise ConfigError(f"--plot can't write {plot.name}; use .png, .svg or .pdf")


def _draw(data: "DataSet", source: str, options: SchemeOptions) -> "tuple[str, dict[str, str], Choice | None]":
    """Return a description of the split, the split, and the choice if several schemes were compared."""
    from uniemox.data import split_choice, splits

    seed = options.seed
    schemes = options.schemes
    if schemes < 1:
        raise ConfigError(f"--schemes must be at least 1, got {schemes}")
    if options.paper and (options.ratio is not None or schemes > 1):
        raise ConfigError("--paper sets ratio and schemes itself; leave out --ratio and --schemes")
    if options.hold_out is not None:
        if options.ratio is not None or options.paper or schemes > 1:
            raise ConfigError("--hold-out splits only train; leave out --ratio, --paper and --schemes")
        held_out = splits.hold_out(data.samples, options.hold_out, seed)
        return f"{options.hold_out} of train held out, seed {seed}", held_out, None
    if options.paper:
        return f"as the paper, seed {seed}", *_draw_as_paper(data, source, seed)
    ratio = options.ratio or "80/10/10"
    shares = splits.parse_ratio(ratio)
    choice = None
    description = f"{ratio}, seed {seed}"
    if schemes > 1:
        choice = split_choice.choose_scheme(data.samples, shares, _histograms(data), range(seed, seed + schemes))
        scheme = choice.scheme
        description = f"{ratio}, the best of {schemes} schemes from seed {seed}: seed {choice.seed}"
    else:
        scheme = splits.split_samples(data.samples, shares, seed)
    for name in shares.keys() - set(scheme.values()):
        say(f"no sample went to {name}: there are too few, or the groups are too large")
    if note := splits.note_on_shares(data.samples, scheme, shares):
        say(note)
    return description, scheme, choice


def _draw_as_paper(data: "DataSet", source: str, seed: int) -> "tuple[dict[str, str], Choice | None]":
    """Return the paper's split of a data set, or of each part, and the choice if schemes were compared."""
    from uniemox.data import split_choice
    from uniemox.data.source import open_data, parse_source

    if not data.parts:
        return split_choice.paper_split(parse_source(source)[0], data, seed, lambda: _histograms(data))
    group_of = {sample.key: sample.group for sample in data.samples}
    scheme: dict[str, str] = {}
    for part in data.parts:
        # The union has mapped the labels; the paper's split is stratified by the part's own ones.
        dataset = open_data(part.source)
        keys = ((sample, f"{part.name}/{sample.key}") for sample in dataset.samples)
        part_data = replace(
            dataset, samples=[replace(sample, group=group_of[key]) for sample, key in keys if key in group_of]
        )
        assignment, _ = split_choice.paper_split(
            parse_source(part.source)[0], part_data, seed, partial(_histograms, part_data)
        )
        scheme |= {f"{part.name}/{key}": name for key, name in assignment.items()}
    return scheme, None


def _histograms(data: "DataSet") -> "NDArray[np.floating]":
    """Return colour histograms of all samples, (N, D); an unreadable image gets the mean of the others."""
    import numpy as np

    from uniemox.data.inspection import scan

    with progress_bar() as progress:
        scans = scan(data.samples, on_progress=lambda _, done, total: progress.show("looking at colours", done, total))
    readable = [scan_result.histogram for scan_result in scans if scan_result.histogram is not None]
    if not readable:
        raise ConfigError(f"{data.name}: none of its images can be read, so there are no colours to compare")
    mean = np.mean(readable, axis=0)
    return np.stack([mean if scan_result.histogram is None else scan_result.histogram for scan_result in scans])


def _as_dict(data: "DataSet", sample: "Sample") -> dict[str, Any]:
    """Return a sample in JSON-serialisable form; unknown values are null."""
    unchanged = ("key", "valence", "arousal", "split", "text", "domain", "group")
    several: dict[str, Any] = {}
    if sample.categories is not None:
        several["categories"] = list(data.words_of(sample))
    if sample.dominance is not None:
        several["dominance"] = sample.dominance
    return {
        "path": str(sample.image),
        "label": data.label_of(sample),
        "kind": data.labels.kind,
        "distribution": None if sample.distribution is None else dict(sample.distribution),
        "boxes": None if sample.persons is None else [list(person.box) for person in sample.persons],
        "confidences": None if sample.persons is None else [person.confidence for person in sample.persons],
        "target_box": None if sample.target_box is None else list(sample.target_box),
        **{name: getattr(sample, name) for name in unchanged},
        **several,
    }


def _data_tables(data: "DataSet", examples: int) -> Iterator[Table | str]:
    """Yield classes by split, the number of samples with each annotation, notes, and a few samples."""
    order = {"train": 0, "val": 1, "test": 2}
    splits = sorted({sample.split or "" for sample in data.samples}, key=lambda split: (order.get(split, 3), split))
    counts = Counter((index, sample.split or "") for sample in data.samples for index in (sample.classes or (None,)))
    yield f"{data.name}: {counted(len(data), 'sample')}, {data.labels.name} ({data.labels.kind})"
    no_split = "all" if splits == [""] else "no split"
    table = Table("label", *(Column(split or no_split, justify="right") for split in splits))
    for i, label in enumerate(data.labels.labels):
        table.add_row(Text(label), *(str(counts[i, split]) for split in splits))
    if any(label is None for label, _ in counts):
        table.add_row("(no label)", *(str(counts[None, split]) for split in splits))
    yield table
    totals = {
        name: sum(getattr(sample, field) is not None for sample in data.samples)
        for field, name in ANNOTATION_NAMES.items()
    }
    words = ", ".join(f"{name} {count}" for name, count in totals.items() if count)
    yield f"known of samples: {words or 'labels only'}"
    yield from (f"note: {note}" for note in data.notes)
    for sample in data.samples[:examples]:
        label = ", ".join(data.words_of(sample)) or "(no label)"
        yield f"  {sample.image}  {label}" + (f"  {shorten(sample.text, TEXT_LENGTH)}" if sample.text else "")


def _audit_tables(report: "Audit") -> Iterator[Table | str]:
    """Yield the number of problems of each kind with examples, and the drift between splits."""
    yield f"{report.name}: {counted(report.count, 'sample')}"
    table = Table("", Column("groups", justify="right"), Column("samples", justify="right"), "for example")
    for kind, groups in report.groups.items():
        example = f"{groups[0].members[0].sample.key} {groups[0].reason}" if groups else ""
        samples = sum(len(group.members) for group in groups)
        table.add_row(kind.replace("_", " "), str(len(groups)), str(samples), Text(example))
    yield table
    sizes = sorted((sum(row.values()), label) for label, row in report.classes.items())
    if sizes:
        fewest, rarest = sizes[0]
        most, commonest = sizes[-1]
        yield f"classes: from {fewest} ({rarest}) to {most} ({commonest}) samples"
    for drift in report.drift:
        names = " and ".join(drift.splits)
        verdict = "more than by chance" if drift.distance > drift.by_chance else "as by chance"
        yield f"colours of {names} differ by {drift.distance:.3f} (chance {drift.by_chance:.3f}): {verdict}"
    excluded = counted(len(report.exclude), "sample")
    yield f"{excluded} should be excluded: --json lists them (for --exclude), --html shows them"
