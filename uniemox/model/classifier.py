"""The fine-tuned network: encoder, fusion or region method, and head."""

from typing import Any, get_args

import torch
import torch.nn.functional as F
from timm.layers import DropPath, calculate_drop_path_rates
from torch import Tensor, nn

from uniemox.errors import ConfigError, ShapeError
from uniemox.model.concat_encoder import ConcatEncoder
from uniemox.model.distance import Distance
from uniemox.model.methods.relation import Relation
from uniemox.network_spec import Streams, views_of

# Names of timm's drop paths: of attention and MLP, or of the whole block.
DROP_PATHS = ("drop_path1", "drop_path2", "drop_path")


class Classifier(nn.Module):
    """Classifier of one view or two: logits of E classes, or E numbers.

    The head is initialised as MAE's: truncated normal with deviation 2e-5 (facebookresearch/mae, main_finetune.py).

    Args:
        encoder: (N, 3, H, W) -> (N, D), such as from `load_published` or `load_start`.
        feature_width: D, number of channels of the encoder's features.
        outputs: E, number of classes or numbers.
        streams: With "scene" or "person" the head reads the encoder's features. With "both" the two views go through
            the encoder as one batch of 2N; embed (D -> C3) and fusion, in float32, compute the Υ of pre-training; and
            the head reads Υ after a new layer norm.
        embed: Layer that makes α and β from the features. Required with "both", and only then, unless there is a
            method.
        fusion: Fusion of α and β into Υ. Required with "both", and only then, unless there is a method.
        method: Region method that reads the encoder's last feature map, (N, D, h, w), instead of its features.
        norm_eps: ε that the norm adds to the variance of Υ. It is small because Γ2's Υ deviates by only some
            thousandths at 512 channels.

    Raises:
        ConfigError: If these do not match.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        feature_width: int,
        outputs: int,
        streams: Streams,
        embed: nn.Linear | None = None,
        fusion: nn.Module | None = None,
        norm_eps: float = 1e-12,
        method: Relation | None = None,
    ) -> None:
        super().__init__()
        if method is None:
            _check_parts(feature_width, outputs, streams, embed, fusion)
        if method is not None:
            self.width = method.width
        elif embed is not None:
            self.width = embed.out_features
        else:
            self.width = feature_width
        self.streams = streams
        self.encoder = encoder
        self.embed = nn.Identity() if embed is None else embed
        self.fusion = fusion
        self.method = method
        # `build` replaces it by `UnitLength` if a network without a fusion has unit features.
        self.norm: nn.Module = nn.Identity() if fusion is None else nn.LayerNorm(self.width, eps=norm_eps)
        self.keeps_norm_statistics = False
        # Fitted to the training images, after training.
        self.distance: Distance | None = None
        self.head: nn.Module = nn.Linear(self.width, outputs)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)

    def forward(self, scene: Tensor | None = None, person: Tensor | None = None, *, with_features: bool = False) -> Any:
        """Return logits (N, E), and with `with_features` also the head's input.

        Takes the same views as `features`, and raises the same errors.
        """
        features = self.features(scene, person)
        logits = self.head(features)
        return (logits, features) if with_features else logits

    def answer(self, scene: Tensor | None = None, person: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return logits (N, E), and distances (N,) from the training images, or None; see `Distance`."""
        features = self.features(scene, person)
        logits = self.head(features)
        return logits, None if self.distance is None else self.distance(features, logits)

    def train(self, mode: bool = True) -> "Classifier":
        """Set the mode; with `keeps_norm_statistics` batch norms stay in eval mode."""
        super().train(mode)
        if self.keeps_norm_statistics:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def features(self, scene: Tensor | None = None, person: Tensor | None = None) -> Tensor:
        """Return the head's input: (N, D) for one view, (N, C3) for both, (N, method.width) for regions.

        Args:
            scene: (N, 3, H, W), ImageNet-normalised; ignored unless `streams` names it.
            person: (N, 3, H, W), ImageNet-normalised; ignored unless `streams` names it.

        Raises:
            ShapeError: If a required view is missing or not of floats, or if two views have different shapes.
        """
        return self.fuse(self.encode(scene, person))

    def encode(self, scene: Tensor | None = None, person: Tensor | None = None) -> Tensor:
        """Return the encoder's features of V views: (N, V, D); with a method the regions, see `RegionReader`.

        Takes the same views as `features`, and raises the same errors.
        """
        views = self._required_views(scene, person)
        if self.method is not None:
            return self.method.reader(self.encoder, *views)
        if len(views) == 1:
            return self.encoder(views[0])[:, None]  # (N, 1, D)
        features = self.encoder(torch.cat(views))  # (2N, D)
        # len() would become a constant in an export.
        count = views[0].shape[0]
        return torch.stack([features[:count], features[count:]], dim=1)  # (N, 2, D)

    def fuse(self, encoded: Tensor) -> Tensor:
        """Return the head's input, see `features`.  encoded: from `encode`."""
        if self.method is not None:
            return self.method(self.method.reader.split(encoded))
        if self.fusion is None:
            return self.norm(encoded[:, 0])  # (N, D)
        embedded = self.embed(encoded)  # (N, 2, C3)
        # Υ is computed in float32, as in pre-training.
        embedded = embedded.to(torch.promote_types(embedded.dtype, torch.float32))
        alpha, beta = embedded.unbind(dim=1)  # (N, C3) each
        with torch.autocast(embedded.device.type, enabled=False):
            return self.norm(self.fusion(alpha, beta))  # (N, C3)

    def _required_views(self, scene: Tensor | None, person: Tensor | None) -> list[Tensor]:
        """Return the views that `streams` names, (N, 3, H, W) each.

        Raises:
            ShapeError: If a view is missing or not of floats, or if two views have different shapes.
        """
        views = []
        for name in views_of(self.streams):
            view = scene if name == "scene" else person
            if view is None:
                raise ShapeError(f"the {name} view is missing; this network reads streams={self.streams!r}")
            if view.ndim != 4 or not view.is_floating_point():
                raise ShapeError(
                    f"expected the {name} view as normalised floats (N, 3, H, W), got {view.dtype} "
                    f"{tuple(view.shape)}; see uniemox.views.patches"
                )
            views.append(view)
        if views[0].shape != views[-1].shape:
            raise ShapeError(f"scene {tuple(views[0].shape)} and person {tuple(views[1].shape)} must have one shape")
        return views


