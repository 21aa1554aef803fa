"""Published splits: which images of a data set the lists of its authors name.

Names are compared with the images' keys from their end on, because lists begin with folders of other machines, or leave
folders out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniemox.data.readers.folders import SPLITS
from uniemox.data.readers.paths import key_of
from uniemox.data.sample import DataSet
from uniemox.data.split_folders import IMAGES
from uniemox.data.split_lists import FORMS, ListedImage, ListedLine, is_named_as_image, read_lists
from uniemox.errors import DataError
from uniemox.io.files import plain_cell
from uniemox.plurals import counted
from uniemox.spelling import spelled

# Maximum number of repeated images that an error names.
MAX_NAMED = 5


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
    for line in listed:
        match = images.find_first(line, data.name)
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
    return scheme, tuple(_notes(absent, sorted(people.keys() - entries.keys())))


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

    def find_first(self, line: ListedLine, data_name: str) -> tuple[str, ListedImage] | None:
        """Return the key of the first reading of a line that is an image of the data set, and the reading.

        Raises:
            DataError: If several images fit.
        """
        for reading in line.readings:
            key = self.find(reading, data_name)
            if key is not None:
                return key, reading
        matches = {key: cell for cell in line.alternatives if (key := self.find(cell, data_name)) is not None}
        if len(matches) > 1:
            (first, cell), (second, other_cell), *_ = matches.items()
            raise DataError(
                f"{cell.where}: {cell.name} and {other_cell.name} are both images of {data_name}, {first} and "
                f"{second}; give the table a header with path and split"
            )
        return next(iter(matches.items()), None)

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
            cased = spelled(full_name).split("/")
            same_case = [key for key in fitting if _same_end(spelled(key).split("/"), cased)]
            fitting = same_case or same_folders or fitting
        if len(fitting) > 1:
            raise DataError(
                f"{entry.where}: {entry.name} fits {len(fitting)} images of {data_name}, {fitting[0]} and "
                f"{fitting[1]}; write it with its folders"
            )
        return fitting[0] if fitting else None


def _shown(line: ListedLine) -> ListedImage:
    """Return the reading of a line that messages name: the last ones divide the line into cells."""
    return (*line.alternatives[:1], *line.readings)[-1]


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


def _notes(absent: Sequence[ListedImage], unlisted: Sequence[str]) -> Iterator[str]:
    """Yield a note about listed images that the data lack, and one about images that no list names."""
    if absent:
        count = counted(len(absent), "listed image is", "listed images are")
        by_split = ", ".join(f"{split} {number}" for split, number in Counter(entry.split for entry in absent).items())
        yield f"{count} not in the data ({by_split}), such as {absent[0].name} ({absent[0].where})"
    if unlisted:
        count = counted(len(unlisted), "image is in no list and was", "images are in no list and were")
        yield f"{count} left out, such as {unlisted[0]}"
