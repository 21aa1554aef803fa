"""Several prompts and statements at a real server: saved answers, and scores against other computations."""

import csv
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from tests.ask.server import Request, Response, error, says, says_with_probabilities, serving
from tests.ask.test_run import config_of, lines
from tests.drawn import Stored, draw_image, jpeg_of
from uniemox.data.sample import Sample
from uniemox.errors import ConfigError
from uniemox.intervals import bootstrap_interval
from uniemox.labels import LabelSet
from uniemox_ask.agreement import agreeing_pairs, consistency
from uniemox_ask.choices import most_probable, yes_probability
from uniemox_ask.forms import Form, QuestionSet, questions_of
from uniemox_ask.page import PAGE, write_results
from uniemox_ask.question import AskedImage, image_url
from uniemox_ask.record import AnswerRow
from uniemox_ask.result import Results, summarise
from uniemox_ask.run import ask
from uniemox_ask.table import CSV

LABELS = LabelSet("own", ("awe", "fear", "joy"), "evoked")
TRUTHS = ("awe", "fear", "joy", "fear", "awe", "joy")
IMAGES = [
    AskedImage(
        sample=Sample(key=f"{i}.jpg", image=Stored(jpeg_of(draw_image(i, (24, 18))))), label=label, sha256=f"{i}"
    )
    for i, label in enumerate(TRUTHS)
]
NUMBER_OF_IMAGE = {image_url(image.sample): i for i, image in enumerate(IMAGES)}


def run(
    behave: Callable[[Request, int], Response], out: Path, form: Form, prompts: int, **settings: Any
) -> tuple[Results, list[Request], list[str]]:
    """Return the results, the requests and the plan of a call."""
    questions = questions_of(LABELS, form, prompts)
    plan: list[str] = []
    with serving(behave) as endpoint:
        config = config_of(endpoint, form=form, prompts=prompts, **settings)
        rows = ask(config, IMAGES, questions, out, on_plan=plan.append)
        results = summarise(config, IMAGES, questions, rows, data="own:set")
        return results, endpoint.requests, plan


def prompt_of(questions: QuestionSet, request: Request) -> int:
    return next(question.prompt for question in questions.questions if question.text == request.text)


def answer_for(request: Request) -> str:
    """Return a label that depends on image and question."""
    draw = random.Random(f"{NUMBER_OF_IMAGE[request.image]} {request.text}")
    return draw.choice([*LABELS.labels, TRUTHS[NUMBER_OF_IMAGE[request.image]]])


def pairs_that_agree(answers: Sequence[object]) -> float:
    pairs = list(itertools.combinations(answers, 2))
    return sum(first == second for first, second in pairs) / len(pairs)


def fleiss_kappa(counts: np.ndarray) -> float:
    """Fleiss' kappa of a table of counts, (items, categories), by the formula of the paper."""
    raters = counts[0].sum()
    shares = counts.sum(axis=0) / counts.sum()
    per_item = ((counts**2).sum(axis=1) - raters) / (raters * (raters - 1))
    expected = (shares**2).sum()
    return float((per_item.mean() - expected) / (1 - expected))


