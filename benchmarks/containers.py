"""Trained modules of each self-supervised method of table III: encoder, copies, heads and decoders in one module.

They exist to be measured. Every part has its published size and processes the tokens of one pre-training forward pass
of an image, so that parameters, multiply-adds, time and memory are the method's. Losses, mask drawing and teachers
outside the trained module are left out unless stated. Each takes images (N, 3, 224, 224). The sizes are those of the
official code of each method, see `docs/models.md`.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from timm.models.beit import Beit
from timm.models.beit import Block as BeitBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from uniemox.model.config import DecoderConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.encoders import MixMAEEncoder
from uniemox.model.uniemox import Decoder
from uniemox.views.patches import random_mask

# Patches of 16 px in an image of 224 x 224 px.
PATCHES = 196
# Channels of ViT-B.
BASE = 768


def trunk(name: str = "vit_base_patch16_224") -> VisionTransformer:
    """Return a ViT without head, with its final norm."""
    return build_encoder(name)


def blocks(width: int, depth: int, heads: int, **options: object) -> nn.Sequential:
    """Return plain transformer blocks."""
    return nn.Sequential(*(Block(width, heads, qkv_bias=True, **options) for _ in range(depth)))


def frozen(*shape: int) -> nn.Parameter:
    """Return a table that is stored but not trained."""
    return nn.Parameter(torch.zeros(shape), requires_grad=False)


class MoCoV3(nn.Module):
    """MoCo v3: two views through the encoder, its projector and predictor, and through the momentum copy."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.momentum = (nn.Sequential(trunk(), self._mlp(BASE, 4096, 4096, 256)) for _ in range(2))
        self.predictor = self._mlp(256, 4096, 256)

    @staticmethod
    def _mlp(*widths: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(widths)):
            is_last = i == len(widths) - 2
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after, affine=not is_last)]
            layers += [] if is_last else [nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return outputs and targets of two views, both of the same images."""
        return [out for _ in range(2) for out in (self.predictor(self.base(images)), self.momentum(images))]


class Dino(nn.Module):
    """DINO: the student on two global crops and eight of 96 px; the teacher is a second copy outside."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = trunk()
        # For crops of 96 px; it shares all weights but the position table.
        self.small = build_encoder("vit_base_patch16_224", image_size=96)
        self.small.blocks = self.backbone.blocks
        self.small.norm = self.backbone.norm
        self.small.patch_embed.proj = self.backbone.patch_embed.proj
        self.small.cls_token = self.backbone.cls_token
        self.small.pos_embed = None
        self.head = nn.Sequential(
            nn.Linear(BASE, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 256)
        )
        self.last = nn.utils.parametrizations.weight_norm(nn.Linear(256, 65536, bias=False))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the outputs for all crops, which are made by resizing: that costs no multiply-adds."""
        local = F.interpolate(images, size=(96, 96))
        crops = [self.backbone(images) for _ in range(2)] + [self.small(local) for _ in range(8)]
        return [self.last(F.normalize(self.head(crop), dim=-1)) for crop in crops]


class BeitTrunk(nn.Module):
    """BEiT's blocks with one shared table of relative positions; also SimMIM's ViT."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Beit(
            num_classes=0, global_pool="", init_values=0.1, use_abs_pos_emb=False, use_shared_rel_pos_bias=True
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, BASE))

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens, (N, 196, 768)."""
        return self.encoder.forward_features(images)[:, 1:]


class BeitContainer(nn.Module):
    """BEiT: visual tokens of 75 masked patches; the tokenizer stays outside."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = BeitTrunk()
        self.head = nn.Linear(BASE, 8192)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images)[:, :75])


