"""File of embeddings: an array of NumPy with a list of names, or a Parquet table."""

import os
import shutil
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from uniemox.errors import ConfigError, DataError
from uniemox.io.files import replacing, writing
from uniemox.predict.prediction import Prediction
from uniemox.predict.tables import import_pyarrow
from uniemox.predict.writing import check_ending

EMBEDDINGS = (".npy", ".parquet")
EMBEDDING_ROWS = 1_000  # Parquet rows in memory at once


def names_of(embeddings: Path) -> Path:
    """Return the file of the paths of the images that a .npy file has features of."""
    return embeddings.with_name(embeddings.name + ".txt")


class EmbeddingFile:
    """OUT.npy, (N, D) float32, with the images' paths in OUT.npy.txt, one per line; or OUT.parquet with both.

    Unreadable images have no row. `finish` writes the file atomically.

    Raises:
        ConfigError: For another ending or an existing file.
        DataError: If it can't be written.
        MissingPackageError: For Parquet without pyarrow.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = names_of(path)
        check_ending(path, EMBEDDINGS)
        existing = [str(file) for file in (path, self.names) if os.path.exists(file)]
        if existing:
            verb = "is" if len(existing) == 1 else "are"
            raise ConfigError(f"{' and '.join(existing)} {verb} there already; choose another name")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Both stay open until `__exit__`.
            self._rows = TemporaryFile(dir=path.parent)  # noqa: SIM115
            self._paths = TemporaryFile(dir=path.parent)  # noqa: SIM115
        self.count = 0
        self.width = 0

    def write(self, prediction: Prediction) -> None:
        """Add the features of an image."""
        if prediction.embedding is None:
            return
        row = np.asarray(prediction.embedding, np.float32)
        self.count += 1
        self.width = len(row)
        self._rows.write(row.tobytes())
        self._paths.write(" ".join((prediction.path or "").splitlines()).encode("utf-8", "backslashreplace") + b"\n")

    def finish(self) -> None:
        """Write the file.

        Raises:
            DataError: If no features were added.
        """
        if not self.count:
            raise DataError(f"{self.path}: no image could be read, so there are no embeddings")
        self._rows.flush()
        self._paths.seek(0)
        rows = np.memmap(self._rows, np.float32, "r", shape=(self.count, self.width))
        with replacing(self.path) as file:
            if self.path.suffix == ".parquet":
                self._write_parquet(rows, file)
                return
            with file.open("wb") as content:
                np.save(content, rows)
            with replacing(self.names) as names, names.open("wb") as text:
                shutil.copyfileobj(self._paths, text)

    def _write_parquet(self, rows: NDArray[np.float32], path: Path) -> None:
        pa: Any = import_pyarrow()
        import pyarrow.parquet  # type: ignore[import-untyped] # noqa: PLC0415 - an extra

        schema = pa.schema({"path": pa.string(), "embedding": pa.list_(pa.float32(), self.width)})
        names = [line.decode().rstrip("\n") for line in self._paths]
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            for first in range(0, self.count, EMBEDDING_ROWS):
                part = rows[first : first + EMBEDDING_ROWS]
                values = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), self.width)
                writer.write_table(pa.table([pa.array(names[first : first + EMBEDDING_ROWS]), values], schema=schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._rows.close()
        self._paths.close()
