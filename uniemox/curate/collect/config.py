"""Limits for downloads: size, time, and the pace at which hosts are asked."""

import random
from dataclasses import dataclass

from uniemox import __version__
from uniemox.errors import ConfigError

AGENT = "uniemox-curate"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """Limits of one download."""

    max_bytes: int = 20 * 2**20
    """Maximum size of a file."""
    timeout_s: float = 30.0
    """Time limit for one request, or for an address with all its redirects in `get`. The system's resolver may add to
    it."""
    max_redirects: int = 5
    contact: str = ""
    """Your mail or web address, sent to the servers; Wikimedia asks for one."""
    private_hosts: tuple[str, ...] = ()
    """host:port on this machine or a private network that may be requested."""
    takes_part: bool = False
    """Take the first max_bytes of a larger file instead of refusing it."""

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or self.timeout_s <= 0 or self.max_redirects < 0:
            raise ConfigError(
                f"max_bytes and timeout_s must be above 0 and max_redirects at least 0, got {self.max_bytes}, "
                f"{self.timeout_s} and {self.max_redirects}"
            )
        if not self.contact.isprintable() or not self.contact.isascii():
            raise ConfigError(f"contact must be plain ASCII of one line, got {self.contact!r}")

    @property
    def user_agent(self) -> str:
        """User agent that servers see."""
        return f"{AGENT}/{__version__}" + (f" ({self.contact})" if self.contact else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolitenessConfig:
    """Limits for requests to hosts."""

    per_host_per_s: float = 2.0
    """Requests per second to one host; it never has more than one at a time."""
    workers: int = 16
    """Hosts requested at the same time."""
    tries: int = 4
    """Attempts for one address."""
    first_wait_s: float = 1.0
    """Pause after the first failure; each further one doubles it, up to a minute, and a server may ask for more."""
    max_wait_s: float = 300.0
    """Longest pause that a host may ask for before the run gives it up."""

    def __post_init__(self) -> None:
        if self.per_host_per_s <= 0 or self.workers < 1 or self.tries < 1:
            raise ConfigError(
                f"per_host_per_s must be above 0, workers and tries at least 1, got {self.per_host_per_s}, "
                f"{self.workers} and {self.tries}"
            )
        if self.first_wait_s < 0 or self.max_wait_s < 0:
            raise ConfigError(f"waits must be at least 0, got {self.first_wait_s} and {self.max_wait_s}")

    def wait_after(self, failures: int, asked: float | None) -> float:
        """Return the pause after a number of failures of one address.  asked: by the server. Both in seconds."""
        doubled = min(60.0, self.first_wait_s * 2 ** (failures - 1)) * random.uniform(0.75, 1.25)
        return max(doubled, asked or 0.0)
