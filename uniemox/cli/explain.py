"""The commands that show why an image got its answer, and how pre-trained models fill in what is hidden."""

import json
import os.path
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table

from uniemox.cli.console import EXIT_UNREADABLE, Flag, JsonFlag, JsonObject, need, progress_bar, say, show_all
from uniemox.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from PIL import Image

    from uniemox.persons.box import Detection
    from uniemox.predict.explain.explaining import Explainer
    from uniemox.predict.explain.explanation import Explanation
    from uniemox.predict.explain.scores import MapScores

MAX_ROWS = 200  # of a sheet
SHEET_PX = 512  # of the images that are kept for a sheet
explain = App(name="explain", help="Show which parts of an image speak for an answer.")
Models = Annotated[list[str] | None, Parameter(name="--model", consume_multiple=True, negative="")]


@explain.default
def heat(
    *files: Path,
    out: Path,
    model: Models = None,
    label: str | None = None,
    method: Literal["auto", "cam", "occlusion", "both", "grad-cam"] = "auto",
    faces: Literal["find", "whole"] | None = None,
    scores: Flag = False,
    as_json: JsonFlag = False,
) -> None:
    """Lay a heat map over each image, a column for each model, as figure 8 of arXiv 2409.18877.

    A model that looks at people uses persons.jsonl in the image's folder (uniemox data persons), else the embedded
    finder. Exits with 3 if an image could not be read; the others are done.

    For example:

    - uniemox explain photo.jpg --out sheet.png
    - uniemox explain photos --model runs/fi runs/fi-scratch --label awe --faces find --out sheet.html
    - uniemox explain photos --model runs/fi --method both --scores --json --out maps

    Args:
        files: Images, folders, or patterns.
        out: sheet.png or sheet.html for all on one sheet, or a folder for a PNG a map, as large as the image:
            photos/a.jpg becomes FOLDER/photos/a.jpg.MODEL.png.
        model: One or more runs, model.onnx files or names hub:owner/name/file; by default the model of the package.
        label: Label whose evidence is shown; by default the most probable one of each model.
        method: cam: class-activation map of a convolutional network. occlusion: any network, about 100 passes. auto:
            cam, else occlusion. both: compare the two. grad-cam: for a run, ViTs as in the paper's figure; needs
            uniemox[train].
        faces: Draw what faces show (not what people feel) in the first column, or to FOLDER/photos/a.jpg.faces.png.
            find: all detected faces. whole: each image is one face.
        scores: Measure the maps: area under the label's probability while the image is deleted, or inserted, hottest
            places first, compared with a random map.
        as_json: With --scores: print them as one JSON object.
    """
    if as_json and not scores:
        raise ConfigError("--json prints the scores; add --scores")
    if method == "grad-cam":
        need("torch", "timm", "safetensors", extra="train")
    from uniemox.predict.explain.explaining import open_explainers

    folder = out if _is_folder(out) else None  # a wrong name is refused before models are opened
    explainers, columns = open_explainers(model or [None], method)
    images = _images_of(files, max_images=MAX_ROWS if folder is None else None)
    rows = _explain_each(images, explainers, label, _people_beside(files, explainers), compare=method == "both")
    read, kept, measured = _keep(rows, explainers if scores else [], columns, folder)
    drawings = _draw_faces(read, faces) if faces else None
    _write(out, read, columns, drawings, None if folder else kept)
    if scores:
        _show_scores(dict(zip(columns, zip(*measured, strict=True), strict=True)), as_json)
    if len(read) < len(images):
        sys.exit(EXIT_UNREADABLE)