class SimMim(nn.Module):
    """SimMIM: pixels from all tokens by one 1 x 1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = BeitTrunk()
        self.decoder = nn.Conv2d(BASE, 16 * 16 * 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.trunk(images).transpose(1, 2).unflatten(2, (14, 14)))


class Mae(nn.Module):
    """MAE: a quarter of the patches through the encoder, all positions through the decoder."""

    def __init__(self, encoder: str = "vit_large_patch16_224", pred_width: int = 16 * 16 * 3) -> None:
        super().__init__()
        self.encoder = trunk(encoder)
        self.embed = nn.Linear(self.encoder.embed_dim, 512)
        self.decoder = Decoder(DecoderConfig(), grid=(14, 14), patch_size=16)
        self.decoder.pred = nn.Linear(512, pred_width)
        # A buffer in our decoder, a parameter in MAE's.
        self.decoder_pos_embed = frozen(1, 1 + PATCHES, 512)

    def forward(self, images: Tensor) -> Tensor:
        vit = self.encoder
        mask = random_mask(torch.rand(len(images), PATCHES, device=images.device), 0.75)
        # MAE embeds all patches; our encoder embeds only the visible ones.
        x = vit.patch_embed(images) + vit.pos_embed[:, 1:]
        x = x.gather(1, mask.visible[..., None].expand(-1, -1, x.shape[-1]))  # (N, 49, C)
        x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], dim=1)  # (N, 50, C)
        return self.decoder(self.embed(vit.norm(vit.blocks(x))), mask)


class Dbot(nn.Module):
    """dBOT: MAE whose target are a teacher's tokens; the teacher, a ViT-L without its norm, sees the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.student = Mae(pred_width=1024)
        teacher = trunk("vit_large_patch16_224").requires_grad_(False)
        teacher.norm = nn.Identity()
        # In a list, the teacher's parameters are not counted as this module's.
        self.outside = [teacher]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.student(images), self.outside[0].forward_features(images)


class TinyMim(nn.Module):
    """TinyMIM: the student alone; its last block stops at the relations of queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = trunk()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        vit = self.encoder
        x = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))  # (N, 197, C)
        x = vit.blocks[:-1](x)
        qkv = vit.blocks[-1].attn.qkv(vit.blocks[-1].norm1(x)).unflatten(2, (3, 16, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # (N, 16, 197, C / 16) each
        return q @ k.transpose(-2, -1), v @ v.transpose(-2, -1)


class SiameseIm(nn.Module):
    """SiameseIM: the tokens of one view predicted from a masked other, against a momentum copy."""

    class Branch(nn.Module):
        """Modules of the online and of the momentum branch."""

        def __init__(self) -> None:
            super().__init__()
            vit = trunk()
            vit.norm = nn.Identity()
            vit.pos_embed = None
            self.vit = vit
            self.embed = nn.Linear(BASE, BASE)
            self.projector = blocks(BASE, 2, 16, norm_layer=TokenBatchNorm)
            self.mask_token = nn.Parameter(torch.zeros(1, 1, BASE))

        def forward(self, images: Tensor, position: Tensor, visible: int) -> Tensor:
            """Return tokens, (N, 1 + visible, 768)."""
            x = self.vit.patch_embed(images)[:, :visible] + position[:, 1 : 1 + visible]
            x = torch.cat([self.vit.cls_token.expand(len(x), -1, -1), x], dim=1)
            return self.projector(self.embed(self.vit.blocks(x)))

    def __init__(self) -> None:
        super().__init__()
        self.online, self.momentum = self.Branch(), self.Branch()
        self.pos_embed = frozen(1, 1 + PATCHES, BASE)
        self.decoder_pos_embed = frozen(1, 1 + PATCHES, BASE)
        self.predictor = blocks(BASE, 4, 16, norm_layer=TokenBatchNorm)
        self.pos_mlp = nn.Linear(2 * BASE, BASE)
        self.pred = nn.Linear(BASE, BASE)

    def forward(self, images: Tensor) -> Tensor:
        visible = self.online(images, self.pos_embed, 78)  # (N, 79, C)
        position = torch.cat([self.pos_embed, self.decoder_pos_embed], dim=2)[:, 1:].expand(len(images), -1, -1)
        queries = self.pos_mlp(position) + self.online.mask_token  # (N, 196, C)
        pred = self.pred(self.predictor(torch.cat([visible, queries], dim=1)))[:, -PATCHES:]
        target = self.momentum(images, self.pos_embed, PATCHES)[:, 1:]  # (N, 196, C)
        # The products of its loss.
        return (pred @ (target.transpose(1, 2) @ target)) @ pred.transpose(1, 2)


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm over the channels of tokens (N, L, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class MixMae(nn.Module):
    """MixMAE as the paper counts it, its large network: a mixed image encoded once, both halves decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MixMAEEncoder(
            embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=(14, 14, 14, 7), num_classes=0
        )
        self.embed = nn.Linear(1536, 512)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 512))
        self.decoder_pos_embed = frozen(1, 49, 512)
        self.decoder = blocks(512, 8, 16)
        self.norm = nn.LayerNorm(512)
        self.pred = nn.Linear(512, 32 * 32 * 3)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(self.encoder.forward_features(images).flatten(1, 2))  # (N, 49, 512)
        x = torch.cat([x, x]) + self.decoder_pos_embed  # (2N, 49, 512)
        return self.pred(self.norm(self.decoder(x)))


