"""Tasks of Label Studio: those that `uniemox curate export` writes, and those of a JSON export.

Label Studio refuses annotations of e-mail addresses that it does not know, and gives all others to the person who
imports them. Of an annotation it keeps only the result, the time spent, and `id`, which it exports as `import_id`. It
keeps everything in a task's data. So names, times and further fields of answers travel in `data.answers`.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from uniemox.errors import DataError
from uniemox.spelling import spelled
from uniemox_curate.plan import CollectionPlan
from uniemox_curate.project import NONE, SKIP, utc

CONTROL = "emotion"
"""Name of the control that `uniemox curate export` writes, and the first choice among several."""
# Begins the names of imported annotators.
PREFIX = "label studio"
# Begins e-mail addresses, to tell them from ids.
ADDRESS = "mailto:"
MAX_NAME = 100
# Year 9999, the last one of a time in ISO format.
MAX_SECONDS = 253_370_764_800
# Field of a task's data with its answers, and the bytes of their numbers. Label Studio numbers annotations from 1, so
# that one of its own numbers is never one of these.
ANSWERS = "answers"
NUMBER_BYTES = 6


class WrittenAnswer(NamedTuple):
    """An answer in a task's data, as `uniemox curate export` wrote it."""

    annotator: str
    label: str
    """A label of the plan, none or skip."""
    details: Mapping[str, Any]
    """Further fields of the answer."""
    at: float
    """When it was given, seconds since 1970."""

    @property
    def choices(self) -> list[str]:
        """Labels that the annotator chose."""
        if self.label in (NONE, SKIP):
            return []
        return list(self.details.get("labels", [self.label]))


def add_answer(task: dict[str, Any], answer: WrittenAnswer, seconds: float) -> None:
    """Add an answer to a task of Label Studio: to its data, and as an annotation.

    Args:
        task: Task with `data` and `annotations`; data has the sha256 of the image.
        answer: Answer to add.
        seconds: Time that the annotator needed; 0 if it is not known.
    """
    identity = f"{task['data']['sha256']} {answer.annotator}".encode()
    number = int.from_bytes(hashlib.blake2b(identity, digest_size=NUMBER_BYTES).digest())
    written = {
        "id": number,
        "annotator": answer.annotator,
        "label": answer.label,
        "at": utc(answer.at),
        "details": answer.details,
    }
    choices = {"from_name": CONTROL, "to_name": "image", "type": "choices", "value": {"choices": answer.choices}}
    annotation = {
        "id": number,
        "lead_time": seconds or None,
        "was_cancelled": answer.label == SKIP,
        # Label Studio takes imported annotations for the truth if this is missing.
        "ground_truth": False,
        "result": [choices] if answer.choices else [],
    }
    task["data"].setdefault(ANSWERS, []).append(written)
    task["annotations"].append(annotation)


def written_answers(task: Mapping[str, Any]) -> dict[int, WrittenAnswer]:
    """Return the answers in a task's data by the number of their annotation; entries of another form are left out."""
    data = task.get("data")
    entries = data.get(ANSWERS) if isinstance(data, dict) else None
    answers = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        number = entry.get("id")
        annotator = entry.get("annotator")
        label = entry.get("label")
        details = entry.get("details")
        at = _seconds(entry.get("at"))
        is_named = isinstance(annotator, str) and annotator.strip() != ""
        if (
            isinstance(number, int)
            and is_named
            and isinstance(label, str)
            and isinstance(details, dict)
            and at is not None
        ):
            answers[number] = WrittenAnswer(str(annotator), label, details, at)
    return answers


def written_answer_of(annotation: Any, answers: Mapping[int, WrittenAnswer]) -> WrittenAnswer | None:
    """Return the answer that an annotation was made from; None if somebody gave it in Label Studio."""
    if not isinstance(annotation, dict):
        return None
    for field in ("import_id", "id"):
        number = annotation.get(field)
        if isinstance(number, int) and number in answers:
            return answers[number]
    return None


def is_as_written(annotation: Mapping[str, Any], labels: Iterable[str], answer: WrittenAnswer) -> bool:
    """Return True if nobody changed an annotation in Label Studio; the order of its choices does not count.

    Args:
        labels: Labels that are chosen in the annotation.
    """
    if bool(annotation.get("was_cancelled")) or answer.label == SKIP:
        return bool(annotation.get("was_cancelled")) and answer.label == SKIP
    return set(labels) == set(answer.choices)


def annotations_of(task: Mapping[str, Any]) -> list[Any]:
    """Return the annotations of a task; an empty list if it has none.

    Versions before 1.0 called them completions.
    """
    annotations = task.get("annotations", task.get("completions"))
    return annotations if isinstance(annotations, list) else []


def find_control(tasks: Sequence[Mapping[str, Any]], where: str, control: str | None = None) -> str:
    """Return the name of the control whose choices are the answers.

    Args:
        tasks: Tasks of an export.
        where: Name of the file, for messages.
        control: The user's choice; None: emotion, or else the only control with choices.

    Raises:
        DataError: If the user's choice does not occur, or if there are several controls and none is emotion.
    """
    results = (result for task in tasks for annotation in annotations_of(task) for result in _choices(annotation))
    names = sorted({_control_of(result) for result in results})
    if control is not None:
        if control not in names:
            raise DataError(f"{where}: no answer has the control {control!r}; there are: {', '.join(names) or 'none'}")
        return control
    if CONTROL in names or not names:
        return CONTROL
    if len(names) > 1:
        listed = ", ".join(name or "one without a name" for name in names)
        raise DataError(
            f"{where}: answers of several controls: {listed}; name the one to import, as in --control {names[-1]}"
        )
    return names[0]


