"""Results as one self-contained HTML page, in the form of the paper's tables VIII and IX and its figure 10."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from uniemox.data import decode_sample
from uniemox.errors import ImageError
from uniemox.io import UNKNOWN, MinSides, jpeg_url, write_file, write_html
from uniemox_ask.choices import pooled
from uniemox_ask.forms import QuestionSet
from uniemox_ask.question import AskedImage
from uniemox_ask.record import AnswerRow
from uniemox_ask.result import OURS, Results
from uniemox_ask.table import write_table

RESULT = "result.json"
PAGE = "page.html"
# Images on the page, with all answers. It contains them, so more would make it slow to open; answers.jsonl has all.
MAX_IMAGES = 100
MAX_SIDE_PX = 240
MAX_CHARACTERS = 2000  # of an explanation
MAX_SHORT_CHARACTERS = 200  # of each answer, if there are several about an image
OUTCOME_NAMES = {"label": "named a label", "unlisted": "no label of the list", "refused": "refused", "empty": "empty"}


def write_results(results: Results, out: Path) -> Path:
    """Write result.json, answers.csv and page.html into a folder, replacing earlier ones. Returns the page.

    Raises:
        DataError: If they can't be written.
    """
    write_file(out / RESULT, json.dumps(results.as_dict(), indent=2) + "\n")
    write_table(results, out)
    names = names_of(results)
    models = list(zip(names, results.models, strict=True))
    if results.ours_result is not None:
        models.append((OURS, results.ours_result))
    write_html(
        out / PAGE,
        "uniemox_ask/page.html",
        title=f"Asked about {results.data}",
        results=results,
        models=models,
        outcomes=OUTCOME_NAMES,
        images=[_image_view(results, names, image) for image in results.images[:MAX_IMAGES]],
        ours_name=OURS,
    )
    return out / PAGE


def names_of(results: Results) -> list[str]:
    """Return the models' names; equal names get their endpoint's host, or its whole address."""
    with_address = [f"{model.model} ({model.endpoint})" for model in results.models]
    with_host = [f"{model.model} ({urlsplit(model.endpoint).netloc})" for model in results.models]
    names = [model.model for model in results.models]
    for longer_names in (with_host, with_address):
        pairs = zip(names, longer_names, strict=True)
        names = [name if names.count(name) == 1 else longer_name for name, longer_name in pairs]
    return names


def _image_view(results: Results, names: list[str], asked_image: AskedImage) -> dict[str, Any]:
    """Return the template's values for an image and its answers."""
    answers = []
    for name, result in zip(names, results.models, strict=True):
        model_answers = results.answers[result.endpoint, result.model]
        rows = model_answers.by_image.get(asked_image.sha256, {})
        choices = model_answers.choices.get(asked_image.sha256)
        view: dict[str, Any] = {"name": name, "labels": (), "fault": "", "words": _answer_text(results.questions, rows)}
        if choices is None:
            view["fault"] = "questions without an answer" if rows else "no answer"
        else:
            view["labels"] = pooled(results.questions.labels, choices).labels
            if not view["labels"]:
                outcome = next(iter(rows.values())).outcome
                view["fault"] = OUTCOME_NAMES.get(outcome or "", UNKNOWN)
        answers.append(view)
    ours = None if results.ours is None else results.ours[asked_image.sha256]
    image_view = {"key": asked_image.sample.key, "label": asked_image.label, "answers": answers, "ours": ours}
    try:
        image, _ = decode_sample(asked_image.sample, MinSides(long_px=MAX_SIDE_PX))
    except ImageError as error:
        return {**image_view, "error": str(error)}
    return {**image_view, "error": "", "url": jpeg_url(image, max_side_px=MAX_SIDE_PX)}


def _answer_text(questions: QuestionSet, rows: Mapping[str, AnswerRow]) -> str:
    """Return a model's answers about an image, shortened.

    Args:
        questions: The questions.
        rows: The answers by `AskedQuestion.id`.
    """
    if not rows:
        return UNKNOWN
    if len(questions.questions) > 1:
        answered = [question for question in questions.questions if question.id in rows]
        return "\n".join(f"{question.id or 'prompt 1'}: {_short_answer(rows[question.id])}" for question in answered)
    [row] = rows.values()
    text = row.answer or ""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[:MAX_CHARACTERS]} ..."
    if row.word is not None:
        text += f"\n\nAsked for one word: {row.word[:MAX_CHARACTERS]}"
    return text


def _short_answer(row: AnswerRow) -> str:
    """Return the option that an answer names with its probability, or else the beginning of the answer."""
    if row.label is None:
        return " ".join((row.word or row.answer or "").split())[:MAX_SHORT_CHARACTERS]
    if row.probabilities is None:
        return row.label
    return f"{row.label} ({row.probabilities.get(row.label, 0.0):.2f})"
