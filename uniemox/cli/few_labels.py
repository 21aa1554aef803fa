"""The command that draws curves over few labelled images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from uniemox.cli.console import Flag, need, say, say_notes, show_all
from uniemox.cli.data_options import NO_FILES, FileOptions
from uniemox.cli.settings import config_of, help_of, options_of, takes
from uniemox.finetune.default_init import DEFAULT_INIT
from uniemox.finetune.few_labels_config import FewLabelsConfig, FewLabelsMethod
from uniemox.io.html import UNKNOWN

if TYPE_CHECKING:
    from uniemox.finetune.few_labels_page import MethodAccuracy

DEFAULTS = FewLabelsConfig(init=DEFAULT_INIT)
Methods = Annotated[
    list[FewLabelsMethod], Parameter(consume_multiple=True, negative="", help=help_of(FewLabelsConfig, "methods"))
]
Numbers = Annotated[list[int], Parameter(consume_multiple=True, negative="", help=help_of(FewLabelsConfig, "images"))]


@takes(settings=options_of(DEFAULTS, without=("methods", "images")))
def few_labels(
    *,
    data: str,
    out: Path,
    methods: Methods = list(DEFAULTS.methods),  # noqa: B006 - cyclopts shows it, and nothing changes it
    images: Numbers = list(DEFAULTS.images),  # noqa: B006
    resume: Flag = False,
    settings: Any,
    files: FileOptions = NO_FILES,
) -> None:
    """Draw the accuracy of light heads on an encoder over the number of labelled images.

    Every image is encoded once, then heads are fitted to random draws of 1, 2, 4, ... training images of each class and
    scored on the test images. Chance and the most frequent class are in the table. Method lora also trains the encoder,
    once for each number of images and each draw: 25 times by default.

    For example:

    - uniemox few-labels --data fi:photos/fi --out curves/fi
    - uniemox few-labels --init clip:ViT-B-16@clip.safetensors --methods prototypes probe --data folder:photos --out c

    Args:
        data: KIND:PATH, see `uniemox docs data`. Draws from split train, scores split test, or else val; data without
            splits are split 80/10/10.
        out: Folder of the results: index.html, curve.svg, curve.csv, answers.jsonl and the features.
        resume: Continue the work in --out; saved features and heads are not computed again.
    """
    need("torch", "timm", "open_clip", "sklearn", extra="train")
    config = config_of(FewLabelsConfig, settings, methods=tuple(methods), images=tuple(images))
    dataset = files.open(data)
    from uniemox.cli.callbacks import ConsoleCallback
    from uniemox.finetune.few_labels import few_labels as run

    say_notes(dataset)
    with ConsoleCallback() as console:
        points = run(config, dataset, out, resume=resume, callback=console)
    show_all([_table(points)])
    say(f"wrote {out}/index.html, curve.svg and curve.csv")


def _table(points: "list[MethodAccuracy]") -> Table:
    """Return a table of the curves, a row for each point."""
    table = Table("method", "images of a class", "draws", "accuracy", "95 % interval")
    for point in points:
        is_baseline = point.images_per_class is None
        fitted = [UNKNOWN, UNKNOWN] if is_baseline else [str(point.images_per_class), str(point.seeds)]
        table.add_row(point.method, *fitted, f"{point.accuracy:.1%}", point.interval_text)
    return table
