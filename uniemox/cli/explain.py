"""The commands that show what supports a prediction, and how pre-trained models reconstruct hidden patches."""

import json
import os.path
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter
from rich.table import Table

from uniemox.cli.console import EXIT_UNREADABLE, Flag, JsonFlag, JsonObject, need, progress_bar, say, show_all
from uniemox.errors import BoxError, ConfigError, ImageError
from uniemox.plurals import counted

if TYPE_CHECKING:
    from PIL import Image

    from uniemox.insight.explain.explanation import Explanation
    from uniemox.insight.explain.maps import Explainer
    from uniemox.insight.explain.scores import MapScores
    from uniemox.persons.box import Detection

# A sheet is built in memory, so its number of rows is limited.
MAX_ROWS = 200
# Longer side of an image in a sheet.
SHEET_PX = 512
explain = App(name="explain")
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
    """Draw a heat map over each image, one column per model, as in figure 8 of arXiv 2409.18877.

    A model that reads person boxes takes them from persons.jsonl in the image's folder (see uniemox data persons), or
    else runs the embedded person detector. Exits with 3 if an image could not be read; all others are processed.

    For example:

    - uniemox explain photo.jpg --out sheet.png
    - uniemox explain photos --model runs/fi runs/fi-scratch --label awe --faces find --out sheet.html
    - uniemox explain photos --model runs/fi --method both --scores --json --out maps

    Args:
        files: Images, folders, or patterns.
        out: sheet.png or sheet.html: one sheet with all images. A folder: one PNG per map, as large as the image, such
            as FOLDER/photos/a.jpg.MODEL.png.
        model: One or more runs, model.onnx files or names hub:owner/name/file. Default: the package's model.
        label: Label to explain. Default: each model's most probable label.
        method: cam: class-activation map of a convolutional network. occlusion: any network; about 100 passes. auto:
            cam if possible, else occlusion. both: compare them. grad-cam: only for runs, including ViTs as in figure 8;
            needs uniemox[train].
        faces: Draw facial expressions, which are not felt emotions: in the first column if --out is a sheet, as
            FOLDER/photos/a.jpg.faces.png if it is a folder. find: detect faces. whole: each image is one face.
        scores: Score the maps by deletion and insertion (RISE). Pixels are removed, hottest first, then inserted in the
            same order. Each score is the area under the curve of the label's probability. Random maps are the baseline.
        as_json: With --scores: print the scores as one JSON object.
    """
    if as_json and not scores:
        raise ConfigError("--json prints the scores; add --scores")
    if method == "grad-cam":
        need("torch", "timm", "safetensors", extra="train")
    from uniemox.insight.explain.maps import open_explainers

    # A wrong name is refused before models are opened.
    folder = out if _is_folder(out) else None
    explainers, columns = open_explainers(model or [None], method)
    max_images = MAX_ROWS if folder is None else None
    images = _images_of(files, max_images=max_images)
    if out.resolve() in (image.resolve() for image in images):
        raise ConfigError(f"--out {out} is one of the images; choose another name")
    rows = _explain_each(images, explainers, label, _people_of(files, explainers), compare=method == "both")
    readable, sheet_rows, map_scores = _write_or_collect(rows, explainers if scores else [], columns, folder)
    drawings = _draw_faces(readable, faces) if faces else None
    _write(out, readable, columns, drawings, None if folder else sheet_rows)
    if scores:
        _show_scores(dict(zip(columns, zip(*map_scores, strict=True), strict=True)), as_json)
    if len(readable) < len(images):
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
    """Show how pre-trained models reconstruct hidden patches, as in figure 9 of arXiv 2409.18877.

    Example: uniemox explain reconstruct photos --model runs/pre mae_visualize_vit_base.pth --out sheet.png

    Args:
        files: Images, or folders of them.
        model: One or more models: a pre-training run, with one column per checkpoint, or an MAE checkpoint that
            includes its decoder. All models get the same mask.
        out: PNG file to write.
        ratio: Share of hidden patches, between 0 and 1.
        seed: Random seed for the masks.
    """
    need("torch", "timm", "safetensors", extra="train")
    if out.suffix.lower() != ".png":
        raise ConfigError(f"--out {out}: the sheet is a PNG; give sheet.png")
    from uniemox.insight.explain.reconstructions import open_reconstructors, reconstruct_images
    from uniemox.predict.plot import write_drawing

    images = _images_of(files, max_images=MAX_ROWS)
    stages = [stage for path in model for stage in open_reconstructors(path)]
    with progress_bar() as progress:
        result = reconstruct_images(stages, images, ratio=ratio, seed=seed, on_progress=progress.show)
    write_drawing(out, result.sheet)
    for error in result.left_out:
        say(f"left out: {error}")
    say(f"wrote {out}")
    values = {"pictures": result.images, "masked_mse": result.errors}
    words = (f"{name}: masked MSE {value:.4f}" for name, value in result.errors.items())
    show_all([json.dumps(values)] if as_json else words)
    if result.left_out:
        sys.exit(EXIT_UNREADABLE)


