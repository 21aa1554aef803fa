"""Open a data set by KIND:PATH, or several as one."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from uniemox.data.added_files import FILES, add_files
from uniemox.data.doubtful_labels import notes_on_labels, notes_on_rare_labels
from uniemox.data.joining import combine
from uniemox.data.kinds import CUSTOM_READER, READERS, reader_of
from uniemox.data.people import PERSONS, TEXTS
from uniemox.data.reader_options import typed_options
from uniemox.data.readers.folders import WITHOUT_LABELS
from uniemox.data.readers.paths import note_left_out
from uniemox.data.sample import DataSet
from uniemox.errors import ConfigError, DataError
from uniemox.plurals import counted

# Option of the first of several data sets, and its only value: `?union=joined`.
UNION = "union"
JOINS = "joined"


PathLike = str | os.PathLike[str]
ADDRESS = r"[:=][/\\]{2}|::"
"""Part of a source that is the address of another machine, or a chain of fsspec."""


def open_data(
    source: str,
    *,
    persons: PathLike | None = None,
    texts: PathLike | None = None,
    splits: PathLike | None = None,
    exclude: PathLike | None = None,
    with_texts: bool = True,
    from_file: bool = False,
) -> DataSet:
    """Open a data set, or several as one.

    Any kind takes its own files, as a union needs them: `fi:FI?splits=fi.json&exclude=check.json`. Several separated by
    commas, `emoset:EmoSet,fi:FI`, are one data set, see `combine`. With `?union=joined` on the first, it has the labels
    of all of them: `ube:UBE?union=joined,fi:FI`.

    Args:
        source: KIND:PATH with one of READERS, with options of its reader as in `emotion6:photos?label=vote`;
            `synthetic:N`; or your own reader, `mypackage.module:open_mine:PATH`, whose module is imported.
        from_file: The source is from a file, not typed by the user: other packages' readers and addresses are refused.
        persons: File of `uniemox data persons`; None: persons.jsonl next to the data, if it exists.
        texts: File of `uniemox data describe`; None: texts.jsonl next to the data, if it exists.
        splits: File of `uniemox data split`, folder `<split>/<class>/<image>` of copies, or published lists: a table or
            JSON of names and splits, or a folder of train.txt, val.txt and test.txt. Its splits replace the data set's.
            Samples that it lacks are left out.
        exclude: File of `uniemox data check --json`; the images in its list "exclude" are left out.
        with_texts: False ignores a file of texts next to the data.

    Raises:
        ConfigError: For an unknown kind or option.
        DataError: If a file is missing, damaged, or does not have the layout of its kind.
        LabelError: For several data sets whose labels are of different kinds or can't be mapped.
    """
    sources = split_sources(source)
    # A file from a stranger must not open addresses or import code.
    is_foreign = re.search(ADDRESS, source) or any(re.match(CUSTOM_READER, part) for part in sources)
    if from_file and is_foreign:
        raise ConfigError(
            f"{source!r}, read from a file, is an address or needs another package: opened only if you type it"
        )
    files = _as_paths(persons=persons, texts=texts)
    # Also for a single source, because it refuses the option where it has no effect.
    is_joined = joins_labels(sources)
    if len(sources) > 1:
        kinds = [parse_source(part)[0].rpartition(":")[2] for part in sources]
        opened = [_open_single(part, {}, with_texts=with_texts) for part in sources]
        members = list(zip(kinds, opened, strict=True))
        data = add_files(combine(members, is_joined=is_joined), files)
    else:
        data = _open_single(source, files, with_texts=with_texts)
    return add_files(data, _as_paths(splits=splits, exclude=exclude))


def _as_paths(**files: PathLike | None) -> dict[str, Path | None]:
    return {name: None if file is None else Path(file) for name, file in files.items()}


def _open_single(source: str, files: Mapping[str, Path | None], *, with_texts: bool) -> DataSet:
    """Open one data set, with the files from its name or `files`, and people and texts found in its folder."""
    kind, path, options = parse_source(source)
    # `joins_labels` has read this one.
    options.pop(UNION, None)
    files = {**files, **{name: Path(options.pop(name)) for name in FILES if name in options}}
    reader = reader_of(kind)
    data = reader.read(reader.as_argument(path), **typed_options(kind, reader.read, options))
    if not isinstance(data, DataSet):
        raise ConfigError(f"{kind} must return a uniemox.DataSet, got {type(data).__name__}")
    if len({sample.key for sample in data.samples}) < len(data):
        raise DataError(f"{source}: two of its samples have the same name; give each its own row or file")

    for name, default_name in (("persons", PERSONS), ("texts", TEXTS)):
        is_wanted = reader.has_files_beside and (name != "texts" or with_texts)
        if files.get(name) is None and is_wanted and (sidecar := folder_of(source) / default_name).is_file():
            files[name] = sidecar
    left_out = note_left_out(Path(path)) if reader.walks_folder else ()
    data = add_files(replace(data, name=source, notes=(*data.notes, *left_out)), files)
    images_of_class = Counter(sample.label for sample in data.samples)
    counts = {label: images_of_class[i] for i, label in enumerate(data.labels.labels)}
    notes_of_labels = [*notes_on_labels(data.labels), *notes_on_rare_labels(data.labels, counts)]
    return replace(data, notes=(*data.notes, *notes_of_labels, *_split_notes(data)))


def _split_notes(data: DataSet) -> list[str]:
    """Return a note on samples without a split beside others with one."""
    count = sum(sample.split is None for sample in data.samples)
    if count in (0, len(data)):
        return []
    samples = counted(count, "sample is", "samples are")
    return [f"{samples} in no split: training leaves them out, and so do the scores of a split"]


def split_sources(source: str) -> list[str]:
    """Split KIND:PATH,KIND:PATH into data sets; a comma without a following KIND: is part of a path.

    >>> split_sources("emoset:EmoSet,csv:a,b.csv,fi:FI")
    ['emoset:EmoSet', 'csv:a,b.csv', 'fi:FI']
    """
    return re.split(rf",(?=(?:{'|'.join(map(re.escape, READERS))}|{CUSTOM_READER}):)", source)


def joins_labels(sources: Sequence[str]) -> bool:
    """Return True if a union keeps the labels of all its data sets, by option `union=joined` of the first.

    Args:
        sources: From `split_sources`.

    Raises:
        ConfigError: For another value, or where the option has no effect.
    """
    options = [parse_source(source)[2] for source in sources]
    value = options[0].get(UNION)
    if value not in (None, JOINS):
        raise ConfigError(f"{sources[0]}: option {UNION} must be {JOINS}, got {value!r}")
    if value is not None and len(sources) == 1:
        raise ConfigError(f"{sources[0]}: option {UNION} is for several data sets, separated by commas")
    for source, source_options in zip(sources[1:], options[1:], strict=True):
        if UNION in source_options:
            raise ConfigError(f"{source}: option {UNION} belongs to the first of several data sets")
    return value is not None


def parse_source(source: str) -> tuple[str, str, dict[str, str]]:
    """Parse kind, path and options of KIND:PATH?option=value&option=value.

    A question mark that options don't follow is part of the path, and so is one in the name of an existing folder.

    Raises:
        ConfigError: For several data sets, an unknown kind, or a repeated option.

    >>> parse_source("emotion6:photos/emotion6?label=vote")
    ('emotion6', 'photos/emotion6', {'label': 'vote'})
    """
    if len(split_sources(source)) > 1:
        raise ConfigError(f"{source!r} names several data sets where one is expected")
    custom = re.match(rf"({CUSTOM_READER}):", source)
    if custom:
        kind = custom[1]
        location = source[custom.end() :]
    else:
        kind, _, location = source.partition(":")
    if not location or not (custom or kind in READERS):
        raise ConfigError(
            f"{source!r} is not a data set; write KIND:PATH, with one of {', '.join(READERS)} as KIND, or your own "
            f"function, mypackage.module:function:PATH{_suggested_kind(source)}"
        )
    path, mark, query = location.rpartition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    if not mark or not all(equals and name for name, equals, _ in pairs) or os.path.exists(location):
        return kind, location, {}
    names = [name for name, _, _ in pairs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ConfigError(f"{source!r} has the option {repeated} twice; give it once")
    return kind, path, {name: value for name, _, value in pairs}


def _suggested_kind(path: str) -> str:
    """Return the end of an error for a path without its kind; empty if there is no such folder or table."""
    if os.path.isdir(path):
        without = shlex.quote(f"folder:{path}?labels={WITHOUT_LABELS}")
        return f"; for a folder of class folders, write folder:{path}, and for images without labels {without}"
    if os.path.isfile(path) and path.endswith(".csv"):
        return f"; for this table, write csv:{path}"
    return ""


def public_name(source: str) -> str:
    """Return the name of a data set or model without folders: only the last part of each path.

    >>> public_name("fi:/data/ada/photos/fi,csv:tables/mine.csv?root=/data/mine, split val")
    'fi:fi,csv:mine.csv?root=mine, split val'
    """
    return re.sub(r"[^\s:,=?]*[/\\]+([^\s/\\,?]*)", r"\1", source)


def paths_of(source: str) -> list[Path]:
    """Return the paths that a source names: of its data, and of the files in its options."""
    paths = []
    for part in split_sources(source):
        _, path, options = parse_source(part)
        paths += [Path(path), *(Path(options[name]) for name in FILES if name in options)]
    return paths


def folder_of(source: str) -> Path:
    """Return the folder for people and texts of a data set.

    Raises:
        ConfigError: For shards, synthetic scenes, and several data sets.
    """
    if len(split_sources(source)) > 1:
        raise ConfigError(f"{source}: no file can be stored next to several data sets; give a file with --out")
    kind, path, _ = parse_source(source)
    if kind in READERS and not READERS[kind].has_files_beside:
        raise ConfigError(f"{source}: no file can be stored next to {kind} data; give a file with --out")
    if kind == "csv" or Path(path).is_file():
        return Path(path).parent
    return Path(path)
