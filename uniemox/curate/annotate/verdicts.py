"""From answers to labels: the latest answers to each image, and the label under which it is kept."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Select, func, select

from uniemox.curate import tables as t
from uniemox.curate.annotate.assignment import pool
from uniemox.curate.plan import RULES, Rule
from uniemox.curate.project import NONE, SKIP, Project, decisions, left_out, searched_labels
from uniemox.errors import ConfigError

OWNER_SAYS = "the owner's verdict"  # a reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """Label of an image, or the reason for leaving it out."""

    label: str | None
    """Label under which it is kept; None: it is left out."""
    shares: Mapping[str, float]
    """Share of annotators by label, with sum 1, without those who answered none. Empty if all did."""
    reason: str
    """Reason for keeping it or leaving it out."""


@dataclass(frozen=True, slots=True)
class LatestAnswers:
    """The last answer of every annotator to every image."""

    people: tuple[str, ...]
    """Names of all annotators with an answer."""
    by_picture: Mapping[int, Mapping[str, str]]
    """Label (or none) by image and name."""
    several: Mapping[int, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """All labels of answers with several, by image and name; the first one is the answer."""


def last_answers() -> Select[tuple[int | None]]:
    """Return a query for the number of the last answer to every task: only it counts."""
    return select(func.max(t.answers.c.id)).group_by(t.answers.c.task_id)


def read_answers(project: Project) -> LatestAnswers:
    """Read the answers to images in the pool, without attention checks, skipped images and annotators left out."""
    query = (
        select(t.tasks.c.picture_id, t.people.c.name, t.answers.c.label, t.details.c.content)
        .join(t.tasks, t.tasks.c.id == t.answers.c.task_id)
        .join(t.people, t.people.c.id == t.answers.c.person_id)
        .outerjoin(t.details, t.details.c.answer_id == t.answers.c.id)
        .where(t.tasks.c.picture_id.is_not(None), t.answers.c.id.in_(last_answers()), t.answers.c.label != SKIP)
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
    """Return the verdict on every answered image.

    searched: labels whose keywords found an image.  judged: the owner's decision, a label or none; it overrides rules.
    rule: `both` is the paper's. It keeps an image if all annotators name the same label and the image was searched for
    it, or for no label. `majority` keeps the label that more than half name. `soft` keeps every image with its shares,
    under the most frequent label, except ties.
    Raises ConfigError for settings out of range.
    """
    if rule not in RULES:
        raise ConfigError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
    if min_answers < 1:
        raise ConfigError(f"min_answers must be at least 1, got {min_answers}")
    decided = {}
    for image, said in answers.by_picture.items():
        labels = list(said.values())
        named = answers.several.get(image, {})
        shares = shares_of([named.get(name, (label,)) for name, label in said.items()])
        if image in judged:
            label = None if judged[image] == NONE else judged[image]
            own = {} if label is None else {label: 1.0}
            decided[image] = Verdict(label, shares or own, OWNER_SAYS)
        elif len(labels) < min_answers:
            decided[image] = Verdict(None, shares, f"only {len(labels)} of {min_answers} answers")
        else:
            label, reason = _apply(rule, labels, searched.get(image, set()))
            decided[image] = Verdict(label, shares, reason)
    return decided


def remembered_rule(project: Project) -> Rule:
    """Return the rule of the last split or release, at first both."""
    rule: Rule = project.store.setting("rule") or "both"
    return rule


def verdicts(project: Project, *, rule: Rule = "both", min_answers: int = 2) -> dict[int, Verdict]:
    """Decide about all images of a project."""
    searched, judged = searched_labels(project), judged_labels(project)
    return decide(read_answers(project), searched, judged, rule=rule, min_answers=min_answers)


def judged_labels(project: Project) -> dict[int, str]:
    """Return the owner's label, or none, by image."""
    with project.store.read() as connection:
        return {image: one.value for image, one in decisions(connection, "verdict").items()}


def disputed(answers: LatestAnswers, judged: Mapping[int, str]) -> list[int]:
    """Return images on which annotators disagree and the owner has not decided, most different answers first."""
    open_ones = [
        (-len(set(said.values())), image)
        for image, said in answers.by_picture.items()
        if len(set(said.values())) > 1 and image not in judged
    ]
    return [image for _, image in sorted(open_ones)]


def shares_of(answers: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return the share of each label among answers that name one; the labels of one answer share it equally.

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
    """Return the label that a rule keeps, or None, and the reason."""
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
