"""Decoding processes that one test leaves to the next: starting one takes 0.1 s, and the tests start 900."""

import os
import sys
from queue import Empty

from uniemox.io.decoding import pool
from uniemox.io.decoding.pool import Child, DecoderPool

MAX_SPARES = 4
Settings = tuple[object, ...]

_close = DecoderPool.close
_spares: list[tuple[Settings, Child]] = []


def keep_idle_decoders() -> None:
    """Let closed pools leave their idle processes to pools that are made later; `DecoderPool.close` ends the others."""
    pool.Child = _spare_or_new
    DecoderPool.close = _close_and_keep


def end_idle_decoders() -> None:
    """Undo `keep_idle_decoders`."""
    pool.Child = Child
    DecoderPool.close = _close
    while _spares:
        _spares.pop()[1].end()


def _settings() -> Settings:
    """Return what a process keeps of the time of its start."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return pool.CPU_S, tuple(sys.path), tuple(sorted(environment.items()))


def _spare_or_new() -> Child:
    settings = _settings()
    for spare in reversed(_spares):
        if spare[0] == settings:
            _spares.remove(spare)
            return spare[1]
    child = Child()
    child.settings = settings
    return child


def _close_and_keep(self: DecoderPool) -> None:
    self._closed.set()
    # A process in this queue is idle. Others may be in use, and are ended.
    idle = []
    for _ in range(self.workers):
        try:
            idle.append(self._free.get_nowait())
        except Empty:
            break
    for child in idle:
        settings = getattr(child, "settings", None)
        if child is not None and settings and len(_spares) < MAX_SPARES and child.process.poll() is None:
            with self._lock:
                self._children.discard(child)
            _spares.append((settings, child))
            self._free.put(None)
        else:
            self._free.put(child)
    _close(self)
