"""Reconstructions by stages of a run and by MAE's own files, from the same visible patches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn import draw_image
from tests.runs import SIZE, finetuned, pretrained
from uniemox.errors import CheckpointError, ConfigError, ImageError
from uniemox.insight.explain.reconstructions import PIXELS_ONLY, open_reconstructors, reconstruct_images
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.predict.views import scene_view
from uniemox.views.patches import mask_noise, normalise, patchify, random_mask


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        draw_image(i).save(path)
    return paths


def mae_file(path: Path) -> UniEmoX:
    """Write a small MAE checkpoint with MAE's names of tensors, and return the same model in our classes."""
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny_patch16_224", 32, depth=1)
    decoder = DecoderConfig(width=64, depth=2, heads=16)
    model = UniEmoX(encoder, ModelConfig(fusion=None, losses=PIXELS_ONLY, decoder=decoder)).eval()
    names = {"embed.": "decoder_embed.", "decoder.blocks.": "decoder_blocks.", "decoder.norm.": "decoder_norm."}
    names |= {"decoder.pred.": "decoder_pred.", "decoder.mask_token": "mask_token", "encoder.": ""}
    state = {"decoder_pos_embed": model.decoder.pos_embed}
    for name, value in model.state_dict().items():
        [ours] = [ours for ours in names if name.startswith(ours)]
        state[names[ours] + name.removeprefix(ours)] = value
    torch.save({"model": state}, path)
    return model


def test_a_run_has_one_stage_per_checkpoint(images: list[Path]) -> None:
    """The error of the last stage matches a plain computation."""
    stages = open_reconstructors(pretrained())
    assert [name for name, _ in stages] == ["pretrained step-00000002", "pretrained step-00000004"]
    counted: list[int] = []
    reconstructions = reconstruct_images(stages, images, on_progress=lambda _task, done, total: counted.append(done))
    assert counted == [0, 1, 2]
    assert reconstructions.images == 2
    model = stages[1][1]()
    errors = []
    noise = mask_noise([path.name for path in images], 16, seed=0, epoch=0, stream="explain")
    for i, path in enumerate(images):
        view = torch.from_numpy(scene_view(draw_image(i), SIZE, 1.0))[None]
        pixels = normalise(view, torch.device("cpu"))
        hidden = random_mask(noise[i : i + 1], 0.75).hidden.bool()[0]
        with torch.no_grad():
            pred = model(pixels, scene_noise=noise[i : i + 1]).scene_pred[0]
        errors.append(float((pred - patchify(pixels, 8)[0])[hidden].square().mean()))
        assert path.name == f"{i}.png"
    assert reconstructions.errors[stages[1][0]] == pytest.approx(np.mean(errors), rel=1e-5)
    assert reconstructions.errors[stages[0][0]] != reconstructions.errors[stages[1][0]]


@torch.no_grad()
def test_mae_checkpoints_are_read(images: list[Path], tmp_path: Path) -> None:
    """Encoder and decoder predict what they did under our names; by the file's name, pixels or standardised patches."""
    path = tmp_path / "mae_visualize_vit_tiny.pth"
    model = mae_file(path)
    [(name, load)] = open_reconstructors(path)
    pixels = torch.randn(1, 3, 32, 32)
    noise = torch.rand(1, 4)
    prediction, expected = (reconstructor(pixels, scene_noise=noise).scene_pred for reconstructor in (load(), model))
    torch.testing.assert_close(prediction, expected, atol=1e-6, rtol=1e-5)
    assert not load().config.norm_pix
    path.rename(tmp_path / "mae_pretrain_vit_tiny_full.pth")
    [(name, load)] = open_reconstructors(tmp_path / "mae_pretrain_vit_tiny_full.pth")
    assert load().config.norm_pix
    assert list(reconstruct_images([(name, load)], images).errors) == ["mae_pretrain_vit_tiny_full"]
    with pytest.raises(ConfigError, match="the same mask"):
        reconstruct_images([(name, load), *open_reconstructors(pretrained())], images)


def test_all_stages_get_the_same_mask(images: list[Path]) -> None:
    stages = open_reconstructors(pretrained())
    once, again, other = (reconstruct_images(stages[1:], images, seed=seed) for seed in (0, 0, 1))
    assert once.sheet.tobytes() == again.sheet.tobytes() != other.sheet.tobytes()
    few = reconstruct_images(stages[1:], images, ratio=0.25)
    assert few.errors.keys() == once.errors.keys()


def test_images_that_can_not_be_read_are_left_out(images: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    stages = open_reconstructors(pretrained())[:1]
    reconstructions = reconstruct_images(stages, [tmp_path / "broken.jpg", *images])
    assert reconstructions.images == 2
    assert "broken.jpg" in reconstructions.left_out[0]
    with pytest.raises(ImageError, match=r"no image can be read \(1 tried\)"):
        reconstruct_images(stages, [tmp_path / "broken.jpg"])


def test_models_without_reconstruction_are_refused(images: list[Path], tmp_path: Path) -> None:
    for path in (finetuned("knn"), tmp_path):
        with pytest.raises(CheckpointError, match="not a run of uniemox pretrain"):
            open_reconstructors(path)
    with pytest.raises(ConfigError, match="mask"):
        reconstruct_images(open_reconstructors(pretrained()), images, ratio=1.5)
