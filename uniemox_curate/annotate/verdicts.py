"""From answers to labels: the latest answers to each image, and the label under which it is kept."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, func, select

from uniemox_curate import tables as t
from uniemox_curate.decisions import LEFT_OUT, current, dropped, pool, taken_down
from uniemox_curate.plan import MIN_ANSWERS, Rule
from uniemox_curate.project import NONE, SKIP, Project, searched_labels
from uniemox_curate.store import Store

# Reason of a verdict that overrides the rule.
OWNER_SAYS = "the owner's verdict"
WITHOUT_AGREEMENT = ("annotators disagree", "no majority", "a tie")
"""Reasons of each rule for images without agreement. The owner can judge these images."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Label of an image, or the reason for leaving it out."""

    label: str | None
    """Label under which it is kept; None: it is left out."""
    shares: Mapping[str, float]
    """Share of annotators by label, with sum 1, without answers none. Empty if all answered none."""
    reason: str
    """Reason for keeping it or leaving it out."""


@dataclass(frozen=True, slots=True)
class LatestAnswers:
    """The last answer of every annotator to every image."""

    people: tuple[str, ...]
    """Names of all annotators with an answer."""
    by_image: Mapping[int, Mapping[str, str]]
    """Label (or none) by image and name."""
    details: Mapping[int, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Further fields of answers that have some, by image and name: labels (the first one is the answer), and more."""
    seconds: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """Time that each answer took, by image and name; 0: not recorded."""


LAST_ANSWERS = select(func.max(t.answers.c.id)).group_by(t.answers.c.task_id)
"""Query for the number of the last answer to every task; only this answer counts."""


def last_answers(*columns: Any) -> Select[Any]:
    """Return a query for the last answers of all annotators to images, without attention checks and skipped images.

    Args:
        columns: Columns of the tables tasks, answers and people.
    """
    return (
        select(*columns)
        .select_from(t.answers)
        .join(t.tasks, t.tasks.c.id == t.answers.c.task_id)
        .join(t.people, t.people.c.id == t.answers.c.person_id)
        .where(t.answers.c.id.in_(LAST_ANSWERS), t.answers.c.label != SKIP, t.tasks.c.picture_id.is_not(None))
    )


def counted_answers() -> Select[Any]:
    """Return a query for the answers that count: picture_id, name, label, content (details) and seconds.

    They are those to images in the pool, without annotators left out.
    """
    columns = t.tasks.c.picture_id, t.people.c.name, t.answers.c.label, t.details.c.content, t.answers.c.seconds
    return (
        last_answers(*columns)
        .outerjoin(t.details, t.details.c.answer_id == t.answers.c.id)
        .where(t.tasks.c.picture_id.in_(pool()), t.people.c.name.not_in(LEFT_OUT))
    )


def answers_that_do_not_count(project: Project) -> dict[str, int]:
    """Return the numbers of answers of annotators who were left out, of these annotators, and to dropped images.

    Attention checks, skipped images and images that were taken down are in none of the numbers.
    """
    is_dropped = t.tasks.c.picture_id.in_(dropped()).label("is_dropped")
    query = last_answers(t.people.c.name, is_dropped, func.count().label("answers"))
    query = query.where(t.tasks.c.picture_id.not_in(taken_down())).group_by(t.people.c.name, is_dropped)
    rows = project.rows(query)
    left_out = {row.note for row in project.rows(LEFT_OUT)}
    of_left_out = [row for row in rows if row.name in left_out]
    return {
        "annotators left out": len({row.name for row in of_left_out}),
        "answers of annotators left out": sum(row.answers for row in of_left_out),
        "answers to dropped images": sum(row.answers for row in rows if row.name not in left_out and row.is_dropped),
    }


def read_answers(project: Project) -> LatestAnswers:
    """Read the answers that count."""
    by_image: dict[int, dict[str, str]] = defaultdict(dict)
    details: dict[int, dict[str, Any]] = defaultdict(dict)
    seconds: dict[int, dict[str, float]] = defaultdict(dict)
    for row in project.rows(counted_answers().order_by(t.tasks.c.picture_id, t.people.c.id)):
        by_image[row.picture_id][row.name] = row.label
        seconds[row.picture_id][row.name] = row.seconds
        if row.content:
            details[row.picture_id][row.name] = json.loads(row.content)
    people = tuple(sorted({name for labels in by_image.values() for name in labels}))
    return LatestAnswers(people, dict(by_image), dict(details), dict(seconds))


def disputed(project: Project, rule: Rule) -> dict[int, list[str]]:
    """Return the answers to each image without agreement by a rule on which the owner has not decided.

    Images with most different answers come first.
    """
    answers = counted_answers().subquery().c
    judged = select(current("verdict").c.picture_id)
    several = func.count(answers.label.distinct()) > 1
    differing = select(answers.picture_id).where(answers.picture_id.not_in(judged)).group_by(answers.picture_id)
    query = counted_answers().where(t.tasks.c.picture_id.in_(differing.having(several)))
    labels: dict[int, list[str]] = defaultdict(list)
    for row in project.rows(query.order_by(t.tasks.c.picture_id)):
        labels[row.picture_id].append(row.label)
    # Search words only matter where all answers are the same.
    images = [image for image in labels if decide_image(labels[image], rule=rule)[1] in WITHOUT_AGREEMENT]
    images.sort(key=lambda image: -len(set(labels[image])))
    return {image: sorted(labels[image]) for image in images}


def decide_image(
    labels: Sequence[str],
    searched: Set[str] = frozenset(),
    judged: str | None = None,
    *,
    rule: Rule,
    min_answers: int = MIN_ANSWERS,
) -> tuple[str | None, str]:
    """Return the label under which an image is kept, None if it is left out, and the reason.

    Args:
        labels: Answers to the image, in any order.
        searched: Labels whose keywords found it.
        judged: The owner's decision, a label or none; None: there is no decision.
        rule: Rule for keeping images, see `decide`.
        min_answers: Minimum number of answers that the rule needs.
    """
    if judged is not None:
        return None if judged == NONE else judged, OWNER_SAYS
    if len(labels) < min_answers:
        return None, f"only {len(labels)} of {min_answers} answers"
    return _apply(rule, labels, searched)


def decide(
    answers: LatestAnswers,
    searched: Mapping[int, set[str]],
    judged: Mapping[int, str],
    *,
    rule: Rule = "both",
    min_answers: int = MIN_ANSWERS,
) -> dict[int, Verdict]:
    """Return the verdict on every answered image.

    Args:
        answers: Latest answers to each image.
        searched: Labels whose keywords found an image.
        judged: The owner's decision, a label or none; it overrides rules.
        min_answers: Minimum number of answers that a rule needs.
        rule: `both` is the paper's. It keeps an image if all annotators name the same label and the image was searched
            for it, or for no label. `majority` keeps the label that more than half name. `soft` keeps an image with
            its shares, under the most frequent label, except ties and images for which more than half of the answers
            are `none`.
    """
    decided = {}
    for image, label_by_name in answers.by_image.items():
        labels = list(label_by_name.values())
        details = answers.details.get(image, {})
        shares = shares_of([details.get(name, {}).get("labels", (label,)) for name, label in label_by_name.items()])
        label, reason = decide_image(
            labels, searched.get(image, set()), judged.get(image), rule=rule, min_answers=min_answers
        )
        if reason == OWNER_SAYS and label is not None and not shares:
            # Without a label from any annotator, the owner's is the only one.
            shares = {label: 1.0}
        decided[image] = Verdict(label, shares, reason)
    return decided


def remembered_rule(store: Store) -> Rule:
    """Return the rule of the last split or release, at first both."""
    rule: Rule = store.setting("rule") or "both"
    return rule


def verdicts(project: Project, *, rule: Rule = "both", min_answers: int = MIN_ANSWERS) -> dict[int, Verdict]:
    """Decide about all images of a project."""
    judged = {row.picture_id: row.value for row in project.rows(select(current("verdict")))}
    return decide(read_answers(project), searched_labels(project), judged, rule=rule, min_answers=min_answers)


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
    total = sum(parts.values())
    return {label: part / total for label, part in sorted(parts.items())}


def _apply(rule: Rule, labels: Sequence[str], searched: Set[str]) -> tuple[str | None, str]:
    """Return the label that a rule keeps, or None, and the reason."""
    (top, times), *others = Counter(labels).most_common()
    if 2 * labels.count(NONE) > len(labels):
        return None, "no label fits"
    if rule == "both":
        if others:
            return None, "annotators disagree"
        if searched and top not in searched:
            return None, "annotators agree on another label than the search word's"
        return top, "all agree"
    if rule == "majority":
        if times * 2 > len(labels):
            return top, "majority"
        return None, "no majority"
    named = Counter(label for label in labels if label != NONE).most_common()
    if not named or (len(named) > 1 and named[0][1] == named[1][1]):
        return None, "a tie"
    return named[0][0], "most name it"
