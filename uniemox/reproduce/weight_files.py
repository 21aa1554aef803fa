"""Files that names of weights mean, and their hashes: a plan's runs are others once a file is another."""

import hashlib
from functools import cache
from pathlib import Path

from uniemox.io.weight_names import weight_paths


def digest_of_weights(name: str) -> tuple[str, ...]:
    """Hashes of the files that a name such as mae.pth, timm:NAME@FILE or fitted:FOLDER means, if there are any."""
    files: list[Path] = []
    for path in weight_paths(name):
        files += sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    stats = [(file, file.stat()) for file in files if file.is_file()]
    return tuple(_hash(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


@cache  # many runs start from one file, which may have a gigabyte
def _hash(file: Path, size: int, time_ns: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
