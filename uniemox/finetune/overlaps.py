"""Look up a run's images that are in two places: copies, and training images of its initial weights."""

from dataclasses import replace

from uniemox.data.near import image_hashes
from uniemox.data.overlaps import Overlaps, copies_among
from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import seen_among, seen_by
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.samples import split_for_training
from uniemox.finetune.start import START
from uniemox.io.progress import Progress, silent


def sources_of(config: FinetuneConfig) -> list[str]:
    """Return the names of the models from which a run starts or learns; their training images count as the run's."""
    return [name for name in (config.init, config.distillation.teacher) if name]


def find_overlaps(data: DataSet, config: FinetuneConfig, on_progress: Progress = silent) -> Overlaps:
    """Hash all images of a run, and find copies and training images of other models.

    Args:
        data: The data set of the run.
        config: Settings of the run.
        on_progress: Called after each image.

    Raises:
        DataError: As `split_for_training`.
    """
    hashes = image_hashes(data.samples, on_progress)
    hash_of = {sample.key: digest for sample, digest in zip(data.samples, hashes, strict=True)}
    overlaps = Overlaps(copies=copies_among(data.samples, hashes))
    parts = split_for_training(replace(data, samples=overlaps.join(data.samples)), config, None)

    def seen_keys(samples: list[Sample], name: str) -> tuple[str, ...]:
        digests = [hash_of[sample.key] for sample in samples]
        return tuple(sample.key for sample in seen_among(samples, digests, seen_by(name)))

    seen_held_out = {key: None for name in sources_of(config) for key in seen_keys(parts.held_out, name)}
    # Users compare their run with the package's model, so its training images can't be compared on either.
    seen_scored = {name: seen_keys(parts.scored, name) for name in (*sources_of(config), START)}
    return replace(
        overlaps,
        seen_held_out=tuple(seen_held_out),
        scored_split=parts.scored[0].split if parts.scored else None,
        scored_images=len(parts.scored),
        seen_scored={name: keys for name, keys in seen_scored.items() if keys},
    )