@explain.command
def reconstruct(
    *files: Path,
    model: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    out: Path,
    ratio: float = 0.75,
    seed: int = 0,
    as_json: JsonObject = False,
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
    """
    need("torch", "timm", "safetensors", extra="train")
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the sheet is a PNG; give sheet.png")
    from uniemox.predict.explain.reconstructions import open_reconstructors, reconstruct_images
    from uniemox.predict.plot import write_drawing

    images = _images_of(files, max_images=MAX_ROWS)
    stages = [stage for path in model for stage in open_reconstructors(path)]
    with progress_bar() as progress:
        result = reconstruct_images(stages, images, ratio=ratio, seed=seed, on_progress=progress.show)
    write_drawing(out, result.sheet)
    for error in result.left_out:
        say(f"left out: {error}")
    say(f"wrote {out}")
    values = {"pictures": result.pictures, "masked_mse": result.errors}
    words = (f"{name}: masked MSE {value:.4f}" for name, value in result.errors.items())
    show_all([json.dumps(values)] if as_json else words)
    if result.left_out:
        sys.exit(EXIT_UNREADABLE)


def _images_of(files: Sequence[Path], *, max_images: int | None) -> list[Path]:
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


def _explain_each(
    images: Sequence[Path],
    explainers: "Sequence[Explainer]",
    label: str | None,
    people: "Mapping[Path, tuple[Detection, ...]]",
    *,
    compare: bool,
) -> "Iterator[tuple[Path, list[Explanation]]]":
    """Yield each image that can be read with every model's map. Raises ImageError if there are none.

    people: detected before, by image.  compare: the explainers come in pairs, two methods for one answer.
    """
    from uniemox.predict.explain.explanation import compared

    read = unlike = 0
    with progress_bar() as progress:
        for done, path in enumerate(images, start=1):
            try:
                row = [explainer.explain(path, label, people.get(path)) for explainer in explainers]
            except ImageError as error:
                say(f"left out: {error}")
                continue
            finally:
                progress.show("explaining", done, len(images))
            row = compared(row) if compare else row
            read += 1
            unlike += any(one.is_unlike for one in row)
            yield path, row
    if not read:
        raise ImageError(f"none of {len(images)} images can be read; nothing is written")
    if compare:
        say(f"cam and occlusion disagree on {unlike} of {read} images; there, trust neither map")


def _keep(
    rows: "Iterable[tuple[Path, list[Explanation]]]",
    scored_by: "Sequence[Explainer]",
    columns: list[str],
    folder: Path | None,
) -> "tuple[list[Path], list[list[Explanation]], list[list[MapScores]]]":
    """Write maps to the folder, or keep them for a sheet; return the images, the kept maps, and the maps' scores.

    scored_by: the explainers; empty: no scores.
    """
    from uniemox.predict.plot import drawing_path, write_drawing

    read, kept, measured = [], [], []
    for path, row in rows:
        read.append(path)
        measured.append([one.score(found) for one, found in zip(scored_by, row, strict=False)])
        if folder is None:
            kept.append([found.shrunk(SHEET_PX) for found in row])
        else:
            for name, found in zip(columns, row, strict=True):
                write_drawing(drawing_path(folder, path, f".{name}.png"), found.overlay(max(found.image.size)))
    return read, kept, measured


def _people_beside(files: Sequence[Path], explainers: "Sequence[Explainer]") -> "dict[Path, tuple[Detection, ...]]":
    """Read persons.jsonl in folders if an explainer needs people. Raises DataError for damaged files."""
    from uniemox.data.people import PERSONS, read_people

    needs_people = any(one.looks_at_people for one in explainers)
    folders = [path for path in files if needs_people and os.path.isfile(path / PERSONS)]
    return {folder / key: found for folder in folders for key, found in read_people(folder / PERSONS).items()}


def _is_folder(out: Path) -> bool:
    """Return True if --out is a folder; create it, or the sheet's. Raises ConfigError for a file of another kind."""
    is_sheet = out.suffix.lower() in (".png", ".html") and not out.is_dir()
    if out.suffix and not is_sheet and not out.is_dir():
        raise ConfigError(f"--out {out}: give sheet.png, sheet.html, or a folder")
    (out.parent if is_sheet else out).mkdir(parents=True, exist_ok=True)
    return not is_sheet


def _draw_faces(images: Sequence[Path], which: Literal["find", "whole"]) -> "Iterator[Image.Image]":
    """Yield a drawing of what the faces in each image show."""
    from uniemox.predict.faces import summarise_faces
    from uniemox.predict.opening import load
    from uniemox.predict.plot import plot_faces
    from uniemox.predict.prediction import Failure

    predictor = load("small", finder=None, faces=which)
    with progress_bar() as progress:
        for done, found in enumerate(predictor.predict_each(images), start=1):
            if isinstance(found, Failure):  # it could be read before
                raise ImageError(found.error)
            faces = [(face.box, face.expressions) for face in found.faces or ()]
            yield plot_faces(found.source, faces, summarise_faces([shown for _, shown in faces]), SHEET_PX)
            progress.show("finding faces", done, len(images))


def _write(
    out: Path,
    read: Sequence[Path],
    columns: list[str],
    drawings: "Iterator[Image.Image] | None",
    rows: "Sequence[Sequence[Explanation]] | None",
) -> None:
    """Write the sheet, or the drawings of faces to a folder.  rows: maps of the sheet; None: they are in the folder."""
    from uniemox.predict.explain.sheets import draw_sheet, sheet_html
    from uniemox.predict.plot import drawing_path, write_drawing

    if rows is not None:
        draw = sheet_html if out.suffix.lower() == ".html" else draw_sheet
        write_drawing(out, draw(rows, columns, list(map(str, read)), None if drawings is None else list(drawings)))
    elif drawings is not None:
        for path, drawn in zip(read, drawings, strict=True):
            write_drawing(drawing_path(out, path, ".faces.png"), drawn)
    say(f"wrote {out}: {len(read)} image{'s' * (len(read) != 1)}, {len(columns)} map{'s' * (len(columns) != 1)} each")


def _show_scores(measured: "Mapping[str, Sequence[MapScores]]", as_json: bool) -> None:
    """Print the mean scores of each column's maps."""
    from uniemox.predict.explain.scores import summarise

    found = {name: summarise(scores) for name, scores in measured.items()}
    table = Table("model", "score", "mean", "95 % interval", title="Deletion: lower is better. Insertion: higher.")
    for name, summary in found.items():
        for key, value in summary.items():
            if key != "pictures":
                low, high = value["interval"]
                table.add_row(name, key, f"{value['mean']:.3f}", f"{low:.3f} to {high:.3f}")
    show_all([json.dumps(found) if as_json else table])
