"""The command that asks multimodal models."""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from uniemox.cli.console import EXIT_UNREADABLE, Files, JsonFlag, progress_bar, say, show_all
from uniemox.errors import ConfigError

if TYPE_CHECKING:
    from uniemox.ask.config import AskConfig
    from uniemox.ask.result import Results
    from uniemox.data.sample import DataSet


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """Key, pace, prices and limits of the requests."""

    key_from: str | None = None
    """Name of the environment variable that holds the key; the key itself is written nowhere."""
    rate: float | None = None
    """Maximum number of requests per minute, above 0; no limit if not given."""
    concurrency: int = 4
    """Number of parallel requests, 1 to 64."""
    timeout_s: float = 120.0
    """Seconds until one request is given up, above 0."""
    price_in: float | None = None
    """Price of a million input tokens, in any currency; needs --price-out."""
    price_out: float | None = None
    """Price of a million output tokens, in any currency; needs --price-in."""
    max_images: int = 200
    """Largest --images that is accepted; raise it to ask about more, since each image costs money."""
    allow_http: Annotated[bool, Parameter(negative="")] = False
    """Allow http:// to another machine; images and key are then sent unencrypted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedImages:
    """Selection of the images."""

    images: int = 100
    """Number of images per model, at least 1, drawn from each class in proportion to its size."""
    seed: int = 0
    """Random seed for the selection; a larger --images with the same seed includes the smaller selection."""
    split: str | None = None
    """Images of this split only, or all; if not given, test if the data have one, else val, else all."""
    splits: Files = None
    """File of `data split`, such as RUN/splits.json."""
    exclude: Files = None
    """File of `data check --json`; the images in its list "exclude" are left out."""


def ask(
    *,
    data: str,
    endpoint: str,
    model: Annotated[list[str], Parameter(negative="")],
    out: Path,
    ours: Annotated[Path | None, Parameter(name="--with", negative="")] = None,
    as_json: JsonFlag = False,
    which: Annotated[AskedImages, Parameter(name="*")] = AskedImages(),
    service: Annotated[EndpointOptions, Parameter(name="*")] = EndpointOptions(),
) -> None:
    """Ask multimodal models which emotion images evoke, and why (tables VIII and IX, figure 10 of the paper).

    Any service with OpenAI's chat protocol. The images leave this machine: as JPEGs of at most 1,024 px, without
    metadata. Every answer is kept at once in FOLDER/answers.jsonl, and nothing that is answered is asked again; models
    of other endpoints may be added to the same folder. FOLDER/page.html and result.json show all of them. Exits with 3
    if a question failed; those that were answered are kept and shown all the same.

    For example:

    uniemox ask --data fi:photos/fi --endpoint http://127.0.0.1:11434/v1 --model llava --out asked --with runs/fi

    uniemox ask --data fi:photos/fi --endpoint https://api.openai.com/v1 --model gpt-4o --key-from MY_KEY --out asked

    Args:
        data: KIND:PATH of images with labels of what they evoke, see `uniemox docs data`.
        endpoint: The service's address: https://..., or http://... on this machine.
        model: A model's name there; give it again for more models side by side.
        out: Folder of answers, results and page; a folder with answers is continued.
        ours: A fine-tuning run or its model.onnx, with which the answers are compared.
        as_json: Print one JSON object.
    """
    from uniemox.ask.config import AskConfig
    from uniemox.data.source import open_data

    config = AskConfig(
        endpoint=endpoint,
        models=tuple(model),
        images=which.images,
        seed=which.seed,
        max_images=service.max_images,
        rate_per_minute=service.rate,
        concurrency=service.concurrency,
        timeout_s=service.timeout_s,
        price_in=service.price_in,
        price_out=service.price_out,
        allow_http=service.allow_http,
    )
    key = key_of_environment(service.key_from)
    found = open_data(data, splits=which.splits, exclude=which.exclude, with_texts=False)
    chosen = found.scored_split(which.split)
    _ask(config, key, found if chosen == "all" else found.only(chosen), chosen, ours, out, as_json=as_json)


def _ask(
    config: "AskConfig", key: str | None, data: "DataSet", split: str, ours: Path | None, out: Path, *, as_json: bool
) -> None:
    """Ask, and show the results; exit with 3 if a question failed."""
    from uniemox.ask.page import write_results
    from uniemox.ask.question import question, select
    from uniemox.ask.result import summarise
    from uniemox.ask.run import ask as run

    text = question(data.labels)
    with progress_bar() as progress:
        task = progress.add_task("reading images", total=config.images)
        selection = select(data, config.images, config.seed, lambda done: progress.update(task, completed=done))
        for note in selection.notes:
            say(note)
        predicted = None
        if ours is not None:  # first: if it can't be used, nothing has been paid yet
            from uniemox.ask.question import labels_of_ours

            own = progress.add_task("asking ours", total=len(selection.images))
            predicted = labels_of_ours(
                ours, selection.images, data.labels, lambda done: progress.update(own, completed=done)
            )
        asking = progress.add_task("asking", total=None)
        rows = run(
            config,
            selection.images,
            data.labels,
            out,
            key=key,
            on_plan=lambda plan: say(str(plan)),
            on_progress=lambda done, total: progress.update(asking, completed=done, total=total),
        )
    results = summarise(
        config,
        selection.images,
        data.labels,
        rows,
        data=f"{data.name}, split {split}, seed {config.seed}",
        question=text,
        ours=predicted,
        notes=selection.notes,
    )
    say(f"wrote {write_results(results, out)}; every answer is in {out / 'answers.jsonl'}")
    # Of this run: what failed at other endpoints before was not asked again now.
    failed = sum(one.failed for one in results.models if one.endpoint == config.url and one.model in config.models)
    if failed:
        say(f"{failed} questions failed; the same command asks them again")
    if as_json:
        print(json.dumps(results.as_dict()))
    else:
        show_all(_tables(results))
    if failed:
        sys.exit(EXIT_UNREADABLE)


def key_of_environment(name: str | None) -> str | None:
    """The key in an environment variable of that name; None without a name.

    Raises ConfigError if the variable is not set or holds what can't be a key; the message never holds the key, nor
    what was given in place of a name, because it may be the key.
    """
    if name is None:
        return None
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ConfigError(
            "--key-from takes the name of an environment variable in capitals, such as OPENAI_API_KEY, never the key"
        )
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {name} is not set; export the key in it")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise ConfigError(f"what the environment variable {name} holds is no key: it has blanks or other characters")
    return key


def _tables(results: "Results") -> Iterator[Table | str]:
    """Scores, then what the answers were."""
    from uniemox.ask.page import names_of
    from uniemox.ask.result import OURS

    with_ours = ["agree %", "kappa"] if results.ours_result else []
    scores = Table("model", "answers", "accuracy", "95 % interval", *with_ours, "p50 s", "p95 s", "cost")
    scores.columns[3].no_wrap = True
    read = Table("model", *(results.models[0].outcomes if results.models else ()), "failed")
    named = list(zip(names_of(results), results.models, strict=True))
    for name, found in named + ([(OURS, results.ours_result)] if results.ours_result else []):
        shared, bounds = found.agreement, found.accuracy_interval
        cells = [str(found.n), _shown(found.accuracy, 3), "{:.3f} to {:.3f}".format(*bounds) if bounds else "-"]
        if with_ours:
            cells += [_shown(shared.percent, 1), _shown(shared.kappa, 2)] if shared else ["-", "-"]
        cells += [_shown(found.latency_p50_s, 1), _shown(found.latency_p95_s, 1), _shown(found.cost, 4)]
        scores.add_row(Text(name), *cells)
        if found.endpoint:
            read.add_row(Text(name), *map(str, found.outcomes.values()), str(found.failed))
    yield scores
    yield read


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
