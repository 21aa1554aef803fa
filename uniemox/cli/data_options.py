"""The options of all commands that open a data set: files that say more of its images."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from uniemox.cli.console import Files

if TYPE_CHECKING:
    from uniemox.data.sample import DataSet


@dataclass(frozen=True, kw_only=True)
class DataFiles:
    """Files beside a data set."""

    persons: Files = None
    """File of `data persons`; if not given, the one beside the data is used."""
    splits: Files = None
    """File of `data split`, such as RUN/splits.json."""
    exclude: Files = None
    """File of `data check --json`; the images in its list "exclude" are left out."""

    def open(self, source: str, **options: Any) -> "DataSet":
        """The data set.  source: KIND:PATH.  options: of `open_data`."""
        from uniemox.data.source import open_data

        return open_data(source, **vars(self), **options)

    def words(self) -> list[str]:
        """These options as they are typed for a command that takes persons, splits and exclude."""
        given = ((name, getattr(self, name)) for name in ("persons", "splits", "exclude"))
        return [word for name, file in given if file is not None for word in (f"--{name}", str(file))]


@dataclass(frozen=True, kw_only=True)
class DataFilesWithTexts(DataFiles):
    """The same, with texts."""

    texts: Files = None
    """File of `data describe`; if not given, the one beside the data is used."""


FileOptions = Annotated[DataFiles, Parameter(name="*")]
FileAndTextOptions = Annotated[DataFilesWithTexts, Parameter(name="*")]
NO_FILES, NO_FILES_OR_TEXTS = DataFiles(), DataFilesWithTexts()
