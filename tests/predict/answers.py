"""Answers made by hand; importing this needs no torch."""

from pathlib import Path
from typing import Any

from uniemox.persons.box import Box
from uniemox.predict.prediction import Face, Person, Prediction
from uniemox.predict.writing import AnswerHeader, ResultFile


def prediction(path: str, **changes: Any) -> Prediction:
    person = Person(box=Box(1, 2, 3, 4.5), confidence=0.5, emotions={"happy": 0.25, "sad": 0.75})
    values: dict[str, Any] = {
        "scene": {"awe": 0.25, "fear": 0.75},
        "kind": "evoked",
        "persons": [person],
        "faces": [],
        "likely": ("fear", "awe"),
        "path": path,
        "width_px": 30,
        "height_px": 20,
        "label_set": "custom",
        "model": "m",
    }
    return Prediction(**values | changes)


ANSWERED = AnswerHeader("m", "custom", ("awe", "fear"), has_likely=True, has_persons=True, has_faces=True)


def opened(path: Path, *, resume: bool = False, **changes: Any) -> ResultFile:
    return ResultFile(path, resume=resume, answered=ANSWERED._replace(**changes))


FACES = [
    Face(box=Box(1, 2, 3, 4), confidence=0.5, expressions={"joy": 0.75, "anger": 0.25}, person=0),
    Face(box=Box(1, 2, 2, 3), confidence=0.25, expressions=None, person=None),
]
