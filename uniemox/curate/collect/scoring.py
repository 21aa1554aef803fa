"""How well a classifier finds that images fit their label."""

from collections.abc import Callable, Mapping, Sequence

import uniemox
from uniemox.data.sample import Sample, decode_sample
from uniemox.errors import ConfigError, ImageError
from uniemox.labels import LabelSet


def scorer(
    model: str, labels: LabelSet, *, needs_all: bool = False
) -> Callable[[Sequence[Sample]], list[Mapping[str, float] | None]]:
    """What gives shares of labels for images, None for one that can't be read.

    model: as `uniemox.load` takes it.  needs_all: whether it has to know all labels.
    Raises ConfigError if it does not, or, once an image was seen, if it names other emotions.
    """
    predictor = uniemox.load(model)
    missing = set(labels.labels) - set(predictor.labels)
    if needs_all and missing:
        raise ConfigError(
            f"{model} does not know {', '.join(sorted(missing))}, so that it would name another label for such images; "
            "take a model of the project's labels"
        )

    def score(samples: Sequence[Sample]) -> list[Mapping[str, float] | None]:
        found: list[Mapping[str, float] | None] = []
        for sample in samples:
            try:
                image, _ = decode_sample(sample)
            except ImageError:
                found.append(None)
                continue
            prediction = predictor.predict(image)
            assert not isinstance(prediction, list), "of one image"
            if prediction.kind != labels.kind or not set(prediction.scene) & set(labels.labels):
                raise ConfigError(
                    f"{model} tells what is {prediction.kind}: {', '.join(prediction.scene)}; the project has "
                    f"{', '.join(labels.labels)} ({labels.kind})"
                )
            found.append(prediction.scene)
        return found

    return score
