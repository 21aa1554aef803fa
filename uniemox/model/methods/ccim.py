"""CCIM: a classifier head that reduces the influence of the surroundings on a person's predicted emotion."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from uniemox.errors import ConfigError

# Channels of queries and keys.
CHANNELS = 256


class Ccim(nn.Module):
    """CCIM: a head with a dictionary of confounders (CVPR 2023, arXiv 2303.11921; TPAMI 2024, arXiv 2407.04963).

    Surroundings are confounders: in the training images they correlate with emotions more than they cause them. The
    backdoor adjustment P(Y | do(X)) = Σ_z P(Y | X, z) P(z) combines every image with all surroundings, weighted by
    their frequency. It is approximated by softmax(W_h h + W_g Σ_i λ_i z_i P(z_i)).

    Args:
        width: C, number of channels of the features h.
        outputs: E, number of classes.
        confounders: M, number of entries of the dictionary.
        confounder_width: Z, channels of each entry. `fit_surroundings` sets the dictionary z (M, Z) and its shares P(z)
            (M,), which are not learned.
    """

    confounders: Tensor
    shares: Tensor

    def __init__(self, width: int, outputs: int, confounders: int, confounder_width: int) -> None:
        super().__init__()
        self.register_buffer("confounders", torch.zeros(confounders, confounder_width))  # (M, Z) z
        self.register_buffer("shares", torch.full((confounders,), 1 / confounders))  # (M,) P(z)
        self.query = nn.Linear(width, CHANNELS, bias=False)
        self.key = nn.Linear(confounder_width, CHANNELS, bias=False)
        self.of_features = nn.Linear(width, outputs)  # W_h
        self.of_confounders = nn.Linear(confounder_width, outputs, bias=False)  # W_g
        nn.init.trunc_normal_(self.of_features.weight, std=2e-5)
        nn.init.zeros_(self.of_features.bias)

    @torch.no_grad()
    def set_dictionary(self, confounders: Tensor, shares: Tensor) -> None:
        """Set the dictionary.  confounders: (M, Z), means of clusters.  shares: (M,), of the images in each."""
        self.confounders.copy_(confounders)
        self.shares.copy_(shares)

    def fit_surroundings(self, features: NDArray[np.float32], seed: int) -> None:
        """Fit the dictionary: k-means over the standardised features of images without their people.

        Args:
            features: (N, Z).
            seed: Random seed of the clusters' first centres.

        Raises:
            ConfigError: For fewer images than entries.
        """
        # Takes a second to import.
        from sklearn.cluster import KMeans  # noqa: PLC0415

        count = len(self.confounders)
        if len(features) < count:
            raise ConfigError(
                f"network.confounders is {count}, but there are {len(features)} training images; give fewer"
            )
        standardised = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)  # (N, Z)
        clusters = KMeans(count, n_init=1, random_state=seed).fit(standardised)
        shares = np.bincount(clusters.labels_, minlength=count) / len(features)
        self.set_dictionary(torch.from_numpy(clusters.cluster_centers_), torch.from_numpy(shares))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, E).  features: (N, C)."""
        return self.of_features(features) + self.of_confounders(self.expected(features))

    def expected(self, features: Tensor) -> Tensor:
        """Return M Σ_i λ_i z_i P(z_i), (N, Z), with λ = softmax_i(q(h) · k(z_i) / √Z).

        This is M times the paper's sum, which shrinks as the dictionary grows, so that W_g hardly learns.
        """
        scores = self.query(features) @ self.key(self.confounders).T / self.confounders.shape[1] ** 0.5  # (N, M)
        weights = scores.softmax(dim=1) * self.shares * len(self.shares)  # (N, M)
        return weights @ self.confounders  # (N, Z)
