"""Plans of figures 4, 6, 8 and 9, and the images that they show."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from uniemox.data import PERSONS, DataSet, Sample, decode_sample, json_line, teacher_text
from uniemox.errors import ConfigError, DataError, ImageError
from uniemox.io import SPLITS, Html, decode, jpeg_url, read_json_object, render, write_file
from uniemox_paper.ablations import NO_ALIGNMENT, NO_VISUAL
from uniemox_paper.config import Name
from uniemox_paper.plan import OUT, Plan, PlannedRun
from uniemox_paper.results import is_done
from uniemox_paper.sources import DataSource, digest_of_weights
from uniemox_paper.study import Study
from uniemox_paper.table3 import OURS, SCRATCH, method_of

LIST = "pictures.json"
SHEET = "sheet.png"
MAX_SIDE_PX = 640


def write_images(data: DataSet, out: Path, *, count: int, seed: int, with_emotion: bool = False) -> list[Path]:
    """Draw images, taking classes in turn, and write 00.png, 01.png, ... with a list of labels and texts.

    Known people are written to persons.jsonl. Unreadable images are skipped.

    Args:
        data: Data set to draw from.
        out: Folder to write to.
        count: Number of images, at least 1; fewer are written if there are fewer.
        seed: Random seed for the selection.
        with_emotion: End the texts with the emotion if the annotation has one, as in `teacher_text`.

    Raises:
        ConfigError: If the count is below 1.
        DataError: If no image can be read.
    """
    if count < 1:
        raise ConfigError(f"--count must be at least 1, got {count}")
    out.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = []
    people = [json_line({"detector": f"as {data.name} has them"})]
    for sample in _in_turn(data, seed):
        if len(entries) == count:
            break
        try:
            image, _ = decode_sample(sample)
        except ImageError:
            continue
        width = image.width
        image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
        name = f"{len(entries):02d}.png"
        image.save(out / name)
        if (boxes := _boxes(sample, image.width / width)) is not None:
            people.append(json_line({"key": name, "boxes": boxes}))
        text = teacher_text(sample, with_emotion)
        entries.append({"file": name, "key": sample.key, "label": data.label_of(sample), "text": text})
    if not entries:
        raise DataError(f"none of the images of {data.name} can be read")
    write_file(out / PERSONS, b"".join(people).decode())
    write_file(out / LIST, json.dumps({"data": data.name, "seed": seed, "pictures": entries}, indent=2) + "\n")
    return [out / entry["file"] for entry in entries]


def _boxes(sample: Sample, scale: float) -> list[list[float]] | None:
    """Return people as in a line of persons.jsonl: the target person if the data name one, else all."""
    if sample.target_box is not None:
        return [[*(value * scale for value in sample.target_box), 1.0]]
    if sample.persons is None:
        return None
    return [[*(value * scale for value in person.box), person.confidence] for person in sample.persons]


def read_images(folder: Path) -> list[dict[str, Any]]:
    """Read the output of `write_images`: file, key, label, text.

    Raises:
        ConfigError: If it is missing.
    """
    return list(read_json_object(folder / LIST)["pictures"])


def _in_turn(data: DataSet, seed: int) -> Iterator[Sample]:
    """Yield all samples in random order, one of each class after the other."""
    shuffled = sorted(data.samples, key=lambda sample: sample.key)
    random.Random(seed).shuffle(shuffled)
    waiting: dict[int | None, list[Sample]] = {}
    for sample in shuffled:
        waiting.setdefault(sample.label, []).append(sample)
    labels = sorted(waiting, key=lambda label: -1 if label is None else label)
    while any(waiting.values()):
        for label in labels:
            if waiting[label]:
                yield waiting[label].pop(0)


# Images per sheet: one of each of eight classes.
SHOWN_IMAGES = 8
SHOWN_PX = 420
SHEET_PX = 1600
# Number of schemes in figure 6; the paper says "many".
SCHEMES = 100
# Methods of figure 8, except the two that need no checkpoint.
FIG8_METHODS = ("DINO", "MAE", "MoCoV3", "SiameseIM", "TinyMIM", "dBOT")
# Data set of the images that the paper shows.
PAPER_DATA = {"fig4": "EmoSet", "fig6": "Emo8", "fig8": "EmoSet", "fig9": "EmoSet"}
RECONSTRUCTION = {**{**NO_ALIGNMENT, **NO_VISUAL}, **{"model.losses.person_reconstruction": 0, "model.fusion": None}}


def fig4(study: Study) -> Plan:
    """Plan figure 4: images with the texts made from their annotations."""
    target = _target(study, "fig4")
    images_run = _images(study, target, "" if study.is_demo else "train")

    def sheet() -> Html:
        if not is_done(images_run):
            return render("uniemox_paper/not_run.html", run=images_run)
        entries = [
            {
                "label": entry["label"] or "no label",
                "text": entry["text"] or "no text",
                "url": jpeg_url(_image(images_run.folder / entry["file"]), max_side_px=SHOWN_PX),
            }
            for entry in read_images(images_run.folder)
        ]
        return render("uniemox_paper/figure.html", images=entries)

    about = "The teacher's texts in pre-training. Images are drawn at random, one class after the other."
    return _plan(study, "fig4", "images and their texts", (about,), images_run, sheet)


def fig6(study: Study) -> Plan:
    """Plan figure 6: the scheme whose splits have the most similar colours."""
    data = _target(study, "fig6")
    options = {"schemes": SCHEMES, "plot": f"{OUT}/choice.png", **data.exclude}
    name = f"choose a split of {data.name}"
    file = f"{OUT}/{SPLITS}"
    run = replace(data, needs=()).run(
        study.config.out, name, "data split", data.origin, file, options=options, makes=SPLITS
    )
    about = (
        f"The best of {SCHEMES} stratified schemes of 80/10/10: its training and validation images are closest in the "
        "first two principal components of their colour histograms (Fréchet distance). The paper judges plots "
        "of the same data and names no measure."
    )
    sheet = partial(_sheet_of, run, "choice.png", "The schemes, and the one that was chosen")
    return _plan(study, "fig6", "choice of a split", (about,), run, sheet)


def fig8(study: Study) -> Plan:
    """Plan figure 8: Grad-CAM of each method in the last block."""
    target = _target(study, "fig8")
    images_run = _images(study, target)
    names = [SCRATCH, *(name for name in FIG8_METHODS if name in study.weights), OURS]
    models = [study.finetune(method_of(study, name), target, seed=study.seeds[0]) for name in names]
    run = PlannedRun(
        name="figure 8",
        kind="explain",
        arguments=(images_run.folder,),
        options={"model": tuple(model.folder for model in models), "method": "grad-cam", "out": f"{OUT}/{SHEET}"},
        root=study.config.out,
        makes=SHEET,
        needs=(images_run, *models),
    )
    about = (
        f"Columns from the left: {', '.join(names)}. A row is an image; the colour is the Grad-CAM of the prediction "
        "in the last block.",
        "The paper says its own regions are more salient and gives no measure; `uniemox explain --scores` has one.",
    )
    sheet = partial(_sheet_of, run, SHEET, f"Heat maps of {', '.join(names)}")
    return _plan(study, "fig8", "where methods look", about, run, sheet)


def fig9(study: Study) -> Plan:
    """Plan figure 9: reconstruction of hidden patches by our pre-training and by reconstruction alone."""
    images_run = _images(study, _target(study, "fig9"))
    mae = study.weights.get("MAE")
    scene_only = study.pretrain("reconstruction alone", RECONSTRUCTION)
    full = study.pretrain()
    models: list[Path | str] = [full.folder, scene_only.folder]
    digests: tuple[str, ...] = ()
    last_column = " with --weights MAE=mae_visualize_vit_large.pth, a file with its decoder."
    if mae:
        models.append(mae)
        digests = digest_of_weights(mae)
        last_column = f", of {mae}."
    run = PlannedRun(
        name="figure 9",
        kind="explain",
        arguments=("reconstruct", images_run.folder),
        options={"model": tuple(models), "out": f"{OUT}/{SHEET}"},
        root=study.config.out,
        makes=SHEET,
        needs=(images_run, full, scene_only),
        digests=digests,
    )
    about = (
        "UniEmoX, and the same network trained by reconstruction of the scene alone, which is MAE's objective, on the "
        "same images for the same number of steps. The paper compares with MAE's own weights, which were trained on "
        f"ten times as many images for eight times as many epochs: the last column{last_column}"
    )
    sheet = partial(_sheet_of, run, SHEET, "Images, their visible patches, and their reconstructions")
    return _plan(study, "fig9", "what is rebuilt", (about,), run, sheet)


def _target(study: Study, figure: str) -> DataSource:
    """Return the data set of the paper's images; if it was not given, the first of the others."""
    targets = study.targets
    if study.is_demo:
        return targets[0]
    paper_target = next(target for target in targets if target.name == PAPER_DATA[figure])
    available = [target for target in targets if target.digests]
    if paper_target in available or not available:
        return paper_target
    return available[0]


