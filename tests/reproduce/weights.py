"""Files in the published formats that table III starts from, one block deep, for images of 32 px."""

from collections.abc import Mapping
from pathlib import Path

import torch
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from uniemox.model.encoder import sincos_position

WIDTH = 192
GRID = (2, 2)
SHAPE = {"img_size": 32, "patch_size": 16, "embed_dim": WIDTH, "depth": 1, "num_heads": 3, "num_classes": 0}


def published(folder: Path) -> dict[str, str]:
    """Write the files, and return them by row: all plain ViTs, BEiT and CAE."""
    vit = VisionTransformer(**SHAPE).state_dict()
    vit["pos_embed"] = sincos_position(WIDTH, GRID)
    by_rows = vit | {"pos_embed": sincos_position(WIDTH, GRID, rows_first=True)}
    beit = Beit(**SHAPE, use_rel_pos_bias=True, init_values=0.1).state_dict()
    cae = Beit(**SHAPE, use_abs_pos_emb=True, init_values=0.1).state_dict()
    token = torch.zeros(1, 1, WIDTH)
    torchvision_state = TorchvisionViT(32, 16, 1, 3, WIDTH, 4 * WIDTH, num_classes=2).state_dict()
    contents = {
        "MoCoV3": {"state_dict": _under("module.base_encoder.", by_rows)},
        "DINO": {"teacher": _under("module.backbone.", vit), "student": _under("module.backbone.", vit)},
        "BEiT": {"model": beit},
        "MAE": {"model": vit | {"mask_token": token, "decoder_pred.weight": token}},
        "TinyMIM": {"model": vit, "optimizer": {}},
        "SiameseIM": {"model": by_rows | {"mm_cls_token": token}},
        "dBOT": {"model": vit | {"decoder_predp.weight": token}},
        "CAE": {"model": _under("encoder.", cae)},
        "ViT": torchvision_state,
    }
    folder.mkdir()
    for name, content in contents.items():
        torch.save(content, folder / f"{name}.pth")
    return {name: str(folder / f"{name}.pth") for name in contents}


def _under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}
