"""Who has agreed to the text that the plan asks annotators to agree to."""

import hashlib
import time

from sqlalchemy import insert, select

from uniemox.curate import tables as t
from uniemox.curate.project import Project


def has_agreed(project: Project, person: int) -> bool:
    """Whether somebody has agreed to the text as it is now, or none is asked for."""
    if not project.plan.answer.consent:
        return True
    query = select(t.consents.c.id).where(
        t.consents.c.person_id == person, t.consents.c.text_sha256 == _sha256(project)
    )
    return bool(project.rows(query.limit(1)))


def agree_to(project: Project, person: int) -> None:
    """Write down that somebody agrees, and when."""
    if not has_agreed(project, person):
        with project.store.write() as connection:
            connection.execute(
                insert(t.consents).values(person_id=person, text_sha256=_sha256(project), at=time.time())
            )


def _sha256(project: Project) -> str:
    return hashlib.sha256(project.plan.answer.consent.encode()).hexdigest()