def _images_of(files: Sequence[Path], *, max_images: int | None) -> list[Path]:
    """Return the images that files, folders and patterns refer to.

    Args:
        max_images: Maximum number of rows of a sheet; None: no limit.

    Raises:
        ConfigError: For no images, or more than the limit.
    """
    from uniemox.io.walking import LeftOut
    from uniemox.predict.images import is_listed_name, list_images

    skipped = LeftOut()
    paths = [Path(name) for name in list_images(list(map(str, files)), skipped=skipped)]
    for note in skipped.notes(is_listed_name):
        say(note)
    if not paths:
        raise ConfigError("there is no image to explain; give image files, folders with images, or patterns")
    if max_images is not None and len(paths) > max_images:
        raise ConfigError(
            f"a sheet shows at most {max_images} images, got {len(paths):,}; give fewer; uniemox explain also "
            "writes maps to a folder, without a limit: --out maps"
        )
    return paths


def _explain_each(
    images: Sequence[Path],
    explainers: "Sequence[Explainer]",
    label: str | None,
    people: "Mapping[Path, tuple[Detection, ...]]",
    *,
    compare: bool,
) -> "Iterator[tuple[Path, list[Explanation]]]":
    """Yield each readable image with every model's map.

    Args:
        people: Detected people by image.
        compare: Explainers come in pairs, two methods for one prediction.

    Raises:
        ImageError: If no image can be read.
    """
    from uniemox.insight.explain.explanation import with_agreement

    explained = disagreeing = 0
    with progress_bar() as progress:
        for done, path in enumerate(images, start=1):
            try:
                row = [explainer.explain(path, label, people.get(path)) for explainer in explainers]
            except (ImageError, BoxError) as error:
                say(f"left out: {error}")
                continue
            finally:
                progress.show("explaining", done, len(images))
            row = with_agreement(row) if compare else row
            explained += 1
            disagreeing += any(explanation.is_unlike for explanation in row)
            yield path, row
    if not explained:
        raise ImageError(f"no image can be read ({len(images)} tried); nothing is written")
    if compare:
        advice = "; trust neither map there" if disagreeing else ""
        say(f"cam and occlusion disagree on {disagreeing} of {counted(explained, 'image')}{advice}")


def _write_or_collect(
    rows: "Iterable[tuple[Path, list[Explanation]]]",
    scored_by: "Sequence[Explainer]",
    columns: list[str],
    folder: Path | None,
) -> "tuple[list[Path], list[list[Explanation]], list[list[MapScores]]]":
    """Write maps to the folder, or collect them for a sheet; return images, collected maps, and scores.

    Args:
        scored_by: Explainers that score the maps; empty: no scores.
    """
    from uniemox.predict.plot import drawing_path, write_drawing

    readable = []
    sheet_rows = []
    scores = []
    for path, row in rows:
        readable.append(path)
        # `scored_by` is empty if no scores were asked for.
        scores.append([explainer.score(cell) for explainer, cell in zip(scored_by, row, strict=False)])
        if folder is None:
            sheet_rows.append([cell.shrunk(SHEET_PX) for cell in row])
        else:
            for name, cell in zip(columns, row, strict=True):
                write_drawing(drawing_path(folder, path, f".{name}.png"), cell.overlay(max(cell.image.size)))
    return readable, sheet_rows, scores


