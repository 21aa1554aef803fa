"""CCIM: a classifier head that reduces the influence of the surroundings on a person's predicted emotion."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from uniemox.errors import ConfigError

CHANNELS = 256  # of queries and keys


class Ccim(nn.Module):
    """CCIM: a head with a dictionary of confounders (CVPR 2023, arXiv 2303.11921; TPAMI 2024, arXiv 2407.04963).

    Surroundings are confounders: in the training images they correlate with emotions more than they cause them. The
    backdoor adjustment P(Y | do(X)) = Σ_z P(Y | X, z) P(z) combines every image with all surroundings, weighted by
    their frequency. It is approximated by softmax(W_h h + W_g Σ_i λ_i z_i P(z_i)).

    Args:
        width: C, of the features h.
        outputs: E.
        confounders: M.
        confounder_width: Z, channels of each. `fit_surroundings` sets the dictionary z (M, Z) and its shares P(z) (M,),
            which are not learned.
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
        """Set the dictionary.  confounders: (M, Z), means of clusters.  shares: (M,), of the images in each."""
        self.confounders.copy_(confounders)
        self.shares.copy_(shares)

    def fit_surroundings(self, features: NDArray[np.float32], seed: int) -> None:
        """Fit the dictionary: k-means over the standardised features (N, Z) of images without their people.

        Raises:
            ConfigError: For fewer images than entries.
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

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (N, E).  features: (N, C)."""
        return self.of_features(features) + self.of_confounders(self.expected(features))

    def expected(self, features: Tensor) -> Tensor:
        """Return M Σ_i λ_i z_i P(z_i), (N, Z), with λ = softmax_i(q(h) · k(z_i) / √Z).

        This is M times the paper's sum, which shrinks as the dictionary grows, so that W_g hardly learns.
        """
        fits = self.query(features) @ self.key(self.confounders).T / self.confounders.shape[1] ** 0.5  # (N, M)
        weights = fits.softmax(dim=1) * self.shares * len(self.shares)
        return weights @ self.confounders
