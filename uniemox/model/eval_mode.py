"""Networks that evaluate for a while, and then continue as before."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Set a network to evaluation inside of the context, and to its mode before afterwards, also after an error."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
