"""Published splits: which images of a data set the lists of its authors name.

Names are compared with the images' keys from their end on, because lists begin with folders of other machines, or leave
folders out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uniemox.data.readers.folders import SPLITS
from uniemox.data.readers.paths import key_of
from uniemox.data.sample import DataSet
from uniemox.data.split_folders import IMAGES
from uniemox.data.split_lists import FORMS, ListedImage, ListedLine, is_named_as_image, read_lists, unread_lists
from uniemox.errors import DataError, LabelError
from uniemox.io.files import plain_cell
from uniemox.labels import LabelSet
from uniemox.plurals import counted
from uniemox.spelling import spelled

# Maximum number of repeated images that an error names.
MAX_NAMED = 5
# Number of lines, evenly spaced, by which the column of names is found.
COMPARED_LINES = 2_000


def scheme_of_lists(path: Path, data: DataSet) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the split of each listed image of a data set, and notes.

    Args:
        path: A list with the split of each image, or a folder of lists whose names tell the split.
        data: The data set; the people of an image share its split.

    Returns:
        The split by key, and notes about listed images that the data lack, and images that no list names.

    Raises:
        DataError: With file and line, if a list has another form, a name fits several images, an image is listed twice,
            or no listed image is in the data.
    """
    listed = read_lists(path)
    if not listed:
        raise DataError(f"{path}: lists no image; {FORMS}")
    people = Counter(sample.image_key for sample in data.samples)
    images = _ImageNames(people)
    entries: dict[str, list[ListedImage]] = defaultdict(list)
    absent = []
    column = images.name_column([line for line in listed if line.cells], data.name)
    for line in listed:
        match = images.find_first(line, column, data.name)
        if match is not None:
            key, reading = match
            entries[key].append(reading)
        elif line.problem:
            raise DataError(line.problem)
        elif not line.is_remark:
            absent.append(_shown(line))
    if not entries:
        first = _shown(listed[0])
        raise DataError(
            f"{path}: none of its {counted(len(listed), 'image')} is in {data.name}, such as {first.name} "
            f"({first.where}); give the lists of this data set"
        )
    _refuse_repeated(entries, people)
    scheme = {sample.key: entries[sample.image_key][0].split for sample in data.samples if sample.image_key in entries}
    notes = [*_notes(absent, sorted(people.keys() - entries.keys())), *_other_labels(entries, data)]
    if path.is_dir() and (unread := unread_lists(path)):
        notes.append(
            f"{path} also has {', '.join(unread)}: not read, because the name tells none of train, val and test"
        )
    return scheme, tuple(notes)


@dataclass(frozen=True, slots=True)
class _ImageName:
    """Name of an image in the form that is compared: spelled alike, in lower case."""

    folders: tuple[str, ...]
    file: str

    @classmethod
    def of(cls, name: str) -> "_ImageName":
        """Divide a name with /."""
        *folders, file = spelled(name).casefold().split("/")
        return cls(tuple(folders), file)

    @property
    def stem(self) -> str:
        """File without its ending."""
        return self.file.rpartition(".")[0] or self.file

    @property
    def class_folders(self) -> tuple[str, ...]:
        """Folders without those above the classes: splits, and Emotion6's images."""
        folders = self.folders
        while folders and (folders[0] in SPLITS or folders[0] == IMAGES):
            folders = folders[1:]
        return folders

    @property
    def last_folders(self) -> set[str]:
        """Last folder, and "" if a name with any folders may mean this image."""
        folders = set(self.folders[-1:])
        return folders if self.class_folders else folders | {""}


