"""Split: draw many schemes, keep the one with the most similar colours, and keep related images together."""

import json
import shlex
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from uniemox.data import (
    DataSet,
    ImageFile,
    Sample,
    choose_scheme,
    groups_by_traits,
    lacking_splits,
    note_on_shares,
    split_samples,
    write_splits,
)
from uniemox.errors import ConfigError, DataError
from uniemox.io import read_limited
from uniemox_curate import tables as t
from uniemox_curate.annotate.kept_sets import kept_set
from uniemox_curate.annotate.verdicts import Verdict, remembered_rule
from uniemox_curate.counters import count
from uniemox_curate.decisions import current
from uniemox_curate.next_step import split_command
from uniemox_curate.plan import Rule
from uniemox_curate.project import Project
from uniemox_curate.saved_results import SPLIT, KeptRecord

FILE = "splits.json"
PLOT = "splits.png"
GROUPS = "near duplicates, or of images of one author or page"
# Names that services write where the author is not known.
NO_AUTHORS = ("unknown", "anonymous", "unknown author")


def kept_images(project: Project, verdicts: Mapping[int, Verdict]) -> list[Any]:
    """Return rows of the kept images by sha256: those of the table, histogram, near_group, style.

    Unreadable images are left out, even if a person kept them.

    Raises:
        DataError: If none is kept.
    """
    styles = current("style")
    query = (
        select(t.images, t.looks.c.histogram, t.looks.c.near_group, styles.c.value.label("style"))
        .join(t.looks, (t.looks.c.picture_id == t.images.c.id) & t.looks.c.histogram.is_not(None))
        .outerjoin(styles, styles.c.picture_id == t.images.c.id)
    )
    labelled = {image for image, verdict in verdicts.items() if verdict.label is not None}
    rows = [row for row in project.rows(query.order_by(t.images.c.sha256)) if row.id in labelled]
    if not rows:
        remedy = f"uniemox curate status {shlex.quote(str(project.folder))} shows the next step"
        raise DataError(f"{project.folder}: no image is kept; {remedy}")
    return rows


def kept_data(project: Project, verdicts: Mapping[int, Verdict]) -> tuple[DataSet, NDArray[np.float32]]:
    """Return the kept images, keyed by sha256, and their colour histograms, (N, 48).

    Near duplicates, images of one author, and images of one page form a group; the holder of a folder is no author.

    Raises:
        DataError: If none is kept.
    """
    rows = kept_images(project, verdicts)
    labels = project.plan.label_set
    group_of = groups_by_traits(_shared_traits(project, rows))
    groups = {image: str(first_image) for image, first_image in group_of.items()}
    samples = [
        Sample(
            key=row.sha256,
            image=ImageFile(project.image_path(row.sha256, row.format)),
            label=labels.index(str(verdicts[row.id].label)),
            domain=row.style or None,
            group=groups.get(row.id),
        )
        for row in rows
    ]
    histograms = np.stack([np.frombuffer(row.histogram, "<f4") for row in rows])  # (N, 48)
    return DataSet(str(project.folder), labels, samples), histograms


def split(
    project: Project,
    verdicts: Mapping[int, Verdict],
    ratios: Mapping[str, float],
    *,
    seed: int = 0,
    schemes: int = 100,
    rule: Rule | None = None,
) -> dict[str, Any]:
    """Split all kept images and write splits.json, and for several schemes splits.png (figure 6).

    Args:
        verdicts: Verdicts on all images; those with a label are split.
        ratios: Share of each split.
        seed: Random seed of the first scheme.
        schemes: Number drawn; the one with the most similar colours is kept (data/split_choice.py). With other images
            another scheme may be the best one; its seed, with one scheme, keeps the draw.
        rule: Rule of the verdicts; None: that of the last split or release.

    Returns:
        Sizes, how it was drawn, sha256, and under `note` why the shares differ from the ratios, empty if they do not;
        and under `lacking` the splits without an image, by label.

    Raises:
        DataError: If nothing is kept.
        ConfigError: For settings out of range or too few images.
    """
    if schemes < 1:
        raise ConfigError(f"schemes must be at least 1, got {schemes}")
    data, histograms = kept_data(project, verdicts)
    shares = "/".join(f"{100 * share:g}" for share in ratios.values())
    if schemes == 1:
        scheme = split_samples(data.samples, ratios, seed, fill_splits=True)
        how = f"{shares}, seed {seed}"
        # The figure shows an earlier split.
        (project.folder / PLOT).unlink(missing_ok=True)
    else:
        choice = choose_scheme(data.samples, ratios, histograms, seeds=range(seed, seed + schemes))
        scheme = choice.scheme
        how = f"{shares}, the best of {schemes} schemes from seed {seed}: seed {choice.seed}"
        from uniemox.data import plot_choice  # noqa: PLC0415 - matplotlib takes a second

        plot_choice(choice, data, project.folder / PLOT)
    digest = write_splits(project.folder / FILE, scheme, source=str(project.folder.name), how=how)
    note = note_on_shares(data.samples, scheme, ratios, groups_of=GROUPS)
    drawn = {"sizes": dict(Counter(scheme.values())), "how": how, "sha256": digest, "note": note}
    # By which the status tells whether other images are kept now, and how to draw the split again.
    record = KeptRecord.of(kept_set(verdicts), rule or remembered_rule(project.store), count(project.store))
    origin = {"kept": asdict(record), "ratio": shares, "seed": seed, "schemes": schemes}
    project.store.set(SPLIT, drawn | origin)
    return {**drawn, "lacking": lacking_splits(data, scheme, ratios)}


def read_scheme(project: Project, image_count: int) -> dict[str, str]:
    """Return the last drawn split by sha256.

    Args:
        image_count: Number of kept images.

    Raises:
        DataError: If there is none.
    """
    path = project.folder / FILE
    try:
        content: dict[str, Any] = json.loads(read_limited(path))
        return {key: name for name, keys in content["splits"].items() for key in keys}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: no splits; draw them: {split_command(str(project.folder), image_count)}") from error


def author_trait(source: str, author: str) -> tuple[str, str, str] | None:
    """Return the trait by which images of one author belong together; None if the author is not known.

    The holder of a folder is no such author: all images of the folder would be in one split.
    """
    if source == t.FOLDER or not author or author.lower() in NO_AUTHORS:
        return None
    return "author", source, author


def _shared_traits(project: Project, images: Iterable[Any]) -> Iterable[tuple[int, Hashable]]:
    """Yield pairs of an image and a trait that it may share with others: group of near duplicates, author, page."""
    near_groups = {row.id: row.near_group for row in images}
    yield from ((image, ("near", group)) for image, group in near_groups.items() if group is not None)
    query = select(t.candidates.c.picture_id, t.candidates.c.source, t.candidates.c.author, t.candidates.c.page)
    for row in project.rows(query.where(t.candidates.c.picture_id.is_not(None))):
        if row.picture_id in near_groups:
            author = author_trait(row.source, row.author)
            if author is not None:
                yield row.picture_id, author
            if row.page:
                yield row.picture_id, ("page", row.page)
