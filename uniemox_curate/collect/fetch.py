"""Careful downloads: public addresses only, limits of size and time, each redirect checked, robots.txt obeyed."""

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass, replace
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from uniemox.io import retry_after, timed_response
from uniemox_curate.collect.config import AGENT, CollectConfig
from uniemox_curate.collect.robots import Rules

# Part of a larger robots.txt that the standard requires to read (RFC 9309, 2.5).
MAX_RULES_KB = 500
PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
# Status codes after which another try may help.
TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
BLOCK_BYTES = 64 * 1024
# IANA assigns only 2000::/3; fec0::/10, ::/96, 64:ff9b:1::/48 and the like lead into private networks.
UNICAST = ipaddress.ip_network("2000::/3")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Reserved networks that older versions of Python call global.
NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("3fff::/20", "192.88.99.0/24")))
# ASCII characters that stay unchanged in an address.
SAFE = "%/:?#[]@!$&'()*+,;=~-._|{}^`<>\\\""


@dataclass(frozen=True, slots=True)
class Redirect:
    """New address that the server names."""

    address: str


@dataclass
class FetchError(Exception):
    """Reason for a failed download: raised inside of a request, and the result of one."""

    reason: str
    may_pass: bool = False
    """True if a later try may succeed."""
    wait_s: float | None = None
    """Pause that the server asks for."""


def get(address: str, config: CollectConfig) -> bytes | FetchError:
    """Download an address and follow its redirects."""
    deadline = time.monotonic() + config.timeout_s
    for _ in range(config.max_redirects + 1):
        result = get_once(address, config, deadline)
        if not isinstance(result, Redirect):
            return result
        address = result.address
    return FetchError(f"more than {config.max_redirects} redirects")


def get_once(address: str, config: CollectConfig, deadline: float | None = None) -> bytes | Redirect | FetchError:
    """Send one request and return the bytes or the redirect.

    The name is resolved once and all its addresses must be public. The connection goes to the checked address, so a
    name that changes its address in between has no effect.

    Args:
        address: Address of a file.
        config: Limits of the request.
        deadline: Time by time.monotonic() at which the request ends; None: timeout_s from now.
    """
    if deadline is None:
        deadline = time.monotonic() + config.timeout_s
    try:
        return _request(address, config, deadline)
    except FetchError as failure:
        # The frames of the traceback would keep the data in memory.
        return failure.with_traceback(None)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError):
            return FetchError(f"not done within {config.timeout_s:g} s", may_pass=True)
        # A certificate's error is both.
        if isinstance(error, ValueError) and not isinstance(error, OSError):
            return FetchError(f"not an address ({_reason(error)})")
        return FetchError(f"no connection, or cut off: {_reason(error)}", may_pass=True)


class Robots:
    """The robots.txt of every host (RFC 9309), read once a run."""

    def __init__(self, config: CollectConfig) -> None:
        self.config = replace(config, max_kb=MAX_RULES_KB, takes_part=True)
        self._rules: dict[tuple[str, str], Rules] = {}
        self._lock = threading.Lock()

    def problem(self, address: str) -> FetchError | None:
        """Return the reason why an address may not be fetched; None if it may.

        A host without the file allows everything; a host whose file is unavailable now is tried later.
        """
        try:
            parts = urlsplit(address)
        except ValueError:
            # The download will report that it is no address.
            return None
        host = parts.scheme, parts.netloc
        with self._lock:
            rules = self._rules.get(host)
        if rules is None:
            result = get(urlunsplit((*host, "/robots.txt", "", "")), self.config)
            if isinstance(result, FetchError) and result.may_pass:
                return replace(result, reason=f"robots.txt: {result.reason}")
            data = result if isinstance(result, bytes) else b""
            if len(data) == self.config.max_bytes:
                # The last line is cut; its shorter path would forbid more.
                data = data.rpartition(b"\n")[0]
            rules = Rules.parse(data, AGENT)
            with self._lock:
                self._rules[host] = rules
        if rules.allow(address):
            return None
        return FetchError("robots.txt of its host forbids it")


