"""What the model makes of the hidden patches, as an image."""

import torch
from PIL import Image
from torch import Tensor

from uniemox.model.uniemox import ModelOutput
from uniemox.pretrain.step import PretrainBatch
from uniemox.views.patches import patchify, unpatchify
from uniemox.views.pixels import IMAGENET_MEAN, IMAGENET_STD

GAP_PX = 2


def reconstruction_image(output: ModelOutput, batch: PretrainBatch, *, patch_size: int, norm_pix: bool) -> Image.Image:
    """Three rows for each stream that is reconstructed: what was seen, what the model made of it, what was there.

    With norm_pix the model predicts standardised patches; they are shown in the true patch's mean and deviation.
    """
    rows: list[Tensor] = []
    for pred, mask, pixels in (
        (output.scene_pred, output.scene_mask, batch.scene),
        (output.person_pred, output.person_mask, batch.person),
    ):
        if pred is None or mask is None or pixels is None:
            continue
        truth = pixels.float() / 255  # (N, 3, H, W)
        grid = (truth.shape[2] // patch_size, truth.shape[3] // patch_size)
        hidden = unpatchify(mask.hidden[..., None].expand_as(pred).float(), patch_size, grid)  # (N, 3, H, W)
        made = _to_pixels(pred.float(), truth, patch_size, grid, norm_pix)
        rows += [truth * (1 - hidden) + 0.5 * hidden, made * hidden + truth * (1 - hidden), truth]
    return _sheet(rows)


def _to_pixels(pred: Tensor, truth: Tensor, patch_size: int, grid: tuple[int, int], norm_pix: bool) -> Tensor:
    """Predicted patches (N, L, P) as pixels (N, 3, H, W) in [0, 1]."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    if norm_pix:
        patches = patchify((truth - mean) / std, patch_size)  # (N, L, P)
        variance, middle = patches.var(dim=-1, keepdim=True), patches.mean(dim=-1, keepdim=True)
        pred = pred * (variance + 1e-6).sqrt() + middle
    return (unpatchify(pred, patch_size, grid) * std + mean).clamp(0, 1)


def _sheet(rows: list[Tensor]) -> Image.Image:
    """Rows of images (N, 3, H, W) in [0, 1] as one image, white between them."""
    count, _, height, width = rows[0].shape
    sheet = torch.ones(3, len(rows) * (height + GAP_PX) - GAP_PX, count * (width + GAP_PX) - GAP_PX)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            y, x = i * (height + GAP_PX), j * (width + GAP_PX)
            sheet[:, y : y + height, x : x + width] = image
    return Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).numpy())
