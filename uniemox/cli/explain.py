"""The commands that show why an image got its answer."""

import json
import os.path
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from uniemox.cli.console import EXIT_UNREADABLE, JsonFlag, need, progress_bar, say
from uniemox.cli.reconstruct import MAX_ROWS, images_of, reconstruct
from uniemox.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from PIL import Image

    from uniemox.persons.box import Detection
    from uniemox.predict.explain.explaining import Explainer
    from uniemox.predict.explain.explanation import Explanation
    from uniemox.predict.explain.scores import MapScores

SHEETS = (".png", ".html")
SHEET_PX = 512  # of the images that are kept for a sheet
explain = App(name="explain", help="Show which parts of an image speak for an answer.")
explain.command(reconstruct)
Models = Annotated[list[str] | None, Parameter(name="--model", consume_multiple=True, negative="")]


@explain.default
def heat(
    *files: Path,
    out: Path,
    model: Models = None,
    label: str | None = None,
    method: Literal["auto", "cam", "occlusion", "both", "grad-cam"] = "auto",
    faces: Annotated[bool, Parameter(negative="")] = False,
    scores: Annotated[bool, Parameter(negative="")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Lay a heat map over each image, a column for each model, as figure 8 of arXiv 2409.18877.

    A model that looks at people sees those of persons.jsonl in the image's folder (uniemox data persons); where there
    is none, those that the embedded finder finds. Exits with 3 if an image could not be read; the others are done.

    Examples:

    uniemox explain photo.jpg --out sheet.png

    uniemox explain photos --model runs/fi runs/fi-scratch --label awe --faces --out sheet.html

    uniemox explain photos --model runs/fi --method both --scores --json --out maps

    Parameters
    ----------
    files
        Images, folders of them, or patterns.
    out
        sheet.png or sheet.html for all on one sheet, or a folder for a PNG a map, as large as the image:
        photos/a.jpg becomes FOLDER/photos/a.jpg.MODEL.png.
    model
        One or more: a run or its model.onnx, hub:owner/name/file; if not given the model that comes with uniemox.
    label
        Whose evidence is shown; the most probable one of each model if not given.
    method
        cam: class-activation map, of convolutional networks. occlusion: any network, about a hundred passes. auto: cam
        where it is there. both: cam and occlusion, and where they disagree. grad-cam: of a run, for ViTs as in the
        paper's figure; needs uniemox[train].
    faces
        Draw what faces show (not what people feel) in the first column, or to FOLDER/photos/a.jpg.faces.png.
    scores
        Measure the maps too: area under the label's probability while the image is deleted, or inserted, hottest
        places first, beside a random map's.
    as_json
        With --scores: print them as one JSON object.
    """
    _check_asked(method, scores=scores, as_json=as_json)
    from uniemox.predict.explain.explaining import open_explainers

    folder = out if _is_folder(out) else None  # a wrong name is refused before models are opened
    explainers, columns = open_explainers(model or [None], method)
    images = images_of(files, max_images=MAX_ROWS if folder is None else None)
    people = _known_people(files) if any(one.looks_at_people for one in explainers) else {}
    asked = _Asked(explainers, columns, folder, label, people, scores=scores, compare=method == "both")
    read, rows, measured = _explain_each(images, asked)
    _write(read, rows, columns, folder, out, faces=faces)
    if scores:
        _show_scores(list(zip(*measured, strict=True)), columns, as_json)
    if len(read) < len(images):
        sys.exit(EXIT_UNREADABLE)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is done with every image."""

    explainers: "Sequence[Explainer]"
    columns: list[str]
    folder: Path | None
    """Folder for the maps; None: they are kept for a sheet."""
    label: str | None
    people: "Mapping[Path, tuple[Detection, ...]]"
    scores: bool
    compare: bool
    """Explainers come in twos, of which each shows an answer in its own way."""


def _explain_each(
    images: Sequence[Path], asked: _Asked
) -> "tuple[list[Path], list[list[Explanation]], list[list[MapScores]]]":
    """The images that could be read, their rows of a sheet (none if maps go to a folder), and the maps' scores."""
    from uniemox.predict.explain.agreement import compared, is_unlike

    read: list[Path] = []
    rows: list[list[Explanation]] = []
    measured: list[list[MapScores]] = []
    unlike = 0
    with progress_bar() as progress:
        for done, path in enumerate(images, start=1):
            row = _explained(asked.explainers, path, asked.label, asked.people.get(path))
            progress.show("explaining", done, len(images))
            if not row:
                continue
            row = compared(row) if asked.compare else row
            unlike += any(map(is_unlike, row))
            read.append(path)
            if asked.scores:
                measured.append([one.score(found) for one, found in zip(asked.explainers, row, strict=True)])
            if asked.folder is None:
                rows.append([found.shrunk(SHEET_PX) for found in row])
            else:
                _write_maps(row, asked.columns, path, asked.folder)
    if not read:
        raise ImageError(f"none of {len(images)} images can be read; nothing is written")
    if asked.compare:
        say(f"cam and occlusion disagree on {unlike} of {len(read)} images; there, trust neither map")
    return read, rows, measured


def _known_people(files: Sequence[Path]) -> "dict[Path, tuple[Detection, ...]]":
    """What is known of the people in images of folders. Raises DataError for files that are damaged."""
    from uniemox.data.people import read_people
    from uniemox.data.sidecar import PERSONS

    folders = [path for path in files if os.path.isfile(path / PERSONS)]
    return {folder / key: found for folder in folders for key, found in read_people(folder / PERSONS).items()}


def _check_asked(method: str, *, scores: bool, as_json: bool) -> None:
    if as_json and not scores:
        raise ConfigError("--json prints the scores; add --scores")
    if method == "grad-cam":
        need("torch", "timm", "safetensors", extra="train")


def _explained(
    explainers: "Sequence[Explainer]", path: Path, label: str | None, persons: "Sequence[Detection] | None"
) -> "list[Explanation]":
    """Every model's map of an image; none, with a line that says why, if it can't be read."""
    try:
        return [explainer.explain(path, label, persons) for explainer in explainers]
    except ImageError as error:
        say(f"left out: {error}")
        return []


def _is_folder(out: Path) -> bool:
    """Whether --out is a folder, which is then there. Raises ConfigError for a file of another kind."""
    if out.suffix.lower() in SHEETS and not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        return False
    if out.suffix and not out.is_dir():
        raise ConfigError(f"--out {out}: give sheet.png, sheet.html, or a folder")
    out.mkdir(parents=True, exist_ok=True)
    return True


def _write_maps(row: "list[Explanation]", columns: list[str], image: Path, out: Path) -> None:
    from uniemox.predict.explain.writing import map_path, write_whole

    for name, found in zip(columns, row, strict=True):
        write_whole(map_path(out, image, name), found.overlay(max(found.image.size)))


def _draw_faces(images: Sequence[Path], folder: Path | None) -> "list[Image.Image] | None":
    """Each image with what its faces show; None if they were written to a folder."""
    from uniemox.predict.explain.writing import map_path, write_whole
    from uniemox.predict.faces import summarise_faces
    from uniemox.predict.opening import load
    from uniemox.predict.plot import plot_faces
    from uniemox.predict.prediction import Failure

    predictor, drawn = load("small", finder=None, faces="find"), []
    with progress_bar() as progress:
        for done, (path, found) in enumerate(zip(images, predictor.predict_each(images), strict=True), start=1):
            if isinstance(found, Failure):  # it could be read before
                raise ImageError(found.error)
            faces = [(face.box, face.expressions) for face in found.faces or ()]
            image = plot_faces(found.source, faces, summarise_faces([shown for _, shown in faces]), SHEET_PX)
            if folder is None:
                drawn.append(image)
            else:
                write_whole(map_path(folder, path, "faces"), image)
            progress.show("finding faces", done, len(images))
    return drawn if folder is None else None


def _write(
    read: Sequence[Path],
    rows: "Sequence[Sequence[Explanation]]",
    columns: list[str],
    folder: Path | None,
    out: Path,
    *,
    faces: bool,
) -> None:
    """Write the sheet, if maps don't go to a folder, and report it."""
    from uniemox.predict.explain.sheets import draw_sheet, sheet_html
    from uniemox.predict.explain.writing import write_whole

    drawn = _draw_faces(read, folder) if faces else None
    if folder is None:
        draw = sheet_html if out.suffix.lower() == ".html" else draw_sheet
        write_whole(out, draw(rows, columns, list(map(str, read)), drawn))
    say(f"wrote {out}: {len(read)} image{'s' * (len(read) != 1)}, {len(columns)} map{'s' * (len(columns) != 1)} each")


def _show_scores(measured: "list[tuple[MapScores, ...]]", columns: list[str], as_json: bool) -> None:
    from rich.table import Table

    from uniemox.cli.console import out as console
    from uniemox.predict.explain.scores import summarise

    found = {name: summarise(kept).as_dict() for name, kept in zip(columns, measured, strict=True)}
    if as_json:
        print(json.dumps(found))
        return
    table = Table("model", "score", "mean", "95 % interval", title="Deletion: lower is better. Insertion: higher.")
    for name, summary in found.items():
        values: dict[str, Any] = {key: value for key, value in summary.items() if isinstance(value, dict)}
        for key, value in values.items():
            low, high = value["interval"]
            table.add_row(name, key, f"{value['mean']:.3f}", f"{low:.3f} to {high:.3f}")
    console.print(table)