def chosen_labels(annotation: Mapping[str, Any], control: str, plan: CollectionPlan) -> tuple[str, ...] | None:
    """Return the labels of the plan that were chosen with a control, () for no choice; None if one is no label."""
    chosen: list[str | None] = []
    for result in _choices(annotation):
        if _control_of(result) == control:
            chosen += [plan.label_of(str(word)) for word in result["value"]["choices"]]
    labels = tuple(label for label in dict.fromkeys(chosen) if label in plan.labels)
    return labels if len(labels) == len(set(chosen)) else None


def is_unanswered(annotation: Mapping[str, Any], control: str) -> bool:
    """Return True if an annotation has no choice of this control, but says something else, such as a comment.

    An empty result is an answer: no label fits. A cancelled annotation is a skipped image, whatever it holds.
    """
    if annotation.get("was_cancelled") or annotation.get("result") == []:
        return False
    return control not in map(_control_of, _choices(annotation))


def _choices(annotation: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the valid results of type choices."""
    results = annotation.get("result") if isinstance(annotation, dict) else None
    for result in results if isinstance(results, list) else ():
        if not isinstance(result, dict) or result.get("type") != "choices":
            continue
        value = result.get("value")
        if isinstance(value, dict) and isinstance(value.get("choices"), list):
            yield result


def _control_of(result: Mapping[str, Any]) -> str:
    name = result.get("from_name")
    return name if isinstance(name, str) else ""


def time_of(annotation: Mapping[str, Any]) -> float | None:
    """Return when an annotation was last changed, seconds since 1970; None if that is not known."""
    for field in ("updated_at", "created_at"):
        at = _seconds(annotation.get(field))
        if at is not None:
            return at
    return None


def _seconds(text: Any) -> float | None:
    """Return the time of a text in ISO format, seconds since 1970; None if it is no time.

    Versions before 1.0 wrote these seconds.
    """
    if isinstance(text, int) and 0 < text < MAX_SECONDS:
        return float(text)
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


class Annotators:
    """Names of the people of an export, one for each id and each e-mail address.

    Exports write completed_by as a number, or as an object with id and email, even within one file. Addresses are
    compared without case. An id whose address is known is another person's, of another Label Studio, if it comes with
    another address.

    Args:
        tasks: Tasks of an export.
        where: Name of the file, for messages.
        known: Name by id, and by address after ADDRESS, from earlier imports; `names` has the new ones too.
        saved: Names of the people of the project.

    Raises:
        DataError: If one id has several e-mail addresses in the file.
    """

    def __init__(
        self, tasks: Sequence[Mapping[str, Any]], where: str, known: Mapping[str, str], saved: Iterable[str] = ()
    ) -> None:
        self.emails = _email_by_id(tasks, where)
        self.names = dict(known)
        self.saved = {name.casefold(): name for name in saved}
        # Answers of an earlier import may be saved under the id alone; its address is that person's from now on.
        for number, email in self.emails.items():
            name = self.names.get(number)
            if name is not None and self._may_be(name, number, email):
                self.names.setdefault(ADDRESS + email.casefold(), name)

    def name_of(self, annotation: Any) -> str:
        """Return the name under which the annotator's answers are saved; see `has_annotator`."""
        number, email = _person(annotation)
        email = email or self.emails.get(number, "")
        if email:
            new_name = _name(email)
            name = self.names.setdefault(ADDRESS + email.casefold(), self.saved.get(new_name.casefold(), new_name))
        else:
            name = self.names.get(number, _name(number))
        if number:
            self.names.setdefault(number, name)
        return name

    def name_of_written(self, answer: WrittenAnswer) -> str:
        """Return the name under which an answer of the export's own annotators is saved."""
        new_name = _name(answer.annotator.removeprefix(f"{PREFIX} "))
        return self.saved.get(new_name.casefold(), new_name)

    def _may_be(self, name: str, number: str, email: str) -> bool:
        """Return True if the name of an id is that of an address: it has no other one yet."""
        if name.casefold() == _name(email).casefold():
            return True
        has_address = any(key.startswith(ADDRESS) and other == name for key, other in self.names.items())
        return name == _name(number) and not has_address


def _email_by_id(tasks: Sequence[Mapping[str, Any]], where: str) -> dict[str, str]:
    """Return the e-mail address of each id that has one.

    Raises:
        DataError: For an id with several addresses.
    """
    emails: dict[str, dict[str, str]] = {}
    for task in tasks:
        for annotation in annotations_of(task):
            number, email = _person(annotation)
            if number and email:
                emails.setdefault(number, {}).setdefault(email.casefold(), email)
    for number, addresses in emails.items():
        if len(addresses) > 1:
            listed = " and ".join(sorted(addresses.values()))
            raise DataError(
                f"{where}: completed_by has the id {number} for {listed}; export each project to a file of its own"
            )
    return {number: next(iter(addresses.values())) for number, addresses in emails.items()}


def has_annotator(annotation: Any) -> bool:
    """Return True if an annotation says who gave it; the tasks of a release do not."""
    return any(_person(annotation))


def email_of(annotation: Any) -> str:
    """Return the e-mail address of an annotator; an empty text if there is none."""
    return _person(annotation)[1]


def _person(annotation: Any) -> tuple[str, str]:
    """Return id and e-mail address of an annotator, empty texts if they are not known."""
    person = annotation.get("completed_by") if isinstance(annotation, dict) else None
    if isinstance(person, dict):
        return _text(person.get("id")), _text(person.get("email"))
    text = _text(person)
    return ("", text) if "@" in text else (text, "")


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return spelled(str(value))


def _name(person: str) -> str:
    """Return the name of an imported annotator.

    Args:
        person: Id, e-mail address, or name.
    """
    return "".join(letter for letter in f"{PREFIX} {person}" if letter.isprintable())[:MAX_NAME]
