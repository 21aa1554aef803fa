"""The dictionary of surroundings that CCIM adjusts for, from the training images (arXiv 2303.11921)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.cluster import KMeans

from uniemox.data.sample import Sample
from uniemox.errors import ConfigError
from uniemox.finetune.evaluator import Evaluator
from uniemox.model.classifier import Classifier
from uniemox.model.methods.ccim import Ccim

MAX_IMAGES = 20_000  # that are clustered


def fit_confounders(model: Classifier, evaluator: Evaluator, train: Sequence[Sample]) -> None:
    """Set the dictionary of a classifier's CCIM head: k-means over the encoder's features without the people.

    The features, standardised, are those of the run's own encoder as it starts; the paper's are of a network that was
    trained on places. Each entry is the mean of a cluster, with its share of the images.
    Raises ConfigError if there are fewer images than entries.
    """
    head = model.head
    assert isinstance(head, Ccim)
    count = len(head.confounders)
    if len(train) < count:
        raise ConfigError(f"network.confounders is {count}, but there are {len(train)} training images; give fewer")
    seed = evaluator.config.seed
    rows = np.random.default_rng(seed).permutation(len(train))[:MAX_IMAGES]
    surroundings = Evaluator(
        replace(evaluator.config, view=replace(evaluator.config.view, hide_person=True)),
        evaluator.labels,
        evaluator.stats,
        evaluator.callback,
    )
    width = head.confounders.shape[1]
    alone = Classifier(model.encoder, feature_width=width, outputs=1, streams="scene")
    alone.to(next(model.parameters()).device)
    chosen = [train[int(i)] for i in np.sort(rows)]
    found = surroundings.outputs(alone, chosen, what="looking at surroundings", encoded=True).values[:, 0]
    found = (found - found.mean(axis=0)) / (found.std(axis=0) + 1e-6)
    clusters = KMeans(count, n_init=1, random_state=seed).fit(found)
    shares = np.bincount(clusters.labels_, minlength=count) / len(found)
    head.set_dictionary(torch.from_numpy(clusters.cluster_centers_), torch.from_numpy(shares))
