"""Settings of searches and downloads: size, time, and the pace at which hosts are asked."""

from dataclasses import dataclass

from uniemox import __version__
from uniemox.errors import ConfigError

AGENT = "uniemox-curate"
BING_LICENCES = ("creativecommons", "publicdomain", "noncommercial", "commercial")
INTERNAL = (
    *("timeout_s", "max_redirects", "private_hosts", "takes_part"),
    *("workers", "tries", "first_wait_s", "max_wait_s"),
)
"""Fields that are no options of a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectConfig:
    """Searches, downloads and their limits."""

    per_keyword: int = 165
    """Results of a search; 165 for each of Emo8's 80 words make its 13,200 images."""
    rate: float = 2.0
    """Requests per second to one host, which never gets more than one at a time. Lower it if hosts refuse requests."""
    max_kb: int = 20 * 1024
    """Maximum size of a file, KiB; larger ones are refused."""
    contact: str = ""
    """Your mail or web address, sent to the servers. Wikimedia asks for one."""
    licence: str | None = None
    """Filter of Bing: creativecommons, publicdomain, noncommercial or commercial. Default: no filter."""
    timeout_s: float = 30.0
    """Time limit for one request, or for an address with all its redirects in `get`. The system's resolver may add to
    it."""
    max_redirects: int = 5
    private_hosts: tuple[str, ...] = ()
    """host:port on this machine or a private network that may be requested."""
    takes_part: bool = False
    """Take the beginning of a file that is too large instead of refusing it."""
    workers: int = 16
    """Hosts requested at the same time."""
    tries: int = 4
    """Attempts for one address."""
    first_wait_s: float = 1.0
    """Pause after the first failure; each further one doubles it, up to a minute, and a server may ask for more."""
    max_wait_s: float = 300.0
    """Longest pause that a host may ask for before the run gives it up."""

    def __post_init__(self) -> None:
        for name in ("per_keyword", "max_kb", "workers", "tries"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("rate", "timeout_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if not self.contact.isprintable() or not self.contact.isascii():
            raise ConfigError(f"contact must be plain ASCII of one line, got {self.contact!r}")
        if self.licence not in (None, *BING_LICENCES):
            raise ConfigError(f"licence must be one of {', '.join(BING_LICENCES)}, got {self.licence!r}")

    @property
    def max_bytes(self) -> int:
        """Maximum size of a file."""
        return self.max_kb * 1024

    @property
    def user_agent(self) -> str:
        """User agent that servers see."""
        return f"{AGENT}/{__version__}" + (f" ({self.contact})" if self.contact else "")