def test_scores_over_prompts_equal_those_of_the_requests(tmp_path: Path) -> None:
    results, requests, plan = run(lambda request, number: says(answer_for(request)), tmp_path, "list", 4)
    assert len(requests) == 24
    assert plan[0].startswith("6 images x 4 prompts x m: sending 24 questions to 127.0.0.1")
    questions = results.questions
    answers = np.empty((6, 4), dtype=object)
    for request in requests:
        answers[NUMBER_OF_IMAGE[request.image], prompt_of(questions, request) - 1] = answer_for(request)
    hits = answers == np.array(TRUTHS)[:, None]  # (N, P)
    [model] = results.models
    assert model.accuracy == pytest.approx(hits.mean())
    assert model.accuracy_interval == bootstrap_interval(hits.mean(axis=1))
    assert [prompt.accuracy for prompt in model.prompts] == pytest.approx(list(hits.mean(axis=0)))
    assert model.accuracy_sd == pytest.approx(hits.mean(axis=0).std(ddof=1))
    assert model.consistency is not None
    per_image = [pairs_that_agree(list(row)) for row in answers]
    assert model.consistency.share == pytest.approx(np.mean(per_image))
    assert model.consistency.interval == pytest.approx(bootstrap_interval(np.array(per_image)))
    counts = np.array([[Counter(row)[label] for label in LABELS.labels] for row in answers])
    assert model.consistency.kappa == pytest.approx(fleiss_kappa(counts))
    assert model.consistency.unanimous == pytest.approx(np.mean([len(set(row)) == 1 for row in answers]))
    shares = counts / 4
    assert model.pooled is not None
    truth = np.array([[label == truth for label in LABELS.labels] for truth in TRUTHS])
    assert model.pooled.brier == pytest.approx(((shares - truth) ** 2).sum(axis=1).mean())
    expected = [row[TRUTHS[i] == np.array(LABELS.labels)][0] == row.max() for i, row in enumerate(shares)]
    ties = (shares == shares.max(axis=1, keepdims=True)).sum(axis=1)
    assert model.pooled.accuracy == pytest.approx(np.mean(np.array(expected) / ties))
    assert model.outcomes == {"label": 24, "unlisted": 0, "refused": 0, "empty": 0}


def test_images_without_a_label_have_equal_probabilities(tmp_path: Path) -> None:
    """A model that refuses is not the best: the right label of half of the images gave a Brier score of 0."""

    def behave(request: Request, number: int) -> Response:
        image = NUMBER_OF_IMAGE[request.image]
        return says(TRUTHS[image] if image < 3 else "I can't tell.")

    results, _, _ = run(behave, tmp_path, "list", 2)
    [model] = results.models
    assert model.pooled is not None
    assert model.pooled.brier == pytest.approx(np.mean([0, 0, 0, *[(2 / 3) ** 2 + 2 / 9] * 3]))


def test_probabilities_of_letters_are_averaged_over_prompts(tmp_path: Path) -> None:
    """Also the labels' order is undone: the server gives the first letter 0.6 and the last 0.3 of 0.9."""

    def behave(request: Request, number: int) -> Response:
        return says_with_probabilities(("A", {"A": 0.6, "C": 0.3, "The": 0.1}))

    results, requests, _ = run(behave, tmp_path, "letters", 3)
    assert {request.body["top_logprobs"] for request in requests} == {20}
    [model] = results.models
    assert model.with_probabilities == 18
    # Each label is once first, once second and once last, so all have the same mean probability.
    choices = results.answers[model.endpoint, model.model].choices["0"]
    assert [choice.label for choice in choices] == ["joy", "fear", "awe"]
    assert choices[0].probabilities == pytest.approx([1 / 3, 0, 2 / 3])
    assert model.pooled is not None
    assert model.pooled.accuracy == pytest.approx(1 / 3)
    assert model.pooled.brier == pytest.approx(2 / 3)
    assert model.consistency is not None
    assert model.consistency.share == 0
    [row] = [row for row in lines(tmp_path) if (row["picture"], row["question_id"]) == ("0", "")]
    assert row["probabilities"] == {"joy": pytest.approx(0.6), "fear": 0.0, "awe": pytest.approx(0.3)}


def test_probabilities_are_those_of_the_follow_up_that_names_the_letter(tmp_path: Path) -> None:
    def behave(request: Request, number: int) -> Response:
        if request.is_follow_up:
            return says_with_probabilities(("A", {"A": 0.6, "C": 0.3}))
        return says_with_probabilities(("A", {"A": 0.9}), (" or", {" or": 0.9}), (" C", {" C": 0.9}))

    results, _, _ = run(behave, tmp_path, "letters", 2)
    expected = {"joy": pytest.approx(0.6), "fear": 0.0, "awe": pytest.approx(0.3)}
    saved = [row["probabilities"] for row in lines(tmp_path) if not row["question_id"]]
    assert saved == [expected] * len(IMAGES)
    write_results(results, tmp_path)
    assert "prompt 1: joy (0.60)\nprompt 2: fear (0.60)" in (tmp_path / PAGE).read_text("utf-8")


