"""The command that fine-tunes."""

import shlex
from pathlib import Path
from typing import Any

from uniemox.cli.console import Flag, need, say, say_parts
from uniemox.cli.data_files import NO_FILES, DataFiles, FileOptions
from uniemox.cli.settings import config_of, options_of, takes
from uniemox.errors import ConfigError
from uniemox.finetune.config import INIT_MISSING, FinetuneConfig
from uniemox.finetune.presets import PRESETS

DEFAULT = "best"
NO_OPTIONS = ("init",)


@takes(settings=options_of(PRESETS[DEFAULT](), without=NO_OPTIONS))
def finetune(
    *,
    data: str,
    out: Path,
    init: str = "",
    preset: str = DEFAULT,
    resume: Flag = False,
    settings: Any,
    files: FileOptions = NO_FILES,
) -> None:
    """Fine-tune an encoder to classify emotions (arXiv 2409.18877, section III-E).

    The defaults below come from the preset; add --preset demo to --help to see another preset's. Trains on the
    split train; data without splits are split 80/10/10. A killed run continues with --resume, with the same result.

    For example:

    - uniemox finetune --init runs/pre --data fi:photos/fi --out runs/fi
    - uniemox finetune --init embedded --data folder:photos --out runs/mine --method probe
    - uniemox finetune --init scratch:timm:vit_large_patch16_224 --data emoset:EmoSet --out runs/scratch
    - uniemox finetune --init runs/pre --preset paper --data fi:FI,emo8:Emo8 --splits two.json --out runs/two
    - uniemox finetune --method histogram --data fi:photos/fi --out runs/histogram
    - uniemox finetune --method solver --init timm:resnet50.tv_in1k --network.objects yolox_nano.onnx --data
      fi:photos/fi --out runs/solver

    Args:
        init: Initial weights: embedded or small (in this package), a run, a published checkpoint, timm:NAME or
            timm:NAME@FILE. scratch:NAME keeps the architecture of NAME and draws random weights. The features of
            several, separated by commas, are concatenated. Only method histogram needs none.
        data: KIND:PATH, see `uniemox docs data`. Several, separated by commas, are used as one with the labels of
            the first.
        out: Folder of the run: config.json, metrics.jsonl, checkpoints; at the end model.safetensors and
            model.onnx.
        preset: paper, best or demo.
        resume: Continue the run in --out, if there is one.
    """
    _finetune(config_of(FinetuneConfig, settings, init=init), data, out, files, resume)


def _finetune(config: FinetuneConfig, data: str, out: Path, files: DataFiles, resume: bool) -> None:
    need("torch", "timm", "open_clip", "tensorboard", "onnxscript", "sklearn", extra="train")
    if not config.init and config.method != "histogram":
        raise ConfigError(INIT_MISSING)
    dataset = files.open(data, with_texts=config.reads_texts)

    from uniemox.cli.callbacks import ConsoleCallback
    from uniemox.evaluate.run_records import read_run
    from uniemox.finetune.run import finetune as run
    from uniemox.training.processes import is_first

    if is_first():
        say_parts(dataset, sees_person=config.sees_person and config.view.person != "second_crop")
        if config.resolved().augment != config.augment:
            say("detectors need clean images: RandAugment, mixup, CutMix and erasing are off")
    with ConsoleCallback() as console:
        run(config, dataset, out, resume=resume, callback=console)
    if is_first():
        if decision := read_run(out).kept:
            say(f"kept: {decision}")
        # The run has drawn splits of its own if the data had none.
        own_splits = out / "splits.json"
        splits_option = []
        if files.splits is None and own_splits.exists():
            splits_option = ["--splits", str(own_splits)]
        line = shlex.join(["uniemox", "evaluate", "--model", str(out), "--data", data, *files.words(), *splits_option])
        say(f"wrote {out}/model.safetensors and model.onnx; next: {line}")
