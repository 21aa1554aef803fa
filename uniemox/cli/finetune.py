"""The command that fine-tunes."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from uniemox.cli.console import Flag, need, say, say_notes
from uniemox.cli.data_options import NO_FILES, DataFiles, FileOptions
from uniemox.cli.settings import config_of, help_of, options_of, takes
from uniemox.finetune.config import FinetuneConfig
from uniemox.finetune.default_init import DEFAULT_INIT, needs_default_init, with_default_init
from uniemox.finetune.presets import PRESETS
from uniemox.labels import quoted

if TYPE_CHECKING:
    from uniemox.data.overlaps import Overlaps
    from uniemox.data.sample import DataSet
    from uniemox.labels import LabelSet

DEFAULT = "best"
# The command has its own parameters for these, because their defaults depend on each other.
NO_OPTIONS = ("init", "method")
METHOD_HELP = f"{help_of(FinetuneConfig, 'method')} Default: full; without --init and without a GPU, probe."


@takes(settings=options_of(PRESETS[DEFAULT](), without=NO_OPTIONS))
def finetune(
    *,
    data: str,
    out: Path,
    init: Annotated[str, Parameter(help=f"{help_of(FinetuneConfig, 'init')} Default with preset best: embedded.")] = "",
    method: Annotated[str | None, Parameter(help=METHOD_HELP)] = None,
    preset: str = DEFAULT,
    resume: Flag = False,
    settings: Any,
    files: FileOptions = NO_FILES,
) -> None:
    """Fine-tune an encoder to classify emotions (arXiv 2409.18877, section III-E).

    The defaults below come from the preset; add --preset demo to --help to see another preset's. Trains on the
    split train; data without splits are split 80/10/10. A killed run continues with --resume, with the same result.

    For example:

    - uniemox finetune --data folder:photos --out runs/mine
    - uniemox finetune --init runs/pre --data fi:photos/fi --out runs/fi
    - uniemox finetune --init scratch:timm:vit_large_patch16_224 --data emoset:EmoSet --out runs/scratch
    - uniemox finetune --init runs/pre --preset paper --data fi:FI,emo8:Emo8 --splits two.json --out runs/two
    - uniemox finetune --method histogram --data fi:photos/fi --out runs/histogram
    - uniemox finetune --method solver --init timm:resnet50.tv_in1k --network.objects yolox_nano.onnx --data
      fi:photos/fi --out runs/solver

    Args:
        data: KIND:PATH, see `uniemox docs data`. Several, separated by commas, are used as one with the labels of
            the first.
        out: Folder of the run: config.json, metrics.jsonl, checkpoints; at the end model.safetensors and
            model.onnx.
        preset: paper, best or demo.
        resume: Continue the run in --out, if there is one.
    """
    need("torch", "timm", "open_clip", "tensorboard", "onnxscript", "sklearn", extra="train")
    from uniemox.training.launch import is_first

    config = config_of(FinetuneConfig, settings, init=init, method=method or "full")
    starts_from_package = needs_default_init(config, preset)
    note = ""
    dataset = files.open(data, with_texts=config.reads_texts)
    if starts_from_package:
        config, note = with_default_init(config, has_method=method is not None)
    elif method is None:
        note = "method full (the default) also trains the encoder; --method probe fits a new head alone, in minutes"
    if note and is_first():
        say(note)
    _finetune(config, dataset, data, out, files, resume)


def _finetune(
    config: FinetuneConfig, dataset: "DataSet", source: str, out: Path, files: DataFiles, resume: bool
) -> None:
    """Run the fine-tuning, and print what to do next."""
    from uniemox.cli.callbacks import ConsoleCallback
    from uniemox.data.overlaps import read_overlaps
    from uniemox.evaluate.run_records import read_run
    from uniemox.finetune.overlaps import sources_of
    from uniemox.finetune.run import finetune as run
    from uniemox.training.launch import is_first

    if is_first():
        say_notes(dataset, sees_person=config.sees_person and config.view.person != "second_crop")
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
        options = ["--data", source, *files.words(), *splits_option]
        overlaps = read_overlaps(out)
        of_run = _refusal(overlaps, sources_of(config))
        of_comparison = of_run or _refusal(overlaps, [DEFAULT_INIT])
        if config.method == "histogram":
            baseline = shlex.join(["--baseline", str(out)])
            say(f"a trivial baseline for other runs on these data: uniemox compare {baseline} ...")
        elif config.task == "label" and dataset.labels.kind == "evoked":
            question = (
                "is it better than the built-in model (with --baseline RUN: and than a run of --method histogram)?"
            )
            say(f"{question} {_comparison(out, options, dataset.labels, of_comparison)}")
        words = ["uniemox", "evaluate", "--model", str(out)]
        say(f"wrote {out}/model.safetensors and model.onnx; next: {_scoring(words, options, of_run)}")


def _refusal(overlaps: "Overlaps", models: list[str]) -> str | None:
    """Return the reason for which `evaluate` refuses the images that a run has left for it; None if it takes them.

    Args:
        overlaps: Overlaps of the run.
        models: Models that are scored, or whose training images count as those of the run.
    """
    if overlaps.scored_images == 0:
        return "the run has read all images of these data"
    scored = f"of the {overlaps.scored_images} images of split {overlaps.scored_split}"
    if overlaps.scored_copies:
        return f"{len(overlaps.scored_copies)} {scored} are copies of images that the run has read"
    for name in models:
        if keys := overlaps.seen_scored.get(name):
            return f"{name} was trained on {len(keys)} {scored}"
    return None


def _scoring(words: list[str], options: list[str], refusal: str | None) -> str:
    """Return the command that scores a run: on the images that it left for this, or else on new ones."""
    if refusal is None:
        return shlex.join([*words, *options])
    return f"{shlex.join(words)} --data KIND:PATH (images that are new to it: {refusal})"


def _comparison(out: Path, options: list[str], labels: "LabelSet", refusal: str | None) -> str:
    """Return the command that compares a run with the package's model; see `_scoring`."""
    from uniemox.errors import LabelError
    from uniemox.labels import MIKELS, scored_labels

    words = ["uniemox", "compare", "--ours", str(out), "--theirs", DEFAULT_INIT]
    try:
        scored_labels(MIKELS, labels)
    except LabelError:
        # The user knows which labels of the model mean the data's.
        options = [*options, "--map", ",".join(f"{quoted(label)}=..." for label in labels.labels)]
    return _scoring(words, options, refusal)
