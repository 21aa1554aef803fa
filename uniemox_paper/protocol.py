"""Protocol of a cell: what it trains, what the head reads, and what is scored. `reproduce --check` prints it."""

from dataclasses import dataclass

from uniemox.finetune import AugmentConfig, FinetuneConfig
from uniemox.labels import LabelSet

POOLS = {"own": "as in the method's own fine-tuning", "mean": "mean of the patch tokens", "token": "CLS token"}
"""Words for `NetworkConfig.pool`."""
FUSED = "the two views fused by a new {}"
EPOCHS = {
    "best": "highest {} on half of the held-out images",
    "accuracy": "highest {} on all held-out images",
    "last": "last",
}
"""Words for `FinetuneConfig.select`, with a place for the score."""
SCORES = {"best": "mean class recall", "accuracy": "accuracy"}
"""Score by which one label is selected, by `FinetuneConfig.select`."""
NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Description of what one cell of a table computes."""

    trained_on: str
    """Data sets whose train split trains the model, joined by " + "; "none" without training."""
    labels: LabelSet
    """Labels that the model predicts."""
    views: str
    """Parts of the image that the model reads."""
    pooling: str
    """Step from an encoder's output to the feature that the head reads."""
    head: str
    augmentation: str
    """Augmentation in training."""
    epoch: str
    """Rule that chooses the epoch."""
    scored_on: str
    """Data set that is scored."""
    split: str
    scored_labels: LabelSet
    """Labels among which the model chooses, all of the scored data set."""

    def __str__(self) -> str:
        trained = f"trained on {self.trained_on}, {_count(self.labels)}"
        if self.trained_on == NONE:
            trained = "no training"
        return "; ".join(
            [
                trained,
                f"reads {self.views}",
                f"pooling: {self.pooling}",
                f"head: {self.head}",
                f"augmentation: {self.augmentation}",
                f"epoch: {self.epoch}",
                f"scored on {self.scored_on}, split {self.split}, {_count(self.scored_labels)}: "
                f"{', '.join(self.scored_labels.labels)}",
            ]
        )


def _count(labels: LabelSet) -> str:
    return f"{len(labels)} labels ({labels.name})"


def views_of_method(config: FinetuneConfig) -> str:
    """Return the parts of an image that a fine-tuned network reads."""
    if config.method == "histogram" or not config.sees_person:
        return "the scene"
    if config.region_method is not None:
        if config.view.hide_person:
            return "the scene without the person, and the person"
        return "the scene and the person"
    if config.network.streams == "both":
        return "the scene and the person"
    return "the person"


def pooling_of(config: FinetuneConfig, network_pooling: str | None) -> str:
    """Return the step from the encoder's output to the head's input, in words.

    Args:
        config: Settings of the fine-tuning.
        network_pooling: Pooling of a network that ignores `NetworkConfig.pool`; None for plain ViTs.
    """
    if config.method == "histogram":
        return NONE
    if config.region_method is not None:
        return "means of the last feature map over regions"
    pooling = network_pooling or POOLS[config.network.pool]
    if config.network.streams == "both":
        fusion = config.network.fusion or "fusion, or the pre-trained one"
        return f"{pooling}; {FUSED.format(fusion)}"
    return pooling


def head_of(config: FinetuneConfig) -> str:
    """Return the kind of the head."""
    if config.method in ("probe", "histogram"):
        return "logistic regression" if config.task == "label" else "a logistic regression for each label"
    if config.network.confounders:
        return f"CCIM with {config.network.confounders} confounders, after {config.method}"
    if config.method == "lora":
        return f"linear, on a frozen encoder with trained changes of rank {config.lora.rank}"
    if config.region_method is None:
        return "linear"
    return f"linear, after {config.region_method}"


def augmentation_of(config: FinetuneConfig) -> str:
    """Return the augmentation in training, strongest settings included."""
    if not config.trains_in_steps:
        return NONE
    augment: AugmentConfig = config.augment
    parts = ["crops", "flips"]
    if augment.randaugment is not None:
        parts.append("RandAugment")
    for name, value in (("mixup", augment.mixup), ("CutMix", augment.cutmix), ("erasing", augment.erasing)):
        if value > 0:
            parts.append(name)
    # Several labels per image are not smoothed.
    if augment.smoothing > 0 and config.task == "label":
        parts.append(f"label smoothing {augment.smoothing:g}")
    return ", ".join(parts)


def epoch_of(config: FinetuneConfig) -> str:
    """Return the rule that chooses the epoch."""
    if not config.trains_in_steps:
        return NONE
    rule = config.select if config.chooses_epoch else "last"
    score = "mean average precision" if config.task == "multilabel" else SCORES.get(rule, "")
    return EPOCHS[rule].format(score)
