"""Heads of curves over few labelled images: fitted to features, or trained with low-rank changes of the encoder."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from uniemox.data.order import RunOrder
from uniemox.data.sample import Broken, Sample, units_of
from uniemox.errors import DataError
from uniemox.evaluate.classifier_outputs import Reading, outputs_of
from uniemox.finetune.augmentation import AugmentedViews
from uniemox.finetune.few_labels_config import FewLabelsConfig
from uniemox.finetune.heads import fit_head
from uniemox.finetune.network import BuiltNetwork, adapt
from uniemox.finetune.presets import LIGHT
from uniemox.finetune.prototypes import fit_prototypes
from uniemox.finetune.step import FinetuneBatch, Objective, finetune_step
from uniemox.finetune.targets import target_of
from uniemox.labels import LabelSet
from uniemox.model.classifier import Classifier, NeighbourHead
from uniemox.model.lora import find_layers, merge_adapters
from uniemox.teacher.prototypes import scale_of, text_prototypes
from uniemox.training.optimization import build_optimizer, warmup_cosine
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewBatch, ViewDataset, build_loader

ZERO_SHOT = "zero-shot"
LORA = "lora"
LORA_STEPS = 100
LORA_BATCH = 32
# Learning rate of the head, that of preset best at its batch of 64; the changes have `LoraConfig.lr_scale` times it.
LORA_LR = 1.25e-4
LORA_WARMUP = 0.1
WEIGHT_DECAY = 0.05
MAX_GRAD_NORM = 1.0
# Smallest share of an image that a crop shows in training, that of preset best.
MIN_AREA = 0.35

Array = NDArray[np.float32]
OnStep = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Features:
    """Features of images by key."""

    rows: Mapping[str, Array]  # (D,) each

    def of(self, samples: Sequence[Sample]) -> Array:
        """Return the features of N samples, (N, D)."""
        return np.stack([self.rows[sample.key] for sample in samples])


@dataclass(frozen=True, slots=True)
class Texts:
    """Text prototypes of a CLIP, (E, C), and its factor of the cosines."""

    prototypes: Array
    scale: float

    @classmethod
    def of(cls, init: str, labels: LabelSet) -> "Texts":
        """Read the texts of the CLIP that `init` names."""
        from uniemox.teacher.clip_encoder import open_clip_teacher  # noqa: PLC0415 - open_clip takes a second

        clip = open_clip_teacher(init)
        return cls(text_prototypes(clip, labels).numpy(), scale_of(clip))


def check_adaptable(classifier: Classifier, config: FewLabelsConfig) -> None:
    """Raise ConfigError if method lora is asked for and can't change this encoder."""
    if LORA in config.methods:
        find_layers(classifier.encoder, config.lora.layers)


@dataclass(kw_only=True)
class HeadFitter:
    """Fits heads to draws of images, and scores the same images with each."""

    config: FewLabelsConfig
    labels: LabelSet
    network: BuiltNetwork
    """Encoder, on its device."""
    features: Features
    """Features of all drawn and scored images."""
    scored: Sequence[Sample]
    workers: int
    """Number of processes that decode images for method lora."""

    @cached_property
    def texts(self) -> Texts:
        """Texts of the CLIP, for zero-shot and prototypes."""
        return Texts.of(self.config.init, self.labels)

    @cached_property
    def scored_features(self) -> Array:
        """Features of the scored images, (N, D)."""
        return self.features.of(self.scored)

    @torch.no_grad()
    def logits(self, method: str, train: Sequence[Sample], seed: int, on_step: OnStep) -> Array:
        """Return the logits of the scored images, (N, E), of a head that is fitted to the training images.

        Args:
            method: Name of the method.
            train: Training images; none for zero-shot.
            seed: Random seed of the folds of a cross-validation, and of method lora.
            on_step: Called with the number of steps done by method lora.

        Raises:
            DataError: If an image can't be read any more.
        """
        scored = self.scored_features
        if method == ZERO_SHOT:
            return _unit(scored) @ self.texts.prototypes.T
        x = self.features.of(train)
        target = target_of(train, "label", self.labels)
        if method == "knn":
            return NeighbourHead(torch.from_numpy(x), target)(torch.from_numpy(scored)).numpy()
        if method == "prototypes":
            texts = self.texts
            weight, _ = fit_prototypes(
                _unit(x), target.numpy(), texts.prototypes, texts.scale, seed=seed, groups=units_of(train)
            )
            return _unit(scored) @ weight.T
        head, _ = fit_head(x, target.numpy(), task="label", seed=seed, groups=units_of(train))
        if method == LORA:
            return self._adapt(head, train, seed, on_step)
        return head(torch.from_numpy(scored)).numpy()

    @torch.enable_grad()
    def _adapt(self, head: torch.nn.Linear, train: Sequence[Sample], seed: int, on_step: OnStep) -> Array:
        """Train low-rank changes of the encoder and the head, and return the logits of the scored images, (N, E).

        No images are held out: the number of steps is fixed.

        Args:
            head: Initial head, a probe of the unchanged encoder.
            train: Training images.
            seed: Random seed of the changes, the order and the crops.
            on_step: Called with the number of steps done.

        Raises:
            DataError: If an image can't be read any more.
        """
        torch.manual_seed(seed)
        classifier = copy.deepcopy(self.network.classifier)
        adapt(classifier, self.config.lora)
        classifier.head.load_state_dict(head.state_dict())
        optimizer = build_optimizer(
            classifier,
            lr=LORA_LR,
            weight_decay=WEIGHT_DECAY,
            betas=(0.9, 0.999),
            encoder_lr_scale=self.config.lora.lr_scale,
        )
        set_lr = warmup_cosine(optimizer, LORA_LR, steps=LORA_STEPS, warmup=LORA_WARMUP)
        classifier.train()
        for step, views in enumerate(self._batches(train, seed)):
            set_lr(step)
            target = target_of(views.samples, "label", self.labels)
            finetune_step(
                classifier,
                optimizer,
                [FinetuneBatch(scene=views.scene, person=None, target=target)],
                objective=Objective(task="label"),
                augment=LIGHT,
                stats=self.network.stats,
                max_grad_norm=MAX_GRAD_NORM,
            )
            on_step(step + 1)
        merge_adapters(classifier.encoder)
        reading = Reading(stats=self.network.stats, workers=self.workers)
        outputs = outputs_of(classifier, self.scored, ViewConfig(size=self.config.size), reading)
        _refuse_broken(outputs.broken)
        return outputs.values

    def _batches(self, train: Sequence[Sample], seed: int) -> Iterator[ViewBatch]:
        """Yield a batch for each step of method lora: all images if they are few, else `LORA_BATCH` of them.

        Raises:
            DataError: If an image can't be read any more.
        """
        views = AugmentedViews(ViewConfig(size=self.config.size, min_area=MIN_AREA), seed, None)
        order = RunOrder(len(train), batch_size=min(LORA_BATCH, len(train)), seed=seed, steps=LORA_STEPS)
        for batch in build_loader(ViewDataset(train, views), order, self.workers):
            _refuse_broken(batch.broken)
            yield batch


def _refuse_broken(broken: Sequence[Broken]) -> None:
    """Raise DataError for images that could be read when their features were computed."""
    if broken:
        raise DataError(f"{broken[0].reason}; it could be read a moment before")


def _unit(features: Array) -> Array:
    return normalize(torch.from_numpy(features), dim=-1).numpy()
