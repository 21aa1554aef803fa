"""Labels and label maps that several models share, without which their scores can't be compared."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from uniemox.evaluate.run_records import Predictions, SavedEvaluation
from uniemox.labels import quoted
from uniemox.plurals import counted


def among_shared_labels(
    predictions: Sequence[Predictions], without: Collection[str] = ()
) -> tuple[list[Predictions], str]:
    """Let all models choose among the labels that each of them can choose.

    A model with fewer labels has fewer wrong answers to choose from, so accuracies among different labels can't be
    compared. Images whose label is not one of the shared labels are left out.

    Args:
        predictions: Answers of each model. A model may lack the images whose label it can't predict.
        without: Labels that the user leaves out.

    Returns:
        The answers among the shared labels, and a note with their number. If all have the same labels already, or fewer
        than two of them in common, the answers are unchanged; the note is then empty, or a warning (`label_note`).
    """
    warning = label_note(predictions)
    first = predictions[0]
    shared = [
        label
        for label in first.scored_labels
        if label not in without and all(label in item.scored_labels for item in predictions)
    ]
    is_without = any(label in without for item in predictions for label in item.scored_labels)
    if not (warning or is_without) or len(shared) < 2:
        return list(predictions), warning
    words_of = [dict(zip(item.keys, item.words, strict=True)) for item in predictions]
    keys = []
    left_out: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for item in predictions for key in item.keys):
        words = [words[key] for words in words_of if key in words]
        if len(words) == len(predictions) and len(set(words)) == 1 and words[0] in shared:
            keys.append(key)
        else:
            left_out.setdefault(words[0], []).append(key)
    if not keys:
        return list(predictions), warning
    counts = " and ".join(str(count) for count in sorted({len(item.scored_labels) for item in predictions}))
    reason = "that they share" if warning else "that the map keeps"
    note = f"the models have {counts} labels, so all choose among the {len(shared)} {reason}"
    if left_out:
        count = sum(map(len, left_out.values()))
        note += f"; {counted(count, 'image')} of {', '.join(map(quoted, sorted(left_out)))} left out"
    return [item.among(shared, keys) for item in predictions], note


def label_note(predictions: Sequence[Predictions]) -> str:
    """Return a warning if answers were scored among different labels; fewer labels leave fewer wrong answers."""
    label_sets = dict.fromkeys(frozenset(answers.scored_labels) for answers in predictions)
    if len(label_sets) < 2:
        return ""
    lists = " and ".join(f"{len(labels)} ({', '.join(sorted(labels))})" for labels in label_sets)
    return f"not scored among the same labels, but among {lists}: scores among fewer labels are higher"


def map_note(evaluations: Mapping[Path, SavedEvaluation]) -> str:
    """Return a warning if runs were scored by different label maps; those that needed none have none."""
    first_by_map = dict[str, Path]()
    for path, evaluation in evaluations.items():
        if evaluation.label_map:
            first_by_map.setdefault(evaluation.label_map_text, path)
    if len(first_by_map) < 2:
        return ""
    maps = " and ".join(f"{path} by {text}" for text, path in first_by_map.items())
    return f"not scored by the same label map: {maps}; score them again with one map"


def shared_map_note(evaluations: Mapping[Path, SavedEvaluation]) -> str:
    """Return a sentence about the one label map by which runs were scored; "" if none was."""
    by_map = {path: evaluation.label_map_text for path, evaluation in evaluations.items() if evaluation.label_map}
    if not by_map:
        return ""
    paths = ", ".join(map(str, by_map))
    return f"{paths} scored by the label map {next(iter(by_map.values()))}"