def _request(address: str, config: CollectConfig, deadline: float) -> bytes | Redirect:
    """Send one request to a checked IP address.

    Raises:
        FetchError: For an address that may not be fetched, and for an answer without the file.
        OSError: If the connection fails.
    """
    scheme, host, port, path = _parts(address)
    connection = _PinnedConnection(_checked_ip(host, port, config), host, port, scheme == "https", deadline)
    headers = {"User-Agent": config.user_agent, "Accept-Encoding": "identity", "Accept": "*/*", "Connection": "close"}
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.status in REDIRECTS and response.headers.get("Location"):
            return Redirect(urljoin(address, _quoted(response.headers["Location"])))
        if response.status != 200:
            raise FetchError(
                f"answered {response.status}",
                may_pass=response.status in TEMPORARY,
                wait_s=retry_after(response.headers.get("Retry-After")),
            )
        if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise FetchError(f"came as {response.headers['Content-Encoding'][:40]!r}, which was not asked for")
        return _read_body(response, config)
    finally:
        connection.close()


def _read_body(response: http.client.HTTPResponse, config: CollectConfig) -> bytes:
    """Return the body of a response.

    Raises:
        FetchError: If it is too large or cut off.
    """
    length = response.headers.get("Content-Length", "")
    limit = config.max_bytes
    if length.isdigit() and int(length) > limit and not config.takes_part:
        raise FetchError(f"{int(length):,} bytes, more than the {limit:,} that are taken")
    parts = []
    size = 0
    while block := response.read1(BLOCK_BYTES):
        parts.append(block)
        size += len(block)
        if size > limit and config.takes_part:
            return b"".join(parts)[:limit]
        if size > limit:
            raise FetchError(f"more than the {limit:,} bytes that are taken")
    if length.isdigit() and size < int(length):
        raise FetchError(f"cut off: {size:,} of {int(length):,} bytes", may_pass=True)
    return b"".join(parts)


def _parts(address: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and path of an address.

    Raises:
        FetchError: If it is no address, has another scheme than http and https, no host, or a password.
    """
    try:
        parts = urlsplit(_quoted(address))
        port = parts.port or PORTS.get(parts.scheme, 0)
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        raise FetchError(f"not an address ({error})") from None
    if parts.scheme not in PORTS:
        raise FetchError(f"not http or https but {parts.scheme[:20]!r}")
    if not host or parts.username is not None or parts.password is not None:
        raise FetchError("an address without a host, or with a name and password in it")
    return parts.scheme, host, port, urlunsplit(("", "", parts.path or "/", parts.query, ""))


def _checked_ip(host: str, port: int, config: CollectConfig) -> str:
    """Return an IP address of a host.

    Raises:
        FetchError: If any of its addresses is not public.
    """
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError(f"{host} has no address ({_reason(error)})", may_pass=True) from None
    ips = [str(row[4][0]) for row in rows]
    if f"{host}:{port}" not in config.private_hosts:
        private = [ip for ip in ips if not is_public(ip)]
        if private:
            raise FetchError(f"{host} is {private[0]}, which is not on the public internet")
    return ips[0]


def is_public(ip: str) -> bool:
    """Return True for an IP address on the public internet; IPv4 addresses inside IPv6 ones are checked too.

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


class _PinnedConnection(http.client.HTTPConnection):
    """A connection to one checked IP address, even if the name now resolves to another."""

    def __init__(self, ip: str, host: str, port: int, is_secure: bool, deadline: float) -> None:
        default = PORTS["https" if is_secure else "http"]
        super().__init__(host, port if port != default else None, timeout=max(0.01, deadline - time.monotonic()))
        self.ip = ip
        self.to_port = port
        self.is_secure = is_secure
        self.deadline = deadline
        self.default_port = default
        self.response_class = lambda sock, **settings: timed_response(sock, deadline, **settings)  # type: ignore[assignment]

    def connect(self) -> None:
        """Connect to the IP address; the certificate must be that of the name."""
        self.sock = socket.create_connection((self.ip, self.to_port), self.timeout)
        if self.is_secure:
            # The time limit is for the complete handshake.
            self.sock.settimeout(max(0.01, self.deadline - time.monotonic()))
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _quoted(address: str) -> str:
    """Return an address in ASCII without blanks and control characters, as browsers send it."""
    clean = re.sub(r"[\x00-\x20\x7f]", lambda match: f"%{ord(match.group()):02X}", address.strip())
    parts = urlsplit(clean)
    path, query = (quote(text, safe=SAFE, errors="surrogatepass") for text in (parts.path, parts.query))
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:200]
