"""Images are prepared ahead of the network, in threads.

A single image is decoded in this process; several are decoded in processes of their own (decoding/pool.py), so that a
file that keeps its decoder busy holds up no other.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

from uniemox.decoding.pool import Decode, DecoderPool, Decoders, decode_one
from uniemox.predict.images import ImageLike

MAX_THREADS = 8  # that decode
MAX_AHEAD = 16  # images that wait for the network, however large its batch is
Item = TypeVar("Item")


def prepare_ahead(
    images: Iterable[ImageLike], prepare: Callable[[ImageLike, Decode], Item], ahead: int, decoders: Decoders | None
) -> Iterator[Item]:
    """All images in order, prepared.

    prepare: called in a thread with an image and what decodes files.  ahead: how many may wait for the network.
    decoders: decode all files; None: processes of this call's own, or none for a single image.
    """
    rest = iter(images)
    first = list(islice(rest, 2))
    if decoders is None and len(first) < 2:  # a process of its own would take longer to start than to decode
        yield from (prepare(image, decode_one) for image in first)
        return
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    own = DecoderPool(threads)  # it starts a process when the first file comes
    decode = (decoders or own).decode
    waiting: deque[Future[Item]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for image in chain(first, rest):
            waiting.append(pool.submit(prepare, image, decode))
            if len(waiting) > min(ahead, MAX_AHEAD):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        own.close()  # before the threads, which wait for it
        pool.shutdown(cancel_futures=True)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of that many, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
