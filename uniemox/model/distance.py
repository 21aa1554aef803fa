"""Distance of an image from the training images, computed from its features and logits."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.errors import ShapeError

# Maximum K, number of principal axes with a variance of their own.
MAX_AXES = 64
MIN_IMAGES = 8
# Minimum standard deviation of the energy over the training images for which it counts.
MIN_ENERGY_SPREAD = 1e-3


class Distance(nn.Module):
    """Distance of an image from the training images: distance of its features plus energy of its logits.

    The distance of the features is the squared distance under a Gaussian (arXiv 1807.03888, equation 1). Features are
    scaled to length 1, so only their direction counts. Along the first K principal axes the variance is that of the
    training images. All other axes share one variance (probabilistic PCA, Tipping & Bishop, JRSS B 1999, section 3.2),
    so directions that no training image has count too. The energy of the logits is -log Σ exp (arXiv 2010.03759,
    equation 4). Both parts are in units of their standard deviation over the training images.

    Args:
        width: D, number of channels of the features.
        axes: K, number of principal axes.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor
    rest: Tensor
    weights: Tensor

    def __init__(self, width: int, axes: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))  # (D,)
        self.register_buffer("axes", torch.eye(axes, width))  # (K, D), orthonormal
        self.register_buffer("variances", torch.ones(axes))  # (K,)
        # Variance along every other axis.
        self.register_buffer("rest", torch.ones(()))
        # Factors of the squared distance and the energy.
        self.register_buffer("weights", torch.tensor([1.0, 0.0]))  # (2,)

    @classmethod
    def fit(cls, features: Tensor, logits: Tensor | None = None) -> "Distance":
        """Fit the distance to M training images.

        Args:
            features: (M, D), M at least 8.
            logits: (M, E); None: the outputs are not logits, and the energy is left out.

        Raises:
            ShapeError: For fewer than 8 images, or features of another shape.
        """
        if features.ndim != 2 or len(features) < MIN_IMAGES:
            raise ShapeError(f"expected features (M, D) of at least {MIN_IMAGES} images, got {tuple(features.shape)}")
        units = F.normalize(features.cpu().double(), dim=1)  # (M, D)
        offsets = units - units.mean(dim=0)  # (M, D)
        count = min(MAX_AXES, min(offsets.shape) // 2)
        # svd_lowrank starts from random axes: fix them, and leave torch's generator as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, singular_values, axes = torch.svd_lowrank(offsets, q=min(2 * count, *offsets.shape), niter=6)
        variances = singular_values[:count].square() / len(units)  # (K,)
        axes = axes[:, :count]  # (D, K)
        total_variance = offsets.square().sum() / len(units)
        residual_variance = (total_variance - variances.sum()) / (features.shape[1] - count)

        # Equal images have no variance, which must not become a division by zero.
        floor = torch.finfo(torch.float32).eps
        fitted = cls(features.shape[1], count)
        fitted.mean.copy_(units.mean(dim=0))
        fitted.axes.copy_(axes.T)
        fitted.variances.copy_(variances.clamp(min=floor))
        fitted.rest.copy_(residual_variance.clamp(min=floor))
        distances = fitted.squared_distance(features.cpu())  # (M,)
        fitted.weights[0] = 1 / distances.std().clamp(min=floor)
        if logits is not None:
            energy_spread = logits.cpu().float().logsumexp(dim=1).std()
            # Logarithms of probabilities, as of a k-NN head, have no energy but the noise of rounding.
            if energy_spread > MIN_ENERGY_SPREAD:
                fitted.weights[1] = 1 / energy_spread
        return fitted

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return distances (N,) in float32; larger is less similar.  features: (N, D).  logits: (N, E)."""
        with torch.autocast(features.device.type, enabled=False):
            energy = -logits.float().logsumexp(dim=1)  # (N,)
            return self.weights[0] * self.squared_distance(features) + self.weights[1] * energy

    def squared_distance(self, features: Tensor) -> Tensor:
        """Return squared distances (N,), about D for training images.  features: (N, D)."""
        with torch.autocast(features.device.type, enabled=False):
            offset = F.normalize(features.float(), dim=1) - self.mean  # (N, D)
            along = offset @ self.axes.T  # (N, K)
            outside = offset.square().sum(dim=1) - along.square().sum(dim=1)  # (N,)
            return (along.square() / self.variances).sum(dim=1) + outside.clamp(min=0) / self.rest
