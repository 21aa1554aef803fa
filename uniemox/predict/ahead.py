"""Files are decoded in processes of their own (decoding/pool.py) if there are several: one that keeps its decoder busy
holds up no other. A single image is decoded in this process.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

from uniemox.io.decoding.pool import Decode, DecoderPool, Decoders, decode_one
from uniemox.io.parallel import count_cores, parallel_map
from uniemox.predict.images import ImageLike

Item = TypeVar("Item")


def map_images(
    images: Iterable[ImageLike], work: Callable[[ImageLike, Decode], Item], ahead: int, decoders: Decoders | None
) -> Iterator[Item]:
    """Results of `work`, in the order of the images.

    work: called with an image and a function that decodes files; in parallel unless there is only one image.
    ahead: see `parallel_map`.  decoders: decode all files; None: processes of this call's own, or none for a single
    image.
    """
    rest = iter(images)
    first = list(islice(rest, 2))
    if len(first) < 2:  # a process of its own would take longer to start than to decode
        decode = decode_one if decoders is None else decoders.decode
        yield from (work(image, decode) for image in first)
        return
    cores = count_cores()
    own = DecoderPool(cores)  # it starts a process when the first file comes
    decode = (decoders or own).decode
    yield from parallel_map(
        chain(first, rest),
        lambda image: work(image, decode),
        ahead=ahead,
        threads=cores + 1,  # while one waits for its decoder
        on_stop=own.close,
    )
