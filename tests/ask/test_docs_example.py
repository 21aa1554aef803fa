"""The worked example of docs/ask.md: drawn images, an endpoint with known habits, and the output on the page."""

import random
import re
from pathlib import Path

import pytest

from tests.ask.photos import draw_splits
from tests.ask.server import Request, Response, says_with_probabilities, serving
from tests.ask.test_command import ask_here
from uniemox.data.readers.folders import read_folder
from uniemox.labels import MIKELS
from uniemox_ask.forms import questions_of
from uniemox_ask.question import image_url

PAGE = Path(__file__).parents[2] / "docs" / "ask.md"
QUESTIONS = questions_of(MIKELS, "letters", prompts=2).questions


def draw_photos(root: Path) -> dict[str, str]:
    """Draw 24 images of split val and 24 of split test; returns their labels by the form in which they are sent."""
    draw_splits(root, ("val", "test"), 3)
    data = read_folder(root)
    return {image_url(sample): str(data.label_of(sample)) for sample in data.samples}


def answer_of(request: Request, truth: str) -> Response:
    """Return the answer of a model that knows the label of half of the images, and else likes the first options."""
    knows = random.Random(request.image).random() < 0.5
    weights = {}
    [question] = [question for question in QUESTIONS if question.text == request.text]
    for place, (letter, label) in enumerate(question.tokens.items(), start=1):
        weights[letter] = 1 / place
        if knows and label == truth:
            weights[letter] += 3.0
    total = sum(weights.values())
    probabilities = {letter: weight / total for letter, weight in weights.items()}
    letter = max(probabilities, key=probabilities.__getitem__)
    return says_with_probabilities((letter, probabilities))


@pytest.mark.thorough
def test_output_on_the_page_is_that_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label_of = draw_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text("utf-8")
    [command] = re.findall(r"^\$ uniemox ask (--data folder:photos .*)$", text, re.MULTILINE)
    with serving(lambda request, number: answer_of(request, label_of[request.image])) as endpoint:
        code, out, err = ask_here(*command.replace("http://127.0.0.1:8000/v1", endpoint.url).split())
    assert code == 0, err
    # The other tables have the times of this machine.
    tables = [table for table in re.split(r"(?=^┏)", out, flags=re.MULTILINE) if "agreeing" in table or "gain" in table]
    assert len(tables) == 2
    for table in tables:
        for line in table.splitlines():
            assert line.rstrip() in text, out
    for line in err.splitlines()[:2]:
        assert re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", line) in text, err