@pytest.mark.parametrize(
    ("probabilities", "label", "expected"),
    [
        ({"yes": 0.3, "no": 0.1}, "yes", 0.75),
        ({"yes": 0.3}, "yes", 1.0),
        ({"yes": 0.0, "no": 0.0}, "yes", 1.0),
        (None, "no", 0.0),
        (None, None, 0.0),
    ],
)
def test_the_probability_of_yes_is_its_share(
    probabilities: dict[str, float] | None, label: str | None, expected: float
) -> None:
    row = AnswerRow(
        endpoint="", model="m", picture="", name="", question_sha256="", label=label, probabilities=probabilities
    )
    assert yes_probability(row) == pytest.approx(expected)


def test_sums_that_differ_in_the_last_digit_are_equally_probable() -> None:
    assert most_probable(LABELS.labels, np.array([0.1 + 0.2, 0.3, 0.2])) == ("awe", "fear")


def test_statements_are_scored_by_label(tmp_path: Path) -> None:
    """Probabilities of yes, which depend on image and question, against scikit-learn."""

    def yes_of(request: Request) -> float:
        draw = random.Random(f"{NUMBER_OF_IMAGE[request.image]} {request.text}")
        return 0.7 * draw.random() + 0.2 * (TRUTHS[NUMBER_OF_IMAGE[request.image]] in request.text)

    def behave(request: Request, number: int) -> Response:
        yes = yes_of(request)
        answer = "Yes" if yes > 0.5 else "No"
        return says_with_probabilities((answer, {"Yes": 0.9 * yes, "No": 0.9 * (1 - yes)}))

    results, requests, plan = run(behave, tmp_path, "statements", 2)
    assert plan[0].startswith("6 images x 3 statements x 2 prompts x m: sending 36 questions")
    values = np.zeros((6, 3))
    says_yes = np.zeros((6, 3, 2))
    for request in requests:
        image = NUMBER_OF_IMAGE[request.image]
        question = next(question for question in results.questions.questions if question.text == request.text)
        column = LABELS.labels.index(str(question.label))
        values[image, column] += yes_of(request) / 2
        says_yes[image, column, question.prompt - 1] = yes_of(request) > 0.5
    [model] = results.models
    assert model.statements is not None
    for column, label in enumerate(LABELS.labels):
        truth = np.array(TRUTHS) == label
        scores = model.statements[label]
        assert (scores.n, scores.n_others) == (2, 4)
        assert scores.auc == pytest.approx(roc_auc_score(truth, values[:, column]))
        assert scores.yes == pytest.approx(says_yes[truth, column].mean())
        assert scores.yes_others == pytest.approx(says_yes[~truth, column].mean())
    assert model.pooled is not None
    by_prompt = np.zeros((2, 6, 3))
    for request in requests:
        question = next(question for question in results.questions.questions if question.text == request.text)
        column = LABELS.labels.index(str(question.label))
        by_prompt[question.prompt - 1, NUMBER_OF_IMAGE[request.image], column] = yes_of(request)
    chosen = by_prompt.argmax(axis=2)  # (P, N)
    assert model.accuracy == pytest.approx(
        np.mean([LABELS.labels[i] == TRUTHS[n] for p in chosen for n, i in enumerate(p)])
    )
    pooled = (by_prompt / by_prompt.sum(axis=2, keepdims=True)).mean(axis=0)
    truth = np.array([[label == truth for label in LABELS.labels] for truth in TRUTHS])
    assert model.pooled.brier == pytest.approx(
        sum(brier_score_loss(truth[:, column], pooled[:, column]) for column in range(3))
    )
    assert model.consistency is not None
    agreeing = says_yes[..., 0] == says_yes[..., 1]
    assert 0 < agreeing.mean() < 1
    assert model.consistency.share == pytest.approx(agreeing.mean())
    counts = np.stack([says_yes.sum(axis=2), 2 - says_yes.sum(axis=2)], axis=2).reshape(-1, 2)
    assert model.consistency.kappa == pytest.approx(fleiss_kappa(counts))
    # The table has the same shares, image by image.
    write_results(results, tmp_path)
    with (tmp_path / CSV).open(newline="", encoding="utf-8") as file:
        shares = [float(row["agreeing_answers"]) for row in csv.DictReader(file)]
    assert shares == pytest.approx(agreeing.mean(axis=1), abs=1e-6)


