"""The loss of several modalities of which a weak one may stay weak (EmotiCon)."""

from torch import Tensor

from uniemox.errors import ShapeError
from uniemox.losses.soft_target import mean_over_images


def multiplicative_loss(logits: Tensor, target: Tensor, beta: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """-Σ_k p_k^(β / (K - 1)) log p_k, p_k what modality k gives the true label (Mittal et al., CVPR 2020).

    A modality that is unsure weighs little, so that each image is learned from those that are sure.
    logits: (N, K, E) of K modalities.  target: (N, E), rows that sum to 1; with shares of several labels p_k is their
    weighted geometric mean.  beta: its value is not published, 1 is ours.  weight: (N,); None: all the same.
    The factor p_k^(β / (K - 1)) is no path of the gradient: it weighs, it is not to be made small.
    A mean over the N images of this device. Raises ShapeError if the shapes don't belong together.
    """
    if logits.ndim != 3 or logits.shape[1] < 2 or logits.shape[::2] != target.shape:
        raise ShapeError(
            f"logits must be (N, K, E) of at least 2 modalities and target (N, E), got {tuple(logits.shape)} and "
            f"{tuple(target.shape)}"
        )
    log_p = (target[:, None] * logits.log_softmax(dim=-1)).sum(dim=-1)  # (N, K)
    factor = (log_p.detach() * beta / (logits.shape[1] - 1)).exp()
    return mean_over_images(-(factor * log_p).sum(dim=1), weight)
