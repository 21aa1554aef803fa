"""Limits of the server: queue, batches, request size and time."""

import re
from dataclasses import dataclass

from uniemox.bounds import check_numbers
from uniemox.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Limits of one server. docs/serve.md lists the error that a client gets at each limit."""

    queue: int = 64
    """Maximum number of waiting images, at least 1; further requests get 503 with Retry-After."""
    batch_size: int = 16
    """Maximum number of images per batch, at least 1."""
    max_wait_ms: float = 5.0
    """Maximum time in ms, at least 0, that the first image of a batch waits for further images."""
    max_mb: float = 10.0
    """Maximum size of one request in MiB, above 0; a phone's photo has 2 to 8."""
    max_files: int = 16
    """Maximum number of images per request, at least 1; never more than the queue holds."""
    max_megapixels: int = 50
    """Maximum size of one decoded image in megapixels; docs/serve.md lists the memory that it needs."""
    timeout_s: float = 10.0
    """Maximum seconds from the end of an upload to its answer, above 0; after that, the client gets 504."""
    decode_timeout_s: float = 4.0
    """Maximum seconds for decoding one image, or half of timeout_s if that is less; then the image is refused."""
    read_timeout_s: float = 30.0
    """Maximum seconds for a request's body, above 0; after that, the client gets 408."""
    max_connections: int = 1000
    """Maximum number of open connections; requests on further ones get 503. Keep it below the usual
    file limit, 1024."""
    root_path: str = ""
    """Path prefix under which a proxy publishes this server, such as /emotions; the proxy removes it from requests."""
    allow_origins: tuple[str, ...] = ()
    """Origin of a site whose pages may send requests, such as https://example.org. A Host
    header with this site's name is accepted, too."""

    def __post_init__(self) -> None:
        for origin in self.allow_origins:
            if not re.fullmatch(r"https?://[^/\s?#@]+", origin):
                raise ConfigError(f"allow_origin is {origin!r}; it must be like https://example.org, without a path")
        counts = ("queue", "batch_size", "max_files", "max_megapixels", "max_connections")
        amounts = ("max_mb", "timeout_s", "decode_timeout_s", "read_timeout_s")
        check_numbers(self, at_least=dict.fromkeys(counts, 1) | {"max_wait_ms": 0}, above=dict.fromkeys(amounts, 0))
        if self.root_path and (self.root_path[0] != "/" or self.root_path[-1] == "/"):
            raise ConfigError(
                f"root_path is {self.root_path!r}; it begins with / and does not end with it, as in /emotions"
            )

    @property
    def max_bytes(self) -> int:
        """Maximum number of bytes in the body of one request."""
        return int(self.max_mb * 2**20)

    @property
    def files(self) -> int:
        """Maximum number of images in one request."""
        return min(self.max_files, self.queue)

    @property
    def max_held_bytes(self) -> int:
        """Maximum number of bytes of all request bodies in memory."""
        return (2 * self.queue + self.batch_size) * self.max_bytes
