"""From answers to labels: what annotators said of each image, and which images are kept under which label."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from sqlalchemy import func, select

from uniemox.curate import tables as t
from uniemox.curate.annotate.assignment import pool
from uniemox.curate.project import Project, searched_labels
from uniemox.curate.store import NONE, SKIP, decisions, left_out
from uniemox.errors import ConfigError

Rule = Literal["both", "majority", "soft"]
RULES: tuple[Rule, ...] = get_args(Rule)
OWNER_SAYS = "the owner's verdict"  # a reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an image."""

    label: str | None
    """The label it is kept under; None: it is left out."""
    shares: Mapping[str, float]
    """Of the annotators, by label, with sum 1; those who said none are not counted. Empty if all did."""
    reason: str
    """Why it is kept or left out."""


@dataclass(frozen=True, slots=True)
class LatestAnswers:
    """The last answer of every annotator to every image."""

    people: tuple[str, ...]
    """Names of all annotators with an answer."""
    by_picture: Mapping[int, Mapping[str, str]]
    """Image to name to label, or to none."""
    several: Mapping[int, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """Likewise, of answers with several labels: all of them, the first of which is the answer."""


def read_answers(project: Project) -> LatestAnswers:
    """Answers to images that are in the pool, without attention checks, skipped ones, and people who were left out."""
    last = select(func.max(t.answers.c.id)).group_by(t.answers.c.task_id)
    query = (
        select(t.tasks.c.picture_id, t.people.c.name, t.answers.c.label, t.details.c.content)
        .join(t.tasks, t.tasks.c.id == t.answers.c.task_id)
        .join(t.people, t.people.c.id == t.answers.c.person_id)
        .outerjoin(t.details, t.details.c.answer_id == t.answers.c.id)
        .where(t.tasks.c.picture_id.is_not(None), t.answers.c.id.in_(last), t.answers.c.label != SKIP)
        .order_by(t.tasks.c.picture_id, t.people.c.id)
    )
    by_picture: dict[int, dict[str, str]] = defaultdict(dict)
    several: dict[int, dict[str, tuple[str, ...]]] = defaultdict(dict)
    with project.store.read() as connection:
        allowed, silenced = pool(connection), left_out(connection)
        for row in connection.execute(query):
            if row.picture_id in allowed and row.name not in silenced:
                by_picture[row.picture_id][row.name] = row.label
                labels = json.loads(row.content or "{}").get("labels", ())
                if len(labels) > 1:
                    several[row.picture_id][row.name] = tuple(labels)
    people = tuple(sorted({name for said in by_picture.values() for name in said}))
    return LatestAnswers(people, dict(by_picture), dict(several))


def decide(
    answers: LatestAnswers,
    searched: Mapping[int, set[str]],
    judged: Mapping[int, str],
    *,
    rule: Rule = "both",
    min_answers: int = 2,
) -> dict[int, Verdict]:
    """The verdict on every image that was answered.

    searched: labels whose keywords found an image.  judged: what the owner decided of it, a label or none, which
    stands above any rule.
    rule: both, as the paper has it, keeps an image if all annotators name the same label, and it is one that the
    image was searched for (any one, if it was searched for none); majority keeps the label that more than half
    name; soft keeps every image with its shares, under the label that most name, ties left out.
    Raises ConfigError for settings out of range.
    """
    if rule not in RULES:
        raise ConfigError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if min_answers < 1:
        raise ConfigError(f"min_answers must be at least 1, got {min_answers}")
    found = {}
    for image, said in answers.by_picture.items():
        labels = list(said.values())
        named = answers.several.get(image, {})
        shares = shares_of([named.get(name, (label,)) for name, label in said.items()])
        if image in judged:
            label = None if judged[image] == NONE else judged[image]
            own = {} if label is None else {label: 1.0}
            found[image] = Verdict(label, shares or own, OWNER_SAYS)
        elif len(labels) < min_answers:
            found[image] = Verdict(None, shares, f"only {len(labels)} of {min_answers} answers")
        else:
            label, reason = _apply(rule, labels, searched.get(image, set()))
            found[image] = Verdict(label, shares, reason)
    return found


def remembered_rule(project: Project) -> Rule:
    """That of the last split or release, at first both."""
    kept: Rule = project.store.setting("rule") or "both"
    return kept


def verdicts(project: Project, *, rule: Rule = "both", min_answers: int = 2) -> dict[int, Verdict]:
    """`decide` for all of a project."""
    with project.store.read() as connection:
        judged = {image: decision.value for image, decision in decisions(connection, "verdict").items()}
    found = read_answers(project)
    return decide(found, searched_labels(project), judged, rule=rule, min_answers=min_answers)


def disputed(answers: LatestAnswers, judged: Mapping[int, str]) -> list[int]:
    """Images on which annotators disagree and nobody has decided, those with most different answers first."""
    open_ones = [
        (-len(set(said.values())), image)
        for image, said in answers.by_picture.items()
        if len(set(said.values())) > 1 and image not in judged
    ]
    return [image for _, image in sorted(open_ones)]


def shares_of(answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of each label among answers that name one; of an answer with several, each has an equal part.

    >>> shares_of([["awe"], ["fear"], ["awe"], ["none"], ["fear", "awe"]])
    {'awe': 0.625, 'fear': 0.375}
    """
    parts: dict[str, float] = defaultdict(float)
    for labels in answers:
        for label in labels:
            if label != NONE:
                parts[label] += 1 / len(labels)
    whole = sum(parts.values())
    return {label: part / whole for label, part in sorted(parts.items())}


def _apply(rule: Rule, labels: Sequence[str], searched: set[str]) -> tuple[str | None, str]:
    """The label a rule keeps, and why it keeps it or none."""
    (top, times), *others = Counter(labels).most_common()
    is_tie = bool(others) and others[0][1] == times
    if top == NONE and not is_tie:
        return None, "no label fits"
    if rule == "both":
        if others:
            return None, "annotators disagree"
        if searched and top not in searched:
            return None, "annotators agree on another label than was searched"
        return top, "all agree"
    if rule == "majority":
        return (top, "majority") if times * 2 > len(labels) else (None, "no majority")
    named = Counter(label for label in labels if label != NONE).most_common()
    if not named or (len(named) > 1 and named[0][1] == named[1][1]):
        return None, "a tie"
    return named[0][0], "most name it"
