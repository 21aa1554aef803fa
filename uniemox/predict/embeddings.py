"""What a model reads its labels off, of many images, in one file for search, clusters and models of one's own."""

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, DataError
from uniemox.predict.prediction import Prediction
from uniemox.predict.tables import import_pyarrow

ENDINGS = (".npy", ".parquet")
ROWS = 1_000  # of a Parquet file that are in memory at once


class EmbeddingFile:
    """OUT.npy, (N, D) float32, with the images' paths in OUT.npy.txt, a line each; or OUT.parquet with both.

    Images that could not be read have no row. The file is there whole or not at all.
    Raises ConfigError for another ending or a file that is there already, DataError if it can't be written,
    MissingPackageError for Parquet without pyarrow.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix not in ENDINGS:
            raise ConfigError(f"{path}: expected a name that ends in {' or '.join(ENDINGS)}")
        if path.suffix == ".parquet":
            import_pyarrow()
        self.names = path.with_name(path.name + ".txt")
        there = next((one for one in (path, self.names) if os.path.exists(one)), None)
        if there is not None:
            raise ConfigError(f"{there} is there already; choose another name")
        self._partial = [one.with_name(one.name + ".partial") for one in (path, self.names)]
        self._open = ExitStack()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._rows, self._paths = (self._open.enter_context(one.open("w+b")) for one in self._partial)
        except OSError as error:
            raise DataError(f"{path} can't be written ({error.strerror}); choose another name") from error
        self.count, self.width = 0, 0

    def write(self, prediction: Prediction) -> None:
        """Add an image."""
        if prediction.embedding is None:
            return
        row = np.asarray(prediction.embedding, np.float32)
        self.count, self.width = self.count + 1, len(row)
        self._rows.write(row.tobytes())
        self._paths.write(" ".join((prediction.path or "").splitlines()).encode("utf-8", "backslashreplace") + b"\n")

    def finish(self) -> None:
        """Make the file of what was added. Raises DataError if that was nothing."""
        if not self.count:
            raise DataError(f"{self.path}: there is no image that could be read, so there are no embeddings")
        self._rows.flush()
        self._paths.flush()
        rows = np.memmap(self._partial[0], np.float32, "r", shape=(self.count, self.width))
        whole = self.path.with_name(self.path.name + ".whole")
        try:
            (self._as_parquet if self.path.suffix == ".parquet" else self._as_npy)(rows, whole)
            os.replace(whole, self.path)
        finally:
            whole.unlink(missing_ok=True)

    def _as_npy(self, rows: NDArray[np.float32], whole: Path) -> None:
        with whole.open("wb") as file:
            np.save(file, rows)
        os.replace(self._partial[1], self.names)

    def _as_parquet(self, rows: NDArray[np.float32], whole: Path) -> None:
        pa: Any = import_pyarrow()
        import pyarrow.parquet  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

        schema = pa.schema({"path": pa.string(), "embedding": pa.list_(pa.float32(), self.width)})
        self._paths.seek(0)
        names = [line.decode().rstrip("\n") for line in self._paths]
        with pyarrow.parquet.ParquetWriter(whole, schema) as writer:
            for first in range(0, self.count, ROWS):
                part = rows[first : first + ROWS]
                values = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), self.width)
                writer.write_table(pa.table([pa.array(names[first : first + ROWS]), values], schema=schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()
        for one in self._partial:
            one.unlink(missing_ok=True)
