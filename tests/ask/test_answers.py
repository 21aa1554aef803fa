"""Answers are read by rules: what they clearly name, or nothing."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemox.ask.answers import OUTCOMES, AnswerReader, Reading
from uniemox.labels import EKMAN, HECO, MIKELS, POLARITY, LabelSet

READER = AnswerReader(MIKELS)
NAMED = [
    ("fear", "fear"),
    ("Fear", "fear"),
    ("**Fear**", "fear"),
    ("FEAR.", "fear"),
    ("'fear'", "fear"),
    ("['fear']", "fear"),
    ("“Awe”", "awe"),
    ("😨 Fear", "fear"),
    ("### Awe\nThe mountains are vast.", "awe"),
    ("content", "contentment"),  # an alias
    ("Sad", "sadness"),
    ("The emotion is fear.", "fear"),
    ("The emotion is **fear**, because it is dark and nobody is there.", "fear"),
    ("**Fear**\n\nThe handprint on the wall suggests distress, not amusement.", "fear"),
    ("Fear: the dark forest evokes unease.", "fear"),
    ("Fear, not sadness.", "fear"),
    ("Fear because of the dark. Sadness and disgust are weaker.", "fear"),
    ("Anger is the strongest one here.", "anger"),
    ("Answer: Disgust\nExplanation: the red stain looks like blood.", "disgust"),
    ("**Answer:**\nDisgust", "disgust"),
    ("Final answer: awe", "awe"),
    ("At first I would say fear. Final answer: awe.", "awe"),
    ("The answer is \\boxed{\\text{awe}}.", "awe"),
    ("I would choose 'contentment' because the lake is calm.", "contentment"),
    ("From the list ['sadness', 'fear', 'awe'], I would select **awe**.", "awe"),
    ("Based on the image, the most intense emotional response would be **excitement**.", "excitement"),
    ("The emotion that this image most strongly evokes is awe.", "awe"),
    ("The image most strongly evokes a deep sense of sadness.", "sadness"),
    ("This image evokes amusement, with some excitement too.", "amusement"),
    ("This picture elicits feelings of contentment. Awe is less strong.", "contentment"),
    ("The scene conveys movement and light. I choose excitement.", "excitement"),
    ("While I can't be certain, the emotion is fear.", "fear"),
    ("The emotion isn't joy. The emotion is fear.", "fear"),
    ("Content: a dark forest.\nEmotion: fear", "fear"),
    ("The content of this image evokes fear.", "fear"),
    ("Among these I'd go with anger. Why not disgust: nothing is dirty.", "anger"),
    ("Looking at the dog, its silly face ... **amusement** it must be.", "amusement"),
    ("<think>fear or sadness? The answer is fear</think>\n\nSadness.", "sadness"),
    ("<answer>sadness</answer>", "sadness"),
    ('{"emotion": "Fear", "explanation": "dark, sadness too"}', "fear"),
    ('```json\n{"answer": "awe", "reason": "vast"}\n```', "awe"),
    ('Here it is: {"emotion": "fear", "confidence": 0.9}', "fear"),
    ('["fear"]', "fear"),
    ("Awe-inspiring mountains: the emotion is awe.", "awe"),
    ("It makes me feel sad.", "sadness"),
    ("Which emotion does this image most strongly evoke?\nSadness.\nThe rain falls.", "sadness"),
    ('{"most_evoked_emotion": "The answer is awe."}', "awe"),
    ("The image evokes awe and wonder.", "awe"),
    ("I think it's sadness.", "sadness"),
    ("It is fear", "fear"),
    ("Definitely awe!", "awe"),
    ("(a) sadness", "sadness"),
    ("The picture doesn't evoke fear; it evokes awe.", "awe"),
    ("As an AI I don't feel, but most viewers would feel disgust.", "disgust"),
    ("Fear is clearly the most strongly evoked emotion, not disgust.", "fear"),
    ("While some may choose fear, I would choose awe.", "awe"),
    ("Some would say fear. I say awe.", "awe"),
    ("Most people would select sadness, but to me it is awe.", "awe"),
    ("The person feels anger, but the image evokes sadness.", "sadness"),
    ("The man's face conveys anger, but the image evokes sadness.", "sadness"),
    ("The woman in the picture seems to feel fear. I choose sadness.", "sadness"),
    ("If it were night, the emotion would be fear. Here it is awe.", "awe"),
    ("If the sky had been darker, it would evoke fear, but the emotion is awe.", "awe"),
    ("If I had to choose, I would say awe.", "awe"),
    ("If one had to be chosen, the emotion would be awe.", "awe"),
    ("It looks as if it were night; the emotion is fear.", "fear"),
    ("The image of a crying child evokes a feeling of sadness.", "sadness"),
    ("A man alone on a bench makes me feel sad.", "sadness"),
    ("The scene makes people feel awe. Some might choose fear.", "awe"),
    ("Most viewers would feel disgust.", "disgust"),
    ("The dog's expression conveys amusement.", "amusement"),
    ("This makes most viewers feel disgust. Its colours suggest fear.", "disgust"),
    ("The image would make someone feel fear.", "fear"),
    ("The image would make someone feel fear. I would choose awe.", "awe"),
    ("The man seems to feel sadness, and so the image evokes sadness.", "sadness"),
    ("Some elements suggest fear, but the image evokes awe.", "awe"),
    ("While there are some elements that could evoke fear, the dominant emotion is awe.", "awe"),
    ("Had it been night, the emotion would be fear. It is awe.", "awe"),
    ("One might say fear; however, the emotion is awe.", "awe"),
    ("When a child looks at it, the emotion is awe.", "awe"),
    ("1. sadness - no\n2. fear - no\n3. awe - yes", "awe"),
    ("Sadness: no.\nThe answer is awe.", "awe"),
    ("Fear: yes\nAwe: yes\nAnswer: awe", "awe"),
    ("Fear: no doubt, this forest is dark.", "fear"),
    ("Appropriate content: yes.\nEmotion: fear", "fear"),
    ('Here is my answer:\n```json\n{"emotion": "fear", "reason": "not awe"}\n```', "fear"),
    ('The answer is awe.\n```json\n{"lens": "wide"}\n```', "awe"),
]
NOT_NAMED = [
    ("", "empty"),
    (" \n\t", "empty"),
    ("...", "empty"),
    ("<think>The answer is fear", "empty"),  # it thought until its tokens were used up
    ("Fear and sadness", "ambiguous"),
    ("Fear / Disgust", "ambiguous"),
    ("Fear, sadness, disgust", "ambiguous"),
    ("1. Fear\n2. Disgust", "ambiguous"),
    ("The emotion is fear and disgust.", "ambiguous"),
    ("The image evokes a mix of fear and awe.", "ambiguous"),
    ("**Fear** or **awe**, hard to say", "ambiguous"),
    ("The emotion is not fear but sadness.", "ambiguous"),
    ("Fear is not evoked.", "ambiguous"),
    ("Nostalgia, with a hint of sadness.", "ambiguous"),
    ("The emotion is nostalgia, tinged with sadness.", "ambiguous"),
    ('{"emotion": ["fear", "awe"]}', "ambiguous"),
    ("I would say sad dogs are in it.", "ambiguous"),
    ("Joy", "unlisted"),
    ("**Nostalgia**", "unlisted"),
    ("The emotion is nostalgia. It also evokes fear.", "unlisted"),
    ("The emotion is fearful.", "unlisted"),
    ("Awe-inspiring.", "unlisted"),
    ("The content of the image", "ambiguous"),
    ('{"emotion": "joy"}', "unlisted"),
    ('{"emotion": 3}', "unlisted"),
    ("{}", "empty"),
    ('{"mood": "fear"}', "unlisted"),
    ("Sadness, while present, is not the strongest here.", "ambiguous"),
    ("Sadness is often evoked by such pictures.", "ambiguous"),
    ("Fear is the emotion that fits least.", "ambiguous"),
    ("The image evokes amusement park memories.", "ambiguous"),
    ("Awe? Hardly.", "ambiguous"),
    ("The image evokes a sense of unease and fear.", "ambiguous"),
    ("This image most strongly evokes **nostalgia**, which is not in the list. Sadness comes close.", "ambiguous"),
    ("It is not fear.", "ambiguous"),
    ("None of the listed emotions fits.", "unlisted"),
    ("You can't help but smile: joy.", "unlisted"),
    ("恐惧", "unlisted"),
    ("I'm sorry, but I can't assist with that request.", "refused"),
    ("I’m sorry, I can’t help with identifying emotions of people.", "refused"),
    ("I cannot view images.", "refused"),
    ("As an AI language model I am unable to process pictures. Fear or sadness may fit some.", "refused"),
    ("I can't say the emotion is fear.", "refused"),
    ("I don't see an image. Please attach it.", "refused"),
    ("Some would say fear.", "ambiguous"),
    ("The person feels anger.", "ambiguous"),
    ("If it were night, the emotion would be fear.", "ambiguous"),
    ("Sadness - no. Fear - no.", "ambiguous"),
    ("Sadness - yes, fear - yes", "ambiguous"),
    ('Here is my answer:\n```json\n{"emotion": ["fear", "awe"]}\n```', "ambiguous"),
]


@pytest.mark.parametrize(("answer", "label"), NAMED)
def test_what_is_named(answer: str, label: str) -> None:
    assert READER.read(answer) == Reading("label", label)


@pytest.mark.parametrize(("answer", "outcome"), NOT_NAMED)
def test_what_is_not_guessed(answer: str, outcome: str) -> None:
    assert READER.read(answer) == Reading(outcome)  # type: ignore[arg-type]


def test_other_spellings_count_by_the_aliases_of_the_set_alone() -> None:
    assert AnswerReader(EKMAN).read("Happiness.") == Reading("label", "joy")
    assert READER.read("Happiness.") == Reading("unlisted")
    assert AnswerReader(EKMAN).read("Surprise") == Reading("label", "surprise")


def test_a_number_is_an_answer_only_by_itself() -> None:
    reader = AnswerReader(POLARITY)
    assert reader.read("1") == Reading("label", "positive")
    assert reader.read("1. The sky is blue.") == Reading("unlisted")
    assert reader.read("1. Negative: it rains.") == Reading("label", "negative")


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("The person feels anger, but the image evokes sadness.", "anger"),
        ("The image evokes sadness, but the man in it feels anger.", "anger"),
        ("The person in the image feels anger.", "anger"),
        ("Her emotion is anger.", "anger"),
        ("The scene evokes anger.", "anger"),
        ("Some would say she feels fear. I say anger.", "anger"),
    ],
)
def test_what_a_person_feels_is_the_answer_where_that_is_asked(answer: str, label: str) -> None:
    assert AnswerReader(HECO).read(answer) == Reading("label", label)


def test_labels_of_several_words() -> None:
    reader = AnswerReader(LabelSet("own", ("quiet_joy", "joy", "c++ rage"), "evoked"))
    assert reader.read("The emotion is quiet joy.") == Reading("label", "quiet_joy")
    assert reader.read("quiet_joy") == Reading("label", "quiet_joy")
    assert reader.read("Joy!") == Reading("label", "joy")


LABEL = st.sampled_from(MIKELS.labels)
DRESS = st.sampled_from(["{}", "**{}**", "'{}'", "`{}`", "_{}_", '"{}"', "{}.", "*{}*.", "### {}"])
STATED = st.sampled_from(
    ["{}", "The emotion is {}", "Answer: {}", "I would choose {}", "This image evokes {}", '{{"emotion": "{}"}}']
)
CASE = st.sampled_from([str.lower, str.upper, str.title])


@given(LABEL, DRESS, STATED, CASE)
def test_marks_and_case_change_nothing(label: str, dress: str, stated: str, case: object) -> None:
    word = case(label)  # type: ignore[operator]
    dressed = word if stated.startswith("{{") else dress.format(word)
    assert READER.read(stated.format(dressed)) == Reading("label", label)


@given(LABEL, STATED, st.text("bcdghjkmpqvxz .,\n", max_size=80))
def test_an_explanation_without_labels_changes_nothing(label: str, stated: str, explanation: str) -> None:
    if not stated.startswith("{{"):
        assert READER.read(f"{stated.format(label)}.\n{explanation}") == Reading("label", label)


@given(LABEL, LABEL, STATED, st.sampled_from([" and ", " or ", ", ", " / ", " & ", " as well as "]))
def test_two_labels_on_a_par_are_ambiguous(first: str, second: str, stated: str, joint: str) -> None:
    if first != second and not stated.startswith("{{"):
        assert READER.read(stated.format(f"{first}{joint}{second}")).outcome == "ambiguous"


HEARSAY = st.sampled_from(
    [
        *("Some may choose {}", "Some people would say {}", "Others might feel {}", "A few of us could pick {}"),
        *("Someone else would opt for {}", "Most people would select {}", "Many would pick {}"),
        *("Most viewers would feel {}", "People often choose {}", "The person feels {}", "He feels {}"),
        *("The woman on the left clearly feels {}", "The children seem happy and they feel {}", "His emotion is {}"),
        *("If it were night, the emotion would be {}", "If nobody was there, I would choose {}"),
    ]
)
OWN = st.sampled_from(
    ["I would choose {}", "the image evokes {}", "to me it is {}", "the emotion is {}", "I say {}", "my answer is {}"]
)


@given(LABEL, LABEL, HEARSAY, OWN, st.sampled_from([". ", ", but ", " but ", "; ", ".\n"]))
def test_what_is_said_of_others_is_not_the_answer(first: str, second: str, said: str, own: str, between: str) -> None:
    """Before the answer's own statement and after it."""
    assert READER.read(f"{said.format(first)}{between}{own.format(second)}.") == Reading("label", second)
    assert READER.read(f"{own.format(second)}{between}{said.format(first)}.") == Reading("label", second)


