"""The command that says what images evoke."""

import os.path
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from uniemox.cli.console import EXIT_UNREADABLE, Files, JsonFlag, UsageError, say
from uniemox.cli.films import seconds_of, unseen, write_timeline
from uniemox.errors import ImageError, StoppedError

if TYPE_CHECKING:
    from uniemox.cli.predict_output import Output
    from uniemox.predict.prediction import Failure, Prediction
    from uniemox.predict.predictor import Predictor
    from uniemox.predict.writing import EmbeddingFile, ResultFile

EXIT_INTERRUPTED = 130
FEW = 8  # images that need no progress bar


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What looks at the images."""

    model: str | None = None
    """A run of uniemox finetune, its model.onnx, hub:owner/repository/file.onnx, or clip:NAME@WEIGHTS; small, one that
    starts sooner; if not given embedded, the one that comes with the package."""
    person_model: str | None = None
    """A model that says what the people found feel."""
    persons: bool = True
    """Look for people."""
    finder: str = "embedded"
    """Another person detector, as `data persons` takes it."""
    faces: Literal["find", "whole"] | None = None
    """Also say what faces show to others, which is not what their owners feel: find, of all that are found; whole, the
    image is a face already."""
    face_model: str | None = None
    """Another model of expressions, such as a run on ferplus."""
    face_finder: str | None = None
    """Another face detector, such as yunet_n.onnx."""
    words: str | None = None
    """For clip: the words to choose from, with commas between."""
    threads: int | None = None
    """Threads of each network; if not given one per core for a single image, and one for each of several."""

    def opener(self, *, on_cluster: bool, has_several: bool) -> "Callable[[], Predictor]":
        """What opens the predictor.  on_cluster: in workers that have folders of their own, and a core each.
        has_several: images, which are worked on side by side.
        """
        from uniemox.predict.opening import load

        if not self.persons and self.finder != "embedded":
            raise UsageError("--no-persons and --finder contradict each other; leave one of them out")
        names = (
            *(self.model, self.person_model, self.finder if self.persons else None),
            *(self.face_model, self.face_finder),
        )
        model, person, finder, face_model, face_finder = map(_absolute, names) if on_cluster else names
        words = None if self.words is None else self.words.split(",")
        threads = self.threads or (1 if on_cluster or has_several else None)
        return partial(
            load,
            model,
            person_model=person,
            finder=finder,
            faces=self.faces,
            face_model=face_model,
            face_finder=face_finder,
            threads=threads,
            words=words,
        )


@dataclass(frozen=True, kw_only=True)
class AnswerFiles:
    """Where the answers go beside the screen."""

    out: Files = None
    """Write the answers to a file, .jsonl, .csv or .parquet."""
    resume: Annotated[bool, Parameter(negative="")] = False
    """Go on with that file: answers in it are not asked for again."""
    bom: Annotated[bool, Parameter(negative="")] = False
    """Begin a .csv with a byte-order mark, by which Excel knows UTF-8."""
    save_images: Files = None
    """A folder for the images with boxes and bars drawn."""
    timeline: Files = None
    """A .png with each film's answers over time, drawn from those in --out."""
    embeddings: Files = None
    """Also write what the labels are read off, to .npy (paths in .npy.txt) or .parquet: for search and clusters."""


NO_MODEL, NO_FILES = ModelOptions(), AnswerFiles()


def predict(
    *images: Annotated[str, Parameter(allow_leading_hyphen=True)],
    coverage: float | None = None,
    labels: str | None = None,
    every: str | None = None,
    batch_size: int = 16,
    engine: Literal["local", "ray"] = "local",
    as_json: JsonFlag = False,
    models: Annotated[ModelOptions, Parameter(name="*")] = NO_MODEL,
    files: Annotated[AnswerFiles, Parameter(name="*")] = NO_FILES,
) -> None:
    """Say what images make people feel, and find the people in them.

    Exits with 3 if an image could not be read; those that could are done all the same, and --resume tries it again.

    Examples:

    uniemox predict photo.jpg 'photos/*.png' --json

    find photos -name '*.jpg' | uniemox predict - --out answers.csv --resume

    uniemox predict clip.mp4 --every 1s --out clip.csv --timeline clip.png

    Parameters
    ----------
    images
        Files, folders, patterns; - reads a list of paths from standard input.
    coverage
        Also give the labels that hold the true one in this share of images, such as 0.9.
    labels
        Answer in another label set, such as polarity.
    every
        The names are films (animated GIF, WebP and PNG too): look at one every so often, such as 1s or 500ms.
    batch_size
        At most so many images are taken ahead of the answers; it changes no answer.
    engine
        ray: on all machines of a Ray cluster, which read the images by the same paths.
    as_json
        A JSON object a line: path, scene, kind, valence, familiarity, persons, ...; or path, error.
    """
    every_s = _check(images, files, engine, every)
    from uniemox.cli.predict_output import Output

    has_several = len(images) > 1 or every_s is not None or not os.path.isfile(images[0])
    open_predictor = models.opener(on_cluster=engine == "ray", has_several=has_several)
    predictor = open_predictor()
    with (
        _open_file(files, predictor, labels, coverage, of_film=every_s is not None) as file,
        _open_embeddings(files.embeddings) as features,
    ):
        output = Output(as_json=as_json, file=file, images=files.save_images, embeddings=features)
        ask = _ray(open_predictor) if engine == "ray" else _here(predictor, features)
        todo = unanswered(images, output) if every_s is None else unseen(images, every_s, output)
        _take(ask(todo, batch_size=batch_size, coverage=coverage, labels=labels), output, images, is_film=bool(every_s))
    write_timeline(file, files.timeline)
    if output.failures:
        sys.exit(EXIT_UNREADABLE)