def test_equal_means_of_prompts_are_ties_of_the_auc(tmp_path: Path) -> None:
    """The same three probabilities in another order, whose sum differs in the last digit."""
    questions = questions_of(LABELS, "statements", 3)

    def behave(request: Request, number: int) -> Response:
        values = [0.1, 0.25, 0.35]
        if TRUTHS[NUMBER_OF_IMAGE[request.image]] == "awe":
            values.reverse()
        yes = values[prompt_of(questions, request) - 1]
        return says_with_probabilities(("No", {"Yes": yes, "No": 1 - yes}))

    results, _, _ = run(behave, tmp_path, "statements", 3)
    [model] = results.models
    assert model.statements is not None
    assert [scores.auc for scores in model.statements.values()] == [0.5, 0.5, 0.5]


def test_equally_true_statements_share_the_credit(tmp_path: Path) -> None:
    """Without log-probabilities a model says yes to two labels, or to none."""

    def behave(request: Request, number: int) -> Response:
        if NUMBER_OF_IMAGE[request.image] == 0:
            return says("No")
        return says("No" if "joy" in request.text else "Yes")

    results, _, _ = run(behave, tmp_path, "statements", 1)
    [model] = results.models
    # Images 1, 3 (fear) and 4 (awe) get one half; image 0 names no label; images 2 and 5 (joy) are wrong.
    assert model.accuracy == pytest.approx(1.5 / 6)
    assert (model.with_probabilities, model.pooled, model.consistency) == (0, None, None)
    assert model.statements is not None
    assert (model.statements["joy"].yes, model.statements["joy"].auc) == (0.0, 0.5)


