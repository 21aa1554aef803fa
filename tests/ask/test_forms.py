"""The forms of the question: letters, statements, prompts with other wordings and orders, and definitions."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from uniemox.errors import ConfigError, DataError
from uniemox.labels import EKMAN, MIKELS, LabelSet
from uniemox_ask.definitions import read_definitions
from uniemox_ask.forms import LETTERS, Form, max_prompts, questions_of

LETTER_QUESTION = questions_of(MIKELS, "letters").questions[0]
TRUE_OR_NOT = questions_of(MIKELS, "statements").questions[0]
MEANINGS = {label: f"meaning of {label}" for label in MIKELS.labels}


def test_letters_of_the_first_prompt_are_in_the_papers_order() -> None:
    assert LETTER_QUESTION.text == (
        "Which emotion does this image most strongly evoke?\nA. sadness\nB. fear\nC. excitement\nD. disgust\n"
        "E. contentment\nF. awe\nG. anger\nH. amusement\nAnswer with the letter alone."
    )
    assert LETTER_QUESTION.tokens["B"] == "fear"
    assert "B. fear" in LETTER_QUESTION.follow_up


@pytest.mark.parametrize(
    "answer",
    [
        *("B", "b", "(B)", "**B**", "B.", "B) fear", "B. fear", "B: Fear", "**B.** Fear", "(B) fear", "B fear"),
        *("Option B", "fear", '{"answer": "B"}', '```json\n{"choice": "B"}\n```', "<think>A or B</think>\n\nB"),
    ],
)
def test_letters_are_read(answer: str) -> None:
    assert LETTER_QUESTION.reader.read(answer) == ("label", "fear")


@pytest.mark.parametrize("answer", ["A fear", "B or C", "A, B", "I", "The answer is B, because it is dark.", "Z"])
def test_contradictions_and_sentences_are_no_letters(answer: str) -> None:
    assert LETTER_QUESTION.reader.read(answer) == ("unlisted", None)


@pytest.mark.parametrize(
    ("answer", "option"),
    [("Yes", "yes"), ("no.", "no"), ("**Yes**", "yes"), ("True", "yes"), ("FALSE", "no"), ('{"answer": "yes"}', "yes")],
)
def test_judgements_are_read(answer: str, option: str) -> None:
    assert TRUE_OR_NOT.reader.read(answer) == ("label", option)
    assert TRUE_OR_NOT.reader.read(f"{answer} It might be, but I can't tell.") == ("unlisted", None)


def test_a_statement_for_each_label_in_each_prompt() -> None:
    questions = questions_of(MIKELS, "statements", prompts=2).questions
    assert [(question.prompt, question.label) for question in questions] == [
        (prompt, label) for prompt in (1, 2) for label in MIKELS.labels
    ]
    assert questions[0].text == (
        'Is this statement true of the image? "This image evokes amusement in its viewers."\nAnswer with yes or no.'
    )
    assert [question.id for question in questions[:2]] == ["amusement", "anger"]
    assert questions[8].id == "amusement prompt 2"


@pytest.mark.parametrize("form", ["list", "letters"])
def test_with_as_many_prompts_as_labels_each_label_is_once_in_each_place(form: Form) -> None:
    questions = questions_of(MIKELS, form, prompts=8).questions
    places: Counter[tuple[str, int]] = Counter()
    for question in questions:
        # The options, as the question shows them.
        words = re.findall("|".join(MIKELS.labels), question.text)
        places.update(zip(words, range(8), strict=True))
    assert places == dict.fromkeys(((label, place) for label in MIKELS.labels for place in range(8)), 1)


@pytest.mark.parametrize("form", ["list", "letters", "statements"])
@pytest.mark.parametrize("labels", [MIKELS, EKMAN, LabelSet("own", ("a", "b", "c"), "evoked")])
def test_all_prompts_differ_and_no_more_are_accepted(form: Form, labels: LabelSet) -> None:
    limit = max_prompts(form, labels)
    questions = questions_of(LabelSet(labels.name, labels.labels, "evoked"), form, prompts=limit).questions
    assert len({question.text for question in questions}) == len({question.id for question in questions})
    assert len(questions) == limit * (len(labels) if form == "statements" else 1)
    with pytest.raises(ConfigError, match=f"prompts must be at most {limit} for form {form}"):
        questions_of(LabelSet(labels.name, labels.labels, "evoked"), form, prompts=limit + 1)


def test_the_scope_counts_images_statements_and_prompts() -> None:
    assert questions_of(MIKELS).describe(1) == "1 image"
    assert questions_of(MIKELS, "statements", prompts=2).describe(3) == "3 images x 8 statements x 2 prompts"


def test_more_labels_than_letters_are_refused() -> None:
    many = LabelSet("own", tuple(f"label {i}" for i in range(len(LETTERS) + 1)), "evoked")
    with pytest.raises(
        ConfigError, match=f"form letters has {len(LETTERS)} letters; own has {len(LETTERS) + 1} labels"
    ):
        questions_of(many, "letters")


def test_definitions_are_part_of_each_question() -> None:
    assert "\nfear: meaning of fear\n" in questions_of(MIKELS, "list", definitions=MEANINGS).text
    assert "\nB. fear: meaning of fear\n" in questions_of(MIKELS, "letters", definitions=MEANINGS).text
    for question in questions_of(MIKELS, "statements", definitions=MEANINGS).questions:
        # Only the definition of the label that the statement is about.
        assert re.findall("meaning of (.*)", question.text) == [question.label]


def test_definitions_are_read_by_label_or_alias(tmp_path: Path) -> None:
    path = tmp_path / "meanings.json"
    path.write_text(json.dumps({"Content": "two\n lines", **dict.fromkeys(MIKELS.labels[1:3], "x")}))
    with pytest.raises(DataError, match=r"no definition of amusement, disgust, excitement, fear, sadness; give a JSON"):
        read_definitions(path, MIKELS)
    path.write_text(json.dumps({**MEANINGS, "contentment": "two\n lines"}))
    assert read_definitions(path, MIKELS) == {**MEANINGS, "contentment": "two lines"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**MEANINGS, "love": "x"}, r"'love' is none of the 8 labels of mikels.*remove this definition"),
        ({**MEANINGS, "content": "x"}, "another definition of contentment; remove one"),
        ({**MEANINGS, "fear": " "}, "no definition of fear"),
        ({**MEANINGS, "fear": 3}, "fear"),
        ([], "expected an object|give a JSON object"),
    ],
)
def test_unusable_definitions_name_the_fault(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "meanings.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_definitions(path, MIKELS)
    with pytest.raises(DataError, match=r"can't be read"):
        read_definitions(tmp_path / "none.json", MIKELS)
