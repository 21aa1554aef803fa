"""Scores, agreement, cost and latency against computations by others, and the page."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from tests.drawn import Stored, draw_image, jpeg_of
from uniemox.data.sample import Sample
from uniemox.intervals import bootstrap_interval
from uniemox.labels import MIKELS
from uniemox_ask.agreement import AgreementWithOurs, agreement
from uniemox_ask.config import AskConfig
from uniemox_ask.forms import questions_of
from uniemox_ask.page import PAGE, RESULT, names_of, write_results
from uniemox_ask.question import AskedImage
from uniemox_ask.record import AnswerRow
from uniemox_ask.result import Results, summarise
from uniemox_ask.table import CSV

QUESTIONS = questions_of(MIKELS)
CONFIG = AskConfig(endpoint="https://x.org", models=("m",))
LATENCIES = (1.0, 2.0, 4.0, 8.0)
TRUTH = ("fear", "fear", "awe", "anger", "awe")
IMAGES = [
    AskedImage(
        sample=Sample(key=f"<{i}>.jpg", image=Stored(jpeg_of(draw_image(i, (40, 30))))), label=label, sha256=f"{i}"
    )
    for i, label in enumerate(TRUTH)
]


def row(image: int, answer: str | None, *, model: str = "m", url: str = CONFIG.url, **known: Any) -> AnswerRow:
    values = {"latency_s": 1.0, "tokens_in": 100, "tokens_out": 10, "error": None if answer else "HTTP 500", **known}
    key = {
        "endpoint": url,
        "model": model,
        "picture": str(image),
        "name": "n",
        "question_sha256": QUESTIONS.questions[0].sha256,
    }
    return AnswerRow(answer=answer, **key, **values)


def results(*rows: AnswerRow, config: AskConfig = CONFIG, ours: dict[str, str] | None = None) -> Results:
    by_key = {row.key: row for row in rows}
    return summarise(config, IMAGES, QUESTIONS, by_key, data="own:set", ours=ours, notes=("note",))


def test_scores_of_a_model() -> None:
    answers = (
        ("Fear.", None),
        ("It is dark.", "I can't."),
        ("The emotion is awe.", "Awe."),
        ("Fear and anger", "Both"),
    )
    rows = [row(i, answer, word=word, latency_s=LATENCIES[i]) for i, (answer, word) in enumerate(answers)]
    [model] = results(*rows, row(4, None)).models
    assert (model.n, model.accuracy, model.accuracy_of_named, model.failed, model.not_asked) == (4, 0.5, 1.0, 1, 0)
    assert model.accuracy_interval == bootstrap_interval(np.array([1, 0, 1, 0]))
    assert model.outcomes == {"label": 2, "unlisted": 2, "refused": 0, "empty": 0}
    recalls = {label: (result.n, result.recall) for label, result in model.per_class.items() if result.n}
    assert recalls == {"fear": (2, 0.5), "awe": (1, 1.0), "anger": (1, 0.0)}
    assert model.per_class["sadness"].recall is None
    assert (model.latency_p50_s, model.latency_p95_s) == (3.0, pytest.approx(7.4))
    assert (model.tokens_in, model.tokens_out, model.cost, model.agreement) == (400, 40, None, None)


def test_scores_without_answers_and_of_refusals() -> None:
    [model] = results().models
    assert (model.n, model.accuracy, model.accuracy_interval, model.not_asked) == (0, None, None, 5)
    assert (model.latency_p50_s, model.cost) == (None, None)
    [model] = results(row(0, "fear", is_refused=True)).models
    assert (model.outcomes["refused"], model.accuracy) == (1, 0.0)


def test_other_models_of_the_folder_are_included() -> None:
    summary = results(
        row(0, "fear"), row(0, "awe", model="n"), row(1, "awe", url="https://y.org"), row(9, "awe", model="o")
    )
    assert [(model.model, model.endpoint, model.n) for model in summary.models] == [
        ("m", CONFIG.url, 1),
        ("n", CONFIG.url, 1),
        ("m", "https://y.org", 1),
    ]
    assert names_of(summary) == ["m (x.org)", "n", "m (y.org)"]


def test_cost_uses_current_prices_else_saved_costs() -> None:
    priced = AskConfig(endpoint="https://x.org", models=("m",), price_in=10.0, price_out=100.0)
    rows = [row(0, "fear"), row(1, "fear", cost=7.0), row(0, "fear", model="n", cost=0.5), row(0, "awe", model="o")]
    assert [model.cost for model in results(*rows, config=priced).models] == [0.004, 0.5, None]
    assert results(row(0, "fear", tokens_in=None)).models[0].cost is None


def test_agreement_with_our_model() -> None:
    ours = {"0": "fear", "1": "fear", "2": "fear", "3": "anger", "4": "awe"}
    summary = results(row(0, "fear"), row(1, "joy"), row(2, "awe"), row(3, "anger"), ours=ours)
    shared = summary.models[0].agreement
    assert shared is not None
    assert (shared.n, shared.percent) == (3, pytest.approx(200 / 3))
    assert shared.kappa == pytest.approx(cohen_kappa_score(["fear", "fear", "anger"], ["fear", "awe", "anger"]))
    assert summary.ours_result is not None
    assert (summary.ours_result.accuracy, summary.ours_result.n, summary.ours_result.agreement) == (0.8, 5, None)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=30))
def test_kappa_equals_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    first = [a for a, _ in pairs]
    second = [b for _, b in pairs]
    computed = agreement(first, second)
    assert computed.percent == pytest.approx(100 * sum(a == b for a, b in pairs) / len(pairs))
    if len({*first, *second}) > 1:
        assert computed.kappa == pytest.approx(cohen_kappa_score(first, second))
    else:
        assert computed.kappa is None
    assert agreement(second, first) == computed
    assert agreement([], []) == AgreementWithOurs(n=0, percent=None, kappa=None)


def test_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    evil = "**Fear** <script>alert(1)</script> \"'&"
    ours = dict.fromkeys("01234", "fear")
    summary = results(row(0, evil, model="<b>m</b>"), row(1, "joy"), ours=ours)
    assert write_results(summary, tmp_path) == tmp_path / PAGE
    page = (tmp_path / PAGE).read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&lt;b&gt;m&lt;/b&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 5
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "fear (right)" in page
    assert "no label of the list" in page
    assert "UniEmoX (ours)" in page
    assert "&lt;0&gt;.jpg" in page
    values = json.loads((tmp_path / RESULT).read_text("utf-8"))
    assert values == json.loads(json.dumps(summary.as_dict()))
    assert values["pictures"] == 5
    assert values["models"][1]["model"] == "<b>m</b>"
    assert {path.name for path in tmp_path.iterdir()} == {CSV, PAGE, RESULT}