def _check(images: Sequence[str], files: AnswerFiles, engine: str, every: str | None) -> float | None:
    """Seconds of --every, if it is given. Raises UsageError for what can't be asked."""
    check_names(images)
    is_film = every is not None
    if files.timeline is not None and not (is_film and files.out is not None and files.timeline.suffix == ".png"):
        raise UsageError("--timeline NAME.png draws the answers about films in a file: give --every and --out too")
    if is_film and (engine == "ray" or files.save_images is not None):
        raise UsageError("--engine ray and --save-images are not there for films; leave them out")
    if files.bom and (files.out is None or files.out.suffix != ".csv"):
        raise UsageError("--bom is for a table: --out answers.csv")
    if files.resume and files.out is None:
        raise UsageError("--resume continues a file; name it with --out")
    if engine == "ray" and (files.save_images is not None or files.embeddings is not None):
        raise UsageError("--save-images and --embeddings are not there with --engine ray; leave them out")
    if files.resume and files.embeddings is not None:
        raise UsageError("--embeddings can't be resumed: leave out --resume, or write them in a run of their own")
    return None if every is None else seconds_of(every)


def check_names(images: Sequence[str]) -> None:
    """Raise UsageError where no image is named, or an option that there is not."""
    if not images:
        raise UsageError("no image is named; give files, folders or patterns, or - for a list on standard input")
    dashed = (name for name in images if name.startswith("-") and name != "-")
    unknown = next((name for name in dashed if not os.path.isfile(name)), None)
    if unknown is not None:
        raise UsageError(f"there is no option {unknown}; see --help, or write ./{unknown} for a file of that name")


def _absolute(name: str | None) -> str | None:
    """The whole path of what is a file or folder; other names as they are."""
    return str(Path(name).resolve()) if name is not None and os.path.exists(name) else name


def _ray(open_model: "Callable[[], Predictor]") -> "Callable[..., Iterator[Prediction | Failure]]":
    """What asks a Ray cluster as `Predictor.predict_each` asks this process."""
    from uniemox.predict.predictor import predict_on_ray

    return partial(predict_on_ray, open_predictor=open_model)


def _here(predictor: "Predictor", features: "EmbeddingFile | None") -> "Callable[..., Iterator[Prediction | Failure]]":
    """What asks this process."""
    return partial(predictor.predict_each, with_embedding=features is not None)


def _open_file(
    files: AnswerFiles, predictor: "Predictor", labels: str | None, coverage: float | None, *, of_film: bool
) -> "AbstractContextManager[ResultFile | None]":
    """The file for the answers, if one is asked for."""
    if files.out is None:
        return nullcontext()
    from uniemox.predict.writing import AnswerHeader, ResultFile

    answered = AnswerHeader.of_question(predictor, labels, coverage, of_film=of_film)
    return ResultFile(files.out, resume=files.resume, answered=answered, with_bom=files.bom)


def _open_embeddings(path: Path | None) -> "AbstractContextManager[EmbeddingFile | None]":
    """The file for embeddings, if one is asked for."""
    if path is None:
        return nullcontext()
    from uniemox.predict.writing import EmbeddingFile

    return EmbeddingFile(path)


def unanswered(images: Sequence[str], output: "Output") -> Iterator[str]:
    """The images that are not in the file yet. Raises ImageError if the names mean none at all."""
    from uniemox.predict.images import list_images

    name = None
    for name in list_images(images, sys.stdin):
        if output.file is not None and output.file.has(name):
            output.skipped += 1
        else:
            yield name
    if name is None:
        raise ImageError(f"there is no image in {', '.join(images)}")


def _take(results: "Iterable[Prediction | Failure]", output: "Output", images: Sequence[str], *, is_film: bool) -> None:
    """All answers, the table of them, and what went wrong. Raises StoppedError after Ctrl-C."""
    from uniemox.predict.images import list_images

    are_few = not is_film and len(images) <= FEW and not any(name == "-" or os.path.isdir(name) for name in images)
    is_counted = not are_few and not is_film and "-" not in images
    counting = partial(sum, (1 for _ in list_images(images))) if is_counted else None
    try:
        output.show_all(results, counting, are_few=are_few)
    except KeyboardInterrupt:
        kept = "" if output.file is None else f"; they are in {output.file.lines}: continue with --resume"
        raise StoppedError(f"stopped after {output.done} images{kept}", EXIT_INTERRUPTED) from None
    finally:
        output.list_failures()
    if output.file is not None:
        output.file.finish()
        again = f" ({output.skipped} were there already)" if output.skipped else ""
        say(f"wrote {output.file.path}: {output.done + output.skipped} images{again}")
    if output.embeddings is not None:
        output.embeddings.finish()
        say(f"wrote {output.embeddings.path}: {output.embeddings.count} x {output.embeddings.width}")
