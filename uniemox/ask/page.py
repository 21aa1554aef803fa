"""The results as one HTML page that stands alone, in the form of the paper's tables VIII and IX and its figure 10."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from uniemox.ask.record import OUTCOMES
from uniemox.ask.result import OURS, ModelResult, ReadAnswer, Results
from uniemox.data.sample import decode_sample
from uniemox.errors import DataError, ImageError
from uniemox.io.files import write_text
from uniemox.io.html import (
    UNKNOWN,
    Html,
    element,
    interval,
    number,
    page,
    scaled_image,
    scrolling,
    table,
    track,
)

RESULT, PAGE = "result.json", "page.html"
SHOWN = 100  # images with all that was said of them; the others are in answers.jsonl
MAX_SIDE_PX = 240
MAX_CHARACTERS = 2000  # of an explanation
WORDS = {
    "label": "named a label",
    "unlisted": "no label of the list",
    "refused": "refused",
    "empty": "empty",
}
STYLE = """
thead th { white-space: normal; vertical-align: bottom }
.said td:last-child { white-space: pre-wrap; min-width: 18rem; max-width: 44rem; overflow-wrap: anywhere }
.said td, .said th { vertical-align: top } .right { color: var(--good) } .wrong { color: var(--bad) }
.asked { display: grid; grid-template-columns: 15rem minmax(0, 1fr); gap: 1.2rem; margin: 1.5rem 0 }
@media (max-width: 40rem) { .asked { grid-template-columns: 1fr } }
"""


def write_results(results: Results, out: Path) -> Path:
    """Write result.json and page.html into a folder; they replace those of before. Returns the page.

    Raises DataError if they can't be written.
    """
    text = json.dumps(results.as_dict(), indent=2) + "\n"
    _write(out / RESULT, text)
    _write(out / PAGE, page(f"Asked about {results.data}", _parts(results)))
    return out / PAGE


def names_of(results: Results) -> list[str]:
    """The models' names; where several have one name, with their endpoint's host, or all of its address."""
    full = [f"{model.model} ({model.endpoint})" for model in results.models]
    hosts = [f"{model.model} ({urlsplit(model.endpoint).netloc})" for model in results.models]
    names = [model.model for model in results.models]
    for longer in (hosts, full):
        names = [name if names.count(name) == 1 else other for name, other in zip(names, longer, strict=True)]
    return names


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    try:
        write_text(path, text)
    except OSError as error:
        raise DataError(f"{path} can't be written ({error.strerror})") from error


def _parts(results: Results) -> Iterator[Html]:
    yield element("style", Html(STYLE))
    yield element("h1", f"Which emotion does it evoke? {len(results.images)} images of {results.data}")
    yield element("p", "Asked: ", element("q", results.question))
    for note in results.notes:
        yield element("p", note, class_="note")
    yield element("h2", "How often they were right")
    yield _scores(results)
    yield element(
        "p",
        "Accuracy is over all answers: one that is no label of the list is wrong. Who answered in sentences was asked "
        "once more, for one word. Intervals are "
        "95 % bootstraps over images. Agreement is over the images of which both name a label.",
        class_="note",
    )
    yield element("h2", "Answers")
    yield _outcomes(results)
    yield element("h2", "By class: share that was named rightly")
    yield _classes(results)
    yield element("h2", "What they said (in the form of tables VIII and IX)")
    if len(results.images) > SHOWN:
        yield element("p", f"The first {SHOWN} of {len(results.images)}; all are in answers.jsonl.", class_="note")
    for number_, asked in enumerate(results.images[:SHOWN], start=1):
        heading = element("h3", f"{number_}. {asked.label}")
        try:
            image, _ = decode_sample(asked.sample, lambda width, height: max(width, height) / MAX_SIDE_PX)
            shown = scaled_image(image, f"{asked.sample.key}, labelled {asked.label}", max_side_px=MAX_SIDE_PX)
        except ImageError as error:
            shown = element("p", str(error), class_="missing")
        caption = element("figcaption", f"{asked.sample.key}, labelled ", element("b", asked.label))
        said = _said(results, asked.sha256, asked.label)
        yield element("section", heading, element("div", element("figure", shown, caption), said, class_="asked"))


def _all(results: Results) -> list[tuple[str, ModelResult]]:
    models = list(zip(names_of(results), results.models, strict=True))
    return models if results.ours_result is None else [*models, (OURS, results.ours_result)]


def _scores(results: Results) -> Html:
    rows = []
    for name, found in _all(results):
        shared = found.agreement
        row = [name, str(found.n), number(found.accuracy), interval(found.accuracy_interval)]
        row += [track(found.accuracy, found.accuracy_interval), number(found.accuracy_of_named)]
        if results.ours is not None:
            row += [number(shared.percent, 1), number(shared.kappa, 2)] if shared else [UNKNOWN, UNKNOWN]
        row += [number(found.latency_p50_s, 1), number(found.latency_p95_s, 1)]
        row += [f"{found.tokens_in:,} / {found.tokens_out:,}" if found.endpoint else UNKNOWN, number(found.cost, 4)]
        rows.append(row)
    headings = ["Model", "answers", "accuracy", "95 % interval", "", "of those that name a label"]
    headings += [] if results.ours is None else ["agree with ours, %", "kappa"]
    headings += ["latency p50, s", "p95, s", "tokens in / out", "cost"]
    return table("accuracy, agreement, latency and cost by model", headings, rows)


def _outcomes(results: Results) -> Html:
    rows = [
        [name, *(str(found.outcomes[outcome]) for outcome in OUTCOMES), str(found.failed), str(found.not_asked)]
        for name, found in zip(names_of(results), results.models, strict=True)
    ]
    headings = ["Model", *(WORDS[outcome] for outcome in OUTCOMES), "request failed", "not asked"]
    return table("answers by what they were", headings, rows)


def _classes(results: Results) -> Html:
    models = _all(results)
    counts = {label: sum(asked.label == label for asked in results.images) for label in results.labels}
    rows = []
    for label in results.labels:
        cells = []
        for _, found in models:
            own = found.per_class[label]
            cells.append(f"{number(own.recall, 2)} ({interval(own.interval)})" if own.n else UNKNOWN)
        rows.append([label, str(counts[label]), *cells])
    return table("recall by class", ["Class", "images", *(name for name, _ in models)], rows)


def _said(results: Results, sha256: str, truth: str) -> Html:
    """Model, emotion, description, ours last."""
    rows = []
    for name, found in zip(names_of(results), results.models, strict=True):
        answered = results.answers[found.endpoint, found.model].get(sha256)
        rows.append((name, *_emotion(answered, truth)))
    if results.ours is not None:
        label = results.ours[sha256]
        rows.append((OURS, _judged(label, is_right=label == truth), UNKNOWN))
    head = element("tr", *(element("th", word, scope="col") for word in ("Model", "Emotion", "Description")))
    body = [
        element("tr", element("th", name, scope="row"), element("td", emotion), element("td", words))
        for name, emotion, words in rows
    ]
    return scrolling("what was said", element("table", element("thead", head), element("tbody", *body), class_="said"))


def _emotion(answered: ReadAnswer | None, truth: str) -> tuple[str, str]:
    if answered is None:
        return "no answer", UNKNOWN
    words = answered.row.answer or ""
    words = words if len(words) <= MAX_CHARACTERS else f"{words[:MAX_CHARACTERS]} ..."
    if answered.row.word is not None:
        words += f"\n\nAsked for one word: {answered.row.word[:MAX_CHARACTERS]}"
    reading = answered.reading
    if reading.label is None:
        return element("span", WORDS[reading.outcome], class_="wrong"), words
    return _judged(reading.label, is_right=reading.label == truth), words


def _judged(label: str, *, is_right: bool) -> Html:
    mark = "right" if is_right else "wrong"
    return element("span", f"{label} ({mark})", class_=mark)
