"""Results as one self-contained HTML page, in the form of the paper's tables VIII and IX and its figure 10."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from uniemox.ask.question import AskedImage
from uniemox.ask.record import AnswerRow
from uniemox.ask.result import OURS, Results
from uniemox.data.sample import decode_sample
from uniemox.errors import ImageError
from uniemox.io.files import write_file
from uniemox.io.html import UNKNOWN, jpeg_url, write_html
from uniemox.io.images import MinSides

RESULT = "result.json"
PAGE = "page.html"
SHOWN = 100  # images shown with all answers; the rest is in answers.jsonl
MAX_SIDE_PX = 240
MAX_CHARACTERS = 2000  # of an explanation
WORDS = {"label": "named a label", "unlisted": "no label of the list", "refused": "refused", "empty": "empty"}


def write_results(results: Results, out: Path) -> Path:
    """Write result.json and page.html into a folder, replacing earlier ones. Returns the page.

    Raises:
        DataError: If they can't be written.
    """
    write_file(out / RESULT, json.dumps(results.as_dict(), indent=2) + "\n")
    names = names_of(results)
    models = list(zip(names, results.models, strict=True))
    write_html(
        out / PAGE,
        "ask/page.html",
        title=f"Asked about {results.data}",
        results=results,
        models=models if results.ours_result is None else [*models, (OURS, results.ours_result)],
        outcomes=WORDS,
        images=[_image(results, names, asked) for asked in results.images[:SHOWN]],
        ours_name=OURS,
    )
    return out / PAGE


def names_of(results: Results) -> list[str]:
    """Return the models' names; equal names get their endpoint's host, or its whole address."""
    full = [f"{model.model} ({model.endpoint})" for model in results.models]
    hosts = [f"{model.model} ({urlsplit(model.endpoint).netloc})" for model in results.models]
    names = [model.model for model in results.models]
    for longer in (hosts, full):
        names = [name if names.count(name) == 1 else other for name, other in zip(names, longer, strict=True)]
    return names


def _image(results: Results, names: list[str], asked: AskedImage) -> dict[str, Any]:
    """Return the template's values for an image and its answers."""
    said = []
    for name, result in zip(names, results.models, strict=True):
        answer = results.answers[result.endpoint, result.model].get(asked.sha256)
        said.append((name, answer, _words(answer)))
    if results.ours is None:
        ours = None
    else:
        ours = results.ours[asked.sha256]
    view = {"key": asked.sample.key, "label": asked.label, "said": said, "ours": ours}
    try:
        image, _ = decode_sample(asked.sample, MinSides(long_px=MAX_SIDE_PX))
    except ImageError as error:
        return {**view, "error": str(error)}
    return {**view, "error": "", "url": jpeg_url(image, max_side_px=MAX_SIDE_PX)}


def _words(row: AnswerRow | None) -> str:
    if row is None:
        return UNKNOWN
    words = row.answer or ""
    if not (len(words) <= MAX_CHARACTERS):
        words = f"{words[:MAX_CHARACTERS]} ..."
    if row.word is not None:
        words += f"\n\nAsked for one word: {row.word[:MAX_CHARACTERS]}"
    return words