def _people_of(files: Sequence[Path], explainers: "Sequence[Explainer]") -> "dict[Path, tuple[Detection, ...]]":
    """Read persons.jsonl of folders, and next to files, if an explainer needs people.

    Raises:
        DataError: For a damaged file.
    """
    from uniemox.data.people import PERSONS, read_people

    needs_people = any(explainer.needs_person for explainer in explainers)
    candidates = {(path if os.path.isdir(path) else path.parent) / PERSONS for path in files if needs_people}
    existing = filter(os.path.isfile, candidates)
    return {file.parent / key: people for file in existing for key, people in read_people(file).items()}


def _is_folder(out: Path) -> bool:
    """Return True if --out is a folder; create it, or a sheet's parent.

    Raises:
        ConfigError: For other file types.
    """
    is_sheet = out.suffix.lower() in (".png", ".html") and not out.is_dir()
    if out.suffix and not is_sheet and not out.is_dir():
        raise ConfigError(f"--out {out}: give sheet.png, sheet.html, or a folder")
    (out.parent if is_sheet else out).mkdir(parents=True, exist_ok=True)
    return not is_sheet


def _draw_faces(images: Sequence[Path], detection: Literal["find", "whole"]) -> "Iterator[Image.Image]":
    """Yield a drawing of each image with its facial expressions."""
    from uniemox.predict.faces import summarise_faces
    from uniemox.predict.opening import load
    from uniemox.predict.plot import plot_faces
    from uniemox.predict.prediction import Failure

    predictor = load("small", finder=None, faces=detection)
    with progress_bar() as progress:
        for done, prediction in enumerate(predictor.predict_each(images), start=1):
            if isinstance(prediction, Failure):
                # Unexpected: the image could be read before.
                raise ImageError(prediction.error)
            faces = [(face.box, face.expressions) for face in prediction.faces or ()]
            yield plot_faces(prediction.source, faces, summarise_faces([shares for _, shares in faces]), SHEET_PX)
            progress.show("finding faces", done, len(images))


def _write(
    out: Path,
    readable: Sequence[Path],
    columns: list[str],
    drawings: "Iterator[Image.Image] | None",
    rows: "Sequence[Sequence[Explanation]] | None",
) -> None:
    """Write the sheet, or drawings of faces to a folder.

    Args:
        readable: Images that could be read.
        rows: Maps of the sheet; None: the folder already contains them.
    """
    from uniemox.insight.explain.sheets import draw_sheet, sheet_html
    from uniemox.predict.plot import drawing_path, write_drawing

    if rows is not None:
        draw = sheet_html if out.suffix.lower() == ".html" else draw_sheet
        faces = None if drawings is None else list(drawings)
        write_drawing(out, draw(rows, columns, list(map(str, readable)), faces))
    elif drawings is not None:
        for path, drawing in zip(readable, drawings, strict=True):
            write_drawing(drawing_path(out, path, ".faces.png"), drawing)
    say(f"wrote {out}: {counted(len(readable), 'image')}, {counted(len(columns), 'map')} each")


def _show_scores(map_scores: "Mapping[str, Sequence[MapScores]]", as_json: bool) -> None:
    """Print the mean scores of each column's maps."""
    from uniemox.insight.explain.scores import MIN_FOR_INTERVAL, summarise

    summaries = {name: summarise(scores) for name, scores in map_scores.items()}
    table = Table("model", "score", "mean", "95 % interval", title="Deletion: lower is better. Insertion: higher.")
    for name, summary in summaries.items():
        for key, value in summary.items():
            if key != "pictures":
                ends = ""
                if value["interval"] is not None:
                    ends = "{:.3f} to {:.3f}".format(*value["interval"])
                table.add_row(name, key, f"{value['mean']:.3f}", ends)
        if summary["pictures"] < MIN_FOR_INTERVAL:
            images = counted(summary["pictures"], "image")
            say(f"{name}: {images}, too few for an interval ({MIN_FOR_INTERVAL} are needed)")
    show_all([json.dumps(summaries) if as_json else table])
