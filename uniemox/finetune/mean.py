"""Method mean: the mean of the calibrated logits of several runs as one network."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from uniemox.checkpoints.classifier import load_classifier
from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import CheckpointError, ConfigError
from uniemox.io.run_files import WEIGHTS
from uniemox.io.run_record import required_field
from uniemox.views.config import ViewConfig

# These settings determine which images train.
SPLIT_SETTINGS = ("seed", "task", "monitor", "holdout_fraction", "fraction", "select")


def check_same_division(run: Path, others: Sequence[str]) -> None:
    """Raise ConfigError unless the other runs trained on the same data with the same split.

    With another split, the others may have trained on images that calibrate `run`.

    Args:
        run: Folder of the run, with a config.json.
        others: Folders of the other runs, with a config.json each.
    """
    settings = required_field(run, "config")
    data = required_field(run, "data", "sha256")
    for other in map(Path, others):
        other_settings = required_field(other, "config")
        different = [name for name in SPLIT_SETTINGS if settings.get(name) != other_settings.get(name)]
        if data != required_field(other, "data", "sha256"):
            different.append("data")
        if different:
            raise ConfigError(f"{other} was made with a different {' and '.join(different)} than this run")


def mean_head(sources: Sequence[str], labels: Sequence[str], view: ViewConfig) -> nn.Linear:
    """Return a head over concatenated features of several fine-tuned encoders: the mean of their calibrated logits.

    Args:
        sources: Folders of fine-tuning runs.
        labels: Labels that all runs must have.
        view: The views that the head will be used with; all runs must have read the same.

    Raises:
        CheckpointError: If a folder is not a fine-tuning run.
        ConfigError: If a run has other labels, read other views, reads more than the scene, or has a head that is not
            linear in the features.
    """
    weights = []
    biases = []
    for source in sources:
        if not (Path(source) / WEIGHTS).is_file():
            raise CheckpointError(f"{source} is not a fine-tuning run; method mean needs folders of such runs")
        classifier, info = load_classifier(Path(source) / WEIGHTS)
        head = classifier.head
        is_alone = info.streams == "scene" and classifier.method is None
        if info.network.unit_features:
            raise ConfigError(
                f"method mean can't join {source}: its head (method prototypes) reads features of length 1, which the "
                "concatenated ones are not"
            )
        if info.labels != tuple(labels) or not is_alone or not isinstance(head, nn.Linear):
            raise ConfigError(
                f"method mean needs runs with a linear head on the scene and the labels {', '.join(labels)}; "
                f"{source} has {', '.join(info.labels)}, streams={info.streams!r}, a {type(head).__name__}"
            )
        _check_view(source, info, view)
        # Dividing by the temperature calibrates a run's logits; dividing by the number of runs takes their mean.
        scale = len(sources) * (info.temperature or 1.0)
        weights.append(head.weight.detach() / scale)
        biases.append(head.bias.detach() / scale)
    head = nn.Linear(sum(weight.shape[1] for weight in weights), len(labels))
    head.load_state_dict({"weight": torch.cat(weights, dim=1), "bias": torch.stack(biases).sum(dim=0)})
    return head


def _check_view(source: str, info: ClassifierInfo, view: ViewConfig) -> None:
    """Raise ConfigError unless a run was fine-tuned on the views of this one."""
    settings = {
        "size": (info.size, view.size),
        "crop_fraction": (info.crop_fraction, view.crop_fraction),
        "hide_person": (info.hides_person, view.hide_person),
    }
    different = {name: values for name, values in settings.items() if values[0] != values[1]}
    if different:
        names = " and ".join(f"view.{name} {theirs}, not {ours}" for name, (theirs, ours) in different.items())
        raise ConfigError(
            f"{source} was fine-tuned with {names}: the mean of several runs needs the views of all of them; give this "
            "run the same settings, and runs that have them"
        )
