"""Continues the published start, and fine-tunes networks; a stopped run continues from its last saved step."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.continued.probe import best_penalty, features_of, fit, standardised
from experiments.continued.tensors import Images
from experiments.continued.training import Course, Laboratory, pretraining_model, steps_of, train
from experiments.published_start.plan import ARMS, TRAIN, UNLABELLED, Study
from uniemox.training.hardware import ready_to_train


class Classifier(nn.Module):
    """Encoder with a linear layer on its CLS token and mean patch token, which probes read too."""

    def __init__(self, encoder: nn.Module, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        vit: Any = encoder
        self.head = nn.Linear(2 * vit.num_features, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (N, E) for normalised pixels (N, 3, S, S)."""
        vit: Any = self.encoder
        tokens = vit.forward_features(pixels)  # (N, 1 + L, C)
        return self.head(torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1))


def start_head(head: nn.Linear, features: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
    """Start a linear layer as the logistic regression on frozen features (N, D)."""
    scale = standardised(features)
    classes = head.out_features
    model = fit(scale(features), labels, best_penalty(scale(features), labels, classes))
    deviation = features.std(axis=0) + 1e-6
    weight = model.coef_ / deviation
    bias = model.intercept_ - weight @ features.mean(axis=0)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))


@dataclass(frozen=True, slots=True)
class Workshop:
    """The start, sizes and folders that all runs of the experiment share."""

    study: Study
    start: nn.Module
    images: dict[str, Images]
    """Images by part."""
    root: Path
    """Folder of unfinished and finished weights."""

    @property
    def device(self) -> torch.device:
        """Device of images and networks."""
        return self.images[TRAIN].pixels.device

    def laboratory(self) -> Laboratory:
        """Return what the trainer of the earlier experiment reads."""
        images = self.images[TRAIN]
        return Laboratory(self.study.profile, images, torch.zeros(len(images)), self.root)

    def pretraining_images(self) -> Images:
        """Return the images that all arms but the supervised one are trained on."""
        parts = (self.images[TRAIN], self.images[UNLABELLED])
        return Images(*(torch.cat([getattr(part, name) for part in parts]) for name in Images.__slots__))

    def classifier(self, encoder: nn.Module, images: Images) -> Classifier:
        """Return a classifier whose head is fitted to the frozen encoder."""
        labels = images.labels.cpu().numpy()
        classifier = Classifier(encoder, int(labels.max()) + 1)
        start_head(classifier.head, features_of(encoder, images, self.study.profile.side_px), labels)
        return classifier

    def continue_start(
        self, arm: str, *, lr: float, seed: int, epochs: float, name: str
    ) -> tuple[nn.Module, nn.Module]:
        """Train an arm.

        Args:
            arm: Name of the arm.
            lr: Maximum learning rate.
            seed: Random seed of modules after the encoder, order, crops and masks.
            epochs: Passes over the pre-training images. The supervised arm sees the same number of images.
            name: Name of the files with weights.

        Returns:
            The encoder, and the complete model around it: a `UniEmoX`, or a `Classifier`.
        """
        laboratory = self.laboratory()
        profile = self.study.profile
        losses = ARMS[arm].losses
        encoder = copy.deepcopy(self.start)
        images = self.pretraining_images()
        steps = steps_of(laboratory, images, epochs)
        torch.manual_seed(seed)
        course = Course(steps=steps, warm_up=max(1, steps // 10), lr=lr, seed=seed)
        model: nn.Module
        if losses is None:
            images = self.images[TRAIN]
            model = self.classifier(encoder, images)
            ready_to_train(model, self.device)
        else:
            model = pretraining_model(laboratory, encoder, losses, ARMS[arm].fusion)
            ready_to_train(model, self.device)
            # First only the new modules after the encoder are trained, so that their random weights don't disturb it.
            parameters = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
            for parameter in parameters:
                parameter.requires_grad_(False)
            after_encoder = replace(
                course, steps=profile.warm_up_steps, warm_up=profile.warm_up_steps // 10, lr=profile.warm_up_lr
            )
            train(laboratory, model, images, self.root / f"{name}.warm.pt", after_encoder)
            for parameter in parameters:
                parameter.requires_grad_(True)
        train(laboratory, model, images, self.root / f"{name}.pt", course)
        return encoder, model

    def fine_tune(self, encoder: nn.Module, images: Images, *, lr: float, seed: int, name: str) -> Classifier:
        """Train a copy of an encoder and a classifier on images with labels."""
        laboratory = self.laboratory()
        steps = steps_of(laboratory, images, self.study.tuning_epochs)
        torch.manual_seed(seed)
        classifier = self.classifier(copy.deepcopy(encoder), images)
        ready_to_train(classifier, self.device)
        course = Course(steps=steps, warm_up=max(1, steps // 10), lr=lr, seed=seed)
        train(laboratory, classifier, images, self.root / f"{name}.tuned.pt", course)
        return classifier
