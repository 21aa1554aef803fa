"""The command that says what pictures evoke."""

import os.path
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from uniemox.cli.console import EXIT_UNREADABLE, Files, JsonFlag, say
from uniemox.errors import ConfigError, ImageError, StoppedError

if TYPE_CHECKING:
    from uniemox.cli.predict_output import Output
    from uniemox.predict.prediction import Failure, Prediction
    from uniemox.predict.predictor import Predictor
    from uniemox.predict.writing import ResultFile

EXIT_INTERRUPTED = 130
FEW = 8  # pictures that need no progress bar


def predict(
    *images: Annotated[str, Parameter(allow_leading_hyphen=True)],
    model: str | None = None,
    coverage: float | None = None,
    labels: str | None = None,
    person_model: str | None = None,
    persons: bool = True,
    finder: str = "embedded",
    words: str | None = None,
    out: Files = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    save_pictures: Files = None,
    threads: int | None = None,
    batch_size: int = 16,
    engine: Literal["local", "ray"] = "local",
    as_json: JsonFlag = False,
) -> None:
    """Say what pictures make people feel, and find the people in them.

    Exits with 2 if a picture could not be read; those that could are done all the same, and --resume tries it again.

    Examples:

    uniemox predict photo.jpg

    uniemox predict photos/ 'more/*.png' --json

    find photos -name '*.jpg' | uniemox predict - --out answers.csv --resume

    Parameters
    ----------
    images
        Files, folders, patterns; - reads a list of paths from standard input.
    model
        A run of uniemox finetune, its model.onnx, hub:owner/repository/file.onnx, or clip:NAME@WEIGHTS; the model that
        comes with the package if not given.
    coverage
        Also give the labels that hold the true one in this share of pictures, such as 0.9.
    labels
        Answer in another label set, such as polarity.
    person_model
        A model that says what the people found feel.
    persons
        Look for people.
    finder
        Another person detector, as `data persons` takes it.
    words
        For clip: the words to choose from, with commas between.
    out
        Write the answers to a file, .jsonl, .csv or .parquet.
    resume
        Go on with that file: answers in it are not asked for again.
    save_pictures
        A folder for the pictures with boxes and bars drawn.
    threads
        Of the networks; one a core if not given.
    batch_size
        Pictures that the network sees at once.
    engine
        ray: on all machines of a Ray cluster, which read the pictures by the same paths.
    as_json
        A JSON object a line: path, scene, kind, persons; or path, error.
    """
    _check(images, persons=persons, finder=finder, resume=resume, out=out, save_pictures=save_pictures, engine=engine)
    from uniemox.cli.predict_output import Output
    from uniemox.predict.opening import load

    found, chosen = finder if persons else None, None if words is None else words.split(",")
    if engine == "ray":  # whose workers have folders of their own, and a core each
        model, person_model, found, threads = *map(_absolute, (model, person_model, found)), threads or 1
    open_model = partial(load, model, person_model=person_model, finder=found, threads=threads, words=chosen)
    predictor = open_model()
    with _open_file(out, predictor, labels, resume=resume, has_likely=coverage is not None) as file:
        output = Output(as_json=as_json, file=file, pictures=save_pictures)
        todo = _todo(images, output)
        ask = predictor.predict_each if engine == "local" else _ray(open_model)
        results = ask(todo, batch_size=batch_size, coverage=coverage, labels=labels)
        _take(results, output, images)
    if output.failures:
        sys.exit(EXIT_UNREADABLE)


def _check(
    images: Sequence[str],
    *,
    persons: bool,
    finder: str,
    resume: bool,
    out: Path | None,
    save_pictures: Path | None,
    engine: str,
) -> None:
    """Raise ConfigError for what can't be asked."""
    if not images:
        raise ConfigError("no picture is named; give files, folders or patterns, or - for a list on standard input")
    unknown = next((name for name in images if name.startswith("-") and name != "-"), None)
    if unknown is not None:
        raise ConfigError(f"there is no option {unknown}; see --help, or write ./{unknown} for a file of that name")
    if resume and out is None:
        raise ConfigError("--resume continues a file; name it with --out")
    if not persons and finder != "embedded":
        raise ConfigError("--no-persons and --finder contradict each other; leave one of them out")
    if save_pictures is not None and engine == "ray":
        raise ConfigError("--save-pictures is not there with --engine ray; leave one of them out")


def _absolute(name: str | None) -> str | None:
    """The whole path of what is a file or folder; other names as they are."""
    return str(Path(name).resolve()) if name is not None and os.path.exists(name) else name


def _ray(open_model: "Callable[[], Predictor]") -> "Callable[..., Iterator[Prediction | Failure]]":
    """What asks a Ray cluster as `Predictor.predict_each` asks this process."""
    from uniemox.predict.ray_job import predict_on_ray

    return partial(predict_on_ray, open_predictor=open_model)


def _open_file(
    path: Path | None, predictor: "Predictor", labels: str | None, *, resume: bool, has_likely: bool
) -> "AbstractContextManager[ResultFile | None]":
    """The file for the answers, if one is asked for."""
    if path is None:
        return nullcontext()
    from uniemox.predict.mapping import answers_in
    from uniemox.predict.writing import AnswerHeader, ResultFile

    answers = answers_in(predictor.network.info.find_labels(), labels)
    has_persons = predictor.finder is not None
    answered = AnswerHeader(predictor.name, answers.name, answers.labels, has_likely, has_persons)
    return ResultFile(path, resume=resume, answered=answered)


def _todo(images: Sequence[str], output: "Output") -> Iterator[str]:
    """The pictures that are not in the file yet. Raises ImageError if the names mean none at all."""
    from uniemox.predict.listing import list_pictures

    name = None
    for name in list_pictures(images, sys.stdin):
        if output.file is not None and output.file.has(name):
            output.skipped += 1
        else:
            yield name
    if name is None:
        raise ImageError(f"there is no picture in {', '.join(images)}")


def _take(results: "Iterable[Prediction | Failure]", output: "Output", images: Sequence[str]) -> None:
    """All answers, the table of them, and what went wrong. Raises StoppedError after Ctrl-C."""
    from uniemox.predict.listing import list_pictures

    are_few = len(images) <= FEW and not any(name == "-" or os.path.isdir(name) for name in images)
    is_counted = not are_few and "-" not in images
    counting = partial(sum, (1 for _ in list_pictures(images))) if is_counted else None
    try:
        output.show_all(results, counting, are_few=are_few)
    except KeyboardInterrupt:
        kept = "" if output.file is None else f"; they are in {output.file.lines}: continue with --resume"
        raise StoppedError(f"stopped after {output.done} pictures{kept}", EXIT_INTERRUPTED) from None
    finally:
        output.list_failures()
    if output.file is not None:
        output.file.finish()
        again = f" ({output.skipped} were there already)" if output.skipped else ""
        say(f"wrote {output.file.path}: {output.done + output.skipped} pictures{again}")
