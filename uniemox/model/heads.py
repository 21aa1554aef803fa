"""Heads of a classifier other than a linear one, and the distance of an image from the training images."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from uniemox.errors import ConfigError, ShapeError

CHANNELS = 256  # of CCIM's queries and keys
MAX_AXES = 64
MIN_IMAGES = 8


class NeighbourHead(nn.Module):
    """Votes of the nearest known images, in place of `classifier.head`; nothing of it is learned.

    The neighbours are found by cosine; each votes with exp(cosine / temperature), as in DINO (arXiv 2104.14294).
    bank: (M, C) features of known images, as `Classifier.features` gives them.  targets: (M, E) rows that sum to 1.
    neighbours: how many vote, all M if there are fewer.
    Raises ShapeError if bank and targets don't belong together, ConfigError for numbers out of range.
    """

    bank: Tensor
    targets: Tensor

    def __init__(self, bank: Tensor, targets: Tensor, neighbours: int = 20, temperature: float = 0.07) -> None:
        super().__init__()
        if bank.ndim != 2 or targets.ndim != 2 or len(bank) != len(targets) or not len(bank):
            raise ShapeError(
                f"the bank {tuple(bank.shape)} must be (M, C) and its targets {tuple(targets.shape)} (M, E), M above 0"
            )
        if neighbours < 1 or not 0 < temperature < float("inf"):
            raise ConfigError(
                f"neighbours must be at least 1 and temperature positive and finite, got {neighbours}, {temperature}"
            )
        self.neighbours = min(neighbours, len(bank))
        self.temperature = temperature
        self.register_buffer("bank", F.normalize(bank.detach().float(), dim=-1))  # (M, C)
        self.register_buffer("targets", targets.detach().float())  # (M, E)

    def forward(self, features: Tensor) -> Tensor:
        """features: (N, C).  Returns log(share of the votes + 1e-6), (N, E), in float32."""
        with torch.autocast(features.device.type, enabled=False):
            cosines = F.normalize(features.float(), dim=-1) @ self.bank.T  # (N, M)
            nearest, rows = cosines.topk(self.neighbours, dim=-1)  # (N, neighbours)
            votes = (nearest / self.temperature).softmax(dim=-1)  # (N, neighbours)
            shares = (votes[..., None] * self.targets[rows]).sum(dim=1)  # (N, E)
            return (shares + 1e-6).log()


class Ccim(nn.Module):
    """CCIM: a head with a dictionary of confounders (CVPR 2023, arXiv 2303.11921; TPAMI 2024, arXiv 2407.04963).

    Surroundings confound: in the training images they go with emotions more than they cause them. The backdoor
    adjustment P(Y | do(X)) = Σ_z P(Y | X, z) P(z) lets every image meet all surroundings, each as often as it occurs,
    and is approximated by softmax(W_h h + W_g Σ_i λ_i z_i P(z_i)).

    width: C, of the features h.  outputs: E.  confounders: M.  confounder_width: Z, channels of each.
    `fit_surroundings` sets the dictionary z (M, Z) and its shares P(z) (M,), which are not learned.
    """

    confounders: Tensor
    shares: Tensor

    def __init__(self, width: int, outputs: int, confounders: int, confounder_width: int) -> None:
        super().__init__()
        self.register_buffer("confounders", torch.zeros(confounders, confounder_width))
        self.register_buffer("shares", torch.full((confounders,), 1 / confounders))
        self.query = nn.Linear(width, CHANNELS, bias=False)
        self.key = nn.Linear(confounder_width, CHANNELS, bias=False)
        self.of_features = nn.Linear(width, outputs)  # W_h
        self.of_confounders = nn.Linear(confounder_width, outputs, bias=False)  # W_g
        nn.init.trunc_normal_(self.of_features.weight, std=2e-5)
        nn.init.zeros_(self.of_features.bias)

    @torch.no_grad()
    def set_dictionary(self, confounders: Tensor, shares: Tensor) -> None:
        """confounders: (M, Z), means of the clusters of surroundings.  shares: (M,), of the images in each."""
        self.confounders.copy_(confounders)
        self.shares.copy_(shares)

    def fit_surroundings(self, features: NDArray[np.float32], seed: int) -> None:
        """Set the dictionary: k-means over the standardised features (N, Z) of images without their people.

        Raises ConfigError for fewer images than entries.
        """
        from sklearn.cluster import KMeans  # noqa: PLC0415 - a second to import

        count = len(self.confounders)
        if len(features) < count:
            raise ConfigError(
                f"network.confounders is {count}, but there are {len(features)} training images; give fewer"
            )
        x = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
        clusters = KMeans(count, n_init=1, random_state=seed).fit(x)
        shares = np.bincount(clusters.labels_, minlength=count) / len(x)
        self.set_dictionary(torch.from_numpy(clusters.cluster_centers_), torch.from_numpy(shares))

    @property
    def linear(self) -> nn.Linear:
        """The layer that reads the features."""
        return self.of_features

    def forward(self, features: Tensor) -> Tensor:
        """features: (N, C).  Returns logits (N, E)."""
        return self.of_features(features) + self.of_confounders(self.expected(features))

    def expected(self, features: Tensor) -> Tensor:
        """M Σ_i λ_i z_i P(z_i), (N, Z), with λ = softmax_i(q(h) · k(z_i) / √Z).

        The paper's sum times M: else it would shrink as the dictionary grows, and W_g would hardly learn.
        """
        fits = self.query(features) @ self.key(self.confounders).T / self.confounders.shape[1] ** 0.5  # (N, M)
        weights = fits.softmax(dim=1) * self.shares * len(self.shares)
        return weights @ self.confounders


class Distance(nn.Module):
    """How unlike the training images an image is: far from their features, and without a label that stands out.

    The sum of two parts, each in units of its standard deviation over the training images:
    the squared distance of the features under a Gaussian (arXiv 1807.03888, equation 1). Features are scaled to length
    1, so that only their direction counts. Along the first K principal axes the variance is that of the training
    images, along all others one and the same (probabilistic PCA, Tipping & Bishop, JRSS B 1999, section 3.2), so that
    directions that no training image has count too;
    and the energy of the logits, -log Σ exp (arXiv 2010.03759, equation 4).
    width: D, of the features.  axes: K.
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
        self.register_buffer("rest", torch.ones(()))  # variance along every other axis
        self.register_buffer("weights", torch.tensor([1.0, 0.0]))  # of the squared distance and of the energy

    @classmethod
    def fit(cls, features: Tensor, logits: Tensor | None = None) -> "Distance":
        """Of M training images.

        features: (M, D), M at least 8.  logits: (M, E); None: the outputs are none, and the energy does not count.
        Raises ShapeError for fewer images.
        """
        if features.ndim != 2 or len(features) < MIN_IMAGES:
            raise ShapeError(f"expected features (M, D) of at least {MIN_IMAGES} images, got {tuple(features.shape)}")
        units = F.normalize(features.cpu().double(), dim=1)
        offsets = units - units.mean(dim=0)
        count = min(MAX_AXES, min(offsets.shape) // 2)
        with torch.random.fork_rng(devices=[]):  # the search for the axes starts from random ones
            torch.manual_seed(0)
            _, lengths, axes = torch.svd_lowrank(offsets, q=min(2 * count, *offsets.shape), niter=6)
        variances, axes = lengths[:count].square() / len(units), axes[:, :count]  # (K,), (D, K)
        left = (offsets.square().sum() / len(units) - variances.sum()) / (features.shape[1] - count)
        floor = torch.finfo(torch.float32).eps
        fitted = cls(features.shape[1], count)
        fitted.mean.copy_(units.mean(dim=0))
        fitted.axes.copy_(axes.T)
        fitted.variances.copy_(variances.clamp(min=floor))
        fitted.rest.copy_(left.clamp(min=floor))
        far = fitted.squared_distance(features.cpu())
        fitted.weights[0] = 1 / far.std().clamp(min=floor)
        if logits is not None:
            fitted.weights[1] = 1 / logits.cpu().float().logsumexp(dim=1).std().clamp(min=floor)
        return fitted

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """features: (N, D).  logits: (N, E).  Returns (N,) in float32; larger is less like the training images."""
        with torch.autocast(features.device.type, enabled=False):
            energy = -logits.float().logsumexp(dim=1)
            return self.weights[0] * self.squared_distance(features) + self.weights[1] * energy

    def squared_distance(self, features: Tensor) -> Tensor:
        """features: (N, D).  Returns (N,), about D for training images."""
        with torch.autocast(features.device.type, enabled=False):
            offset = F.normalize(features.float(), dim=1) - self.mean  # (N, D)
            along = offset @ self.axes.T  # (N, K)
            outside = offset.square().sum(dim=1) - along.square().sum(dim=1)
            return (along.square() / self.variances).sum(dim=1) + outside.clamp(min=0) / self.rest
