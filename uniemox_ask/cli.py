"""The command that asks multimodal models."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from uniemox.cli import (
    EXIT_UNREADABLE,
    Exclude,
    JsonObject,
    Splits,
    config_of,
    need,
    options_of,
    progress_bar,
    read_key,
    say,
    show_all,
    takes,
)
from uniemox.errors import ConfigError
from uniemox.plurals import counted
from uniemox_ask.config import AskConfig

if TYPE_CHECKING:
    from uniemox.data import DataSet
    from uniemox.intervals import PairedDifference
    from uniemox_ask.result import Results


@takes(
    settings=options_of(
        AskConfig,
        without=("attempts", "first_wait_s"),
        names={"models": "--model", "rate_per_minute": "--rate", "allow_http": "--allow-http"},
    )
)
def ask(
    *,
    data: str,
    settings: Any,
    out: Path,
    ours: Annotated[Path | None, Parameter(name="--with", negative="")] = None,
    expert: Path | None = None,
    definitions: Path | None = None,
    as_json: JsonObject = False,
    split: str | None = None,
    splits: Splits = None,
    exclude: Exclude = None,
    key_from: str | None = None,
) -> None:
    """Ask multimodal models which emotion images evoke, and why (tables VIII and IX, figure 10 of the paper).

    Works with any service that has OpenAI's chat protocol. Images are sent to the service as JPEGs of at most 1,024 px,
    without metadata. Each answer is saved at once in FOLDER/answers.jsonl. The command can be repeated: answered
    questions are not sent again, and models of other endpoints are added to the same folder. FOLDER/page.html and
    result.json show all models. Exits with 3 if a question failed; the other answers are saved and shown.

    For example:

    - uniemox ask --data fi:photos/fi --endpoint http://127.0.0.1:11434/v1 --model llava --out asked --with runs/fi
    - uniemox ask --data fi:photos/fi --endpoint https://api.openai.com/v1 --model gpt-4o --key-from MY_KEY --out asked
    - uniemox ask --data fi:photos/fi --endpoint http://127.0.0.1:8000/v1 --model m --form letters --prompts 2 --out b

    Args:
        data: KIND:PATH of images with labels of evoked emotions, see `uniemox docs data`.
        out: Folder for answers, results and page; a folder with answers is continued.
        ours: A fine-tuning run or its model.onnx to compare with; embedded for the model in the package.
        expert: A small model, named as for --with, to combine with each large model by a gate; also embedded. The gate
            is fitted to images of split val, about which the models are asked as well, and scored on split test.
        definitions: JSON file with a definition of each label; all become part of the question.
        split: Split to use, or all. Default: test if the data have one, else val, else all.
        key_from: Name of the environment variable that holds the API key. The key itself is never written to a file.
    """
    need("openai", "httpx2", extra="ask")
    from uniemox.data import open_data
    from uniemox_ask.comparison import ModelComparison, compare
    from uniemox_ask.definitions import read_definitions
    from uniemox_ask.forms import questions_of
    from uniemox_ask.page import write_results

    config = config_of(AskConfig, settings)
    key = read_key(key_from)
    dataset = open_data(data, splits=splits, exclude=exclude, with_texts=False)
    scored_split = dataset.scored_split(split)
    scored_data = dataset
    if scored_split != "all":
        scored_data = dataset.only(scored_split)
    meanings = None
    if definitions is not None:
        meanings = read_definitions(definitions, dataset.labels)
    comparison = ModelComparison(
        config=config,
        questions=questions_of(dataset.labels, config.form, config.prompts, meanings),
        data=scored_data,
        split=scored_split,
        ours=ours,
        expert=expert,
        val=None if expert is None else _val_of(dataset, scored_split),
    )
    with progress_bar() as progress:
        results, failed = compare(comparison, out, key=key, say=say, on_progress=progress.show)
    say(f"wrote {write_results(results, out)}; every answer is in {out / 'answers.jsonl'}")
    if failed:
        say(f"{counted(failed, 'question')} failed; repeat the command to send {'it' if failed == 1 else 'them'} again")
    for note in _probability_notes(results):
        say(note)
    show_all([json.dumps(results.as_dict())] if as_json else _tables(results))
    if failed:
        sys.exit(EXIT_UNREADABLE)


def _val_of(data: "DataSet", scored_split: str) -> "DataSet":
    """Return the samples that the gate is fitted to.

    Raises:
        ConfigError: If the scored split is not test.
        DataError: If there is no split val.
    """
    if scored_split != "test":
        raise ConfigError(
            f"--expert fits a gate to images of split val and scores it on split test, not {scored_split}; give data "
            "with both splits, or make them: uniemox data split, then --splits FILE"
        )
    return data.only("val")


def _probability_notes(results: "Results") -> Iterator[str]:
    """Yield a note for each model that gives no log-probabilities, or only some, where they were requested."""
    from uniemox_ask.page import names_of

    if not results.questions.uses_tokens:
        return
    for name, model in zip(names_of(results), results.models, strict=True):
        named = model.outcomes["label"]
        if named and not model.with_probabilities:
            yield f"{name} gives no log-probabilities; probabilities are shares of its answers"
        elif model.with_probabilities < named:
            yield (
                f"{name} gives log-probabilities for {model.with_probabilities:,} of {named:,} answers; the others "
                "count with probability 1"
            )


def _tables(results: "Results") -> Iterator[Table | str]:
    """Yield tables of scores, then of prompts if there are several, then of answers."""
    from uniemox_ask.page import names_of
    from uniemox_ask.result import OURS

    agreement_columns = ["agree %", "kappa"] if results.ours_result else []
    scores = Table("model", "answers", "accuracy", "95 % interval", *agreement_columns, "p50 s", "p95 s", "cost")
    scores.columns[3].no_wrap = True
    outcomes = Table("model", *(results.models[0].outcomes if results.models else ()), "failed")
    rows = list(zip(names_of(results), results.models, strict=True))
    if results.ours_result:
        rows.append((OURS, results.ours_result))
    for name, result in rows:
        interval = "-"
        if result.accuracy_interval:
            interval = "{:.3f} to {:.3f}".format(*result.accuracy_interval)
        cells = [str(result.n), _format(result.accuracy, 3), interval]
        if agreement_columns and result.agreement:
            # Other images have no label of this model.
            of_images = f" of {result.agreement.n}" if result.agreement.n < result.n else ""
            cells += [_format(result.agreement.percent, 1) + of_images, _format(result.agreement.kappa, 2)]
        elif agreement_columns:
            cells += ["-", "-"]
        cells += [_format(result.latency_p50_s, 1), _format(result.latency_p95_s, 1), _format(result.cost, 4)]
        # Text, because Rich would take [brackets] in a model's name for markup.
        scores.add_row(Text(name), *cells)
        # Our model has no endpoint. It always names a label, so outcomes say nothing about it.
        if result.endpoint:
            outcomes.add_row(Text(name), *map(str, result.outcomes.values()), str(result.failed))
    yield scores
    if any(model.pooled for model in results.models):
        yield _prompts_table(results)
    if results.gates:
        yield _gates_table(results)
    yield outcomes


def _prompts_table(results: "Results") -> Table:
    """Return a table of the consistency over prompts, and of the scores of all prompts together."""
    from uniemox_ask.page import names_of

    table = Table("model", "agreeing %", "kappa", "accuracy by prompt", "SD", "accuracy together", "Brier")
    for name, model in zip(names_of(results), results.models, strict=True):
        if model.pooled is None:
            continue
        agreeing = None
        kappa = None
        if model.consistency is not None:
            agreeing = 100 * model.consistency.share
            kappa = model.consistency.kappa
        accuracies = [prompt.accuracy for prompt in model.prompts]
        table.add_row(
            Text(name),
            _format(agreeing, 1),
            _format(kappa, 2),
            f"{min(accuracies):.3f} to {max(accuracies):.3f}",
            _format(model.accuracy_sd, 3),
            _format(model.pooled.accuracy, 3),
            _format(model.pooled.brier, 3),
        )
    return table


def _gates_table(results: "Results") -> Table:
    """Return a table of the models with the expert, on the scored images."""
    from uniemox_ask.page import names_of

    [expert] = {gate.expert for gate in results.gates.values()}
    headings = ("model", "alone", f"{expert} alone", "together", "gain over model", "gain over expert")
    table = Table(*headings, title="accuracy with the expert")
    for name, model in zip(names_of(results), results.models, strict=True):
        gate = results.gates.get((model.endpoint, model.model))
        if gate is not None:
            table.add_row(
                Text(name),
                _format(gate.model_accuracy, 3),
                _format(gate.expert_accuracy, 3),
                _format(gate.accuracy, 3),
                _gain(gate.gain_over_model),
                _gain(gate.gain_over_expert),
            )
    return table


def _gain(gain: "PairedDifference") -> str:
    """Return a difference with its interval."""
    if gain.interval is None:
        return f"{gain.difference:+.3f}"
    return f"{gain.difference:+.3f} ({gain.interval[0]:+.3f} to {gain.interval[1]:+.3f})"


def _format(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
