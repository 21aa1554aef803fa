"""A set of many paths in little memory."""

from array import array
from bisect import bisect_left

import numpy as np

# Keys of paths that begin with the same bits are a block, in which one is found in few steps.
BLOCK_BITS = 14


class PathSet:
    """Set of paths, 8 bytes each; among 10 million the odds of a collision are 1 to 370,000."""

    def __init__(self) -> None:
        self._keys = array("Q")
        # Index of the first key of each block, and the number of keys; empty while keys are not sorted.
        self._starts: list[int] = []

    def add(self, path: str) -> None:
        """Add a path."""
        self._keys.append(_key(path))
        self._starts = []

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, path: object) -> bool:
        if not self._starts:
            self._sort()
        key = _key(str(path))
        block = key >> (64 - BLOCK_BITS)
        # Faster than numpy's search for single keys.
        index = bisect_left(self._keys, key, self._starts[block], self._starts[block + 1])
        return index < len(self._keys) and self._keys[index] == key

    def _sort(self) -> None:
        keys = np.frombuffer(self._keys, np.uint64)
        # In place.
        keys.sort()
        first_keys = np.arange(2**BLOCK_BITS, dtype=np.uint64) << np.uint64(64 - BLOCK_BITS)
        self._starts = [*np.searchsorted(keys, first_keys).tolist(), len(keys)]


def _key(path: str) -> int:
    # Python's own hash of 64 bits, without its sign; strangers can't foresee it, because it is salted.
    return hash(path) & 0xFFFF_FFFF_FFFF_FFFF
