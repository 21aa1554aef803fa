"""Addresses of OpenAI-compatible endpoints."""

import ipaddress
import re
from urllib.parse import urlsplit

from uniemox.errors import ConfigError

CHAT_PATH = "/chat/completions"


def chat_url(endpoint: str, *, allow_http: bool = False) -> str:
    """Return the address for questions: the endpoint with /chat/completions, and with /v1 if it has no path.

    Raises:
        ConfigError: For an invalid address, for http to another machine unless allowed, and for a name, password or
            query in it, because it is saved with the answers.

    >>> chat_url("http://localhost:11434")
    'http://localhost:11434/v1/chat/completions'
    """
    try:
        parts = urlsplit(endpoint)
        host = parts.hostname
        # Reading the port raises an error if it is not a number up to 65535.
        _ = parts.port
    except ValueError:
        host = None
    is_plain = endpoint.isascii() and not re.search(r"[\s\x00-\x1f]", endpoint)
    if not host or parts.scheme not in ("http", "https") or not is_plain:
        raise ConfigError("endpoint must be an address such as https://api.openai.com/v1 or http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"endpoint at {host} must not contain a name, a password or a ?query, because it is saved with the "
            "answers; a key belongs in an environment variable, see --key-from"
        )
    if parts.scheme == "http" and not is_loopback(host) and not allow_http:
        raise ConfigError(f"endpoint {endpoint} would send images and key unencrypted; use https, or --allow-http")
    path = parts.path.rstrip("/") or "/v1"
    if not path.endswith(CHAT_PATH):
        path += CHAT_PATH
    return f"{parts.scheme}://{parts.netloc}{path}"


def is_loopback(host: str) -> bool:
    """Return True if a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
