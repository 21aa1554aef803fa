"""Parsing of answers: a label, or JSON with one. Sentences are left to the follow-up."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemox.errors import ConfigError
from uniemox.labels import EKMAN, MIKELS, POLARITY, LabelSet
from uniemox_ask.answer_reader import OUTCOMES, AnswerReader, spellings_of

READER = AnswerReader(spellings_of(MIKELS))
NAMED = [
    *(("fear", "fear"), ("Fear", "fear"), ("**Fear**", "fear"), ("FEAR.", "fear"), ("'fear'", "fear")),
    *(("“Awe”", "awe"), ("😨 Fear", "fear"), ("content", "contentment"), ("Sad!", "sadness")),
    *(("<think>fear or sadness?</think>\n\nSadness.", "sadness"), ('["fear"]', "fear")),
    ('{"emotion": "Fear", "explanation": "dark, sadness too"}', "fear"),
    ('```json\n{"answer": "awe", "reason": "vast"}\n```', "awe"),
    ("```\nawe\n```", "awe"),
    ('{"most_evoked_emotion": "awe"}', "awe"),
    ('{"dominant_emotion": "awe", "reason": "vast"}', "awe"),
    *(('{"Dominant Emotion": "awe"}', "awe"), ('{"mostLikelyEmotion": "awe", "most_unlikely_emotion": "fear"}', "awe")),
    *(('{"final_answer": "awe"}', "awe"), ('{"predicted-label": "awe"}', "awe"), ('{"emotion_evoked": "awe"}', "awe")),
    *(('{"answer": 7, "emotion": "awe"}', "awe"), ('{"emotion": "a feeling", "finalAnswer": "awe"}', "awe")),
    ('{"emotions": ["awe"], "confidence": 0.9}', "awe"),
    *(('{"emotional_state": "awe", "why": "vast"}', "awe"), ('{"answer": "awe", "secondary": "fear"}', "awe")),
    *(('{"dominantEmotion": "awe"}', "awe"), ('{"emotion": "awe", "class": ["1", "2"]}', "awe")),
    ('{"emotion": "awe", "note": "</think>"}', "awe"),
    *(("`fear`? No.</think>\n\nawe", "awe"), ('{"emotion": "fear"}</think>{"emotion": "awe"}', "awe")),
    *(('{"emotion": "awe", "category": "positive"}', "awe"), ('{"emotion": "awe", "class": null}', "awe")),
    *(
        ('[{"emotion": "awe"}]', "awe"),
        ('{"result": {"label": "awe"}}', "awe"),
        ('{"emotion": "", "label": "awe"}', "awe"),
    ),
    *(('{"emotions": [{"label": "awe"}]}', "awe"), ('{"choices": ["fear"], "answer": "awe"}', "awe")),
    *(('{"prediction": {"awe": 0.8, "fear": 0.2}, "class": "awe"}', "awe"), ('{"label": {}, "class": "awe"}', "awe")),
    ('{"emotions": {"awe": 0.8, "fear": 0.1}, "dominant_emotion": "awe"}', "awe"),
    *(('{"response": "fear", "emotion": "awe"}', "awe"), ('{"state": "fear", "label": ["awe"]}', "awe")),
    # Marks around the answer.
    *(("<|begin_of_box|>awe<|end_of_box|>", "awe"), ("awe<|im_end|>", "awe"), ("<answer>Awe</answer>", "awe")),
    *((r"\boxed{awe}", "awe"), (r"The answer is $\boxed{\text{awe}}$.", "awe"), ("2. awe", "awe")),
    *(("Final answer: awe", "awe"), ("**Final Answer:** Awe.", "awe"), ("Perhaps fear.\n\nAnswer: awe", "awe")),
    ("<|channel|>analysis<|message|>fear?<|end|><|start|>assistant<|channel|>final<|message|>awe<|return|>", "awe"),
    *((r"$\boxed{\mathrm{awe}}$", "awe"), ("The answer is: awe", "awe"), ("### Answer\nawe", "awe")),
    *(
        ("awe</s>", "awe"),
        ("<s>awe", "awe"),
        ("awe<end_of_turn>", "awe"),
        ("awe<eos>", "awe"),
        ("answer:\n\nawe", "awe"),
    ),
    *(("◁think▷fear?◁/think▷awe", "awe"), ("[THINK]fear?[/THINK]awe", "awe"), ("<thought>fear</thought>awe", "awe")),
    *(("<reasoning>fear</reasoning>\nawe", "awe"), ("fear?</reasoning>awe", "awe"), ("fear[/THINK]awe", "awe")),
    # The template of a chat may begin the thoughts.
    *(("not fear.</think>\n\nSadness.", "sadness"), ("<think>" + "hm " * 9_000 + "</think>fear", "fear")),
]
NOT_NAMED = [
    *(
        ("</s>", "empty"),
        ("[THINK]awe", "empty"),
        ("Answer\nis hard", "unlisted"),
        ("### Answer\nawe, fear", "unlisted"),
    ),
    *(("", "empty"), ("...", "empty"), ("<think>awe</think>", "empty"), ("```\n```", "empty")),
    *(("joy", "unlisted"), ("The emotion is fear.", "unlisted"), ("fear and sadness", "unlisted")),
    *(('["fear", "awe"]', "unlisted"), ('{"emotion": ["fear", "awe"]}', "unlisted"), ('{"emotion": 3}', "unlisted")),
    # Several marks, or negations in them.
    *((r"\boxed{fear} or \boxed{awe}", "unlisted"), ("<answer>not fear</answer>", "unlisted")),
    *(("<|begin_of_box|>fear, awe<|end_of_box|>", "unlisted"), ("Answer: fear\nAnswer: awe", "unlisted")),
    *(("The answer is not: fear", "unlisted"), ("1. fear\n2. awe", "unlisted"), ("answer isn't: fear", "unlisted")),
    # One of two labels may be an option that the model excludes.
    ('{"excluded_emotions": ["disgust"], "dominant": "awe"}', "unlisted"),
    ('{"answer": "fear", "emotion": "awe"}', "unlisted"),
    ('{"emotions_ruled_out": ["fear"], "reason": "x"}', "unlisted"),
    *(('{"most_unlikely_emotion": "fear"}', "unlisted"), ('{"most_likely_second_emotion": "fear"}', "unlisted")),
    *(('{"answer": "a mountain", "emotion": "awe"}', "unlisted"), ('{"emotion": "joy", "label": "fear"}', "unlisted")),
    *(('{"answer": "not fear", "emotion": "fear"}', "unlisted"), ('{"mood": "awe"}', "unlisted")),
    *(('{"dominant_emotion": "joy", "missing_emotion": "fear"}', "unlisted"), ('{"wrong": "fear"}', "unlisted")),
    *(('{"dominant_emotions": ["fear", "awe"], "main_emotion": "fear"}', "unlisted"), ('{"emotion": {}}', "unlisted")),
    ('{"emotion": "happy", "excluded_emotion": "fear"}', "unlisted"),
    *(('{"emotion": "none", "second_emotion": "fear"}', "unlisted"), ('{"excluded": "fear"}', "unlisted")),
    ('{"least_emotion": "fear", "most_likely": "awe"}', "unlisted"),
    *(('{"emotion": "awe", "emotion": "fear"}', "unlisted"), ('{"rejected": "awe", "reason": "dull"}', "unlisted")),
    *(('[{"emotion": "awe"}, {"emotion": "fear"}]', "unlisted"), ('{"response": "fear", "state": "awe"}', "unlisted")),
    *(("I'm sorry, I can't help.", "unlisted"), ('{"emotion": ', "unlisted"), ("[1" * 5_000, "unlisted")),
]


@pytest.mark.parametrize(("answer", "label"), NAMED)
def test_labels_are_read(answer: str, label: str) -> None:
    assert READER.read(answer) == ("label", label)


@pytest.mark.parametrize(("answer", "outcome"), NOT_NAMED)
def test_other_answers_have_no_label(answer: str, outcome: str) -> None:
    assert READER.read(answer) == (outcome, None)


def test_labels_that_are_one_word_in_an_answer_are_refused() -> None:
    """An answer would count for the last of them."""
    numbers = AnswerReader(spellings_of(LabelSet("custom", ("-1", "0", "1"), "evoked")))
    assert [numbers.read(answer)[1] for answer in ("-1", "**1**.", "1", '{"label": "-1"}')] == ["-1", "1", "1", "-1"]
    assert [numbers.read(f"{minus}1")[1] for minus in "\u2212\u2013\uff0d\ufe63"] == ["-1"] * 4
    assert numbers.read('{"answer": "1", "result": 0}') == ("label", "1")
    for labels, message in (
        (("joy", "joy!"), "'joy' and 'joy!' can't be told apart in answers"),
        (("calm_joy", "fear", "calm joy"), "'calm_joy' and 'calm joy' can't be told apart"),
        (("+", "fear"), r"'\+' and an answer without a word can't be told apart"),
    ):
        with pytest.raises(ConfigError, match=message):
            spellings_of(LabelSet("custom", labels, "evoked"))


def test_only_aliases_of_the_label_set_count() -> None:
    assert AnswerReader(spellings_of(EKMAN)).read("Happiness.") == ("label", "joy")
    assert READER.read("Happiness.") == ("unlisted", None)
    assert AnswerReader(spellings_of(POLARITY)).read("1") == ("label", "positive")
    reader = AnswerReader(spellings_of(LabelSet("own", ("quiet_joy", "joy"), "evoked")))
    assert reader.read("Quiet joy") == ("label", "quiet_joy")


LABEL = st.sampled_from(MIKELS.labels)
FORMATS = st.sampled_from(
    ["{}", "**{}**", "'{}'", "`{}`", "_{}_", '"{}"', "{}.", "*{}*.", "### {}", '{{"emotion": "{}"}}']
)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=9),
    lambda part: st.lists(part) | st.dictionaries(st.sampled_from(["emotion", "x"]), part),
)


@given(LABEL, FORMATS, st.sampled_from([str.lower, str.upper, str.title]))
def test_punctuation_and_case_are_ignored(label: str, form: str, case: object) -> None:
    assert READER.read(form.format(case(label))) == ("label", label)  # type: ignore[operator]


@given(st.text(max_size=300) | JSON.map(json.dumps))
def test_any_text_is_read_without_error(text: str) -> None:
    outcome, label = READER.read(text)
    assert outcome in OUTCOMES
    assert (label is not None) == (outcome == "label")


@pytest.mark.parametrize("unit", ["the emotion ", "**", "<", "[", "{", "```", "``` ", " ", "<think>"])
def test_long_answers_are_read_quickly(unit: str) -> None:
    assert READER.read("x " + unit * 20_000)[0] in OUTCOMES
