"""Sizes of a network that the shapes and names of a file's tensors tell."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from uniemox.errors import CheckpointError

# Attention heads of the published sizes, Ti to H, by width.
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
# Attention heads of the ViT-S of these methods; all others have 6.
SMALL_HEADS = {"moco_v3": 12, "cae": 12}
# Maximum number of heads, or px per side of an image, that a file may claim.
MAX_NUMBER = 2048


def count_of(names: Iterable[str], of: str = "blocks") -> int:
    """Count the blocks or layers that the names mention.

    Args:
        names: Names of tensors.
        of: Prefix of the numbered modules.

    Raises:
        CheckpointError: If one is missing.
    """
    numbers = {int(match[1]) for name in names if (match := re.match(rf"{re.escape(of)}\.(\d{{1,4}})\.", name))}
    gap = next((number for number in range(len(numbers)) if number not in numbers), None)
    if gap is not None or not numbers:
        raise CheckpointError(f"the encoder is not whole; missing: {of}.{gap or 0}")
    return len(numbers)


def side_of(table: Tensor, *, extra: int) -> int:
    """Return the number of patches along a side of the table's grid.

    Args:
        table: (1, extra + L, C).
        extra: Number of rows that belong to no patch.

    Raises:
        CheckpointError: Unless L is a square number.
    """
    side = math.isqrt(table.shape[1] - extra)
    if side * side != table.shape[1] - extra:
        raise CheckpointError(
            f"its position table has {table.shape[1]} rows, expected {extra} more than a square number"
        )
    return side


def heads_of(width: int, method: str) -> int:
    """Return the number of attention heads of the published network of this width.

    Raises:
        CheckpointError: If there is none.
    """
    if width not in HEADS:
        raise CheckpointError(
            f"the tensors don't determine the number of heads of a ViT {width} wide; pass heads= (convert --heads)"
        )
    if width == 384:
        return SMALL_HEADS.get(method, HEADS[width])
    return HEADS[width]


def check_size(shape: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse a network far larger than its file, whose names and shapes may claim any size.

    If only a few tensors are missing, the built network names them.

    Args:
        shape: timm's constructor arguments.
        tensors: The encoder's tensors in the file.

    Raises:
        CheckpointError: If the network has more than twice as many weights as the file has numbers.
    """
    width = shape["embed_dim"]
    depths = shape.get("depths") or (shape["depth"],)
    # Each stage is twice as wide as the one before.
    squares = sum(depth * (width << stage) ** 2 for stage, depth in enumerate(depths))
    patch_embedding = 3 * width * shape["patch_size"] ** 2
    # Attention has 4 matrices of a block's width squared, and the MLP 2 of mlp_ratio times that.
    needed = patch_embedding + round((4 + 2 * shape["mlp_ratio"]) * squares)
    stored = sum(value.numel() for value in tensors.values())
    if needed > 2 * stored:
        raise CheckpointError(
            f"the encoder is not whole: {'+'.join(map(str, depths))} blocks from {width} wide have {needed:,} "
            f"weights, the file holds {stored:,} numbers"
        )


def positive(value: object, name: str) -> int:
    """Return a number that a file claims.

    Args:
        value: The number.
        name: What it is, for the message.

    Raises:
        CheckpointError: If it is not a whole number from 1 to `MAX_NUMBER`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MAX_NUMBER:
        raise CheckpointError(f"{name} must be a whole number from 1 to {MAX_NUMBER}, got {value!r}")
    return value
