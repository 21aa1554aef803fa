"""L2 and L3: what is distilled from the teacher (equations 7 to 10).

CFA, contrastive feature alignment (L2): the similarities of the fused feature Υ to all texts of the batch shall
point where the similarities of the teacher's image feature Ω point.  SVA, semantic-aware visual alignment (L3): Υ
itself shall point where Ω points.
"""

import torch.nn.functional as F
from torch import Tensor

from uniemox.errors import ShapeError


def contrastive_feature_alignment(fused: Tensor, image: Tensor, text: Tensor, temperature: float | Tensor) -> Tensor:
    """L2: one minus the mean cosine between the rows of A and C (arXiv 2409.18877, equations 7 to 9).

    fused: (N, C) Υ.  image: (N, C) the teacher's Ω.  text: (M, C) the teacher's Λ, of the N images (M = N) or, with
    several GPUs, of all their images (M > N): a row compares one image with all M texts, so more texts make longer
    rows and another loss, while gradient accumulation, which sees fewer texts at a time, makes shorter ones. One text
    alone leaves nothing to align: every row is 1 or -1, without gradient.
    temperature: τ, positive. It multiplies A and C and cancels in the normalisation of their rows, so neither the value
    nor any gradient depends on it; it is an argument because equation 8 has it.
    A mean over the N rows of this device, in [0, 2]. Raises ShapeError if the widths differ or M < N.
    """
    _check(fused, image)
    if text.ndim != 2 or text.shape[1] != fused.shape[1] or len(text) < len(fused):
        raise ShapeError(
            f"text features {tuple(text.shape)} must have the width of the fused ones {tuple(fused.shape)}, "
            "and at least as many rows"
        )
    fused, image, text = F.normalize(fused, dim=-1), F.normalize(image, dim=-1), F.normalize(text, dim=-1)  # eq 7
    A = temperature * fused @ text.T  # (N, M), eq 8
    C = temperature * image @ text.T  # (N, M), eq 8
    return 1 - (F.normalize(A, dim=-1) * F.normalize(C, dim=-1)).sum(dim=-1).mean()  # eq 9


def semantic_visual_alignment(fused: Tensor, image: Tensor) -> Tensor:
    """L3: one minus the mean cosine between Υ and Ω (arXiv 2409.18877, equation 10).

    fused: (N, C) Υ.  image: (N, C) the teacher's Ω.
    A mean over the N images of this device, in [0, 2]. With the same number of images on each of several GPUs, the
    mean of their losses is the loss of the joined batch. Raises ShapeError if the shapes differ.
    """
    _check(fused, image)
    return 1 - (F.normalize(fused, dim=-1) * F.normalize(image, dim=-1)).sum(dim=-1).mean()


def _check(fused: Tensor, image: Tensor) -> None:
    if fused.ndim != 2 or fused.shape != image.shape:
        raise ShapeError(
            f"fused features {tuple(fused.shape)} and the teacher's image features {tuple(image.shape)} "
            "must both be (N, C)"
        )
