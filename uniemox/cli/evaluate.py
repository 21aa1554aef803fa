"""Commands that score classifiers, compare training settings, and write a page about runs."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from uniemox.cli.console import (
    Flag,
    JsonFlag,
    JsonObject,
    UsageError,
    need,
    progress_bar,
    refuse_other,
    say,
    say_notes,
    show_all,
)
from uniemox.cli.data_options import NO_FILES, DataFiles, FileOptions
from uniemox.evaluate.label_pairs import read_label_pairs
from uniemox.io.weight_names import is_in_package
from uniemox.labels import quoted
from uniemox.plurals import counted

if TYPE_CHECKING:
    from uniemox.data.sample import DataSet
    from uniemox.evaluate.compare import Comparison
    from uniemox.evaluate.evaluation import Evaluation
    from uniemox.evaluate.scores import GroupScores
    from uniemox.intervals import PairedDifference

# Letters in a heading of the confusion matrix.
MIN_HEADING = 4
MAX_HEADING = 8
# Letters in all headings up to which none is shortened.
MAX_HEADINGS = 30
# Fields of scores that are no scores, or have rows of their own.
NO_SCORES = ("n", "confusion", "labels", "positives", "per_class_interval", "average_precision_interval", "mae_of_mean")
LabelMapText = Annotated[
    str | None,
    Parameter(
        name="--map",
        help="The model's labels that mean each label of the data, such as fun=amusement+excitement,yuck=disgust; or a "
        "file of such pairs, one per line. LABEL= leaves the images of a label out.",
    ),
]
Runs = Annotated[list[Path], Parameter(consume_multiple=True, negative="")]


def evaluate(
    *,
    model: Path,
    data: str,
    split: str | None = None,
    by: str | None = None,
    task: Literal["affect"] | None = None,
    label_map: LabelMapText = None,
    allow_seen: Flag = False,
    name: str | None = None,
    as_json: JsonObject = False,
    files: FileOptions = NO_FILES,
) -> None:
    """Score a fine-tuned classifier, with 95 % intervals over images.

    The intervals hold for this run; another seed of its training may differ more (`uniemox compare` takes several).
    Scores and predictions are saved in RUN/evaluations; for an ONNX file in a folder evaluations next to it; for
    embedded, small and hub folders in a folder of ./evaluations. A line names the file. Training images of the
    model are refused. If the data have only some of the model's labels, answers are scored among all labels of the
    model. If they have other labels, predictions are converted to them. Evoked emotions are never converted to felt
    ones.

    For example:

    - uniemox evaluate --model runs/fi --data emotion6:photos/emotion6 --by domain --json
    - uniemox evaluate --model embedded --data csv:ratings.csv --task affect
    - uniemox evaluate --model embedded --data folder:photos --map fun=amusement+excitement,yuck=disgust

    Args:
        model: A fine-tuning run or its model.safetensors; or an ONNX file, a hub folder, embedded or small, which need
            no torch.
        data: KIND:PATH, see `uniemox docs data`; several separated by commas are scored as one.
        split: Split to score, or all. Default: test if there is one, else val, else all.
        by: Also print the scores for each value of a column: domain, split, label, group, a column of the annotations,
            or part (which of several data sets an image comes from).
        task: affect: compare a classifier's valence and arousal with people's ratings.
        allow_seen: Also score images that the model was trained on.
        name: File name in RUN/evaluations. Default: made from data and split.
    """
    from uniemox.evaluate import evaluation_files, run
    from uniemox.evaluate.places import runs_without_torch

    if not runs_without_torch(model):
        need("torch", "timm", "scipy", extra="train")
    if name is not None:
        evaluation_files.check_evaluation_name(name)
    pairs = None if label_map is None else read_label_pairs(label_map)
    dataset, chosen = _open_split(files, data, split)
    _announce_folders([model])
    with progress_bar() as progress:
        result = run.evaluate(
            model, dataset, by=by, task=task, allow_seen=allow_seen, label_pairs=pairs, on_progress=progress.show
        )
    is_replaced = evaluation_files.evaluation_file(result, model, dataset, chosen, name).exists()
    path = evaluation_files.write_evaluation(result, model, dataset, chosen, name=name, persons=files.persons)
    earlier = ", in place of earlier scores (--name keeps both)" if is_replaced else ""
    for line in (f"wrote {path}, and every prediction beside it (.jsonl){earlier}", *result.notes):
        say(line)
    values = result.as_dict() | {"verdict": list(result.verdict)}
    show_all([json.dumps(values)] if as_json else score_tables(result))


def _open_split(files: DataFiles, source: str, split: str | None) -> "tuple[DataSet, str]":
    """Open the samples to score, and return the name of their split, or all."""
    dataset = files.open(source)
    say_notes(dataset)
    chosen = dataset.scored_split(split)
    if chosen != "all":
        dataset = dataset.only(chosen)
        say(f"scoring split {chosen}: {counted(len(dataset), 'sample')}")
    return dataset, chosen


def _announce_folders(models: Sequence[Path]) -> None:
    """Print where the scores of models without a folder of their own will be saved: in the working directory."""
    from uniemox.evaluate.places import evaluations_folder, is_hub_folder, saves_scores_here

    for path in dict.fromkeys(models):
        model = path.parent if path.is_file() and is_hub_folder(path.parent) else path
        if not saves_scores_here(model):
            continue
        folder = evaluations_folder(model)
        say(f"the scores of {path} will be saved in the working directory, in {folder}")
        if folder.resolve().is_relative_to(model.resolve()):
            say(f"{folder} will be in the folder that you publish: delete it before, as scores have names of images")


def score_tables(evaluation: "Evaluation") -> Iterator[Table | str]:
    """Yield a table of scores with intervals, the confusion matrix, and scores by group."""
    from uniemox.evaluate.scores import as_values, small_classes

    values = as_values(evaluation.scores)
    small = {f"recall of {label}" for label in small_classes(values)}
    table = Table("score", "value", "95 % interval")
    for title, value, interval in _flat(values | dict(evaluation.trust)):
        # A bootstrap of images that are all right has no width.
        has_width = interval is not None and interval[0] < interval[1]
        shown_interval = interval if has_width and title not in small else None
        table.add_row(title, *_cells(value, shown_interval))
    yield table
    if "confusion" in values:
        yield _confusion(values["labels"], values["confusion"])
    if evaluation.by is not None:
        yield _groups(evaluation.by)
    labels = evaluation.scored_labels
    restriction = f", scored among {len(labels)} labels: {', '.join(map(quoted, labels))}" if labels else ""
    yield f"{counted(values['n'], 'sample')}{restriction}"
    yield from evaluation.verdict


def _confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Table:
    """Return a table of images by true label (rows) and predicted label (columns)."""
    headings = short_names(labels)
    table = Table("true \\ predicted", title="confusion")
    # Numbers are explained in the first column.
    are_numbers = not all(map(str.startswith, labels, headings))
    for heading in headings:
        table.add_column(Text(heading), justify="right")
    for heading, label, row in zip(headings, labels, counts, strict=True):
        table.add_row(Text(f"{heading} {label}" if are_numbers else label), *map(str, row))
    return table


def short_names(labels: Sequence[str]) -> list[str]:
    """Return headings that tell labels apart: the labels if they are short, else prefixes of 4 letters or more, or
    numbers if they would be too long.

    >>> short_names(["fun", "calm", "scary"]), short_names(["amusement", "contempt", "contentment", "excitement"])
    (['fun', 'calm', 'scary'], ['amusem', 'contem', 'conten', 'excite'])
    >>> short_names(["photograph of joy", "photograph of awe"])
    ['1', '2']
    """
    if sum(map(len, labels)) <= MAX_HEADINGS:
        return list(labels)
    for length in range(MIN_HEADING, MAX_HEADING + 1):
        prefixes = [label[:length] for label in labels]
        if len(set(prefixes)) == len(labels):
            return prefixes
    return [str(number) for number in range(1, len(labels) + 1)]


def _flat(values: dict[str, Any], axis: str = "") -> Iterator[tuple[str, float | None, Any]]:
    """Yield title, value and interval of every number."""
    from uniemox.evaluate.scores import score_title

    for name, value in values.items():
        if name == "per_class_recall":
            for label, recall in value.items():
                yield f"recall of {label}", recall, values["per_class_interval"][label]
        elif name == "average_precision":
            for label, precision in value.items():
                # Data may have only some of a model's labels.
                if precision is not None:
                    yield f"average precision of {label}", precision, values["average_precision_interval"][label]
        elif name == "polarity_accuracy" and value is None:
            # Own labels are neither positive nor negative.
            continue
        elif isinstance(value, dict) and name not in NO_SCORES:
            yield from _flat(value, name)
        elif not (name.endswith("interval") or name in NO_SCORES):
            yield score_title(name, axis), value, values.get(f"{name}_interval")


def _groups(by: "GroupScores") -> Table:
    from uniemox.evaluate.scores import headline_of

    worst = "" if by.worst is None else f"; worst: {by.worst}, {by.gap:.3f} from the best"
    table = Table("group", "n", by.measure, "95 % interval", title=f"by group{worst}")
    for name, scores in by.groups.items():
        table.add_row(Text(name), str(scores.n), *_cells(*headline_of(scores)))
    return table


def _cells(value: float | None, interval: Any) -> tuple[str, str]:
    """Return a score and its interval as text."""
    score = "-" if value is None else f"{value:.4f}"
    # Equal ends are those of a single group of images, or of equal values.
    ends = "{:.4f} to {:.4f}".format(*interval) if interval and interval[0] < interval[1] else ""
    return score, ends


def compare(
    *,
    ours: Runs,
    theirs: Runs,
    baseline: Runs | None = None,
    data: str | None = None,
    split: str | None = None,
    label_map: LabelMapText = None,
    allow_seen: Flag = False,
    mixed: Flag = False,
    as_json: JsonFlag = False,
    files: FileOptions = NO_FILES,
) -> None:
    """Compare two training settings by runs of several seeds each, scored on the same images.

    With three or more runs, the 95 % interval says how the score would vary with other seeds and other images. With one
    run it is a bootstrap over images: other seeds may differ more. With two runs there is no interval. Two chance
    levels are given: the share of the most common class among the scored images, and 1 / number of classes.

    For example:

    - uniemox compare --ours runs/mine --theirs embedded --data folder:photos --splits runs/mine/splits.json
    - uniemox compare --ours runs/mine --theirs embedded --data folder:photos --map fun=amusement,yuck=disgust
    - uniemox compare --ours runs/a0 runs/a1 runs/a2 --theirs runs/b0 runs/b1 runs/b2 --baseline runs/histogram

    Args:
        ours: Fine-tuning runs; without --data, uniemox evaluate must have scored them. Also embedded or small, whose
            scores are saved in ./evaluations/embedded and ./evaluations/small.
        theirs: Runs or models to compare with, likewise.
        baseline: Trivial baseline, a run of finetune --method histogram; settings that do not beat it are marked.
        data: KIND:PATH. Score all models on these images first, as uniemox evaluate does.
        split: Split to score, or all. Default: test if there is one, else val, else all.
        allow_seen: Also score images that a model was trained on.
        mixed: Accept runs of one side that differ in more than the seed.
        as_json: Print one JSON object per evaluation that all runs have.
    """
    need("scipy", extra="data")
    from uniemox.evaluate.compare import Scoring, compare_on
    from uniemox.evaluate.compare import compare as compare_saved
    from uniemox.evaluate.comparison_verdict import gain_over_built_in

    if data is None:
        if split is not None or label_map is not None or allow_seen or files != NO_FILES:
            raise UsageError("--split, --map, --allow-seen, --splits, --persons and --exclude need --data")
        comparisons = compare_saved(ours, theirs, baseline or (), allow_mixed=mixed)
    else:
        pairs = None if label_map is None else read_label_pairs(label_map)
        dataset, chosen = _open_split(files, data, split)
        scoring = Scoring(
            split=chosen, label_pairs=pairs, allow_seen=allow_seen, allow_mixed=mixed, persons=files.persons
        )
        _announce_folders([*ours, *theirs, *(baseline or ())])
        with progress_bar() as progress:
            comparison = compare_on(
                dataset, scoring, ours, theirs, baseline or (), on_progress=progress.show, report=say
            )
        comparisons = [comparison]
    is_gain = all(is_in_package(model) for model in theirs) and not any(is_in_package(run) for run in ours)
    for comparison in comparisons:
        if as_json:
            print(json.dumps(asdict(comparison)))
            continue
        for line in _comparison_lines(comparison):
            print(line)
        if is_gain and (verdict := gain_over_built_in(comparison)):
            print(verdict)


def _comparison_lines(comparison: "Comparison") -> Iterator[str]:
    """Yield the lines of one comparison."""
    yield f"{comparison.title}, {counted(comparison.pictures, 'image')}"
    if comparison.note:
        yield comparison.note
    if comparison.settings:
        yield f"settings of ours and theirs that differ: {'; '.join(comparison.settings)}"
    for name, values, interval in (
        ("ours", comparison.ours, comparison.ours_interval),
        ("theirs", comparison.theirs, comparison.theirs_interval),
        ("baseline", comparison.baseline, comparison.baseline_interval),
    ):
        if values:
            ends = NO_INTERVAL if interval is None else "{:.1%} to {:.1%}".format(*interval)
            seeds = ", ".join(f"{value:.1%}" for value in values)
            yield f"{name:>10} {sum(values) / len(values):.1%} ({ends}); runs: {seeds}"
    yield f"    chance {comparison.commonest:.1%} (most common class), {comparison.uniform:.1%} (1 / classes)"
    yield f"difference {_words(comparison.difference)}"
    for name, margin in (("ours", comparison.ours_over_baseline), ("theirs", comparison.theirs_over_baseline)):
        if margin is not None:
            verdict = ""
            if not margin.is_above_zero:
                is_worse = margin.difference < 0 and (margin.high is None or margin.high <= 0)
                verdict = "it does not beat" if is_worse else "these images can't show that it beats"
                verdict = f"; {verdict} the baseline"
            yield f"{name} over baseline {_words(margin)}{verdict}"


NO_INTERVAL = "two runs: no interval; give three or more"


def _words(difference: "PairedDifference") -> str:
    ends = NO_INTERVAL if difference.interval is None else "{:+.1%} to {:+.1%}".format(*difference.interval)
    return f"{difference.difference:+.1%} ({ends})"


def report(*runs: Path, out: Path, data: Annotated[list[str] | None, Parameter(negative="")] = None) -> None:
    """Write one HTML page about runs: curves, reconstructions, scores, reliability, examples, comparison.

    The page is a single file that contains everything, including images of the data: check it before you publish it.

    For example:

    - uniemox report runs/fi --out report.html
    - uniemox report runs/pre runs/fi runs/fi-without-pretraining --out report.html

    Args:
        runs: Folders of pre-training and fine-tuning runs. Fine-tuning runs scored on the same data are compared.
        out: HTML file to write.
        data: Scored data, KIND:PATH as evaluate had them, whose images are shown wherever they are; repeatable. Without
            it, images are shown if they are in the run's folder or the working folder.
    """
    refuse_other(out, ".html")
    need("torch", "timm", "tensorboard", extra="train")
    from uniemox.evaluate.report.page import write_report

    with progress_bar() as progress:
        sources = write_report(runs, out, data=data or (), on_progress=progress.show)
    say("\n".join([f"wrote {out}", *(f"{out} contains images of {source}" for source in sources)]))
