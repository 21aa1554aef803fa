"""One English text from the attributes of an EmoSet annotation (arXiv 2409.18877, section III-D and figure 4)."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from uniemox.data.sample import Sample
from uniemox.errors import AnnotationError

# Limits between the five words for brightness and for colorfulness.
LEVELS = (0.2, 0.4, 0.6, 0.8)
BRIGHTNESS = ("very dark", "dark", "moderately bright", "bright", "very bright")
COLORFULNESS = ("nearly colorless", "muted", "moderately colorful", "colorful", "vivid")
OPENINGS = {
    "facial_expression": "The facial expression is",
    "human_action": "The action is",
    "emotion": "The overall emotion is",
}
# Our choice (docs/paper-vs-code.md).
MAX_OBJECTS = 8
# Text of an image without any annotation.
DEFAULT_TEXT = "A photo."


def describe(annotation: Mapping[str, object], with_emotion: bool) -> str:
    """Return the text of an annotation; missing, None or empty parts are left out.

    Args:
        annotation: Any of brightness and colorfulness (0 to 1), scene, facial_expression, human_action and emotion
            (words), object (a list of words, of which eight are named). Other fields are ignored.
        with_emotion: End with the emotion, which is the label (table VII of the paper compares both).

    Raises:
        AnnotationError: With the field, for a value of another type or out of range.

    >>> describe({"brightness": 0.7, "scene": "amusement_park", "object": ["Ferris wheel"]}, with_emotion=False)
    'A bright photo of an amusement park. It shows ferris wheel.'
    """
    objects = _words(annotation, "object")[:MAX_OBJECTS]
    sentences = [_opening(annotation), f"It shows {_join_words(objects)}." if objects else ""]
    for field, opening in OPENINGS.items():
        if (with_emotion or field != "emotion") and (word := _word(annotation, field)):
            sentences.append(f"{opening} {word}.")
    return " ".join(filter(None, sentences)) or DEFAULT_TEXT


def teacher_text(sample: Sample, with_emotion: bool) -> str:
    """Return the teacher's text of a sample: its annotation in words, or else its own text.

    Args:
        with_emotion: End the text of an annotation with its emotion, if there is one. Other texts stay unchanged.
    """
    if sample.annotation is not None:
        return describe(sample.annotation, with_emotion)
    return sample.text or DEFAULT_TEXT


def _opening(annotation: Mapping[str, object]) -> str:
    """Return the opening sentence, with brightness, colorfulness and scene; an empty text without any of them."""
    qualities = []
    for field, words in (("brightness", BRIGHTNESS), ("colorfulness", COLORFULNESS)):
        value = annotation.get(field)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise AnnotationError(f"{field} must be a number from 0 to 1, got {value!r}")
        qualities.append(words[bisect_right(LEVELS, value)])
    scene = _word(annotation, "scene")
    if not qualities and not scene:
        return ""
    of_scene = ""
    if scene:
        article = "an" if scene[0] in "aeiou" else "a"
        of_scene = f" of {article} {scene}"
    if qualities:
        return f"A {', '.join(qualities)} photo{of_scene}."
    return f"A photo{of_scene}."


def _word(annotation: Mapping[str, object], field: str) -> str:
    """Return a field's word in lower case, with _ and / as blanks; an empty text if it is missing."""
    value = annotation.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AnnotationError(f"{field} must be a word, got {value!r}")
    return plain(value)


def plain(word: str) -> str:
    """Return a word of EmoSet in the spelling of texts: lower-case, with _ and / as blanks.

    >>> plain("Kitchen_&_dining_room/table")
    'kitchen & dining room table'
    """
    return " ".join(word.lower().replace("_", " ").replace("/", " ").split())


def _words(annotation: Mapping[str, object], field: str) -> list[str]:
    """Return the words of a list; an empty list if it is missing."""
    values = annotation.get(field)
    if values is None:
        return []
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise AnnotationError(f"{field} must be a list of words, got {values!r}")
    return [word for value in values if (word := _word({field: value}, field))]


def _join_words(words: Sequence[str]) -> str:
    """Join words with commas, and "and" before the last."""
    if len(words) > 1:
        return f"{', '.join(words[:-1])} and {words[-1]}"
    return words[0]


def distinct_texts(samples: Sequence[Sample], with_emotion: bool) -> list[str]:
    """Return all texts of a data set, each once, in the order of their first sample."""
    return list(dict.fromkeys(teacher_text(sample, with_emotion) for sample in samples))
