"""EMOTIC in table III: an image may have several labels, so methods are scored by mean average precision."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tests import emotic
from tests.reproduce.plans import execute_here, plan
from tests.reproduce.trees import seven
from uniemox_paper.check import check_runs
from uniemox_paper.page import write_page
from uniemox_paper.plan import Plan
from uniemox_paper.results import find_evaluation
from uniemox_paper.study import HISTOGRAM
from uniemox_paper.table3 import ONE_LABEL, SCRATCH, ZERO_SHOT


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return emotic.write_release(tmp_path_factory.mktemp("emotic"), train=60, val=20, test=40)


@pytest.fixture(scope="module")
def paper_plan(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    caer = next(source for source in seven(tmp_path_factory.mktemp("seven")) if source.startswith("caer-s:"))
    return plan("table3", "paper", data=(caer, f"EMOTIC=emotic:{release}"), detector="y.onnx")


def test_methods_that_take_several_labels_are_trained_on_them(paper_plan: Plan) -> None:
    rows = {row.name: row for row in paper_plan.rows}
    for name in ("EmotiCon + CCIM", "RRLA", "SOLVER", "dBOT", "UniEmoX", HISTOGRAM):
        cell = rows[name].cells["EMOTIC"]
        [run] = cell.runs
        assert run.model is not None, name
        options = run.model.options
        assert (options["task"], options["class_weighting"]) == ("multilabel", "discrete"), name
        assert run.options["split"] == "test", name
    emoticon = rows["EmotiCon + CCIM"].cells["EMOTIC"].runs[0].model
    assert emoticon is not None
    assert (emoticon.options["method"], emoticon.options["network.confounders"]) == ("emoticon", 128)
    for name in ("MDAN", "Stimuli-aware", ZERO_SHOT):
        cell = rows[name].cells["EMOTIC"]
        assert (cell.runs, cell.why) == ((), ONE_LABEL), name
    assert rows["dBOT"].cells["EMOTIC, scene and person"].runs


def test_check_finds_that_images_with_several_labels_can_be_scored(release: Path, tmp_path: Path) -> None:
    demo = plan("table3", data=(f"EMOTIC=emotic:{release}",), out=tmp_path)
    [run] = next(row for row in demo.rows if row.name == HISTOGRAM).cells["EMOTIC"].runs
    assert run.model is not None
    *_, evaluation = check_runs([*run.model.needs[0].needs, *run.model.needs, run.model, run])
    assert evaluation.missing is None
    assert evaluation.parts == "40 images; labels emotic -> emotic: nothing is lost"


def test_a_joint_training_has_data_of_one_task(paper_plan: Plan) -> None:
    cells = next(row for row in paper_plan.rows if row.name == SCRATCH).cells
    trained_on = {name: str(cells[name].protocol).partition(",")[0] for name in ("CAER-S", "EMOTIC")}
    assert trained_on == {"CAER-S": "trained on CAER-S", "EMOTIC": "trained on EMOTIC"}


def test_the_protocol_says_what_differs_with_several_labels(paper_plan: Plan) -> None:
    rows = {row.name: row for row in paper_plan.rows}
    several = rows["dBOT"].cells["EMOTIC"].protocol
    single = rows["dBOT"].cells["CAER-S"].protocol
    assert several is not None
    assert single is not None
    assert several.epoch == "highest mean average precision on all held-out images"
    assert single.epoch == "highest accuracy on all held-out images"
    assert "smoothing" not in several.augmentation
    assert "smoothing" in single.augmentation
    histogram = rows[HISTOGRAM].cells["EMOTIC"].protocol
    assert histogram is not None
    assert histogram.head == "a logistic regression for each label"


@pytest.mark.thorough
@pytest.mark.long
@pytest.mark.usefixtures("without_onnx")
def test_the_page_has_mean_average_precision_as_sklearn_computes_it(release: Path, tmp_path: Path) -> None:
    demo = plan("table3", data=(f"EMOTIC=emotic:{release}",), out=tmp_path)
    rows = [row for row in demo.rows if row.name in (HISTOGRAM, "MDAN")]
    small = replace(demo, rows=tuple(rows), reference=None, more=())
    page = write_page(small, execute_here(small.runs), tmp_path)
    record = next(row for row in csv.DictReader(page.with_suffix(".csv").open()) if row["method"] == HISTOGRAM)
    [run] = next(row for row in rows if row.name == HISTOGRAM).cells["EMOTIC"].runs
    evaluation = find_evaluation(run)
    assert evaluation is not None
    file = next((run.folder / "evaluations").glob(f"{run.key}.jsonl"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    labels = evaluation.values["labels"]
    is_present = np.array([[label in line["labels"] for label in labels] for line in lines])
    probabilities = np.array([[line["probabilities"][label] for label in labels] for line in lines])
    is_known = is_present.any(axis=0)
    expected = average_precision_score(is_present[:, is_known], probabilities[:, is_known], average="macro")
    assert float(record["mean_average_precision"]) == pytest.approx(expected, abs=1e-4)
    assert float(record["chance"]) == pytest.approx(is_present[:, is_known].mean())
    assert (record["accuracy"], record["uniform"], record["pictures"]) == ("", "", str(len(lines)))
    assert float(record["low"]) <= expected <= float(record["high"])
    text = page.read_text()
    assert "EMOTIC, mAP" in text
    assert "% (random order)" in text
    assert "Mean average precision on EMOTIC" in text
    assert ONE_LABEL in text