class Cae(nn.Module):
    """CAE: hidden patches regressed in feature space, aligned with a copy of the encoder, then decoded to tokens."""

    class Encoder(nn.Module):
        """BEiT's blocks with fixed absolute positions."""

        def __init__(self) -> None:
            super().__init__()
            self.beit = Beit(num_classes=0, global_pool="", init_values=0.1)

        def forward(self, images: Tensor, part: slice) -> Tensor:
            """Return the tokens of 98 patches and the CLS token, (N, 99, 768)."""
            x = self.beit.patch_embed(images)[:, part]
            x = torch.cat([self.beit.cls_token.expand(len(x), -1, -1), x], dim=1)
            for block in self.beit.blocks:
                x = block(x)
            return self.beit.norm(x)

    class Regressor(nn.Module):
        """Cross attention from hidden patches to all patches."""

        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(BASE) for _ in range(4))
            self.q, self.k, self.v = (nn.Linear(BASE, BASE, bias=False) for _ in range(3))
            self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(BASE)) for _ in range(2))
            self.proj = nn.Linear(BASE, BASE)
            self.fc1 = nn.Linear(BASE, 4 * BASE)
            self.fc2 = nn.Linear(4 * BASE, BASE)
            self.gamma_1, self.gamma_2 = (nn.Parameter(torch.ones(BASE)) for _ in range(2))

        def forward(self, hidden: Tensor, everything: Tensor) -> Tensor:
            """Return new hidden tokens (N, 98, C) from hidden tokens (N, 98, C) and all tokens (N, 196, C)."""
            q = self.q(self.norms[0](hidden)) + self.q_bias
            k = self.k(self.norms[1](everything))
            v = self.v(self.norms[2](everything)) + self.v_bias
            q, k, v = (x.unflatten(2, (12, -1)).transpose(1, 2) for x in (q, k, v))  # (N, 12, L, C / 12)
            x = (q @ k.transpose(-2, -1)).softmax(-1) @ v
            hidden = hidden + self.gamma_1 * self.proj(x.transpose(1, 2).flatten(2))
            return hidden + self.gamma_2 * self.fc2(F.gelu(self.fc1(self.norms[3](hidden))))

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.aligned = self.Encoder(), self.Encoder()
        self.pos_embed = frozen(1, 1 + PATCHES, BASE)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, BASE))
        self.regressor = nn.ModuleList(self.Regressor() for _ in range(4))
        self.regressor_norm = nn.LayerNorm(BASE)
        self.decoder = nn.Sequential(*(BeitBlock(BASE, 12, qkv_bias=True, init_values=0.1) for _ in range(4)))
        self.norm = nn.LayerNorm(BASE)
        self.head = nn.Linear(BASE, 8192)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        visible = self.encoder(images, slice(0, 98))[:, 1:]  # (N, 98, C)
        aligned = self.aligned(images, slice(98, PATCHES))  # (N, 99, C)
        hidden = self.mask_token + self.pos_embed[:, -98:].expand(len(images), -1, -1)  # (N, 98, C)
        for block in self.regressor:
            hidden = block(hidden, torch.cat([visible, hidden], dim=1))
        return self.head(self.norm(self.decoder(self.regressor_norm(hidden)))), aligned