class UnitLength(nn.Module):
    """Scales each row to length 1."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the rows with length 1, (N, C).  features: (N, C)."""
        return F.normalize(features, dim=-1)


class NeighbourHead(nn.Module):
    """Head that averages the labels of the nearest training images; replaces `classifier.head` and has no weights.

    Neighbours are found by cosine; each has the weight exp(cosine / temperature), as in DINO (arXiv 2104.14294).

    Args:
        bank: (M, C) features of training images, from `Classifier.features`.
        targets: (M, E) labels of these images, rows that sum to 1.
        neighbours: Number of neighbours that vote; all M if there are fewer.
        temperature: Divisor of the cosines, above 0; lower values favour the nearest neighbours.

    Raises:
        ShapeError: If bank and targets do not match.
        ConfigError: For numbers out of range.
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
        """Return log(share of the votes + 1e-6), (N, E), in float32.  features: (N, C)."""
        with torch.autocast(features.device.type, enabled=False):
            cosines = F.normalize(features.float(), dim=-1) @ self.bank.T  # (N, M)
            nearest, rows = cosines.topk(self.neighbours, dim=-1)  # (N, neighbours)
            votes = (nearest / self.temperature).softmax(dim=-1)  # (N, neighbours)
            shares = (votes[..., None] * self.targets[rows]).sum(dim=1)  # (N, E)
            # A label without votes gets a finite logit.
            return (shares + 1e-6).log()


def set_drop_path(encoder: nn.Module, rate: float) -> None:
    """Set stochastic depth of a timm network, rising linearly from 0 in the first block to rate in the last.

    Args:
        encoder: Network of timm, or several concatenated ones, each of which gets these rates; changed in place.
        rate: Probability of skipping the last block in training, 0 to below 1 (arXiv 1603.09382).

    Raises:
        ConfigError: For another rate, or for a rate above 0 if the network's blocks can't be skipped.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"drop_path must be at least 0 and below 1, got {rate}")
    networks = encoder.encoders if isinstance(encoder, ConcatEncoder) else [encoder]
    blocks_by_network = [
        [module for module in network.modules() if any(hasattr(module, name) for name in DROP_PATHS)]
        for network in networks
    ]
    if not any(blocks_by_network) and rate > 0:
        raise ConfigError(f"{type(encoder).__name__} has no blocks with a drop path, got drop_path={rate}; set it to 0")
    for blocks in blocks_by_network:
        for block, block_rate in zip(blocks, calculate_drop_path_rates(rate, len(blocks)), strict=True):
            for name in DROP_PATHS:
                if hasattr(block, name):
                    setattr(block, name, DropPath(block_rate) if block_rate > 0 else nn.Identity())


def _check_parts(
    feature_width: int, outputs: int, streams: str, embed: nn.Linear | None, fusion: nn.Module | None
) -> None:
    """Raise ConfigError unless a classifier can be built from these parts."""
    if streams not in get_args(Streams):
        raise ConfigError(f"there are no streams {streams!r}; choose one of {', '.join(get_args(Streams))}")
    if feature_width < 1 or outputs < 1:
        raise ConfigError(f"feature_width and outputs must be at least 1, got {feature_width} and {outputs}")
    if (streams == "both") != (embed is not None) or (embed is None) != (fusion is None):
        raise ConfigError(f'embed and fusion are required with streams="both", and only then; got streams={streams!r}')
    if embed is not None and embed.in_features != feature_width:
        raise ConfigError(f"embed reads {embed.in_features} channels, but the encoder gives {feature_width}")
