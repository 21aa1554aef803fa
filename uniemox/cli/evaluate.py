"""The command that scores."""

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from uniemox.cli.console import JsonFlag, need, progress_bar, say, say_parts, score_tables, show_all
from uniemox.cli.data_files import NO_FILES, FileOptions


def evaluate(
    *,
    model: Path,
    data: str,
    split: str | None = None,
    by: str | None = None,
    task: Literal["affect"] | None = None,
    allow_seen: Annotated[bool, Parameter(negative="")] = False,
    name: str | None = None,
    as_json: JsonFlag = False,
    files: FileOptions = NO_FILES,
) -> None:
    """Score a fine-tuned classifier, with 95 % intervals.

    Scores and predictions are kept in the run's folder; of an ONNX file beside it, of embedded and small in a folder of
    that name where you are. Images that it was trained on are refused. A data set with other labels is scored through
    a label map; what is evoked is never mapped to what is felt.

    For example:

    uniemox evaluate --model runs/fi --data emotion6:photos/emotion6 --by domain --json

    uniemox evaluate --model embedded --data csv:ratings.csv --task affect

    Args:
        model: A fine-tuning run or its model.safetensors; or an ONNX file, embedded or small, which need no torch.
        data: KIND:PATH, see `uniemox docs data`; several with commas between them are scored as one.
        split: Score this split, or all; if not given, test if there is one, else val, else all.
        by: Scores by a column's values too: domain, split, label, group, part (of several data sets), or an
            annotation's.
        task: affect: score a classifier's valence and arousal against people's ratings.
        allow_seen: Score images that the model was trained on as well.
        name: Of the files in RUN/evaluations; made of data and split if not given.
        as_json: Print one JSON object.
    """
    from uniemox.evaluate import run

    if not run.is_onnx(model):
        need("torch", "timm", "scipy", extra="train")
    found = files.open(data)
    say_parts(found)
    chosen = found.scored_split(split)
    if chosen != "all":
        found = found.only(chosen)
        say(f"scoring split {chosen}: {len(found)} samples")
    with progress_bar() as progress:
        result = run.evaluate(model, found, by=by, task=task, allow_seen=allow_seen, on_progress=progress.show)
    path = run.write_evaluation(result, model, found, chosen, name=name, persons=files.persons)
    for line in (f"wrote {path}, and every prediction beside it (.jsonl)", *result.notes):
        say(line)
    show_all([json.dumps(result.as_dict())] if as_json else score_tables(result))
