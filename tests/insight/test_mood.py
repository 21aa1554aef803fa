"""Moods: conditions on predictions as users write them."""

import pytest

from uniemox.errors import ConfigError
from uniemox.insight.mood import _WORDS, EXAMPLE, parse_mood


@pytest.mark.parametrize(
    ("text", "part", "hint"),
    [
        ("valence", "'valence'", "for 'valence' write valence>6"),
        ("people>1 valence > high", "'valence > high'", ""),
        ("> 3", "'> 3'", ""),
        ("valence<>7", "'valence<>7'", ""),
        ("people>0 Calm valence>6", "'Calm'", "for 'calm' write arousal<4.5"),
        ("awe", "'awe'", "if 'awe' is an emotion of the model, write awe>0.5"),
        ("bit gloomy >= 40%", "'bit'", """a name with a blank needs quotes: "bit gloomy">=0.5"""),
        (";", "';'", ""),
        ("is_colourless", "'is_colourless'", "it is a field of predict's answers, but not of the index"),
    ],
)
def test_the_part_of_a_mood_that_is_no_condition_is_named(text: str, part: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_mood(text)
    message = str(caught.value)
    assert f"{part} is no condition" in message
    assert hint in message
    assert f"one of < <= > >= = and a number, such as {EXAMPLE!r}. Names: valence and arousal (1 to 9)" in message


@pytest.mark.parametrize("text", ['"bit gloomy">0.4 schadenfreude\'s<0.2', "'bit gloomy' > 40 %, schadenfreude's<0.2"])
def test_labels_with_a_blank_are_quoted(text: str) -> None:
    """The quotes come back in the text of a condition, so that it can be repeated."""
    conditions = parse_mood(text)
    assert conditions == [("bit gloomy", ">", 0.4), ("schadenfreude's", "<", 0.2)]
    assert parse_mood(" ".join(map(str, conditions))) == conditions


def test_labels_with_signs_are_quoted_and_a_number_may_begin_with_a_point() -> None:
    conditions = parse_mood("\"joy, love\">.25 'a=b' < 5% '\u00fcber \"mad'>=0.1")
    assert conditions == [("joy, love", ">", 0.25), ("a=b", "<", 0.05), ('\u00fcber "mad', ">=", 0.1)]
    assert parse_mood(" ".join(map(str, conditions))) == conditions
    with pytest.raises(ConfigError, match="in quotes if it has a blank or one of , < > ="):
        parse_mood("a=b>0.2")


def test_moods_take_spaces_commas_equality_and_percent() -> None:
    expected = [("excitement", ">", 0.5), ("people", "=", 0.0), ("valence", ">=", 6.5)]
    for text in ("excitement>0.5 people=0 valence>=6.5", " excitement > 50 %, people == 0 , valence >= 6.5 "):
        assert [tuple(condition) for condition in parse_mood(text)] == expected
    with pytest.raises(ConfigError, match="people is not a share; write people>NUMBER without %"):
        parse_mood("people>50%")


def test_every_word_of_the_hints_leads_to_a_condition() -> None:
    for word in _WORDS:
        with pytest.raises(ConfigError) as caught:
            parse_mood(word)
        [condition] = parse_mood(str(caught.value).split(" write ")[1].split(". A condition")[0])
        condition.check()


@pytest.mark.parametrize(
    ("text", "message"),
    [("People>50%", "People is not a share"), ("VALENCE>50 %", "VALENCE is not a share"), ("awe>101%", "up to 100 %")],
)
def test_percentages_are_of_shares(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_mood(text)


def test_a_small_limit_is_written_as_it_is_read() -> None:
    [condition] = parse_mood("Fear<0.005%")
    assert str(condition) == "Fear<0.00005"
    assert parse_mood(str(condition)) == [condition]
