"""CCIM: what a person feels, freed from what their surroundings happened to go with in training.

Yang et al., CVPR 2023 (arXiv 2303.11921) and TPAMI 2024 (arXiv 2407.04963). Surroundings confound: they go with
emotions in the training images more than they cause them. Backdoor adjustment, P(Y | do(X)) = Σ_z P(Y | X, z) P(z),
lets every image meet all surroundings, as often as each occurs, and is approximated by
softmax(W_h h + W_g Σ_i λ_i z_i P(z_i)).
"""

import torch
from torch import Tensor, nn

CHANNELS = 256  # of queries and keys


class Ccim(nn.Module):
    """The head of a classifier with a dictionary of confounders.

    width: C, of the features h.  outputs: E.  confounders: M.  confounder_width: Z, channels of each.
    The dictionary z (M, Z) and its shares P(z) (M,) are set by `set_dictionary`, and are not learned.
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
