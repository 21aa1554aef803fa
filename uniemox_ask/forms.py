"""Forms of the question: the paper's list of labels, letters for the labels, and statements to judge.

A prompt is one wording of the question with one order of the options. Several prompts about the same image show how
much the answers of a model depend on them.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from uniemox.errors import ConfigError
from uniemox.labels import LabelSet
from uniemox.plurals import counted
from uniemox_ask.answer_reader import AnswerReader, spellings_of

Form = Literal["list", "letters", "statements"]
YES = "yes"
NO = "no"
# Without I, which is also a word at the start of sentences.
LETTERS = "ABCDEFGHJKLMNOPQRSTUVWXYZ"
# The first wording is that of the paper (arXiv 2409.18877, section V-F).
LIST_WORDINGS = (
    "Which emotion does this image most strongly evoke? Please select the most intense emotional response from the "
    "following list and explain your choice: {options}.",
    "What do most people feel when they see this image? Choose one emotion from this list, and explain your choice: "
    "{options}.",
    "Look at this image as its viewers do. Select the emotion of this list that describes their response best, and "
    "explain why: {options}.",
    "From the following list, pick the emotion that you would expect this image to give to people, and give your "
    "reasons: {options}.",
)
LETTER_WORDINGS = (
    "Which emotion does this image most strongly evoke?\n{options}\nAnswer with the letter alone.",
    "What do most people feel when they see this image?\n{options}\nGive only the letter of your choice.",
    "Look at this image as its viewers do. Which emotion describes their response best?\n{options}\n"
    "Reply with one letter.",
    "Pick the emotion that you would expect this image to give to people.\n{options}\nWrite the letter, nothing else.",
)
STATEMENTS = (
    "This image evokes {label} in its viewers.",
    "People who see this image feel {label}.",
    "The feeling that this image gives to people is {label}.",
    "{label} is an emotion with which viewers respond to this image.",
)
WORDINGS: Mapping[Form, tuple[str, ...]] = {"list": LIST_WORDINGS, "letters": LETTER_WORDINGS, "statements": STATEMENTS}


@dataclass(frozen=True, kw_only=True)
class AskedQuestion:
    """A question that is asked about every image."""

    prompt: int
    """Number of the prompt, from 1."""
    label: str | None
    """The label of a statement; None if the labels are the options."""
    text: str
    follow_up: str
    """Second question after an answer that is none of the options."""
    spellings: Mapping[str, str]
    """Options by the words that name them, for `AnswerReader`."""
    tokens: Mapping[str, str]
    """Options by the tokens that stand for them alone; empty if options have several tokens."""

    @property
    def id(self) -> str:
        """Name under which answers are saved; empty for the first prompt about all labels."""
        parts = []
        if self.label is not None:
            parts.append(self.label)
        if self.prompt > 1:
            parts.append(f"prompt {self.prompt}")
        return " ".join(parts)

    @cached_property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def reader(self) -> AnswerReader:
        """Parser of the answers."""
        return AnswerReader(self.spellings)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionSet:
    """All questions about an image."""

    form: Form
    labels: tuple[str, ...]
    questions: tuple[AskedQuestion, ...]

    @property
    def prompts(self) -> int:
        """Number of prompts."""
        return self.questions[-1].prompt

    @property
    def text(self) -> str:
        """The questions of the first prompt, one a line; a folder of answers belongs to them."""
        return "\n".join(question.text for question in self.questions if question.prompt == 1)

    @property
    def uses_tokens(self) -> bool:
        """True if an option is a token, so that log-probabilities give its probability."""
        return bool(self.questions[0].tokens)

    def describe(self, images: int) -> str:
        """Describe the number of questions about a number of images: "8 images x 4 prompts"."""
        parts = [counted(images, "image")]
        if self.form == "statements":
            parts.append(counted(len(self.labels), "statement"))
        if self.prompts > 1:
            parts.append(counted(self.prompts, "prompt"))
        return " x ".join(parts)

    def has(self, question_id: str, sha256: str) -> bool:
        """Return True if one of the questions has this name and this hash of its text."""
        return any(question.id == question_id and question.sha256 == sha256 for question in self.questions)

    def of_prompt(self, number: int) -> list[AskedQuestion]:
        """Return the questions of a prompt: one, or a statement for each label."""
        return [question for question in self.questions if question.prompt == number]


def questions_of(
    labels: LabelSet, form: Form = "list", prompts: int = 1, definitions: Mapping[str, str] | None = None
) -> QuestionSet:
    """Return the questions about an image.

    Prompt k has wording k of its form; after the last wording comes the first again. The options of the first prompt
    are in reverse order, as in the paper for Mikels' eight. In prompt k they are rotated by k - 1 places, so that with
    as many prompts as labels each label is once in each place.

    Args:
        labels: The options.
        form: list: the paper's question. letters: an option is a letter, so that its probability can be read.
            statements: a question for each label, whether it is evoked.
        prompts: Number of prompts, from 1.
        definitions: Meaning of each label, which is part of the question; None: no definitions.

    Raises:
        ConfigError: For labels of felt emotions, because the questions ask about evoked ones, for more prompts than
            there are different ones, and for more labels than letters.
    """
    if labels.kind != "evoked":
        raise ConfigError(
            f"the question is which emotion an image evokes; {labels.name} describes what people in it feel. "
            "Ask about a data set of evoked emotions (fi, emoset, emotion6, ube, emo8)"
        )
    limit = max_prompts(form, labels)
    if prompts > limit:
        raise ConfigError(f"prompts must be at most {limit} for form {form} and {len(labels)} labels, got {prompts}")
    if form == "letters" and len(labels) > len(LETTERS):
        raise ConfigError(f"form letters has {len(LETTERS)} letters; {labels.name} has {len(labels)} labels")
    questions: list[AskedQuestion] = []
    for number in range(1, prompts + 1):
        wording = WORDINGS[form][(number - 1) % len(WORDINGS[form])]
        options = _rotate(tuple(reversed(labels.labels)), number - 1)
        if form == "list":
            questions.append(_list_question(number, wording, options, labels, definitions))
        elif form == "letters":
            questions.append(_letter_question(number, wording, options, labels, definitions))
        else:
            questions += [_statement(number, wording, label, definitions) for label in labels.labels]
    return QuestionSet(form=form, labels=labels.labels, questions=tuple(questions))


def max_prompts(form: Form, labels: LabelSet) -> int:
    """Return the number of different prompts: pairs of a wording and an order of the options."""
    wordings = len(WORDINGS[form])
    if form == "statements":
        return wordings
    return math.lcm(wordings, len(labels))


def _rotate(labels: tuple[str, ...], shift: int) -> tuple[str, ...]:
    first = shift % len(labels)
    return labels[first:] + labels[:first]


def _list_question(
    number: int, wording: str, options: tuple[str, ...], labels: LabelSet, definitions: Mapping[str, str] | None
) -> AskedQuestion:
    """Return a question whose options are the labels."""
    text = wording.format(options=list(options))
    if definitions is not None:
        text += "\n" + _lines(f"{label}: {definitions[label]}" for label in options)
    return AskedQuestion(
        prompt=number,
        label=None,
        text=text,
        follow_up=f"Which one of these do you select? Answer with that word alone: {', '.join(options)}.",
        spellings=spellings_of(labels),
        tokens={},
    )


def _letter_question(
    number: int, wording: str, options: tuple[str, ...], labels: LabelSet, definitions: Mapping[str, str] | None
) -> AskedQuestion:
    """Return a question whose options are letters for the labels."""
    letters = dict(zip(LETTERS, options, strict=False))
    spellings = spellings_of(labels)
    for word, label in list(spellings.items()):
        letter = next(letter for letter in letters if letters[letter] == label)
        # "B) fear", "B. fear", "B: fear", "B - fear" and "B fear"; the reader has removed a bracket before the letter.
        spellings |= {f"{letter.lower()}{separator} {word}": label for separator in (")", ".", ":", " -", "")}
    for letter, label in letters.items():
        spellings |= {letter.lower(): label, f"option {letter.lower()}": label}
    shown = letters
    if definitions is not None:
        shown = {letter: f"{label}: {definitions[label]}" for letter, label in letters.items()}
    return AskedQuestion(
        prompt=number,
        label=None,
        text=wording.format(options=_lines(f"{letter}. {words}" for letter, words in shown.items())),
        follow_up="Which one of these do you select? Answer with its letter alone.\n"
        + _lines(f"{letter}. {label}" for letter, label in letters.items()),
        spellings=spellings,
        # Upper-case alone: "a" is also a word.
        tokens=letters,
    )


def _statement(number: int, wording: str, label: str, definitions: Mapping[str, str] | None) -> AskedQuestion:
    """Return the question whether a statement about a label is true."""
    statement = wording.format(label=label)
    statement = statement[0].upper() + statement[1:]
    text = f'Is this statement true of the image? "{statement}"'
    if definitions is not None:
        text += f"\n{label}: {definitions[label]}"
    words = {"yes": YES, "true": YES, "no": NO, "false": NO}
    return AskedQuestion(
        prompt=number,
        label=label,
        text=f"{text}\nAnswer with yes or no.",
        follow_up="Is the statement true of the image? Answer with yes or no alone.",
        spellings=words,
        tokens={spelling(word): option for word, option in words.items() for spelling in (str, str.title, str.upper)},
    )


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)
