"""One careful GET: only to public addresses, within limits of size and time, redirects looked at one by one."""

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from uniemox import __version__
from uniemox.errors import ConfigError

PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
LATER = (408, 425, 429, 500, 502, 503, 504)  # answers after which another try may help
BLOCK = 64 * 1024
# IANA hands out 2000::/3 alone; fec0::/10, ::/96, 64:ff9b:1::/48 and the like lead into somebody's own network.
UNICAST = ipaddress.ip_network("2000::/3")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("3fff::/20", "192.88.99.0/24")))  # which older Pythons call global
SAFE = "%/:?#[]@!$&'()*+,;=~-._|{}^`<>\\\""  # all of ASCII that is there already


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """Limits of one download."""

    max_bytes: int = 20 * 2**20
    """Of a file."""
    timeout_s: float = 30.0
    """For one request, or for all of an address where `get` follows its redirects; names looked up included only as
    far as the system's resolver does."""
    max_redirects: int = 5
    contact: str = ""
    """An address or mail where you can be reached, told to the servers; Wikimedia asks for one."""
    private_hosts: tuple[str, ...] = ()
    """host:port on this machine or a private network that may be asked all the same."""
    takes_part: bool = False
    """Whether the first max_bytes of a larger file are taken; otherwise it is refused."""

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
        """What servers are told."""
        return f"uniemox-curate/{__version__}" + (f" ({self.contact})" if self.contact else "")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came."""

    data: bytes
    address: str
    """Where it lay after redirects."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where the server says that it lies."""

    address: str


@dataclass(frozen=True, slots=True)
class FetchFailure:
    """Why nothing came."""

    reason: str
    may_pass: bool = False
    """Whether it may go better later."""
    wait_s: float | None = None
    """How long the server asks to be left alone."""


def get(address: str, config: FetchConfig) -> Fetched | FetchFailure:
    """The bytes at an address, wherever it redirects to."""
    deadline = time.monotonic() + config.timeout_s
    for _ in range(config.max_redirects + 1):
        found = get_once(address, config, deadline)
        if not isinstance(found, Redirect):
            return found
        address = found.address
    return FetchFailure(f"more than {config.max_redirects} redirects")


def get_once(address: str, config: FetchConfig, deadline: float | None = None) -> Fetched | Redirect | FetchFailure:
    """The bytes at an address, or where it redirects to: one request.

    deadline: of time.monotonic(); None: timeout_s from now.
    The name is looked up once, all its addresses must be public, and the connection goes to the one that was checked,
    so that a name that changes its address in between gains nothing.
    """
    deadline = time.monotonic() + config.timeout_s if deadline is None else deadline
    try:
        return _one_hop(address, config, deadline)
    except _RefusedError as refusal:
        return refusal.failure
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            return FetchFailure(f"not done within {config.timeout_s:g} s", may_pass=True)
        return FetchFailure(f"no connection, or cut off: {_words(error)}", may_pass=True)


class _RefusedError(Exception):
    """Leaves a hop with what is to be said of it."""

    def __init__(self, reason: str, *, may_pass: bool = False, wait_s: float | None = None) -> None:
        self.failure = FetchFailure(reason, may_pass, wait_s)


def _one_hop(address: str, config: FetchConfig, deadline: float) -> Fetched | Redirect:
    """What lies at an address, or where it redirects to. Raises _RefusedError, and what a connection raises."""
    scheme, host, port, path = _parts(address)
    connection = _Pinned(_checked_ip(host, port, config), host, port, scheme == "https", deadline)
    watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), connection.abort)  # a server may drip bytes
    watchdog.daemon = True
    watchdog.start()
    try:
        own = {"User-Agent": config.user_agent, "Accept-Encoding": "identity", "Accept": "*/*", "Connection": "close"}
        connection.request("GET", path, headers=own)
        response = connection.getresponse()
        if response.status in REDIRECTS and response.headers.get("Location"):
            return Redirect(urljoin(address, _quoted(response.headers["Location"])))
        if response.status != 200:
            raise _RefusedError(
                f"answered {response.status}",
                may_pass=response.status in LATER,
                wait_s=_retry_after(response.headers.get("Retry-After")),
            )
        if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise _RefusedError(f"came as {response.headers['Content-Encoding'][:40]!r}, which was not asked for")
        return Fetched(_body(response, config, deadline), address)
    finally:
        watchdog.cancel()
        connection.close()


