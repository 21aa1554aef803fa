"""The commands that show why an image got its answer."""

import json
import os.path
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    faces: Literal["find", "whole"] | None = None,
    scores: Annotated[bool, Parameter(negative="")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Lay a heat map over each image, a column for each model, as figure 8 of arXiv 2409.18877.

    A model that looks at people uses persons.jsonl in the image's folder (uniemox data persons), else the embedded
    finder. Exits with 3 if an image could not be read; the others are done.

    For example:

    uniemox explain photo.jpg --out sheet.png

    uniemox explain photos --model runs/fi runs/fi-scratch --label awe --faces find --out sheet.html

    uniemox explain photos --model runs/fi --method both --scores --json --out maps

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
    _check_asked(method, scores=scores, as_json=as_json)
    from uniemox.predict.explain.explaining import open_explainers

    folder = out if _is_folder(out) else None  # a wrong name is refused before models are opened
    explainers, columns = open_explainers(model or [None], method)
    images = images_of(files, max_images=MAX_ROWS if folder is None else None)
    rows = _explain_each(images, explainers, label, _people_beside(files, explainers), compare=method == "both")
    read, kept, measured = _keep(rows, explainers if scores else [], columns, folder)
    _write(read, kept, columns, out, faces=faces, is_sheet=folder is None)
    if scores:
        _show_scores(list(zip(*measured, strict=True)), columns, as_json)
    if len(read) < len(images):
        sys.exit(EXIT_UNREADABLE)


def _check_asked(method: str, *, scores: bool, as_json: bool) -> None:
    if as_json and not scores:
        raise ConfigError("--json prints the scores; add --scores")
    if method == "grad-cam":
        need("torch", "timm", "safetensors", extra="train")


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
    from uniemox.predict.plot import drawing_path, write_whole

    read, kept, measured = [], [], []
    for path, row in rows:
        read.append(path)
        measured.append([one.score(found) for one, found in zip(scored_by, row, strict=False)])
        if folder is None:
            kept.append([found.shrunk(SHEET_PX) for found in row])
        else:
            for name, found in zip(columns, row, strict=True):
                write_whole(drawing_path(folder, path, f".{name}.png"), found.overlay(max(found.image.size)))
    return read, kept, measured


def _people_beside(files: Sequence[Path], explainers: "Sequence[Explainer]") -> "dict[Path, tuple[Detection, ...]]":
    """Read persons.jsonl in folders if an explainer needs people. Raises DataError for damaged files."""
    from uniemox.data.people import PERSONS, read_people

    needs_people = any(one.looks_at_people for one in explainers)
    folders = [path for path in files if needs_people and os.path.isfile(path / PERSONS)]
    return {folder / key: found for folder in folders for key, found in read_people(folder / PERSONS).items()}


def _is_folder(out: Path) -> bool:
    """Return True if --out is a folder, and create it. Raises ConfigError for a file of another kind."""
    if out.suffix.lower() in SHEETS and not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        return False
    if out.suffix and not out.is_dir():
        raise ConfigError(f"--out {out}: give sheet.png, sheet.html, or a folder")
    out.mkdir(parents=True, exist_ok=True)
    return True


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
    read: Sequence[Path],
    rows: "Sequence[Sequence[Explanation]]",
    columns: list[str],
    out: Path,
    *,
    faces: Literal["find", "whole"] | None,
    is_sheet: bool,
) -> None:
    """Write the drawings of faces, and the sheet if maps don't go to a folder."""
    from uniemox.predict.explain.sheets import draw_sheet, sheet_html
    from uniemox.predict.plot import drawing_path, write_whole

    drawings = _draw_faces(read, faces) if faces else None
    if is_sheet:
        draw = sheet_html if out.suffix.lower() == ".html" else draw_sheet
        write_whole(out, draw(rows, columns, list(map(str, read)), None if drawings is None else list(drawings)))
    elif drawings is not None:
        for path, drawn in zip(read, drawings, strict=True):
            write_whole(drawing_path(out, path, ".faces.png"), drawn)
    say(f"wrote {out}: {len(read)} image{'s' * (len(read) != 1)}, {len(columns)} map{'s' * (len(columns) != 1)} each")


def _show_scores(measured: "list[tuple[MapScores, ...]]", columns: list[str], as_json: bool) -> None:
    from rich.table import Table

    from uniemox.cli.console import out as console
    from uniemox.predict.explain.scores import summarise

    found = {name: summarise(scores) for name, scores in zip(columns, measured, strict=True)}
    if as_json:
        print(json.dumps(found))
        return
    table = Table("model", "score", "mean", "95 % interval", title="Deletion: lower is better. Insertion: higher.")
    for name, summary in found.items():
        for key, value in summary.items():
            if key != "pictures":
                low, high = value["interval"]
                table.add_row(name, key, f"{value['mean']:.3f}", f"{low:.3f} to {high:.3f}")
    console.print(table)
