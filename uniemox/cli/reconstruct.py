"""The command that shows reconstructions of hidden patches, and the images of a sheet."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from uniemox.cli.console import EXIT_UNREADABLE, JsonFlag, need, progress_bar, say
from uniemox.errors import ConfigError

MAX_ROWS = 200  # of a sheet
Runs = Annotated[list[Path], Parameter(name="--model", consume_multiple=True, negative="")]


def reconstruct(
    *files: Path, model: Runs, out: Path, ratio: float = 0.75, seed: int = 0, as_json: JsonFlag = False
) -> None:
    """Show how pre-trained models reconstruct hidden patches, with one mask for all, as figure 9 of arXiv 2409.18877.

    Example: uniemox explain reconstruct photos --model runs/pre mae_visualize_vit_base.pth --out sheet.png

    Args:
        files: Images, or folders of them.
        model: One or more: a pre-training run, each of whose checkpoints is a column, or a checkpoint of MAE with its
            decoder.
        out: The sheet, a PNG.
        ratio: Share of the patches that are hidden, between 0 and 1.
        seed: Random seed for the masks.
        as_json: Print the mean squared error over hidden patches, by column, as one JSON object.
    """
    need("torch", "timm", "safetensors", extra="train")
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the sheet is a PNG; give sheet.png")
    from uniemox.predict.explain.reconstructions import open_reconstructors, reconstruct_images
    from uniemox.predict.plot import write_whole

    images = images_of(files, max_images=MAX_ROWS)
    stages = [stage for path in model for stage in open_reconstructors(path)]
    with progress_bar() as progress:
        task = progress.add_task("reconstructing", total=len(stages))
        result = reconstruct_images(stages, images, ratio=ratio, seed=seed, on_progress=lambda: progress.advance(task))
    write_whole(out, result.sheet)
    for error in result.left_out:
        say(f"left out: {error}")
    say(f"wrote {out}")
    if as_json:
        print(json.dumps({"pictures": result.pictures, "masked_mse": result.errors}))
    else:
        for name, value in result.errors.items():
            print(f"{name}: masked MSE {value:.4f}")
    if result.left_out:
        sys.exit(EXIT_UNREADABLE)


def images_of(files: Sequence[Path], *, max_images: int | None) -> list[Path]:
    """Return the images that files, folders and patterns mean.

    max_images: of a sheet, which is in memory until the end.  Raises ConfigError for none, or for more.
    """
    from uniemox.predict.images import list_images

    found = [Path(name) for name in list_images(list(map(str, files)))]
    if not found:
        raise ConfigError("there is no image to explain; give image files, folders that hold some, or patterns")
    if max_images is not None and len(found) > max_images:
        raise ConfigError(
            f"a sheet shows at most {max_images} images, here are {len(found):,}; name fewer (maps of any number "
            "go into a folder: uniemox explain --out maps)"
        )
    return found
