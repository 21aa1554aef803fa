"""The pre-training model: one encoder for scene and person; reconstruction, fusion, comparison with the teacher.

Symbols of arXiv 2409.18877: α `scene`, β `person`, Υ `fused`, Ω `image_features`, Λ `text_features`.
"""

from dataclasses import dataclass

import torch
from timm.models import checkpoint_seq
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from uniemox.errors import ShapeError
from uniemox.losses.config import LossWeights
from uniemox.losses.objective import contrastive_feature_alignment, reconstruction_loss, semantic_visual_alignment
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import check_plain, encode_visible, sincos_position, start_as_mae
from uniemox.model.fusion import build_fusion
from uniemox.views.patches import Mask, patchify, random_mask


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOutput:
    """Results of one forward pass. Parts that a setting turns off are None."""

    losses: dict[str, Tensor]  # scalars, by the names of LossWeights' fields
    total: Tensor  # scalar, the weighted sum
    scene: Tensor  # (N, C3) α
    person: Tensor | None  # (N, C3) β
    fused: Tensor | None  # (N, C3) Υ
    diagnostics: dict[str, Tensor]  # scalars without gradients, see `fused_diagnostics`; empty without Υ
    scene_pred: Tensor | None  # (N, L, P) predicted patches
    person_pred: Tensor | None  # (N, L, P)
    scene_mask: Mask
    person_mask: Mask | None


class Decoder(nn.Module):
    """MAE's decoder (arXiv 2111.06377): fills hidden patches with a learned token, and predicts all patches' pixels."""

    pos_embed: Tensor

    def __init__(self, config: DecoderConfig, *, grid: tuple[int, int], patch_size: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.empty(1, 1, config.width).normal_(std=0.02))
        self.register_buffer("pos_embed", sincos_position(config.width, grid), persistent=False)
        self.blocks = nn.Sequential(*(Block(config.width, config.heads, qkv_bias=True) for _ in range(config.depth)))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self.pred = nn.Linear(config.width, patch_size**2 * 3)
        self.grad_checkpointing = False
        start_as_mae(self)

    def forward(self, tokens: Tensor, mask: Mask) -> Tensor:
        """Predict the pixels of all patches, hidden and visible.

        Args:
            tokens: (N, 1 + K, C3), embedded, the CLS token first.
            mask: Mask that hid the other patches from the encoder.

        Returns:
            (N, L, P).
        """
        # The sum over the blocks stays in float32 under autocast too, see `encode_visible`.
        tokens = tokens.to(self.mask_token.dtype)
        cls = tokens[:, :1]  # (N, 1, C3)
        visible = tokens[:, 1:]  # (N, K, C3)
        index = mask.visible[..., None].expand_as(visible)  # (N, K, C3)
        x = self.mask_token.expand(*mask.hidden.shape, -1).scatter(1, index, visible)  # (N, L, C3)
        x = torch.cat([cls, x], dim=1) + self.pos_embed  # (N, 1 + L, C3)
        if self.grad_checkpointing:
            x = checkpoint_seq(self.blocks, x)
        else:
            x = self.blocks(x)
        x = self.norm(x)
        return self.pred(x[:, 1:])  # (N, L, P)


