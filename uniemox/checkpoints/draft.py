"""What a family of formats hands to `load_published`."""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A network of the right architecture, not yet loaded, and what shall go into it."""

    encoder: nn.Module
    state: dict[str, Tensor]  # the file's tensors under the encoder's names, position tables resized
    new: list[str]  # parameters that the method's own fine-tuning starts anew
    resized: list[str]  # tables of another size than in the file
