"""Commands about teachers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclopts import App

from uniemox.cli.console import Flag, JsonObject, need, progress_bar, say, say_notes
from uniemox.cli.data_options import Exclude, Splits, Texts
from uniemox.cli.settings import config_of, options_of, takes
from uniemox.plurals import counted
from uniemox.teacher.config import FitConfig

teacher = App(name="teacher", help="Fit your own teacher if no CLIP model is available.")


@teacher.command
@takes(settings=options_of(FitConfig, without=("with_emotion", "views", "lr", "workers", "max_unreadable")))
def fit(
    *,
    data: str,
    out: Path,
    settings: Any,
    without_emotion: Flag = False,
    split: str | None = None,
    resume: Flag = False,
    as_json: JsonObject = False,
    texts: Texts = None,
    splits: Splits = None,
    exclude: Exclude = None,
) -> None:
    """Fit a small teacher on images and their texts with SigLIP's loss (arXiv 2303.15343).

    Every tenth image is held out, to measure how well images and texts retrieve each other.

    For example:

    - uniemox teacher fit --data synthetic:2048 --out runs/teacher
    - uniemox teacher fit --data csv:captions.csv --out runs/teacher --image-tower timm:resnet18@resnet18.safetensors

    Args:
        data: KIND:PATH, or several separated by commas. Samples without a text are skipped.
        out: Folder for the teacher, teacher.json and teacher.safetensors; other commands read it as fitted:OUT.
        without_emotion: Leave the label out of texts made from annotations, so that distillation transfers no labels.
        split: Split to use, or all. Default: train, or everything if the data have no splits.
        resume: Continue the fit in --out, if there is one, with the same result.
    """
    need("torch", "timm", "open_clip", "safetensors", "tensorboard", extra="train")
    from uniemox.cli.callbacks import ConsoleCallback
    from uniemox.data.source import open_data
    from uniemox.teacher.fitting import fit_teacher
    from uniemox.training.hardware import keep_freed_memory

    config = config_of(FitConfig, settings, with_emotion=not without_emotion)
    dataset = open_data(data, texts=texts, splits=splits, exclude=exclude)
    dataset = dataset.to_describe() if split is None else dataset.to_train(split)
    say_notes(dataset)
    keep_freed_memory()
    with ConsoleCallback() as console:
        about = fit_teacher(dataset, config, out, resume=resume, callback=console).about
    print(json.dumps({"folder": str(out), **about}) if as_json else f"wrote {out}: {_in_words(about['figures'])}")


@teacher.command
def store(
    *,
    teacher: str,
    data: str,
    out: Path,
    texts: Texts = None,
    exclude: Exclude = None,
    with_emotion: Flag = False,
    images_alone: Flag = False,
) -> None:
    """Compute a teacher's features of all whole images and texts once, for any number of pre-training runs.

    For example:

    - uniemox teacher store --teacher fitted:runs/teacher --data shards:fi --out fi.npz
    - uniemox pretrain --teacher.source stored:fi.npz --teacher.no-with-emotion --data shards:fi --out runs/pre

    Args:
        teacher: Teacher, as for --teacher.source of pretrain.
        data: KIND:PATH, or several separated by commas; all their splits are used.
        out: File to write, .npz.
        with_emotion: Append the emotion to texts that are made from annotations, as pretrain does unless you give
            --teacher.no-with-emotion.
        images_alone: Compute image features only; required for a teacher without a text encoder.
    """
    need("torch", "timm", "open_clip", extra="train")
    from uniemox.data.prompts import distinct_texts
    from uniemox.data.source import open_data
    from uniemox.data.unreadable import describe_unreadable, read_unreadable
    from uniemox.teacher.features import store_features, unreadable_file
    from uniemox.teacher.opening import open_teacher
    from uniemox.training.config import HardwareConfig
    from uniemox.training.hardware import keep_freed_memory, setup_device

    dataset = open_data(data, texts=texts, exclude=exclude)
    say_notes(dataset)
    hardware = HardwareConfig()
    device = setup_device(hardware)
    keep_freed_memory()
    with progress_bar() as progress:
        count = store_features(
            open_teacher(teacher, device),
            teacher,
            dataset.samples,
            out,
            texts=[] if images_alone else distinct_texts(dataset.samples, with_emotion),
            hardware=hardware,
            on_progress=progress.show,
        )
    listing = unreadable_file(out)
    for line in describe_unreadable(read_unreadable(listing), listing):
        say(line)
    print(f"wrote {out}: {count} of {counted(len(dataset), 'image')}; use it with --teacher.source stored:{out}")


def _in_words(figures: Mapping[str, Any]) -> str:
    """Describe the scores on held-out images."""
    of_images = figures["picture_to_text"]
    of_texts = figures["text_to_picture"]
    return (
        f"of {figures['pictures']} held-out images {of_images['recall_at_1']:.1%} find their text (by chance "
        f"{of_images['chance_at_1']:.1%}), {of_images['recall_at_5']:.1%} within five; of {figures['texts']} "
        f"texts {of_texts['recall_at_1']:.1%} find their image (by chance {of_texts['chance_at_1']:.1%}), "
        f"{of_texts['recall_at_5']:.1%} within five"
    )
