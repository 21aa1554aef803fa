"""The command that pre-trains."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from uniemox.cli.console import Flag, need, say, say_notes, shell_quoted
from uniemox.cli.data_options import NO_FILES, FileOptions, Texts
from uniemox.cli.settings import config_of, options_of, takes
from uniemox.pretrain.config import PretrainConfig
from uniemox.pretrain.presets import PRESETS

DEFAULT = "paper"
NO_OPTIONS = ("model.teacher_width", "view.crop_fraction")


@takes(settings=options_of(PRESETS[DEFAULT](), without=NO_OPTIONS))
def pretrain(
    *,
    data: str,
    out: Path,
    preset: str = DEFAULT,
    resume: Flag = False,
    split: Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)] = (),
    settings: Any,
    files: FileOptions = NO_FILES,
    texts: Texts = None,
) -> None:
    """Pre-train an encoder on scene, person and text (arXiv 2409.18877, section III).

    The defaults below come from the preset; add --preset demo to --help to see another preset's. Under torchrun the
    same command uses several processes. A killed run continues with --resume, with the same result.

    For example:

    - uniemox pretrain --preset demo --data synthetic:2048 --out runs/pre --teacher.source fitted:runs/teacher
    - uniemox pretrain --preset paper --data emoset:EmoSet --out runs/paper --encoder.start dbot.pth
    - uniemox pretrain --preset best --data emoset:EmoSet,fi:FI --splits two.json --out runs/two
    - torchrun --nproc-per-node 8 -m uniemox pretrain --encoder.start dbot.pth --data shards:EmoSet --out runs/pre

    Args:
        data: KIND:PATH, see `uniemox docs data`. Several, separated by commas, are used as one data set.
        out: Folder of the run: config.json, metrics.jsonl, checkpoints, images; at the end encoder.safetensors.
        preset: paper, best or demo.
        resume: Continue the run in --out, if there is one.
        split: Splits to train on, such as train val, or all. Default: train, or everything if the data have no
            splits.
    """
    config = config_of(PretrainConfig, settings)
    need("torch", "timm", "open_clip", "tensorboard", extra="train")
    dataset = files.open(data, texts=texts).to_train(*split)
    from uniemox.data.order import steps_in_epoch

    # Too few images are refused before torch is imported.
    steps_in_epoch(len(dataset), config.batch_size)

    from uniemox.cli.callbacks import ConsoleCallback
    from uniemox.pretrain.run import pretrain as run
    from uniemox.training.launch import is_first

    if is_first():
        say_notes(dataset, sees_person=config.model.needs_person and config.view.person != "second_crop")
    with ConsoleCallback() as console:
        path = run(config, dataset, out, resume=resume, callback=console)
    if is_first():
        option = "--preset demo " if preset == "demo" else ""
        say(f"wrote {path}; next: uniemox finetune {option}--init {shell_quoted(out)} --data KIND:PATH --out RUN")
