"""What a model says of the images, for annotators to see: only where the owner asks for it, and told in the release."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select

from uniemox.curate import tables as t
from uniemox.curate.annotate.assignment import pool
from uniemox.curate.collect.scoring import scorer
from uniemox.curate.project import Progress, Project, silent
from uniemox.data.sample import ImageFile, Sample

AT_ONCE = 64  # images between two writes


def suggest(project: Project, model: str, progress: Progress = silent) -> int:
    """Let annotators see the most probable label of every image that passed the screen; returns how many have one.

    model: as `uniemox.load` takes it.  Raises ConfigError if it does not know all labels of the plan.
    """
    score = scorer(model, project.plan.label_set, needs_all=True)
    with project.store.read() as connection:
        kept = pool(connection)
    rows = [row for row in project.rows(select(t.images).order_by(t.images.c.id)) if row.id in kept]
    forget(project)
    found = 0
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        samples = [Sample(key=row.sha256, image=ImageFile(project.image_path(row.sha256, row.format))) for row in part]
        values = list(_best(part, score(samples), project.plan.labels))
        if values:
            with project.store.write() as connection:
                connection.execute(insert(t.suggestions), values)
        found += len(values)
        progress("looking", start + len(part), len(rows))
    project.store.set("suggested by", sorted({*suggested_by(project), model}))
    return found


def forget(project: Project) -> None:
    """Show no suggestions any more; answers keep what was suggested to those who gave them."""
    with project.store.write() as connection:
        connection.execute(t.suggestions.delete())


def suggested_by(project: Project) -> list[str]:
    """Names of all models whose suggestions were ever shown."""
    models: list[str] = project.store.setting("suggested by") or []
    return models


def _best(rows: list[Any], found: Sequence[Mapping[str, float] | None], labels: tuple[str, ...]) -> Iterator[Any]:
    for row, shares in zip(rows, found, strict=True):
        own = {label: share for label, share in (shares or {}).items() if label in labels}
        if own:
            label = max(own, key=lambda one: own[one])
            yield {"picture_id": row.id, "label": label, "share": own[label]}
