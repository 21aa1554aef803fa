"""Origins of answers: the pages of `uniemox curate serve`, Label Studio, or a simulation; and recorded consent."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from uniemox_curate import tables as t
from uniemox_curate.annotate.access import consent_times
from uniemox_curate.annotate.label_studio import PREFIX
from uniemox_curate.annotate.verdicts import counted_answers
from uniemox_curate.project import Project

Origin = Literal["page", "label studio", "simulated", ""]
"""Way in which an answer was given; "" if it is not recorded."""
SIMULATED = "simulated annotators"
"""Setting with the names of annotators that are programs."""
# Time at which an image was given to an annotator, of images that were only answered in Label Studio.
NEVER_GIVEN = 0.0


class AnswerOrigins(NamedTuple):
    """How the answers of a project that count were given."""

    by_answer: Mapping[tuple[int, str], Origin]
    """Origin by image and name of the annotator."""
    consenting: frozenset[str]
    """Names of annotators who agreed to the plan's consent text before their first answer."""


def read_origins(project: Project) -> AnswerOrigins:
    """Read how the answers that count were given."""
    simulated = set(project.store.setting(SIMULATED) or ())
    origins: dict[tuple[int, str], Origin] = {}
    first_times: dict[str, float] = {}
    for row in project.rows(counted_answers().add_columns(t.tasks.c.given_at, t.answers.c.at)):
        origin: Origin = "page"
        if row.name in simulated:
            origin = "simulated"
        elif row.given_at == NEVER_GIVEN:
            origin = "label studio"
        elif row.name.startswith(PREFIX):
            # Somebody from Label Studio was invited to the pages, too.
            origin = ""
        origins[row.picture_id, row.name] = origin
        first_times[row.name] = min(row.at, first_times.get(row.name, row.at))
    agreed_at = consent_times(project)
    consenting = {name for name, at in first_times.items() if name in agreed_at and agreed_at[name] <= at}
    return AnswerOrigins(origins, frozenset(consenting))


def record_simulated(project: Project, names: Iterable[str]) -> None:
    """Record that annotators are programs, not people."""
    recorded = project.store.setting(SIMULATED) or []
    project.store.set(SIMULATED, sorted({*recorded, *names}))
