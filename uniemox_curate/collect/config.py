"""Settings of searches and downloads: size, time, and request rate."""

from dataclasses import dataclass

from uniemox import __version__
from uniemox.bounds import check_numbers
from uniemox.errors import ConfigError

AGENT = "uniemox-curate"
BING_LICENCES = ("creativecommons", "publicdomain", "noncommercial", "commercial")
INTERNAL = (
    *("timeout_s", "max_redirects", "private_hosts", "takes_part"),
    *("workers", "tries", "first_wait_s", "max_wait_s"),
)
"""Fields that are not options of a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectConfig:
    """Searches, downloads and their limits."""

    per_keyword: int = 165
    """Number of results per search; 165 for each of Emo8's 80 words make its 13,200 images."""
    rate: float = 2.0
    """Maximum requests per second to one host; they never overlap. Lower it if hosts refuse requests."""
    max_kb: int = 20 * 1024
    """Maximum size of a file in KiB; larger files are refused."""
    contact: str = ""
    """Your mail or web address, sent to the servers. Wikimedia asks for one."""
    licence: str | None = None
    """Licence filter for Bing: creativecommons, publicdomain, noncommercial or commercial. Default: no filter."""
    timeout_s: float = 30.0
    """Time limit in seconds for one request, or in `get` for an address with all redirects. DNS may take longer."""
    max_redirects: int = 5
    private_hosts: tuple[str, ...] = ()
    """Addresses host:port on this machine or a private network that may be requested."""
    takes_part: bool = False
    """Read the beginning of a file that is too large instead of refusing the file."""
    workers: int = 16
    """Number of hosts that are requested at the same time."""
    tries: int = 4
    """Maximum number of attempts per address."""
    first_wait_s: float = 1.0
    """Seconds to wait after the first failure; doubles with each failure, up to a minute. A server may ask for more."""
    max_wait_s: float = 300.0
    """Longest wait in seconds that a host may ask for; if it asks for more, the run gives the host up."""

    def __post_init__(self) -> None:
        counts = ("per_keyword", "max_kb", "workers", "tries")
        check_numbers(self, at_least=dict.fromkeys(counts, 1), above={"rate": 0, "timeout_s": 0})
        if not self.contact.isprintable() or not self.contact.isascii():
            raise ConfigError(f"contact must be plain ASCII of one line, got {self.contact!r}")
        if self.licence not in (None, *BING_LICENCES):
            raise ConfigError(f"licence must be one of {', '.join(BING_LICENCES)}, got {self.licence!r}")

    @property
    def max_bytes(self) -> int:
        """Maximum size of a file in bytes."""
        return self.max_kb * 1024

    @property
    def user_agent(self) -> str:
        """User agent that is sent to servers."""
        return f"{AGENT}/{__version__}" + (f" ({self.contact})" if self.contact else "")
