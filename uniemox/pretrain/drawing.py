"""Drawing of reconstructions: visible patches, reconstruction and image of each stream."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from uniemox.losses.objective import undo_standardise
from uniemox.model.uniemox import ModelOutput
from uniemox.pretrain.step import PretrainBatch
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD, patchify, unpatchify

GAP_PX = 2
"""White gap between the samples."""


def reconstruction_image(output: ModelOutput, batch: PretrainBatch, *, patch_size: int, norm_pix: bool) -> Image.Image:
    """Draw three rows for each reconstructed stream: visible patches, reconstruction, image.

    With norm_pix the model predicts standardised patches; they are shown with the true patch's mean and deviation.
    """
    rows: list[Tensor] = []
    for pred, mask, pixels in (
        (output.scene_pred, output.scene_mask, batch.scene),
        (output.person_pred, output.person_mask, batch.person),
    ):
        if pred is not None and mask is not None and pixels is not None:
            rows += _rows_of_stream(pred, mask.hidden, pixels, patch_size=patch_size, norm_pix=norm_pix)
    sheet = make_grid(torch.cat(rows), nrow=len(rows[0]), padding=GAP_PX, pad_value=1)
    # make_grid also pads the outside.
    sheet = sheet[:, GAP_PX:-GAP_PX, GAP_PX:-GAP_PX]
    return Image.fromarray((sheet * 255).round().byte().permute(1, 2, 0).numpy())


def _rows_of_stream(
    pred: Tensor, hidden: Tensor, pixels: Tensor, *, patch_size: int, norm_pix: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return visible patches, reconstruction and image, (N, 3, H, W) each, 0 to 1, on the CPU.

    Args:
        pred: (N, L, P) predicted patches.
        hidden: (N, L), 1 for hidden patches.
        pixels: (N, 3, H, W) uint8.
        patch_size: Side of a patch, px.
        norm_pix: The model predicts standardised patches.
    """
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    image = pixels.float() / 255  # (N, 3, H, W)
    patches = pred.float().cpu()  # (N, L, P)
    grid = (image.shape[2] // patch_size, image.shape[3] // patch_size)
    is_hidden = unpatchify(hidden.cpu()[..., None].expand_as(patches).float(), patch_size, grid)  # (N, 3, H, W)
    if norm_pix:
        true_patches = patchify((image - mean) / std, patch_size)  # (N, L, P)
        patches = undo_standardise(patches, true_patches)
    reconstruction = (unpatchify(patches, patch_size, grid) * std + mean).clamp(0, 1)
    visible = image * (1 - is_hidden)
    return visible + 0.5 * is_hidden, reconstruction * is_hidden + visible, image
