"""Commands about teachers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from uniemox.cli.console import Files, JsonFlag, need, progress_bar, say, say_parts

teacher = App(name="teacher", help="Fit a teacher of your own, where no CLIP can be had.")


@dataclass(frozen=True, kw_only=True)
class TowerOptions:
    """The network, and how long it is fitted; what is not given is as FitConfig has it."""

    width: int | None = None
    """Channels of its features; 64 if not given."""
    image_size: int | None = None
    """Side of the small image tower's input, px; 96 if not given."""
    epochs: int | None = None
    """Passes over the images; 16 if not given."""
    batch_size: int | None = None
    """Images that are compared with each other; 64 if not given."""


@dataclass(frozen=True, kw_only=True)
class TextFiles:
    """Files beside a data set."""

    texts: Files = None
    """File of `data describe`; if not given, the one beside the data is used."""
    splits: Files = None
    """File of `data split`."""
    exclude: Files = None
    """File of `data check --json`; the images in its list "exclude" are left out."""


@teacher.command
def fit(
    *,
    data: str,
    out: Path,
    image_tower: str | None = None,
    seed: int = 0,
    without_emotion: Annotated[bool, Parameter(negative="")] = False,
    split: str | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    as_json: JsonFlag = False,
    tower: Annotated[TowerOptions, Parameter(name="*")] = TowerOptions(),
    files: Annotated[TextFiles, Parameter(name="*")] = TextFiles(),
) -> None:
    """Fit a small teacher on images and their texts, as SigLIP (arXiv 2303.15343).

    Every tenth image is held out, to measure how well images and texts find each other.

    For example:

    uniemox teacher fit --data synthetic:2048 --out runs/teacher

    uniemox teacher fit --data csv:captions.csv --out runs/teacher --image-tower timm:resnet18@resnet18.safetensors

    Args:
        data: KIND:PATH, or several with commas between them; samples without a text are left out.
        out: Folder of the teacher, teacher.json and teacher.safetensors; commands take it as fitted:OUT.
        image_tower: Frozen, timm:NAME or timm:NAME@FILE, several with commas (arXiv 2111.07991); a small one is fitted
            if not given.
        seed: Of the weights, the held-out images, the crops and the order.
        without_emotion: Leave the label out of texts that are made of annotations, so that no label reaches what is
            distilled.
        split: Use this split only, or all; train if not given, and everything of data that have no splits.
        resume: Continue the fit in --out, if there is one, to the same result.
        as_json: Print where it was written and the figures as JSON.
    """
    need("torch", "timm", "open_clip", "safetensors", "tensorboard", extra="train")
    from uniemox.cli.callbacks import ConsoleCallback
    from uniemox.data.source import open_data
    from uniemox.teacher.config import FitConfig
    from uniemox.teacher.fitting import fit_teacher
    from uniemox.training.hardware import keep_freed_memory

    given: dict[str, Any] = {name: value for name, value in vars(tower).items() if value is not None}
    config = FitConfig(image_tower=image_tower, seed=seed, with_emotion=not without_emotion, **given)
    opened = open_data(data, **vars(files))
    found = opened.to_describe() if split is None else opened.to_train(split)
    say_parts(found)
    keep_freed_memory()
    with ConsoleCallback() as shown:
        about = fit_teacher(found, config, out, resume=resume, callback=shown).about
    if about["broken"]:
        say(f"{about['broken']} images can't be read and were left out")
    print(json.dumps({"folder": str(out), **about}) if as_json else f"wrote {out}: {_in_words(about['figures'])}")


@dataclass(frozen=True, kw_only=True)
class StoredTexts:
    """Files of texts and people for the teacher."""

    texts: Files = None
    """File of `data describe`; if not given, the one beside the data is used."""
    exclude: Files = None
    """File of `data check --json`; the images in its list "exclude" are left out."""
    with_emotion: Annotated[bool, Parameter(negative="")] = False
    """End texts that are made of annotations with the emotion."""
    images_alone: Annotated[bool, Parameter(negative="")] = False
    """Ask about images alone, as a teacher without a text side must be."""


@teacher.command
def store(
    *,
    teacher: str,
    data: str,
    out: Path,
    asked: Annotated[StoredTexts, Parameter(name="*")] = StoredTexts(),
) -> None:
    """Ask a teacher once about all whole images and all texts of a data set, for any number of pre-training runs.

    For example:

    uniemox teacher store --teacher fitted:runs/teacher --data shards:fi --out fi.npz

    uniemox pretrain --teacher.source stored:fi.npz --data shards:fi --out runs/pre

    Args:
        teacher: As --teacher.source of pretrain takes it.
        data: KIND:PATH, or several with commas between them; all splits of it.
        out: File, .npz.
    """
    need("torch", "timm", "open_clip", extra="train")
    from uniemox.data.prompts import distinct_texts
    from uniemox.data.source import open_data
    from uniemox.teacher.features import store_features
    from uniemox.teacher.opening import open_teacher
    from uniemox.training.config import HardwareConfig
    from uniemox.training.hardware import keep_freed_memory, setup_device

    found = open_data(data, texts=asked.texts, exclude=asked.exclude)
    say_parts(found)
    device = setup_device(HardwareConfig())
    keep_freed_memory()
    with progress_bar() as progress:
        task = progress.add_task("asking the teacher about images", total=len(found))
        stored = store_features(
            open_teacher(teacher, device),
            teacher,
            found,
            out,
            texts=[] if asked.images_alone else distinct_texts(found.samples, asked.with_emotion),
            device=device,
            on_progress=lambda done: progress.update(task, completed=done),
        )
    print(f"wrote {out}: {stored} of {len(found)} images; use it with --teacher.source stored:{out}")


def _in_words(figures: Mapping[str, Any]) -> str:
    """Describe the scores on held-out images."""
    of_images, of_texts = figures["picture_to_text"], figures["text_to_picture"]
    return (
        f"of {figures['pictures']} held-out images {of_images['recall_at_1']:.1%} find their text (by chance "
        f"{of_images['chance_at_1']:.1%}), {of_images['recall_at_5']:.1%} within five; of {figures['texts']} "
        f"texts {of_texts['recall_at_1']:.1%} find their image (by chance {of_texts['chance_at_1']:.1%}), "
        f"{of_texts['recall_at_5']:.1%} within five"
    )