def test_more_prompts_continue_a_folder(tmp_path: Path) -> None:
    """Answers to the first prompt are those of a call with one prompt; a changed wording is asked again."""
    questions = {prompts: questions_of(LABELS, "list", prompts) for prompts in (1, 3)}
    with serving(lambda request, number: says("Awe")) as endpoint:
        config = config_of(endpoint)
        first = ask(config, IMAGES, questions[1], tmp_path)
        rows = ask(config, IMAGES, questions[3], tmp_path)
        assert len(endpoint.requests) == 18
        assert {key: rows[key] for key in first} == first
        assert ask(config, IMAGES, questions[3], tmp_path) == rows
        fewer = summarise(config, IMAGES, questions[1], rows, data="own:set")
        assert (fewer.models[0].n, fewer.models[0].outcomes["label"], fewer.models[0].consistency) == (6, 6, None)
        header, *saved = (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()
        changed = [{**json.loads(line)} for line in saved]
        for row in changed:
            if row["question_id"] == "prompt 2":
                row["question_sha256"] = "that of an earlier version"
        (tmp_path / "answers.jsonl").write_text("\n".join([header, *map(json.dumps, changed), ""]), "utf-8")
        before = len(endpoint.requests)
        ask(config, IMAGES, questions[3], tmp_path)
        asked_again = endpoint.requests[before:]
    assert {request.text for request in asked_again} == {questions[3].questions[1].text}
    assert len(asked_again) == 6


def test_images_with_a_missing_answer_are_not_scored(tmp_path: Path) -> None:
    """Half-broken answers: refusals and sentences count as wrong, failed requests leave the image out."""
    questions = questions_of(LABELS, "list", 2)

    def behave(request: Request, number: int) -> Response:
        image = NUMBER_OF_IMAGE[request.image]
        is_second = prompt_of(questions, request) == 2
        if image == 0 and is_second:
            return error(500, "oops")
        if image == 1 and is_second:
            return says(None, refusal="I can't help with that.")
        if image == 2:
            return says("I see **joy** or awe.")
        return says(TRUTHS[image])

    results, _, _ = run(behave, tmp_path, "list", 2, attempts=1)
    [model] = results.models
    assert (model.n, model.failed, model.not_asked) == (5, 1, 0)
    # Image 1 is right once, image 2 never, images 3, 4 and 5 always.
    assert model.accuracy == pytest.approx(3.5 / 5)
    assert model.accuracy_of_named == 1.0
    assert model.outcomes == {"label": 8, "unlisted": 2, "refused": 1, "empty": 0}
    assert model.consistency is not None
    # An answer without a label is an answer of its own: image 2 has twice none, image 1 once.
    assert model.consistency.share == pytest.approx(4 / 5)
    write_results(results, tmp_path)
    page = (tmp_path / PAGE).read_text("utf-8")
    assert "questions without an answer" in page
    assert "Prompts and probabilities" in page
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["image"] for row in table] == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert table[0] | {"endpoint": "", "model": ""} == {
        **{"endpoint": "", "model": "", "image": "1.jpg", "sha256": "1", "truth": "fear", "label": "fear"},
        **{"agreeing_answers": "0.0", "prompt_1": "fear", "prompt_2": "", "p_awe": "0.0", "p_fear": "1.0"},
        "p_joy": "0.0",
    }


def test_statements_on_the_page(tmp_path: Path) -> None:
    results, _, _ = run(lambda request, number: says("Yes"), tmp_path, "statements", 1)
    write_results(results, tmp_path)
    page = (tmp_path / PAGE).read_text("utf-8")
    assert "There is a statement for each label" in page
    assert "awe: yes\nfear: yes\njoy: yes" in page
    assert json.loads((tmp_path / "result.json").read_text("utf-8"))["models"][0]["statements"]["awe"]["yes"] == 1.0


def test_too_many_questions_are_refused(tmp_path: Path) -> None:
    def never(request: Request, number: int) -> Response:
        raise AssertionError("a question was sent")

    with pytest.raises(
        ConfigError, match=r"6 images x 3 statements x 4 prompts x 1 model: 72 questions.* --max-questions 72"
    ):
        run(never, tmp_path / "out", "statements", 4, max_questions=71)
    assert not (tmp_path / "out").exists()


ANSWERS = st.lists(st.lists(st.sampled_from(["a", "b", None]), min_size=3, max_size=3), min_size=1, max_size=8)


@given(ANSWERS)
def test_consistency_equals_a_count_of_pairs(answers: list[list[str | None]]) -> None:
    agreement = consistency([[row] for row in answers])
    assert agreement is not None
    assert agreement.share == pytest.approx(np.mean([pairs_that_agree(row) for row in answers]))
    assert [agreeing_pairs(row) for row in answers] == pytest.approx([pairs_that_agree(row) for row in answers])
    counts = np.array([[row.count(answer) for answer in ("a", "b", None)] for row in answers])
    if (counts.sum(axis=0) > 0).sum() == 1:
        assert agreement.kappa is None
    else:
        assert agreement.kappa == pytest.approx(fleiss_kappa(counts))


def test_one_prompt_has_no_consistency() -> None:
    assert consistency([[["a"]], [["b"]]]) is None
    assert consistency([]) is None