def _images(study: Study, target: DataSource, split: str = "") -> PlannedRun:
    """Return a run that writes images as files.

    Args:
        study: The study.
        target: Data set to draw from.
        split: Split to draw from; empty: the scored split, whose images no model was trained on.
    """
    data = target.scored.with_people()
    options = {"data": data.source, "split": split or target.split, **data.files, **data.people}
    options |= {"count": SHOWN_IMAGES, "seed": study.seeds[0], "out": OUT}
    if study.with_emotion:
        options["with_emotion"] = True
    return data.run(study.config.out, "images to show", "reproduce images", options=options, makes=LIST)


def _plan(
    study: Study, name: Name, title: str, about: tuple[str, ...], run: PlannedRun, sheet: Callable[[], Html]
) -> Plan:
    """Plan a page with a run's output, with a note if the images are not from the paper's data set."""
    dataset = _target(study, name).name
    paper_dataset = PAPER_DATA[name]
    if not study.is_demo and dataset != paper_dataset:
        about += (f"The images are from {dataset}; the paper shows {paper_dataset}, which was not given.",)
    title = f"Figure {name.removeprefix('fig')}: {title}"
    scale = study.config.scale
    return Plan(name=name, title=title, scale=scale, about=about, more=(run,), parts=(sheet,))


def _sheet_of(run: PlannedRun, name: str, caption: str) -> Html:
    """Return an image that a run wrote, as HTML."""
    path = run.folder / name
    if not path.exists():
        return render("uniemox_paper/not_run.html", run=run)
    url = jpeg_url(_image(path), max_side_px=SHEET_PX, quality=88)
    return render("uniemox_paper/figure.html", url=url, caption=caption)


def _image(path: Path) -> Image.Image:
    try:
        return decode(path.read_bytes(), str(path))[0]
    except OSError as error:
        raise ImageError(f"{path}: can't be read ({error.strerror}); remove its folder and run this again") from error
