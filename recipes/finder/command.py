"""Commands about person finders."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from uniemox.cli.console import Files, JsonFlag, need
from uniemox.errors import ConfigError, DataError

if TYPE_CHECKING:
    from recipes.finder.run import FinderReport

finder = App(
    name="python -m recipes.finder",
    help="Train a person finder of your own: small, and free of other detectors' licences.",
)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Settings of the training; the defaults are those of FinderConfig."""

    epochs: int | None = None
    """Passes over the images; 10 if not given."""
    width: int | None = None
    """Channels of neck and heads; 96 if not given."""
    coarsest: Literal[16, 32] | None = None
    """Stride of the coarsest map that is used; 32 if not given. 16 is enough for faces, with a third of the weights."""
    size: int | None = None
    """Side of the input that images are squashed to, px; 320 if not given."""
    seed: int = 0
    """Random seed for the weights, the held-out images, the crops and the order."""


@finder.command
def fit(
    *,
    data: str,
    start: str,
    out: Path,
    persons: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")] = None,
    exclude: Files = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    as_json: JsonFlag = False,
    training: Annotated[TrainingOptions, Parameter(name="*")] = TrainingOptions(),
) -> None:
    """Train a small person finder on boxes that another detector found.

    A part of the images is held out, and the minimum confidence with the best F0.5 on them is chosen. Splits other than
    train are left out. A killed run continues from OUT.run with --resume, with the same result.

    Examples:

    python -m recipes.finder fit --data fi:photos/fi --start timm:mobilenetv2_100 --out finder.onnx

    python -m recipes.finder fit --data fi:fi,emotion6:e6 --persons a.jsonl b.jsonl --start timm:NAME --out finder.onnx

    uniemox data persons fi:photos/fi --detector finder.onnx

    Args:
        data: KIND:PATH, or several separated by commas.
        start: Initial network, timm:NAME or timm:NAME@FILE; it needs maps at strides 8, 16 and 32.
        out: File to write, which all commands take as --detector.
        persons: Files of `data persons`, one for each of the data in their order; those next to the data if not given.
            With --confidence 0.1 there, the finder ignores people who are not sure.
        exclude: File of `data check --json`, whose list "exclude" is left out.
        resume: Continue the training of --out, if there is one.
        as_json: Print the figures as JSON.
    """
    need("torch", "timm", "onnx", "onnxscript", "safetensors", "tensorboard", extra="train")
    from recipes.finder.config import FinderConfig
    from recipes.finder.run import fit_finder, report_values
    from uniemox.cli.callbacks import ConsoleCallback

    overrides: dict[str, Any] = {name: value for name, value in vars(training).items() if value is not None}
    config = FinderConfig(start=start, **overrides)
    samples = samples_of(data.split(","), persons, exclude)
    with ConsoleCallback() as console:
        report = fit_finder(samples, config, out, resume=resume, callback=console)
    if as_json:
        print(json.dumps({"file": str(out), **report_values(report)}))
    else:
        print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB): {_in_words(report)}")


def _in_words(report: "FinderReport") -> str:
    """Describe the scores on the images held out."""
    scores = report.scores
    return (
        f"of {scores.people} people in {report.held_out} held-out images it finds {scores.recall:.1%} "
        f"({scores.large_recall:.1%} of those over 2 % of their image), and {scores.precision:.1%} of its boxes are "
        "people; the boxes that it was given are taken for the truth"
    )


def samples_of(sources: list[str], persons: list[Path] | None, exclude: Path | None) -> list[Any]:
    """Return the samples of all data sets: those of train, or all if a data set has no splits.

    Args:
        sources: KIND:PATH of each data set.
        persons: A file of boxes for each data set; None: those next to the data.
        exclude: File of images to leave out.

    Raises:
        ConfigError: If there are fewer or more files than data sets.
        DataError: If no detector was run on a data set.
    """
    from uniemox.data.source import open_data

    files: list[Path | None] = [*persons] if persons else [None] * len(sources)
    if len(files) != len(sources):
        raise ConfigError(f"--persons needs a file for each of the {len(sources)} data sets, got {len(files)}")
    samples: list[Any] = []
    for source, file in zip(sources, files, strict=True):
        labelled = open_data(source, persons=file, exclude=exclude, with_texts=False).to_train().samples
        if all(sample.persons is None for sample in labelled):
            raise DataError(
                f"{source}: nobody has looked for people in its images; run: uniemox data persons {source} "
                "--detector FILE.onnx --confidence 0.1"
            )
        samples += labelled
    return samples
