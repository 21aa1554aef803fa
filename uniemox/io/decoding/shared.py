"""Memory that a decoding process shares with its parent: pixels need no pipe, whose copies take longer than decoding.

Linux only; elsewhere, and for larger images, pixels go through the pipe.
"""

import mmap
import os
import sys
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SHARED_BYTES = 8 * 2**20
"""Size of the memory; pages that no image has used take none. A photograph of 1,300 x 2,000 px fits."""
NONE = -1
"""Number instead of that of a file, if there is no shared memory."""


def make_shared() -> int:
    """Make the memory.

    Returns:
        Number of its file, to be closed by the caller; NONE if the system can't share it safely.
    """
    if sys.platform != "linux" or fcntl is None or not hasattr(os, "memfd_create"):
        return NONE
    handle = NONE
    try:
        handle = os.memfd_create("uniemox-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(handle, SHARED_BYTES)
        # A process that a hostile file has taken over could otherwise cut the memory off, and reading it would end the
        # parent.
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    # Some containers and older kernels refuse one of these.
    except OSError:
        if handle != NONE:
            os.close(handle)
        return NONE
    return handle


def map_shared(handle: int, *, is_writer: bool) -> mmap.mmap | None:
    """Map the memory of a file and close the file; None for NONE, or if it can't be mapped."""
    if handle == NONE:
        return None
    access = mmap.ACCESS_WRITE if is_writer else mmap.ACCESS_READ
    with suppress(OSError, ValueError):
        try:
            return mmap.mmap(handle, SHARED_BYTES, access=access)
        finally:
            os.close(handle)
    return None