class UniEmoX(nn.Module):
    """The pre-training model (arXiv 2409.18877, figure 5).

    Args:
        encoder: A plain timm ViT, see `build_encoder`; its position table is frozen. Scene and person go through it
            together, as one batch of 2N.
        config: Settings of the network. The scene always runs; other parts exist and run only if a loss with a weight
            above 0 needs them.

    Raises:
        EncoderError: If the encoder is not a plain ViT.
    """

    def __init__(self, encoder: VisionTransformer, config: ModelConfig) -> None:
        super().__init__()
        check_plain(encoder, type(encoder).__name__)
        self.config = config
        self.encoder = encoder
        self.encoder.pos_embed.requires_grad_(False)
        self.patch_size: int = encoder.patch_embed.patch_size[0]
        self.image_size: tuple[int, int] = encoder.patch_embed.img_size
        width = config.decoder.width
        weights = config.losses
        # C2 -> C3, for the decoder; the embedded CLS token is α or β.
        self.embed = nn.Linear(encoder.embed_dim, width)
        nn.init.xavier_uniform_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)
        self.decoder: Decoder | None = None
        self.fusion: nn.Module | None = None
        if weights.scene_reconstruction > 0 or weights.person_reconstruction > 0:
            self.decoder = Decoder(config.decoder, grid=encoder.patch_embed.grid_size, patch_size=self.patch_size)
        if config.fusion is not None and config.needs_image_features:
            self.fusion = build_fusion(config.fusion, width, config.fusion_heads)
        teacher_width = config.teacher_width or width
        is_projected = config.needs_image_features and teacher_width != width
        self.project = nn.Linear(width, teacher_width) if is_projected else nn.Identity()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Set whether blocks recompute their activations in the backward pass."""
        self.encoder.set_grad_checkpointing(enable)
        if self.decoder is not None:
            self.decoder.grad_checkpointing = enable

    def forward(
        self,
        scene: Tensor,
        person: Tensor | None = None,
        *,
        image_features: Tensor | None = None,
        text_features: Tensor | None = None,
        scene_noise: Tensor | None = None,
        person_noise: Tensor | None = None,
        weights: LossWeights | None = None,
    ) -> ModelOutput:
        """Run a batch and compute every loss that is on.

        Args:
            scene: (N, 3, H, W), ImageNet-normalised, of the encoder's input size.
            person: (N, 3, H, W), as scene. Ignored, and may be None, if `config.needs_person` is false.
            image_features: (N, C) the teacher's Ω.
            text_features: (M, C) the teacher's Λ, M >= N.
            scene_noise: (N, L) random numbers that draw the masks of the scenes; None: from torch's generator.
            person_noise: (N, L) random numbers that draw the masks of the persons; None: from torch's generator.
            weights: Weights of the losses in this step; None: those of the configuration.

        Raises:
            ShapeError: If a view or feature is missing or has another shape.
        """
        views = self._required_views(scene, person)
        count = len(scene)
        has_person = len(views) == 2
        patches = patchify(torch.cat(views), self.patch_size)  # (2N, L, P), or (N, L, P) without person
        noises = [scene_noise, person_noise] if has_person else [scene_noise]
        mask = self._draw_mask(patches, noises)
        tokens = encode_visible(self.encoder, patches, mask.visible)  # (2N, 1 + K, C2)
        # Without a decoder only the CLS token is read.
        tokens = self.embed(tokens if self.decoder else tokens[:, :1])  # (2N, 1 + K, C3), or (2N, 1, C3)
        cls = tokens[:, 0].to(torch.promote_types(tokens.dtype, torch.float32))  # (2N, C3)
        alpha = cls[:count]  # (N, C3)
        beta = cls[count:] if has_person else None  # (N, C3)

        preds, losses = self._reconstruct(tokens, patches, mask, count)

        fused = None
        if self.config.needs_image_features:
            # Fusion and comparison compute in float32, whatever the precision of the encoder.
            with torch.autocast(scene.device.type, enabled=False):
                fused = alpha if self.fusion is None else self.fusion(alpha, beta)  # (N, C3)
                projected, image, text = self._alignment_inputs(fused, image_features, text_features)
                if text is not None:
                    cfa = contrastive_feature_alignment(projected, image, text, self.config.temperature)
                    losses["contrastive_feature_alignment"] = cfa
                if self.config.losses.semantic_visual_alignment > 0:
                    losses["semantic_visual_alignment"] = semantic_visual_alignment(projected, image)

        weights = weights or self.config.losses
        zero = cls.new_zeros(())
        total = (
            weights.scene_reconstruction * losses.get("scene_reconstruction", zero)
            + weights.person_reconstruction * losses.get("person_reconstruction", zero)
            + weights.contrastive_feature_alignment * losses.get("contrastive_feature_alignment", zero)
            + weights.semantic_visual_alignment * losses.get("semantic_visual_alignment", zero)
        )
        return ModelOutput(
            losses=losses,
            total=total,
            scene=alpha,
            person=beta,
            fused=fused,
            diagnostics={} if fused is None else fused_diagnostics(fused, getattr(self.fusion, "bias", None)),
            scene_pred=preds.get("scene"),
            person_pred=preds.get("person"),
            scene_mask=Mask(mask.visible[:count], mask.hidden[:count]),
            person_mask=Mask(mask.visible[count:], mask.hidden[count:]) if has_person else None,
        )

    def _required_views(self, scene: Tensor, person: Tensor | None) -> list[Tensor]:
        """Return the views that the losses need, (N, 3, H, W) each.

        Raises:
            ShapeError: If a view is missing, of another shape or not of floats.
        """
        if not self.config.needs_person:
            person = None
        elif person is None:
            raise ShapeError("the person view is missing; give it, or turn person_reconstruction and fusion off")
        views = [scene] if person is None else [scene, person]
        shape = (len(scene), 3, *self.image_size)
        for view in views:
            if view.shape != shape:
                raise ShapeError(f"expected views of shape {shape}, the encoder's input size, got {tuple(view.shape)}")
            if not view.is_floating_point():
                raise ShapeError(f"expected normalised views of floats, got {view.dtype}; see uniemox.views.patches")
        return views

    def _draw_mask(self, patches: Tensor, noises: list[Tensor | None]) -> Mask:
        """Draw masks for all views of the batch.

        Args:
            patches: (2N, L, P), or (N, L, P) without person.
            noises: (N, L) for each view, or None to draw it from torch's generator.
        """
        shape = (len(patches) // len(noises), patches.shape[1])
        drawn = [torch.rand(shape, device=patches.device) if noise is None else noise for noise in noises]
        for noise in drawn:
            if noise.shape != shape:
                raise ShapeError(f"mask noise must be (N, L) = {shape}, got {tuple(noise.shape)}")
        return random_mask(torch.cat(drawn), self.config.mask.ratio)

    def _reconstruct(
        self, tokens: Tensor, patches: Tensor, mask: Mask, count: int
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Predict patches and compute L1 for each stream that is reconstructed; the decoder skips other streams.

        Args:
            tokens: (2N, 1 + K, C3), or (N, 1 + K, C3) without person.
            patches: (2N, L, P), or (N, L, P) without person.
            mask: Mask of the same rows.
            count: N.

        Returns:
            Predicted patches (N, L, P) by stream, and losses by the names of LossWeights' fields.
        """
        if self.decoder is None:
            return {}, {}
        weights = self.config.losses
        streams = []
        if weights.scene_reconstruction > 0:
            streams.append("scene")
        if weights.person_reconstruction > 0:
            streams.append("person")

        # The rows of the scenes come first.
        rows_of = {"scene": slice(None, count), "person": slice(count, None)}
        decoded = rows_of[streams[0]] if len(streams) == 1 else slice(None)
        mask_of_decoded = Mask(mask.visible[decoded], mask.hidden[decoded])
        pred = self.decoder(tokens[decoded], mask_of_decoded)  # (2N, L, P) or (N, L, P)
        preds = dict(zip(streams, pred.split(count), strict=True))  # (N, L, P) each
        losses = {}
        for stream in streams:
            rows = rows_of[stream]
            loss = reconstruction_loss(preds[stream], patches[rows], mask.hidden[rows], self.config.norm_pix)  # eq 1
            losses[f"{stream}_reconstruction"] = loss
        return preds, losses

    def _alignment_inputs(
        self, fused: Tensor, image: Tensor | None, text: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return Υ projected to the teacher's width (N, C), Ω (N, C) and Λ (M, C); Λ is None if L2 is off.

        Raises:
            ShapeError: If a feature of the teacher is missing, or Ω has another width.
        """
        config = self.config
        if image is None:
            raise ShapeError("the teacher's image_features are missing; give them, or turn L2 and L3 off")
        if text is None and config.needs_text_features:
            raise ShapeError("the teacher's text_features are missing; give them, or turn L2 off")

        projected = self.project(fused)  # (N, C)
        image = image.to(fused.dtype)
        if image.ndim != 2 or image.shape[1] != projected.shape[1]:
            raise ShapeError(
                f"the teacher's image features {tuple(image.shape)} must be (N, {projected.shape[1]}); a teacher of "
                "another width needs ModelConfig(teacher_width=...)"
            )
        if text is None or not config.needs_text_features:
            return projected, image, None
        return projected, image, text.to(fused.dtype)


@torch.no_grad()
def fused_diagnostics(fused: Tensor, offset: Tensor | None) -> dict[str, Tensor]:
    """Measure whether Υ still distinguishes images.

    Args:
        fused: (N, C) Υ.
        offset: (C,) ε or b, which the fusion adds to every image; None without one.

    Returns:
        Scalars: "fused_cosine", the mean cosine between the Υ of different images, 0 for one image; and "offset_share",
        |ε| over the mean |Υ|. If both are near 1, Υ has collapsed to the offset.
    """
    unit = nn.functional.normalize(fused, dim=1)  # (N, C)
    count = len(fused)
    # |Σ u|² is the sum of the cosines of all ordered pairs; Σ |u|² are those of an image with itself.
    cosines = unit.sum(dim=0).square().sum() - unit.square().sum()
    scalars = {"fused_cosine": cosines / max(1, count * (count - 1))}
    if offset is not None:
        scalars["offset_share"] = offset.norm() / fused.norm(dim=1).mean().clamp(min=1e-12)
    return scalars
