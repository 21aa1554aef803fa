"""Split: draw many schemes, keep the one with the most similar colours, and keep related images together."""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sqlalchemy import select

from uniemox.curate import tables as t
from uniemox.curate.annotate.verdicts import Verdict
from uniemox.curate.project import Project, current
from uniemox.data.sample import DataSet, ImageFile, Sample
from uniemox.data.splits import choose_scheme, lacking_splits, split_samples, write_splits
from uniemox.errors import ConfigError, DataError
from uniemox.io.files import read_limited

FILE = "splits.json"
PLOT = "splits.png"


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
    kept = {image for image, verdict in verdicts.items() if verdict.label is not None}
    rows = [row for row in project.rows(query.order_by(t.images.c.sha256)) if row.id in kept]
    if not rows:
        raise DataError(f"{project.folder}: no image is kept; uniemox curate agree shows why")
    return rows


def kept_data(project: Project, verdicts: Mapping[int, Verdict]) -> tuple[DataSet, NDArray[np.float32]]:
    """Return the kept images, keyed by sha256, and their colour histograms, (N, 48).

    Near duplicates, images of one author, and images of one page form a group.

    Raises:
        DataError: If none is kept.
    """
    rows = kept_images(project, verdicts)
    labels = project.plan.label_set
    groups = together(_shared(project, rows))
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
    return DataSet(str(project.folder), labels, samples), np.stack([np.frombuffer(r.histogram, "<f4") for r in rows])


def split(
    project: Project, verdicts: Mapping[int, Verdict], ratios: Mapping[str, float], *, seed: int = 0, schemes: int = 100
) -> dict[str, Any]:
    """Split all kept images and write splits.json, and for several schemes splits.png (figure 6).

    Args:
        ratios: Share of each split.
        schemes: Number drawn; the one with the most similar colours is kept (data/splits.py). With other images another
            scheme may be the best one; its seed, with one scheme, keeps the draw.

    Returns:
        Sizes, how it was drawn, sha256, and under `lacking` the splits without an image, by label.

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
        (project.folder / PLOT).unlink(missing_ok=True)  # of the split before
    else:
        choice = choose_scheme(data.samples, ratios, histograms, seeds=range(seed, seed + schemes))
        scheme = choice.scheme
        how = f"{shares}, the best of {schemes} schemes from seed {seed}: seed {choice.seed}"
        from uniemox.data.splits import plot_choice  # noqa: PLC0415 - matplotlib takes a second

        plot_choice(choice, data, project.folder / PLOT)
    digest = write_splits(project.folder / FILE, scheme, source=str(project.folder.name), how=how)
    drawn = {"sizes": dict(Counter(scheme.values())), "how": how, "sha256": digest}
    project.store.set("split", drawn)
    return {**drawn, "lacking": lacking_splits(data, scheme, ratios)}


def read_scheme(project: Project) -> dict[str, str]:
    """Return the last drawn split by sha256.

    Raises:
        DataError: If there is none.
    """
    path = project.folder / FILE
    try:
        content: dict[str, Any] = json.loads(read_limited(path))
        return {key: name for name, keys in content["splits"].items() for key in keys}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: no splits; draw them: uniemox curate split {project.folder}") from error


def together(links: Iterable[tuple[int, Hashable]]) -> dict[int, str]:
    """Return group names by image: images that share a trait, directly or through others, form a group.

    Args:
        links: Image and trait.

    >>> together([(1, "a"), (2, "a"), (2, "b"), (3, "b"), (4, "c")])
    {1: '1', 2: '1', 3: '1', 4: '4'}
    """
    pairs = [(("image", image), ("trait", trait)) for image, trait in links]
    nodes = {node: place for place, node in enumerate(dict.fromkeys(chain.from_iterable(pairs)))}
    rows, columns = [nodes[image] for image, _ in pairs], [nodes[trait] for _, trait in pairs]
    graph = coo_array((np.ones(len(pairs)), (rows, columns)), shape=(len(nodes),) * 2)
    _, numbers = connected_components(graph, directed=False) if pairs else (0, [])
    images = {image: int(numbers[nodes["image", image]]) for (_, image), _ in pairs}
    first: dict[int, int] = {}
    for image in sorted(images):
        first.setdefault(images[image], image)
    return {image: str(first[number]) for image, number in images.items()}


def _shared(project: Project, images: Iterable[Any]) -> Iterable[tuple[int, Hashable]]:
    """Yield traits that images may share: near duplicates, author, page."""
    near = {row.id: row.near_group for row in images}
    yield from ((image, ("near", group)) for image, group in near.items() if group is not None)
    query = select(t.candidates.c.picture_id, t.candidates.c.source, t.candidates.c.author, t.candidates.c.page)
    for row in project.rows(query.where(t.candidates.c.picture_id.is_not(None))):
        if row.picture_id in near:
            if row.author and row.author.lower() not in ("unknown", "anonymous", "unknown author"):
                yield row.picture_id, ("author", row.source, row.author)
            if row.page:
                yield row.picture_id, ("page", row.page)
