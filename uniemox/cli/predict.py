"""The command that predicts the emotions of images."""

import os.path
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from uniemox.cli.console import EXIT_UNREADABLE, Files, Flag, JsonFlag, UsageError, refuse_existing, say
from uniemox.errors import ConfigError
from uniemox.io.borders import shorten
from uniemox.plurals import counted

if TYPE_CHECKING:
    from uniemox.cli.predict_output import Output
    from uniemox.predict.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Models and detectors, as in `uniemox.load`."""

    model: str | None = None
    """Model: a run of uniemox finetune, its model.onnx, hub:owner/repository/file.onnx, or clip:NAME@WEIGHTS. This
    package contains embedded (the default) and small, which loads faster."""
    person_model: str | None = None
    """Model of what detected people feel: a run on felt emotions, fine-tuned with --network.streams person or both."""
    persons: bool = True
    """Detect people."""
    finder: str = "embedded"
    """Person detector; takes the same values as --detector of uniemox data persons."""
    faces: Literal["find", "whole"] | None = None
    """Also predict facial expressions, which are not felt emotions. find: detect them. whole: the image is one face."""
    face_model: str | None = None
    """Facial-expression model, such as a run on ferplus. Default: the package's own."""
    face_finder: str | None = None
    """Face detector, such as yunet_n.onnx. Default: the package's own."""
    words: str | None = None
    """Labels to choose from, separated by commas, for a model clip:NAME@WEIGHTS. Default: Mikels' eight labels."""
    threads: int | None = None
    """CPU threads per network. Default: one per core for a single image; 1 for several, which run in parallel."""
    provider: Literal["cpu", "cuda", "tensorrt", "coreml", "openvino"] = "cpu"
    """Execution provider of onnxruntime for --model and --person-model. openvino computes in bfloat16 if the processor
    can. Detectors run on the CPU."""

    def opener(self, *, has_several: bool) -> "Callable[[], Predictor]":
        """Return a function that opens the predictor.

        Args:
            has_several: There are several images, which are processed in parallel, one per core.
        """
        from uniemox.predict.opening import load

        if not self.persons and self.finder != "embedded":
            raise UsageError("--no-persons and --finder contradict each other; leave out one of them")
        # Several images run in parallel, so each network gets one thread.
        default_threads = 1 if has_several else None
        return partial(
            load,
            self.model,
            person_model=self.person_model,
            finder=self.finder if self.persons else None,
            faces=self.faces,
            face_model=self.face_model,
            face_finder=self.face_finder,
            threads=self.threads or default_threads,
            words=None if self.words is None else self.words.split(","),
            provider=self.provider,
        )


@dataclass(frozen=True, kw_only=True)
class AnswerFiles:
    """Output files."""

    out: Files = None
    """Write the predictions to this file: .jsonl, .csv or .parquet."""
    resume: Flag = False
    """Continue the file of --out: skip images that it already contains, unless they were written after it."""
    bom: Flag = False
    """Begin a .csv file with a byte-order mark, so that Excel reads it as UTF-8."""
    save_images: Files = None
    """Folder for copies of the images with boxes and bars drawn on them."""
    timeline: Files = None
    """Plot predictions over time, of at most 40 videos, to this .png; needs --every and --out."""
    embeddings: Files = None
    """Also write the image features, for search and clustering, to .npy (with paths in .npy.txt) or .parquet."""


NO_MODEL = ModelOptions()
NO_FILES = AnswerFiles()


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
    """Predict what images make people feel, and detect the people in them.

    Of more than 20 images, a summary is printed; --out and --json give each prediction instead. Exits with 3 if an
    image could not be read. The others are predicted; --resume retries the unreadable ones.

    For example:

    - uniemox predict photo.jpg 'photos/*.png' --json
    - find photos -name '*.jpg' | uniemox predict - --out answers.csv --resume
    - uniemox predict clip.mp4 --every 1s --out clip.csv --timeline clip.png

    Args:
        images: Files, folders or patterns; - reads a list of paths from standard input. With --every: only files.
        coverage: Also give a set of likely labels that contains the true label in this share of images like the
            held-out ones, such as 0.9; on other images it does so less often.
        labels: Convert predictions to another label set, such as polarity.
        every: Read the files as videos (or animated images) and predict one frame per interval: 1s, 500ms or 2min.
        batch_size: Number of images that are processed at the same time; larger values count as 16, except with
            --engine ray. Lower it to save memory; predictions stay the same.
        engine: local: this machine. ray: all machines of a Ray cluster, which must see the images at the same paths.
        as_json: Print one JSON object per line: path, scene, kind, valence, familiarity, persons, ...; for
            an unreadable image, path and error.
    """
    every_s = _check_options(images, files, engine, every)
    from uniemox.cli.predict_output import Output, named_images
    from uniemox.predict.confidence import set_note, unflagged_note
    from uniemox.predict.film import read_film
    from uniemox.predict.predictor import predict_on_ray

    has_several = engine == "ray" or len(images) > 1 or every_s is not None or not os.path.isfile(images[0])
    open_predictor = models.opener(has_several=has_several)
    predictor = open_predictor()
    info = predictor.network.info
    for note in (unflagged_note(info), None if coverage is None else set_note(info, coverage)):
        if note:
            say(note)
    answer: Callable[..., Any] = partial(predictor.predict_each, with_embedding=files.embeddings is not None)
    if engine == "ray":
        answer = partial(predict_on_ray, open_predictor=open_predictor)
    sources: Iterator[Any] = named_images(images)
    if every_s is not None:
        sources = (frame for film in images for frame in read_film(film, every_s))
    with ExitStack() as opened:
        output = Output(as_json=as_json, images=files.save_images)
        of_film = every_s is not None
        _open_files(opened, output, files, predictor, labels=labels, coverage=coverage, of_film=of_film)
        results = answer(output.unanswered(sources), batch_size=batch_size, coverage=coverage, labels=labels)
        output.consume(results, images if every_s is None else None)
        _finish(output, files.timeline)
    if output.failures:
        sys.exit(EXIT_UNREADABLE)


