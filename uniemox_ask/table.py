"""Answers of every model about every image as a table for programs."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uniemox.io import write_file, write_rows
from uniemox_ask.agreement import agreeing_answers
from uniemox_ask.answers import answers_to_compare
from uniemox_ask.choices import pooled
from uniemox_ask.result import Results

CSV = "answers.csv"


def write_table(results: Results, out: Path) -> None:
    """Write answers.csv into a folder: a row for each model and image whose questions are all answered.

    Raises:
        DataError: If it can't be written.
    """
    text = io.StringIO(newline="")
    write_rows(text, _rows(results))
    write_file(out / CSV, text.getvalue())


def _rows(results: Results) -> Iterator[list[Any]]:
    """Yield the header, then the rows."""
    labels = results.questions.labels
    prompts = [f"prompt_{number}" for number in range(1, results.questions.prompts + 1)]
    columns = ["endpoint", "model", "image", "sha256", "truth", "label", "agreeing_answers"]
    yield [*columns, *prompts, *(f"p_{label}" for label in labels)]
    for (endpoint, model), answers in results.answers.items():
        for image in results.images:
            choices = answers.choices.get(image.sha256)
            if choices is None:
                continue
            agreeing = None
            if len(choices) > 1:
                compared = answers_to_compare(results.questions, answers.by_image[image.sha256])
                agreeing = round(agreeing_answers(compared), 6)
            together = pooled(labels, choices)
            probabilities: list[float | None] = [None] * len(labels)
            if together.probabilities is not None:
                probabilities = [round(float(value), 6) for value in together.probabilities]
            row = [endpoint, model, image.sample.key, image.sha256, image.label, "|".join(together.labels), agreeing]
            yield [*row, *("|".join(choice.labels) for choice in choices), *probabilities]