class _ImageNames:
    """Images of a data set, looked up by the ends of their keys.

    Args:
        keys: Keys of the images.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self.names = {key: _ImageName.of(key) for key in keys}
        # By file or stem, all keys, and by the folder of the file, too: thousands of images may have one name.
        self.by_name: dict[str, list[str]] = defaultdict(list)
        self.by_folder: dict[tuple[str, str], list[str]] = defaultdict(list)
        for key, name in self.names.items():
            for file in {name.file, name.stem}:
                self.by_name[file].append(key)
                for folder in name.last_folders:
                    self.by_folder[folder, file].append(key)

    def name_column(self, lines: Sequence[ListedLine], data_name: str) -> int | None:
        """Return the column of `ListedLine.cells` that has the names of images; None if none has any.

        The columns with the most images are compared. First come names with a folder of the image, then other words.

        Raises:
            DataError: If two columns of numbers may be the names, such as one of rows and one of images.
        """
        lines = lines[:: max(1, len(lines) // COMPARED_LINES)]
        columns = _columns(lines, self, data_name)
        most = max((len(column.images) for column in columns), default=0)
        likely = [column for column in columns if 2 * len(column.images) >= most > 0]
        for kind in ("folder", "word"):
            for column in likely:
                if column.kind == kind:
                    return column.number
        numbers = [column.number for column in likely if column.kind == "number"]
        if len(numbers) > 1:
            self._refuse_two_names(lines, numbers[0], numbers[1], data_name)
        return likely[0].number if likely else None

    def _refuse_two_names(self, lines: Sequence[ListedLine], first: int, second: int, data_name: str) -> None:
        """Refuse lines in which the cells of two columns are different images.

        Raises:
            DataError: For the first such line.
        """
        for line in lines:
            if max(first, second) >= len(line.cells):
                continue
            cell = line.cells[first]
            other_cell = line.cells[second]
            key = self._only_match(cell, data_name)
            other_key = self._only_match(other_cell, data_name)
            if key is not None and other_key is not None and key != other_key:
                raise DataError(
                    f"{cell.where}: {cell.name} and {other_cell.name} are both images of {data_name}, {key} and "
                    f"{other_key}; give the table a header with path and split"
                )

    def find_first(self, line: ListedLine, column: int | None, data_name: str) -> tuple[str, ListedImage] | None:
        """Return the key of the first reading of a line that is an image of the data set, and the reading.

        Args:
            line: The line.
            column: Result of `name_column`.
            data_name: Name of the data set in messages.

        Raises:
            DataError: If several images fit.
        """
        cells = () if column is None else line.cells[column : column + 1]
        for reading in (*line.readings, *cells):
            key = self.find(reading, data_name)
            if key is not None:
                return key, reading
        return None

    def find(self, entry: ListedImage, data_name: str) -> str | None:
        """Return the key of a listed image; None if the data set lacks it.

        Raises:
            DataError: If several images fit.
        """
        key = self._find(entry, key_of(entry.name), data_name)
        plain_name = plain_cell(entry.name)
        if key is None and plain_name != entry.name:
            # Our own tables mark names that a spreadsheet would compute.
            return self._find(entry, key_of(plain_name), data_name)
        return key

    def _only_match(self, cell: ListedImage, data_name: str) -> str | None:
        """Return the key of the only image that a cell fits; None if it fits none or several."""
        try:
            return self.find(cell, data_name) if cell.name else None
        except DataError:
            return None

    def _candidates(self, name: _ImageName) -> list[str]:
        """Return the keys with the file of a name, or the stem if it has no ending, that may also have its folders."""
        if not name.folders:
            keys = self.by_name.get(name.file, [])
        else:
            with_folder = self.by_folder.get((name.folders[-1], name.file), [])
            keys = list(dict.fromkeys((*with_folder, *self.by_folder.get(("", name.file), []))))
        if not is_named_as_image(name.file):
            return keys
        return [key for key in keys if self.names[key].file == name.file]

    def _find(self, entry: ListedImage, full_name: str, data_name: str) -> str | None:
        """Return the key of the image with a name; None if the data set lacks it.

        Raises:
            DataError: If several images fit.
        """
        if full_name in self.names:
            return full_name
        name = _ImageName.of(full_name)
        candidates = self._candidates(name)

        def fits(folders: Sequence[str]) -> bool:
            return len(folders) >= entry.min_folders and _same_end(folders, name.folders)

        fitting = [key for key in candidates if fits(self.names[key].folders)]
        # test/awe/1.jpg is another image than train/awe/1.jpg (CAER-S).
        names_split = any(folder in SPLITS for folder in name.folders)
        if not fitting and not names_split:
            fitting = [key for key in candidates if fits(self.names[key].class_folders)]
        if len(fitting) > 1:
            same_folders = [key for key in fitting if self.names[key].folders == name.folders]
            cased_name = spelled(full_name)
            same_name = [key for key in fitting if spelled(key) == cased_name]
            cased_parts = cased_name.split("/")
            same_case = [key for key in fitting if _same_end(spelled(key).split("/"), cased_parts)]
            fitting = same_name or same_folders or same_case or fitting
        if len(fitting) > 1:
            raise DataError(
                f"{entry.where}: {entry.name} fits {len(fitting)} images of {data_name}, {fitting[0]} and "
                f"{fitting[1]}; write it with its folders"
            )
        return fitting[0] if fitting else None


def _shown(line: ListedLine) -> ListedImage:
    """Return the reading of a line that messages name: the first cell, or the last reading."""
    return next((cell for cell in line.cells if cell.name), None) or line.readings[-1]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of lists without a header."""

    number: int
    images: frozenset[str]
    """Images that its cells name."""
    kind: Literal["folder", "word", "number", "other"]
    """folder: names with a folder of the image. other: words with a slash that agree with the images by chance."""


