"""Images as sequences of patches, and back (MAE, arXiv 2111.06377)."""

from torch import Tensor

from uniemox.errors import ShapeError


def patch_grid(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches. Raises ShapeError if the patch does not divide the image (height, width)."""
    height, width = image_size
    if height % patch_size or width % patch_size:
        raise ShapeError(
            f"an image of {height} x {width} px cannot be cut into patches of {patch_size} px; "
            f"choose a size that {patch_size} divides, e.g. {round_to_patch(height, patch_size)} px"
        )
    return height // patch_size, width // patch_size


def round_to_patch(size: int, patch_size: int) -> int:
    """The size closest to `size` that the patch divides, at least one patch."""
    return max(1, round(size / patch_size)) * patch_size


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into patches, row by row; within a patch pixels run by row, column, channel.

    images: (N, 3, H, W), H and W multiples of patch_size.  Returns (N, L, P), P = patch_size**2 * 3.
    Raises ShapeError for other shapes. Source: facebookresearch/mae, models_mae.py.

    >>> import torch
    >>> patchify(torch.zeros(2, 3, 32, 48), 16).shape
    torch.Size([2, 6, 768])
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError(f"expected images of shape (N, 3, H, W), got {tuple(images.shape)}")
    count, channels, height, width = images.shape
    rows, columns = patch_grid((height, width), patch_size)
    x = images.reshape(count, channels, rows, patch_size, columns, patch_size)
    x = x.permute(0, 2, 4, 3, 5, 1)  # (N, rows, columns, p, p, 3)
    return x.reshape(count, rows * columns, patch_size**2 * channels)  # (N, L, P)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Put patches together again: the inverse of `patchify`.

    patches: (N, L, P); grid: rows and columns, L = rows * columns.  Returns (N, 3, H, W). Raises ShapeError.
    """
    rows, columns = grid
    count, length, pixels = patches.shape
    if length != rows * columns or pixels != patch_size**2 * 3:
        raise ShapeError(
            f"expected patches of shape (N, {rows * columns}, {patch_size**2 * 3}) for a {rows} x {columns} grid "
            f"of {patch_size} px patches, got {tuple(patches.shape)}"
        )
    x = patches.reshape(count, rows, columns, patch_size, patch_size, 3)
    x = x.permute(0, 5, 1, 3, 2, 4)  # (N, 3, rows, p, columns, p)
    return x.reshape(count, 3, rows * patch_size, columns * patch_size)  # (N, 3, H, W)
