"""Files of NumPy arrays, as np.savez writes them, also those of strangers."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from uniemox.io.files import open_regular
from uniemox.io.limits import limited_memory

# Memory in bytes for reading a file, and bytes in addition for each byte of it. Compressed features have half their
# size; zeros would have a thousandth.
MAX_MEMORY = 2**28
MEMORY_A_BYTE = 10


def load_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read the arrays in a file.

    Args:
        path: The file.
        names: Names of the arrays to read; None: all. Those that the file lacks are left out.

    Raises:
        OSError: If the file can't be read.
        ValueError: If it is not such a file, or a small file that needs much memory; also zipfile.BadZipFile and what
            zlib raises.
    """
    with open_regular(path) as file:
        limit = MAX_MEMORY + MEMORY_A_BYTE * path.stat().st_size
        try:
            with limited_memory(limit):
                arrays = np.load(file, allow_pickle=False)
                if not isinstance(arrays, NpzFile):
                    raise ValueError("it has one array, not several with names (np.savez)")
                return {name: arrays[name] for name in arrays.files if names is None or name in names}
        except MemoryError as error:
            raise ValueError(f"it needs more than {limit / 2**20:.0f} MiB of memory") from error
