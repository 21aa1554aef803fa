"""Dry run of fine-tuning: the network is built as in a run, without weights in memory."""

import torch

from uniemox.data.sample import DataSet
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.network import network_of
from uniemox.finetune.samples import Parts
from uniemox.training.run_notes import origin_of_weights


def dry_run(config: FinetuneConfig, data: DataSet, parts: Parts) -> str:
    """Read initial weights and build the network as a run does, on torch's meta device; train and write nothing.

    Args:
        config: Settings of the run, resolved.
        data: Its labelled images.
        parts: These images as `divide` divides them.

    Returns:
        Description of the origin of the encoder's initial weights.

    Raises:
        UniemoxError: For whatever would stop the run before its first step.
    """
    with torch.device("meta"):
        network = network_of(config, data, parts.train)
    return origin_of_weights(network.classifier.encoder, config.init)
