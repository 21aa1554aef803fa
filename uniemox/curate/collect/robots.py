"""What hosts ask programs to leave alone (robots.txt, RFC 9309)."""

import threading
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit
from urllib.robotparser import RobotFileParser

from uniemox.curate.collect.fetch import FetchConfig, FetchFailure, get

AGENT = "uniemox-curate"
MAX_BYTES = 500 * 1024  # of the file; the standard asks to read so much of a larger one


class Robots:
    """The rules of every host that was asked, read once a run."""

    def __init__(self, fetching: FetchConfig) -> None:
        self.fetching = replace(fetching, max_bytes=MAX_BYTES, takes_part=True)
        self._rules: dict[tuple[str, str], RobotFileParser] = {}
        self._lock = threading.Lock()

    def problem(self, address: str) -> FetchFailure | None:
        """Why an address may not be fetched; None if it may.

        A host without such a file allows everything; one whose file can't be had now is tried later.
        """
        try:
            parts = urlsplit(address)
        except ValueError:
            return None  # the fetch will say that it is no address
        host = parts.scheme, parts.netloc
        with self._lock:
            rules = self._rules.get(host)
        if rules is None:
            found = self._read(host)
            if isinstance(found, FetchFailure):
                return found
            rules = found
            with self._lock:
                self._rules[host] = rules
        return (
            None if rules.can_fetch(AGENT, address) else FetchFailure("its host's robots.txt asks programs to leave it")
        )

    def _read(self, host: tuple[str, str]) -> RobotFileParser | FetchFailure:
        found = get(urlunsplit((*host, "/robots.txt", "", "")), self.fetching)
        rules = RobotFileParser()
        if isinstance(found, FetchFailure):
            if found.may_pass:
                return FetchFailure(f"robots.txt: {found.reason}", may_pass=True, wait_s=found.wait_s)
            rules.parse([])
            return rules
        data = found.data
        if len(data) == MAX_BYTES:
            data = data.rpartition(b"\n")[0]  # the last line may be cut in two, and half a path forbids more
        rules.parse(data.decode("utf-8", "ignore").splitlines())
        return rules
