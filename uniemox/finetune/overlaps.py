"""Look up a run's images that occur twice: copies, and training images of its initial weights."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from uniemox.data.hashes import Fingerprint, decoded_hashes, fingerprints, hashes_of_copies
from uniemox.data.overlaps import Overlaps, contradictory_among, copies_among
from uniemox.data.sample import DataSet, Sample
from uniemox.data.seen import EXCLUDE_COPIES, SeenSearch, hashes_in, seen_by
from uniemox.data.synthetic_scenes import SyntheticImage
from uniemox.errors import DataError
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.default_init import DEFAULT_INIT
from uniemox.finetune.distillation import open_unlabelled
from uniemox.finetune.parts import Parts, split_for_training
from uniemox.io.progress import Progress, silent
from uniemox.plurals import counted


def sources_of(config: FinetuneConfig) -> list[str]:
    """Return the names of the models from which a run starts or learns; their training images count as the run's."""
    return [name for name in (config.init, config.distillation.teacher) if name]


def find_overlaps(data: DataSet, config: FinetuneConfig, on_progress: Progress = silent) -> Overlaps:
    """Find copies among a run's images, and images that it holds out or leaves for scoring but models were trained on.

    Args:
        data: The data set of the run.
        config: Settings of the run.
        on_progress: Called after each image.

    Raises:
        DataError: As `split_for_training`, also because copies stay together.
    """
    # Synthetic scenes are never copies of each other, and to draw all of them takes as long as an epoch.
    files = [sample for sample in data.samples if not isinstance(sample.image, SyntheticImage)]
    hashed, _ = fingerprints(files, on_progress)
    fingerprint_of = {sample.key: fingerprint for sample, fingerprint in zip(files, hashed, strict=True)}
    copies = copies_among(files, hashes_of_copies(hashed))
    parts = _split_with_copies(data, config, copies)

    # Users compare their run with the package's model, so its training images can't be compared on either.
    hashes_by_model = {name: seen_by(name) for name in (*sources_of(config), DEFAULT_INIT)}
    if any(hashes_by_model[name] for name in sources_of(config)):
        scenes = [sample for sample in (*parts.held_out, *parts.scored) if sample.key not in fingerprint_of]
        drawn, _ = fingerprints(scenes, on_progress)
        fingerprint_of |= {sample.key: fingerprint for sample, fingerprint in zip(scenes, drawn, strict=True)}

    def search(samples: Sequence[Sample]) -> SeenSearch:
        of_samples = [fingerprint_of.get(sample.key, Fingerprint("", None)) for sample in samples]
        return SeenSearch(
            samples,
            [fingerprint.sha256 for fingerprint in of_samples],
            thumbs=[fingerprint.thumb for fingerprint in of_samples],
        )

    held_out = search(parts.held_out)
    scored = search(parts.scored)
    seen_held_out = {
        sample.key: None for name in sources_of(config) for sample in held_out.look_up(hashes_by_model[name]).samples
    }
    seen_scored = {
        name: tuple(sample.key for sample in scored.look_up(hashes).samples) for name, hashes in hashes_by_model.items()
    }
    of_training = held_out.look_up(_hashes_of(parts.train, fingerprint_of)).samples
    of_read = scored.look_up(_hashes_of(parts.samples, fingerprint_of)).samples
    hashes = [fingerprint.sha256 for fingerprint in hashed]
    return Overlaps(
        copies=copies,
        seen_held_out=tuple(seen_held_out),
        held_out_copies=tuple(sample.key for sample in of_training),
        scored_split=parts.scored[0].split if parts.scored else None,
        scored_images=len(parts.scored),
        seen_scored={name: keys for name, keys in seen_scored.items() if keys},
        scored_copies=tuple(sample.key for sample in of_read),
        contradictory=_readable_contradictions(files, hashes),
        held_out_unlabelled=_held_out_unlabelled(config, [*parts.held_out, *parts.scored], fingerprint_of, on_progress),
    )


def _hashes_of(samples: Sequence[Sample], fingerprint_of: Mapping[str, Fingerprint]) -> set[str]:
    """Return the hashes of samples and of the originals of packed ones.

    Args:
        samples: The samples.
        fingerprint_of: Fingerprint of each image of the run, by key.
    """
    known = [sample for sample in samples if sample.key in fingerprint_of]
    return hashes_in(known, [fingerprint_of[sample.key] for sample in known])


def _readable_contradictions(samples: Sequence[Sample], hashes: Sequence[str]) -> dict[str, str]:
    """Return `contradictory_among` the images that can be read: equal files that can't be are no copies of an image."""
    contradictory = contradictory_among(samples, hashes)
    _, broken = decoded_hashes([sample for sample in samples if sample.key in contradictory])
    unreadable = {sample.key for sample in broken}
    return {key: other for key, other in contradictory.items() if key not in unreadable}


def _held_out_unlabelled(
    config: FinetuneConfig, held_out: Sequence[Sample], fingerprint_of: Mapping[str, Fingerprint], on_progress: Progress
) -> tuple[str, ...]:
    """Return the keys of additional images of a distillation that are copies of images that the run does not train on.

    Args:
        config: Settings of the run.
        held_out: These images.
        fingerprint_of: Fingerprint of each image of the run, by key.
        on_progress: Called after each image.
    """
    unlabelled = [
        sample for sample in open_unlabelled(config.distillation) if not isinstance(sample.image, SyntheticImage)
    ]
    if not unlabelled:
        return ()
    hashed, _ = fingerprints(unlabelled, on_progress)
    search = SeenSearch(
        unlabelled, [fingerprint.sha256 for fingerprint in hashed], thumbs=[fingerprint.thumb for fingerprint in hashed]
    )
    return tuple(sample.key for sample in search.look_up(_hashes_of(held_out, fingerprint_of)).samples)


def _split_with_copies(data: DataSet, config: FinetuneConfig, copies: Mapping[str, str]) -> Parts:
    """Return the parts of a run in which copies stay together.

    Raises:
        DataError: As `split_for_training`; names the copies, which the caller's own check of the parts did not join.
    """
    joined = replace(data, samples=Overlaps(copies).join(data.samples))
    try:
        return split_for_training(joined, config, None)
    except DataError as error:
        if not copies:
            raise
        raise DataError(
            f"{data.name} has {counted(len(copies), 'exact copy', 'exact copies')} of other images among {len(data)}, "
            f"such as {next(iter(copies))}, and copies stay in one part of a run: {error}; or add different images; to "
            f"leave out the copies: {EXCLUDE_COPIES}"
        ) from error
