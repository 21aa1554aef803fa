"""Predictions of a classifier for the images of a project."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import uniemox
from uniemox.data import ImageFile, Sample, decode_sample
from uniemox.errors import ConfigError, ImageError
from uniemox.labels import LabelSet
from uniemox_curate.project import Project

# Images of one transaction. A model is slower than a scan, and less is lost when it is stopped.
IMAGES_PER_PREDICTION = 64
Scorer = Callable[[Sequence[Sample]], Sequence[Mapping[str, float] | None]]
"""Function that returns a model's probabilities by label for each image, None for an unreadable one."""


def scorer(model: str, labels: LabelSet, *, needs_all: bool = False) -> Scorer:
    """Return a function that gives a classifier's probabilities for images.

    The returned function raises ConfigError at the first image if the model and `labels` have another kind of emotion,
    or no label in common.

    Args:
        model: Name of the model, as `uniemox.load` takes it.
        labels: Labels of the project.
        needs_all: Require that the model has all labels.

    Raises:
        ConfigError: If a required label is missing.
    """
    predictor = uniemox.load(model)
    missing = set(labels.labels) - set(predictor.labels)
    if needs_all and missing:
        raise ConfigError(
            f"{model} does not know {', '.join(sorted(missing))}, so it would predict another label for such images; "
            "use a model with the project's labels"
        )

    def score(samples: Sequence[Sample]) -> list[Mapping[str, float] | None]:
        predictions: list[Mapping[str, float] | None] = []
        for sample in samples:
            try:
                image, _ = decode_sample(sample)
                prediction = predictor.predict(image)
            except ImageError:
                predictions.append(None)
                continue
            if prediction.kind != labels.kind or not set(prediction.scene) & set(labels.labels):
                raise ConfigError(
                    f"{model} predicts {prediction.kind} emotions: {', '.join(prediction.scene)}; the project has "
                    f"{', '.join(labels.labels)} ({labels.kind})"
                )
            predictions.append(prediction.scene)
        return predictions

    return score


def samples_of(project: Project, rows: Sequence[Any]) -> list[Sample]:
    """Return samples of images, keyed by id.

    Args:
        rows: Rows with id, sha256 and format.
    """
    return [Sample(key=str(row.id), image=ImageFile(project.image_path(row.sha256, row.format))) for row in rows]
