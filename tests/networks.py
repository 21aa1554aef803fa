"""Networks and tensors that several tests read: stored numbers, real images, the golden files' networks."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uniemox.checkpoints.reading import read_weight_file
from uniemox.losses.config import LossWeights
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.views.config import MaskConfig


def small_model(**settings: object) -> UniEmoX:
    """ViT 48 wide, 3 blocks, images of 64 px, 16 patches; settings as ModelConfig."""
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny_patch16_224", 64, embed_dim=48, depth=3, num_heads=3)
    decoder = DecoderConfig(width=16, depth=2, heads=4)
    return UniEmoX(encoder, ModelConfig(**{"decoder": decoder, "teacher_width": None, **settings}))


def load_npz(path: Path) -> dict[str, Tensor]:
    """Numeric arrays of a .npz file as tensors."""
    with np.load(path) as file:
        return {name: torch.from_numpy(file[name]) for name in file if file[name].dtype.kind in "fiu"}


def images_of(paths: list[Path], size: int, box: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Tensor:
    """Real images, the part inside a relative box (x1, y1, x2, y2) squashed to a square. (N, 3, size, size) uint8."""
    views = []
    for path in paths:
        with Image.open(path) as image:
            width, height = image.size
            part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
            view = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=part)
        views.append(torch.from_numpy(np.asarray(view).copy()).permute(2, 0, 1))
    return torch.stack(views)


def clip_folder(golden: Path, folder: Path, *, quick_gelu: bool = False) -> Path:
    """A folder as open_clip reads it, with the golden CLIP's weights."""
    vision = {"image_size": 64, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick_gelu}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    shutil.copy(golden / "clip" / "checkpoint.pth", folder / "open_clip_pytorch_model.bin")
    return folder


def mae_model(golden: Path, percent: int, *, norm_pix: bool) -> UniEmoX:
    """The scene stream alone with the weights of golden/checkpoints/mae_pretrain, hiding `percent` of the patches."""
    weights = dict(read_weight_file(golden / "mae_pretrain" / "checkpoint.pth").content["model"])
    off = dict.fromkeys(LossWeights.__slots__[1:], 0.0)
    config = ModelConfig(
        fusion=None,
        norm_pix=norm_pix,
        mask=MaskConfig(ratio=percent / 100),
        decoder=DecoderConfig(width=32, depth=2, heads=4),
        losses=LossWeights(**off),
    )
    model = UniEmoX(build_encoder("vit_tiny_patch16_224", 64, embed_dim=48, depth=3, num_heads=3), config)
    torch.testing.assert_close(model.decoder.pos_embed, weights.pop("decoder_pos_embed"), rtol=0, atol=1e-7)
    names = {"decoder_embed.": "embed.", "decoder_": "decoder.", "mask_token": "decoder.mask_token"}
    state = {}
    for name, value in weights.items():
        ours = next((new + name.removeprefix(old) for old, new in names.items() if name.startswith(old)), None)
        state[ours or f"encoder.{name}"] = value
    model.load_state_dict(state)
    return model


def drawn_clip(folder: Path, *, quick_gelu: bool = False, timm_vision: dict[str, object] | None = None) -> Path:
    """A folder as open_clip reads it, with random weights: its own ViT, or a network of timm as SigLIP has."""
    from open_clip.model import CLIP

    vision = timm_vision or {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick_gelu}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    torch.manual_seed(0)
    model = CLIP(**config)
    # Random weights of the usual size give nearly equal texts.
    for parameter in model.transformer.parameters():
        parameter.data.mul_(20)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder
