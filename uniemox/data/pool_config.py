"""Settings of the processes that read the images of a data set."""

from dataclasses import dataclass
from typing import Literal

from uniemox.bounds import check_numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolConfig:
    """Settings of the processes that read the images of a data set."""

    workers: int | None = None
    """Maximum number of processes; 1: no extra processes. Default: one per core, or up to 8 with a GPU."""
    engine: Literal["local", "ray"] = "local"
    """local: this machine. ray: all machines of a Ray cluster, which must see the files at the same paths."""

    def __post_init__(self) -> None:
        check_numbers(self, "--", at_least={"workers": 1})


ONE_A_CORE = PoolConfig()
