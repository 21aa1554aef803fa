"""Parts of a network that are fitted before or after its training: surroundings, logits and distance."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from uniemox.classifier_info import TASKS_WITH_SHARES
from uniemox.data.sample import Sample
from uniemox.finetune.head_training import fused
from uniemox.finetune.run_state import FinetuneRun
from uniemox.model.classifier import Classifier
from uniemox.model.distance import MIN_IMAGES, Distance
from uniemox.model.methods.ccim import Ccim
from uniemox.training.hardware import precision_of

MAX_DISTANCE_IMAGES = 4_000
"""Maximum number of training images that the distance is fitted on."""
MAX_SURROUNDINGS = 20_000
"""Maximum number of training images that a dictionary of confounders is fitted on."""


def prepare_network(run: FinetuneRun, *, is_new: bool) -> None:
    """Let a method read the training samples; fit a new run's dictionary of surroundings (CCIM).

    Surroundings are encoded with the run's own initial encoder; the paper of CCIM uses a network trained on places.
    """
    model = run.model
    head = model.head
    train = run.parts.train
    if model.method is not None:
        model.method.prepare(train, run.data.labels)
    if is_new and isinstance(head, Ccim):
        alone = Classifier(model.encoder, feature_width=head.confounders.shape[1], outputs=1, streams="scene")
        view = replace(run.config.view, hide_person=True)
        chosen = _sample_subset(train, MAX_SURROUNDINGS, run.config.seed)
        outputs = run.encode(chosen, "encoding surroundings", model=alone.to(run.device), view=view)
        head.fit_surroundings(outputs.values[:, 0], run.config.seed)


@torch.no_grad()
def adjust_logits(run: FinetuneRun) -> None:
    """Adjust logits so that rare classes are predicted more often, if set (arXiv 2007.07314, equation 9)."""
    head = run.model.head
    strength = run.config.logit_adjustment
    if strength > 0 and isinstance(head, nn.Linear):
        target = run.target(run.readable_train)  # (N, E)
        # A class without images counts as one image, because log(0) is not finite.
        shares = target.mean(dim=0).clamp(min=1 / len(target))  # (E,)
        head.bias.sub_(strength * shares.log().to(head.bias.device))


def fit_distance(run: FinetuneRun) -> None:
    """Fit the distance from the training images, on up to 4,000 of them."""
    samples = _sample_subset(run.parts.train, MAX_DISTANCE_IMAGES, run.config.seed)
    model = run.model
    if len(samples) < MIN_IMAGES:
        return
    if run.encoded is None or precision_of(run.config.hardware) != "float32":
        # The ONNX file computes in float32.
        work = "fitting the distance from the training images"
        values = run.encode(samples, work, precision="float32").values
    else:
        chosen = {sample.key for sample in samples}
        values = run.encoded.values[[sample.key in chosen for sample in run.encoded.samples]]
    features = fused(model, torch.from_numpy(values))
    # Some of the samples may be unreadable.
    if len(features) >= MIN_IMAGES:
        logits = None
        # Of several labels, the sum of their odds says nothing.
        if run.config.task in TASKS_WITH_SHARES:
            with torch.no_grad():
                logits = model.head(features.to(run.device))
        model.distance = Distance.fit(features, logits).to(run.device)


def _sample_subset(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Return a random selection of at most this many samples, in their order."""
    rows = np.random.default_rng(seed).permutation(len(samples))[:count]
    return [samples[int(i)] for i in np.sort(rows)]
