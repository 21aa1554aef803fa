"""Reconstructions of hidden patches by pre-trained models, as in figure 9 of the paper (arXiv 2409.18877)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from uniemox.checkpoints.published import load_start
from uniemox.checkpoints.reading import read_weight_file, state_of
from uniemox.checkpoints.start_decoder import MAE_NAMES
from uniemox.errors import CheckpointError, ConfigError, ImageError
from uniemox.insight.explain.sheets import draw_grid
from uniemox.io.files import open_regular
from uniemox.io.progress import Progress, silent
from uniemox.io.run_files import CONFIG, ENCODER, WEIGHTS
from uniemox.io.run_record import find_field, required_field
from uniemox.losses.config import LossWeights
from uniemox.losses.objective import reconstruction_loss, undo_standardise
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.predict.images import read_any
from uniemox.predict.views import scene_view
from uniemox.pretrain.config import PretrainConfig
from uniemox.training.settings_record import from_dict
from uniemox.training.state import Checkpoints
from uniemox.views.patches import IMAGENET_MEAN, IMAGENET_STD, mask_noise, normalise, patchify, unpatchify

CELL_PX = 160
PIXELS_ONLY = LossWeights(
    scene_reconstruction=1.0,
    person_reconstruction=0.0,
    contrastive_feature_alignment=0.0,
    semantic_visual_alignment=0.0,
)
MEAN, STD = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
# Attention heads of the published decoders; the shapes of the tensors don't determine their number.
MAE_HEADS = 16
# Errors of weight files that are damaged or belong to another model.
UNFIT = (OSError, RuntimeError, ValueError, KeyError, TypeError, safetensors.SafetensorError)


Stage = tuple[str, Callable[[], UniEmoX]]
"""Model at one stage of its pre-training: a name, and a function that loads it in eval mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstructions:
    """A sheet of reconstructions, with their errors."""

    sheet: Image.Image
    """Sheet with one row per image: original, visible patches, the reconstruction by each model."""
    images: int
    """Number of images on the sheet."""
    errors: dict[str, float]
    """Mean squared error over hidden patches of ImageNet-normalised pixels, averaged over images, by stage. A norm_pix
    model is given each patch's true mean and deviation, which lowers its error."""
    left_out: tuple[str, ...]
    """Reasons why images could not be read."""


def open_reconstructors(path: Path) -> list[Stage]:
    """Return the stages of a pre-training run, one per checkpoint, oldest first.

    For an MAE checkpoint, the list has one stage.

    Args:
        path: A run's folder, or a checkpoint of MAE with its decoder (mae_visualize_vit_*.pth,
            mae_pretrain_*_full.pth).

    Raises:
        CheckpointError: If the folder is no pre-training run, or has no checkpoint.
        ConfigError: For a run without reconstruction.
    """
    if not path.is_dir():
        return [(path.stem, partial(_load_mae, path))]
    kind = find_field(path, "kind") if (path / CONFIG).is_file() else None
    if kind != "pretrain":
        raise CheckpointError(f"{path} is not a run of uniemox pretrain; give one, or a checkpoint of MAE")
    config = from_dict(PretrainConfig, required_field(path, "config"), f"{path / CONFIG}, config")
    weights = config.model.losses
    if not max(weights.scene_reconstruction, weights.person_reconstruction):
        raise ConfigError(f"{path} was trained without reconstruction, so it has no decoder; leave it out")
    # Without checkpoints, a finished run still has its final weights.
    files = {f"{path.name} {saved.name}": saved / WEIGHTS for saved in Checkpoints(path, 1).saved()}
    if not files and (path / WEIGHTS).is_file():
        files = {path.name: path / WEIGHTS}
    if not files:
        raise CheckpointError(f"{path} has neither checkpoints nor {WEIGHTS}; did the run start?")
    return [(name, partial(_load_run, path, config, file)) for name, file in files.items()]


@torch.no_grad()
def reconstruct_images(
    stages: Sequence[Stage],
    paths: Sequence[Path],
    *,
    ratio: float = 0.75,
    seed: int = 0,
    on_progress: Progress = silent,
) -> Reconstructions:
    """Reconstruct each image with each stage, all from the same visible patches.

    Args:
        stages: Models to compare, at least one.
        paths: Images; unreadable ones are left out.
        ratio: Share of hidden patches, 0 to 1.
        seed: Random seed of the masks, which also depend on the file names.
        on_progress: Function called after each stage.

    Raises:
        ConfigError: For a ratio out of range, or if the models' numbers of patches differ.
        ImageError: If no image can be read.
    """
    readable = []
    left_out = []
    for path in paths:
        try:
            # Images are read again later, because all photographs of a sheet would fill the memory.
            read_any(path)
            readable.append(path)
        except ImageError as error:
            left_out.append(str(error))
    names = [path.name for path in readable]
    if not readable:
        raise ImageError(f"no image can be read ({len(paths)} tried): {'; '.join(left_out[:3]) or 'none was given'}")
    columns: list[list[Image.Image]] = []
    errors: dict[str, float] = {}
    grid: tuple[int, int] | None = None
    on_progress("reconstructing", 0, len(stages))
    for done, (name, load) in enumerate(stages, start=1):
        model = load()
        model_grid: tuple[int, int] = model.encoder.patch_embed.grid_size
        if grid not in (None, model_grid):
            raise ConfigError(
                f"{name} has {model_grid} rows and columns of patches, other models have {grid}; the same mask fits "
                "only models with as many: make a sheet for each"
            )
        grid = model_grid
        model.config = replace(model.config, mask=replace(model.config.mask, ratio=ratio))
        noise = mask_noise(names, model_grid[0] * model_grid[1], seed=seed, epoch=0, stream="explain")
        views = np.stack([scene_view(read_any(path)[0], model.image_size[0], 1.0) for path in readable])
        truth = normalise(torch.from_numpy(views), torch.device("cpu"))  # (M, 3, S, S)
        reconstructed, hidden, errors[name] = _reconstruct(model, truth, noise)
        if not columns:
            # Hidden patches are drawn in mid-grey.
            visible = truth * (1 - hidden) + (0.5 - MEAN) / STD * hidden
            columns += [_to_images(truth), _to_images(visible)]
        columns.append(_to_images(reconstructed * hidden + truth * (1 - hidden)))
        on_progress("reconstructing", done, len(stages))
    titles = ["image", f"{1 - ratio:.0%} seen", *(f"{name}: {value:.3f}" for name, value in errors.items())]
    rows = [[(image, "") for image in row] for row in zip(*columns, strict=True)]
    sheet = draw_grid(titles, rows, cell_px=CELL_PX)
    return Reconstructions(sheet=sheet, images=len(readable), errors=errors, left_out=tuple(left_out))


