"""Facts about released answers and images, from which the sentences of the datasheet derive.

The plan says what was intended. These facts say what is recorded: answers may also come from Label Studio, where nobody
saw the plan's questions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from uniemox_curate.questions import Question
from uniemox_curate.release.config import ReleasedImage
from uniemox_curate.release.splitting import author_trait


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """Numbers of answers to the released images."""

    count: int
    annotators: int
    by_origin: Mapping[str, int]
    """Number of answers from each origin; see `uniemox_curate.annotate.origins`."""
    several: int
    """Number of answers with several labels."""
    ratings: Mapping[str, int]
    """Number of answers on each scale that has some."""
    texts: Mapping[str, int]
    """Number of published answers in words to each question that has some."""
    suggested: int
    """Number of answers whose annotator saw the suggestion of a model."""
    timed: int
    """Number of answers whose time is recorded."""
    median_seconds: float | None
    """Median time of these answers; None without any."""
    consenting: int | None
    """Number of annotators who agreed to the consent text before their first answer; None: not recorded."""


def answer_facts(
    images: Iterable[ReleasedImage], questions: Sequence[Question], consenting: Sequence[str] | None
) -> AnswerFacts:
    """Count the answers to the images of a release.

    Args:
        images: Images of the release.
        questions: Questions that an answer may hold an answer to.
        consenting: Numbers of annotators who agreed to the consent text; None: not recorded.
    """
    answers = [answer for image in images for answer in image.answers]
    annotators = {answer.annotator for answer in answers}
    by_question = Counter(name for answer in answers for name in answer.details)
    ratings = {}
    texts = {}
    for question in questions:
        count = by_question[question.name]
        if count and question.scale is not None:
            ratings[question.name] = count
        elif count and question.published:
            texts[question.name] = count
    times = [answer.seconds for answer in answers if answer.seconds > 0]
    return AnswerFacts(
        count=len(answers),
        annotators=len(annotators),
        by_origin=Counter(answer.origin for answer in answers),
        several=sum(len(answer.details.get("labels", ())) > 1 for answer in answers),
        ratings=ratings,
        texts=texts,
        suggested=by_question["suggested"],
        timed=len(times),
        median_seconds=median(times) if times else None,
        consenting=None if consenting is None else len(annotators.intersection(consenting)),
    )


@dataclass(frozen=True, slots=True)
class SharedOrigins:
    """Authors and pages with several released images."""

    count: int
    divided: int
    """Number of them whose images are in several splits."""


def shared_origins(images: Iterable[ReleasedImage]) -> SharedOrigins:
    """Count the authors and pages that several images share, and those whose images are in several splits."""
    splits: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for image in images:
        author = author_trait(image.about["source"], image.about["author"])
        if author is not None:
            splits[author].append(image.split)
        if image.about["page"]:
            splits["page", image.about["page"]].append(image.split)
    shared = [split_names for split_names in splits.values() if len(split_names) > 1]
    return SharedOrigins(len(shared), sum(len(set(split_names)) > 1 for split_names in shared))
