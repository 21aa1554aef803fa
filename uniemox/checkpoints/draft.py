"""What a family of formats hands to `load_published`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from uniemox.errors import CheckpointError


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A network of the right architecture, not yet loaded, and what shall go into it."""

    encoder: nn.Module
    state: dict[str, Tensor]  # the file's tensors under the encoder's names, position tables resized
    new: list[str]  # parameters that the method's own fine-tuning starts anew
    resized: list[str]  # tables of another size than in the file


def count_of(names: Iterable[str], of: str = "blocks") -> int:
    """How many of a numbered part, blocks or layers, the names speak of. Raises CheckpointError if one is missing."""
    numbers = {int(found[1]) for name in names if (found := re.match(rf"{re.escape(of)}\.(\d{{1,4}})\.", name))}
    gap = next((number for number in range(len(numbers)) if number not in numbers), None)
    if gap is not None or not numbers:
        raise CheckpointError(f"the encoder is not whole; missing: {of}.{gap or 0}")
    return len(numbers)


def check_size(shape: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse to build a network far larger than its file, whose names and shapes may ask for any amount.

    What lacks a few tensors only is told by their names once it is built.
    shape: timm's constructor arguments.  Raises CheckpointError.
    """
    width, depths = shape["embed_dim"], shape.get("depths") or (shape["depth"],)
    squares = sum(depth * (width << stage) ** 2 for stage, depth in enumerate(depths))
    wanted = 3 * width * shape["patch_size"] ** 2 + round((4 + 2 * shape["mlp_ratio"]) * squares)  # attention and MLP
    held = sum(value.numel() for value in tensors.values())
    if wanted > 2 * held:
        raise CheckpointError(
            f"the encoder is not whole: {'+'.join(map(str, depths))} blocks from {width} wide have {wanted:,} "
            f"weights, the file holds {held:,} numbers"
        )
