"""A CLIP as a network that chooses among words; it needs the extra `train`."""

from collections.abc import Sequence
from importlib.util import find_spec

from uniemox.classifier_info import ClassifierInfo
from uniemox.errors import ConfigError, MissingPackageError
from uniemox.labels import MIKELS, clean, recognise
from uniemox.predict.network import Network


def open_words(name: str, words: Sequence[str] | None, *, threads: int | None = None) -> Network:
    """The network of clip:NAME@WEIGHTS over words.

    words: None: Mikels' eight.  What it answers is evoked; it is not calibrated.
    Raises MissingPackageError without the extra, TeacherError if the CLIP can't be had, ConfigError for less than two
    words or the same one twice.
    """
    missing = [package for package in ("torch", "timm", "open_clip") if find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"{name} needs {', '.join(missing)}; run: pip install 'uniemox[train]'")
    from uniemox.teacher.zero_shot import open_zero_shot  # noqa: PLC0415 - torch

    labels = MIKELS.labels if words is None else tuple(clean(word) for word in words)
    if not all(labels):
        raise ConfigError(f"expected words with commas between, got {','.join(words or ())!r}")
    engine = open_zero_shot(name, labels, threads)
    known = recognise(labels, "evoked")
    mean, std = engine.stats
    info = ClassifierInfo(
        labels=labels,
        label_set=known.name if set(known.labels) == set(labels) else "custom",
        kind="evoked",
        size=engine.size,
        crop_fraction=1.0,
        mean=mean,
        std=std,
    )
    return Network(name, info, engine)