def _check_options(images: Sequence[str], files: AnswerFiles, engine: str, every: str | None) -> float | None:
    """Return the seconds of --every; None without it.

    Raises:
        UsageError: For contradicting options.
    """
    check_names(images)
    is_film = every is not None
    if files.timeline is not None and not (is_film and files.out is not None and files.timeline.suffix == ".png"):
        raise UsageError("--timeline NAME.png plots the predictions of videos from a file: give --every and --out too")
    if files.timeline is not None and any(files.timeline.absolute() == Path(image).absolute() for image in images):
        raise UsageError(f"--timeline {files.timeline} is one of the videos; choose another name")
    if is_film and (engine == "ray" or files.save_images is not None):
        raise UsageError("--engine ray and --save-images do not work with videos; leave them out")
    if files.bom and (files.out is None or files.out.suffix != ".csv"):
        raise UsageError("--bom needs a .csv file: --out answers.csv")
    if files.resume and files.out is None:
        raise UsageError("--resume continues a file; name it with --out")
    if engine == "ray" and (files.save_images is not None or files.embeddings is not None):
        raise UsageError("--save-images and --embeddings do not work with --engine ray; leave them out")
    if files.resume and files.embeddings is not None:
        raise UsageError("--embeddings can't be resumed: leave out --resume, or write embeddings in a separate run")
    if every is None:
        return None
    from uniemox.predict.film import parse_time

    try:
        return parse_time(every)
    except ConfigError as error:
        raise UsageError(f"--every: {error}") from None


def check_names(images: Sequence[str]) -> None:
    """Raise UsageError if no image is given, or for an unknown option."""
    if not images:
        raise UsageError("no image is given; give files, folders or patterns, or - for a list on standard input")
    dashed = (name for name in images if name.startswith("-") and name != "-")
    unknown = next((name for name in dashed if not os.path.isfile(name)), None)
    if unknown is not None and unknown.split("=")[0] == "--map":
        raise UsageError(
            "--map belongs to evaluate, compare and calibrate, which score labels of your own; predictions have the "
            "model's labels, or those of a known set (--labels polarity)"
        )
    if unknown is not None:
        raise UsageError(
            f"there is no option {shorten(unknown)}; see --help, or write ./{shorten(unknown)} for a file of that name"
        )


def _open_files(
    opened: ExitStack, output: "Output", files: AnswerFiles, predictor: "Predictor", **question: Any
) -> None:
    """Open the requested files for predictions and embeddings.

    Args:
        opened: Closes the files.
        question: Keyword arguments of `AnswerHeader.for_predictor`.
    """
    if files.out is None and files.embeddings is None:
        return
    from uniemox.predict.embedding_file import EmbeddingFile, names_of
    from uniemox.predict.writing import AnswerHeader, ResultFile, existing_files, lines_of, overwritten_note

    if files.out is not None and files.embeddings is not None:
        answers = existing_files(files.out, lines_of(files.out))
        refuse_existing(*answers, files.embeddings, names_of(files.embeddings))
    if files.out is not None:
        answered = AnswerHeader.for_predictor(predictor, **question)
        file = ResultFile(files.out, resume=files.resume, answered=answered, with_bom=files.bom)
        output.file = opened.enter_context(file)
        if file.overwritten:
            say(overwritten_note(file.overwritten))
    if files.embeddings is not None:
        output.embeddings = opened.enter_context(EmbeddingFile(files.embeddings))


def _finish(output: "Output", timeline: Path | None) -> None:
    """Finish the requested table, embeddings and timeline."""
    if output.file is not None:
        output.file.finish()
        existing = f" ({output.skipped} of them already existed)" if output.skipped else ""
        say(f"wrote {output.file.path}: {counted(output.done + output.skipped, 'image')}{existing}")
        others = output.file.existing - output.skipped
        if others > 0:
            predictions = counted(others, "prediction")
            say(f"{output.file.path} also has {predictions} of earlier calls, for images that this call does not name")
    if output.embeddings is not None:
        output.embeddings.finish()
        say(f"wrote {output.embeddings.path}: {output.embeddings.count} x {output.embeddings.width}")
    if output.file is not None and timeline is not None:
        from uniemox.predict.plot import write_drawing
        from uniemox.predict.timeline import draw_timelines

        drawing = draw_timelines(output.file.lines)
        if drawing is not None:
            write_drawing(timeline, drawing)
            say(f"wrote {timeline}")
