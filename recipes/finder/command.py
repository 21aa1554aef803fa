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
    """How it is trained; what is not given is as FinderConfig has it."""

    epochs: int | None = None
    """Passes over the images; 10 if not given."""
    width: int | None = None
    """Channels of neck and heads; 96 if not given."""
    coarsest: Literal[16, 32] | None = None
    """Stride of the coarsest map that is used; 32 if not given. 16 is enough for faces, with a third of the weights."""
    size: int | None = None
    """Side of the input that images are squashed to, px; 320 if not given."""
    seed: int = 0
    """Of the weights, the held-out images, the crops and the order."""


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

    A part of the images is held out; on them the least confidence is chosen, the one with the best F0.5. Splits other
    than train are left out. Killed at any moment, --resume continues from OUT.run to the same result.

    Examples:

    python -m recipes.finder fit --data fi:photos/fi --start timm:mobilenetv2_100 --out finder.onnx

    python -m recipes.finder fit --data fi:fi,emotion6:e6 --persons a.jsonl b.jsonl --start timm:NAME --out finder.onnx

    uniemox data persons fi:photos/fi --detector finder.onnx

    Parameters
    ----------
    data
        KIND:PATH, several with commas between.
    start
        The network that it starts from, timm:NAME or timm:NAME@FILE; it needs maps at strides 8, 16 and 32.
    out
        The file to write, which all commands take as --detector.
    persons
        Files of `data persons`, one for each of the data in their order; those beside the data if not given.
        --confidence 0.1 there lets the finder pass over people who are not sure.
    exclude
        A file of `data check --json`, whose list "exclude" is left out.
    resume
        Continue the training of --out, if there is one.
    as_json
        Print the figures as JSON.
    """
    need("torch", "timm", "onnx", "onnxscript", "safetensors", "tensorboard", extra="train")
    from recipes.finder.config import FinderConfig
    from recipes.finder.run import fit_finder, in_numbers
    from uniemox.cli.callbacks import ConsoleCallback

    given: dict[str, Any] = {name: value for name, value in vars(training).items() if value is not None}
    config = FinderConfig(start=start, **given)
    samples = samples_of(data.split(","), persons, exclude)
    with ConsoleCallback() as shown:
        report = fit_finder(samples, config, out, resume=resume, callback=shown)
    if as_json:
        print(json.dumps({"file": str(out), **in_numbers(report)}))
    else:
        print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB): {_in_words(report)}")


def _in_words(report: "FinderReport") -> str:
    """What was measured on the images held out."""
    scores = report.scores
    return (
        f"of {scores.people} people in {report.held_out} held-out images it finds {scores.recall:.1%} "
        f"({scores.large_recall:.1%} of those over 2 % of their image), and {scores.precision:.1%} of its boxes are "
        "people; the boxes that it was given are taken for the truth"
    )


def samples_of(sources: list[str], persons: list[Path] | None, exclude: Path | None) -> list[Any]:
    """Samples of all data sets: of train, or all where a set has no splits."""
    from uniemox.data.source import open_data

    files: list[Path | None] = [*persons] if persons else [None] * len(sources)
    if len(files) != len(sources):
        raise ConfigError(f"--persons needs a file for each of the {len(sources)} data sets, got {len(files)}")
    samples: list[Any] = []
    for source, file in zip(sources, files, strict=True):
        found = open_data(source, persons=file, exclude=exclude, with_texts=False).to_train().samples
        if all(sample.persons is None for sample in found):
            raise DataError(
                f"{source}: nobody has looked for people in its images; run: uniemox data persons {source} "
                "--detector FILE.onnx --confidence 0.1"
            )
        samples += found
    return samples