def _body(response: http.client.HTTPResponse, config: FetchConfig, deadline: float) -> bytes:
    told, limit = response.headers.get("Content-Length", ""), config.max_bytes
    if told.isdigit() and int(told) > limit and not config.takes_part:
        raise _RefusedError(f"{int(told):,} bytes, more than the {limit:,} that are taken")
    parts, size = [], 0
    while block := response.read1(BLOCK):
        parts.append(block)
        size += len(block)
        if size > limit and config.takes_part:
            return b"".join(parts)[:limit]
        if size > limit:
            raise _RefusedError(f"more than the {limit:,} bytes that are taken")
    if time.monotonic() >= deadline:
        raise TimeoutError("out of time")
    if told.isdigit() and size < int(told):
        raise _RefusedError(f"cut off: {size:,} of {int(told):,} bytes", may_pass=True)
    return b"".join(parts)


def _parts(address: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and path of an address. Raises _RefusedError for one that is not fetched."""
    try:
        parts = urlsplit(_quoted(address))
        port = parts.port or PORTS.get(parts.scheme, 0)
        host = (parts.hostname or "").encode("idna").decode("ascii") if parts.hostname else ""
    except (ValueError, UnicodeError) as error:
        raise _RefusedError(f"not an address ({error})") from None
    if parts.scheme not in PORTS:
        raise _RefusedError(f"not http or https but {parts.scheme[:20]!r}")
    if not host or parts.username is not None or parts.password is not None:
        raise _RefusedError("an address without a host, or with a name and password in it")
    return parts.scheme, host, port, urlunsplit(("", "", parts.path or "/", parts.query, ""))


def _checked_ip(host: str, port: int, config: FetchConfig) -> str:
    """An address of a host, all of which are public. Raises _RefusedError if one is not."""
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _RefusedError(f"{host} has no address ({_words(error)})", may_pass=True) from None
    ips = [str(row[4][0]) for row in rows]
    if f"{host}:{port}" not in config.private_hosts:
        private = [ip for ip in ips if not is_public(ip)]
        if private:
            raise _RefusedError(f"{host} is {private[0]}, which is not on the public internet")
    return ips[0]


def is_public(ip: str) -> bool:
    """Whether an IP address is on the public internet, the IPv4 one inside an IPv6 one included.

    >>> is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("8.8.8.8")
    (False, False, True)
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if address not in UNICAST:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in NOT_PUBLIC)


class _Pinned(http.client.HTTPConnection):
    """A connection to one checked IP address, whatever the name says by then."""

    def __init__(self, ip: str, host: str, port: int, is_secure: bool, deadline: float) -> None:
        default = PORTS["https" if is_secure else "http"]
        super().__init__(host, port if port != default else None, timeout=max(0.01, deadline - time.monotonic()))
        self.ip, self.to_port, self.is_secure = ip, port, is_secure
        self.default_port = default
        self.raw: socket.socket | None = None

    def connect(self) -> None:
        """As the base class, but to the IP address; the certificate must be that of the name."""
        self.raw = socket.create_connection((self.ip, self.to_port), self.timeout)
        self.sock = self.raw
        if self.is_secure:
            self.sock = ssl.create_default_context().wrap_socket(self.raw, server_hostname=self.host)

    def abort(self) -> None:
        """End it from another thread: what waits on it fails."""
        sock = self.sock or self.raw
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def _quoted(address: str) -> str:
    """An address in ASCII without blanks and control characters, as browsers send it."""
    clean = re.sub(r"[\x00-\x20\x7f]", lambda match: f"%{ord(match.group()):02X}", address.strip())
    parts = urlsplit(clean)
    path, query = (quote(text, safe=SAFE, errors="surrogatepass") for text in (parts.path, parts.query))
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which holds seconds or a date."""
    if not value:
        return None
    if value.isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _words(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:200]