@given(LABEL, LABEL, st.sampled_from(["-", "–", ":", "="]), st.sampled_from(["1. ", "- ", ""]))
def test_a_list_with_one_yes(label: str, last: str, mark: str, bullet: str) -> None:
    rows = [f"{bullet}{word} {mark} {'yes' if word == label else 'no'}" for word in (*MIKELS.labels, last)]
    assert READER.read("\n".join(rows)) == Reading("label", label)


@given(LABEL, st.sampled_from(["Here is my answer:\n", "Sure! The picture is calm. ", "", "{json} as asked:\n\n"]))
def test_json_in_a_fence_counts_wherever_it_stands(label: str, before: str) -> None:
    block = json.dumps({"emotion": label.title(), "explanation": "Fear and awe are weaker."}, indent=1)
    for after in ("", "\nTell me if you need more."):
        assert READER.read(f"{before}```json\n{block}\n```{after}") == Reading("label", label)


@given(st.text(max_size=300))
def test_any_text_is_read_and_no_label_is_made_up(text: str) -> None:
    found = READER.read(text)
    assert found.outcome in OUTCOMES
    assert (found.label is not None) == (found.outcome == "label")
    if found.label is not None:
        spellings = [found.label, *(word for word, label in MIKELS.aliases.items() if label == found.label)]
        assert any(word in text.lower() for word in spellings)


@given(st.lists(st.sampled_from(["the emotion is", "evokes", "not", "i", "choose", "joy", "calm", ",", ".", "**"])))
def test_no_label_comes_from_words_without_one(words: list[str]) -> None:
    assert READER.read(" ".join(words)).label is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=9),
        lambda part: st.lists(part) | st.dictionaries(st.sampled_from(["emotion", "x"]), part),
    )
)
def test_any_json_is_read(value: object) -> None:
    assert READER.read(json.dumps(value)).outcome in OUTCOMES


@pytest.mark.parametrize(
    "unit",
    [
        *("the emotion ", "the ", "a sense of ", "**", "<", "fear, ", "emotion that it is the ", "[", "{"),
        *(
            "can't ",
            "if ",
            "some ",
            "person ",
            "he feels ",
            "most people ",
            "```",
            "``` ",
            "fear - ",
            "but ",
            ", ",
            "feels ",
            " ",
        ),
    ],
)
def test_long_answers_take_no_time(unit: str) -> None:
    """A rule that looked at every pair of places would not come back."""
    assert READER.read("x " + unit * 20_000).outcome in OUTCOMES
