"""Options of commands for data, boxes of people, texts and splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from uniemox.io.parallel import PoolConfig

if TYPE_CHECKING:
    from uniemox.data.sample import DataSet


def _file(text: str) -> Any:
    return Parameter(negative="", help=text)


Persons = Annotated[Path | None, _file("File written by uniemox data persons. Default: the one next to the data.")]
Texts = Annotated[Path | None, _file("File written by uniemox data describe. Default: the one next to the data.")]
Splits = Annotated[
    Path | None,
    _file(
        "File of uniemox data split, splits.json of a run without --splits, a folder SPLIT/CLASS/IMAGE, or published "
        "lists: a table or JSON of names and splits, or a folder of train.txt, val.txt and test.txt."
    ),
]
Exclude = Annotated[
    Path | None, _file('File written by `data check --json`. The images in its list "exclude" are left out.')
]


@dataclass(frozen=True, kw_only=True)
class DataFiles:
    """Files that add boxes and splits to a data set, or exclude images."""

    persons: Persons = None
    splits: Splits = None
    exclude: Exclude = None

    def open(self, source: str, **options: Any) -> "DataSet":
        """Open the data set.

        Args:
            source: KIND:PATH.
            options: Keyword arguments of `open_data`.
        """
        from uniemox.data.source import open_data

        return open_data(source, **vars(self), **options)

    def words(self) -> list[str]:
        """Return these options as words of a command line."""
        return [word for name, file in vars(self).items() if file is not None for word in (f"--{name}", str(file))]


FileOptions = Annotated[DataFiles, Parameter(name="*")]
Pool = Annotated[PoolConfig, Parameter(name="*")]
NO_FILES = DataFiles()