def _reconstruct(model: UniEmoX, truth: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, float]:
    """Reconstruct M images.

    Args:
        model: Model at one stage.
        truth: Images, (M, 3, S, S), ImageNet-normalised.
        noise: Random numbers that determine the hidden patches, one row per image.

    Returns:
        Reconstructions and masks (1: hidden), both (M, 3, S, S), and the mean error.
    """
    reconstructed = []
    hidden = []
    errors = []
    grid = model.encoder.patch_embed.grid_size
    patch = model.patch_size
    for pixels, image_noise in zip(truth.split(1), noise.split(1), strict=True):
        output = model(pixels, scene_noise=image_noise)
        patches = patchify(pixels, patch)  # (1, L, P)
        # PIXELS_ONLY has a loss for the scene's reconstruction, so the model predicts it.
        assert output.scene_pred is not None
        pred = output.scene_pred.float()
        if model.config.norm_pix:
            pred = undo_standardise(pred, patches)
        mask = output.scene_mask.hidden
        errors.append(float(reconstruction_loss(pred, patches, mask)))
        reconstructed.append(unpatchify(pred, patch, grid))
        hidden.append(unpatchify(mask[..., None].expand_as(pred), patch, grid))
    return torch.cat(reconstructed), torch.cat(hidden), sum(errors) / len(errors)


def _load_run(run: Path, config: PretrainConfig, weights: Path) -> UniEmoX:
    """Load a pre-training run's model at one stage, without its teacher and its fusion."""
    if config.encoder.start is None:
        encoder = build_encoder(config.encoder.name, config.view.size, **config.encoder.timm_options)
    else:
        # The initial weights of a finished run may be gone; its own encoder has the same architecture.
        start = str(run / ENCODER) if (run / ENCODER).is_file() else config.encoder.start
        encoder = load_start(start, image_size=config.view.size)
    model = UniEmoX(encoder, replace(config.model, fusion=None, losses=PIXELS_ONLY, teacher_width=None))
    try:
        # Refuse pipes and devices, on which safetensors would wait.
        open_regular(weights).close()
        tensors = safetensors.torch.load_file(weights)
    except UNFIT as error:
        raise CheckpointError(f"{weights} can't be read: {error}") from error
    model_tensors = {
        name: value for name, value in tensors.items() if name.startswith(("encoder.", "embed.", "decoder."))
    }
    return _fill(model, model_tensors, weights)


def check_mae_decoder(path: Path | str) -> None:
    """Read the names of an MAE checkpoint's weights.

    Raises:
        CheckpointError: If it can't be read or has no decoder.
    """
    if "decoder_pred.weight" not in state_of(read_weight_file(path, mapped=True)):
        raise CheckpointError(f"{path} has no decoder; use MAE's mae_visualize_vit_*.pth or mae_pretrain_*_full.pth")


def _load_mae(path: Path) -> UniEmoX:
    """Load an MAE checkpoint with its decoder; files named visualize predict pixels, others standardised patches."""
    encoder = load_start(path, method="mae")
    check_mae_decoder(path)
    state = state_of(read_weight_file(path))
    depth = len({name.split(".")[1] for name in state if name.startswith("decoder_blocks.")})
    decoder = DecoderConfig(width=state["decoder_embed.weight"].shape[0], depth=depth, heads=MAE_HEADS)
    norm_pix = "visualize" not in path.name
    model = UniEmoX(encoder, ModelConfig(fusion=None, losses=PIXELS_ONLY, decoder=decoder, norm_pix=norm_pix))
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    for theirs, ours in MAE_NAMES.items():
        tensors |= {ours + name.removeprefix(theirs): state[name] for name in state if name.startswith(theirs)}
    model = _fill(model, tensors, path)
    if model.decoder is not None and "decoder_pos_embed" in state:
        model.decoder.pos_embed.copy_(state["decoder_pos_embed"])
    return model


def _fill(model: UniEmoX, tensors: Mapping[str, Any], path: Path) -> UniEmoX:
    """Load tensors into a model; returns it in eval mode."""
    try:
        model.load_state_dict(tensors)
    except UNFIT as error:
        raise CheckpointError(f"{path} does not match its own description: {error}") from error
    return model.eval()


def _to_images(pixels: Tensor) -> list[Image.Image]:
    """Convert (M, 3, S, S), ImageNet-normalised, to images of the sheet's size."""
    values = ((pixels * STD + MEAN).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(image).resize((CELL_PX, CELL_PX), Image.Resampling.BICUBIC) for image in values]
