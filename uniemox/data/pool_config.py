"""Processes that look at the images of a data set."""

from dataclasses import dataclass
from typing import Literal

from uniemox.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Processes that look at the images of a data set."""

    workers: int | None = None
    """Processes; if not given one a core, but up to 8 on a GPU; 1: no other than this one. On a cluster the maximum."""
    engine: Literal["local", "ray"] = "local"
    """ray: on all machines of a Ray cluster, which read and write files by the same paths."""

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"--workers must be at least 1, got {self.workers}")


ONE_A_CORE = PoolConfig()