def _columns(lines: Sequence[ListedLine], images: _ImageNames, data_name: str) -> list[_Column]:
    """Return all columns of lines, with the images that they name."""
    columns = []
    for number in range(max((len(line.cells) for line in lines), default=0)):
        cells = [line.cells[number] for line in lines if number < len(line.cells)]
        keys = {cell.name: key for cell in cells if (key := images._only_match(cell, data_name)) is not None}
        columns.append(_Column(number, frozenset(keys.values()), _kind_of(keys, images)))
    return columns


def _kind_of(keys: Mapping[str, str], images: _ImageNames) -> Literal["folder", "word", "number", "other"]:
    """Return the kind of a column whose cells name images.  keys: image by cell."""
    if all(name.isdigit() for name in keys):
        return "number"
    with_slash = [name for name in keys if "/" in name or "\\" in name]
    if 2 * len(with_slash) <= len(keys):
        return "word"
    same_folder = [
        name for name in with_slash if _ImageName.of(key_of(name)).folders[-1:] == images.names[keys[name]].folders[-1:]
    ]
    return "folder" if 2 * len(same_folder) > len(with_slash) else "other"


def _same_end(first: Sequence[str], second: Sequence[str]) -> bool:
    """Return True if the shorter sequence is the end of the longer one."""
    count = min(len(first), len(second))
    return first[len(first) - count :] == second[len(second) - count :]


def _refuse_repeated(entries: Mapping[str, Sequence[ListedImage]], people: Mapping[str, int]) -> None:
    """Refuse images that are listed twice; data sets of people may have a row for each person, all in one split.

    Args:
        entries: Entries of the lists by image.
        people: Number of samples by image.

    Raises:
        DataError: With the names and places of the repeated images.
    """
    has_rows_of_people = max(people.values()) > 1
    repeated = {
        key: listed
        for key, listed in entries.items()
        if len({entry.split for entry in listed}) > 1 or (len(listed) > 1 and not has_rows_of_people)
    }
    if not repeated:
        return
    names = [
        f"{key} ({', '.join(f'{entry.split}: {entry.where}' for entry in listed[:2])})"
        for key, listed in list(repeated.items())[:MAX_NAMED]
    ]
    more = ", ..." if len(repeated) > MAX_NAMED else ""
    raise DataError(
        f"{counted(len(repeated), 'image is', 'images are')} listed twice: {'; '.join(names)}{more}; keep one entry of "
        "each, or ask the authors which of them is right"
    )


def _other_labels(entries: Mapping[str, Sequence[ListedImage]], data: DataSet) -> Iterator[str]:
    """Yield a note about images whose label in the lists is another one than in the data set."""
    labels_of: dict[str, set[str]] = defaultdict(set)
    for sample in data.samples:
        labels_of[sample.image_key].update(data.words_of(sample))
    differences = []
    for key, (entry, *_) in entries.items():
        listed = set(_labels_among(entry.words, data.labels))
        if listed and labels_of[key] and not listed & labels_of[key]:
            differences.append(
                f"{key} ({entry.where}: {' or '.join(sorted(listed))}; data: {' or '.join(sorted(labels_of[key]))})"
            )
    if differences:
        count = counted(len(differences), "image has", "images have")
        yield f"{count} another label in the lists than in the data, such as {differences[0]}; the data's labels count"


def _labels_among(words: Iterable[str], labels: LabelSet) -> Iterator[str]:
    """Yield the labels that words name."""
    for word in words:
        with suppress(LabelError):
            yield labels.labels[labels.index(word)]


def _notes(absent: Sequence[ListedImage], unlisted: Sequence[str]) -> Iterator[str]:
    """Yield a note about listed images that the data lack, and one about images that no list names."""
    if absent:
        count = counted(len(absent), "listed image is", "listed images are")
        by_split = ", ".join(f"{split} {number}" for split, number in Counter(entry.split for entry in absent).items())
        yield f"{count} not in the data ({by_split}), such as {absent[0].name} ({absent[0].where})"
    if unlisted:
        count = counted(len(unlisted), "image is in no list and was", "images are in no list and were")
        yield f"{count} left out, such as {unlisted[0]}"
