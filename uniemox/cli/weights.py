"""Commands about published checkpoints."""

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from uniemox.cli.console import JsonObject, need, say


def convert(
    source: Path,
    target: Path,
    /,
    *,
    method: str = "auto",
    heads: int | None = None,
    image_size: int | None = None,
    as_json: JsonObject = False,
) -> None:
    """Convert a published checkpoint to safetensors with timm's names, without running code from it.

    Example: uniemox convert mae_pretrain_vit_base.pth mae.safetensors

    Args:
        source: Weight file of MoCo v3, DINO, BEiT, MAE, SimMIM, TinyMIM, SiameseIM, MixMAE, dBOT or CAE, or of a
            torchvision ViT.
        target: File to write, ending in .safetensors.
        method: Method of the file, if it is not recognised: moco_v3, dino, beit, mae, simmim, simmim_swin, tinymim,
            siameseim, mixmae, dbot, cae, uniemox, timm or torchvision.
        heads: Number of attention heads, if neither the file nor the published sizes determine it.
        image_size: Side of the input in px. Position tables are resized as in the method's own fine-tuning.
    """
    need("torch", "timm", "safetensors", extra="train")
    from uniemox.checkpoints.saving import convert as convert_file

    report, line = convert_file(source, target, method=method, heads=heads, image_size=image_size)
    words = f"{report}\n  wrote {target}; load it with\n    {line}"
    print(json.dumps({**asdict(report), "written": str(target), "load_with": line}) if as_json else words)


def fetch(*, preset: Literal["paper", "best"] = "best", to: Path | None = None) -> None:
    """Download the initial weights and the teacher of a pretrain preset, for machines without a network.

    On a cluster, run this on the login node. Then run the command that it prints on the other nodes.

    Example: uniemox fetch --preset best --to /scratch/weights

    Args:
        preset: paper or best.
        to: Folder that all nodes can read. Default: the Hugging Face cache.
    """
    if to is not None:
        # huggingface_hub reads the variable when it is imported.
        os.environ["HF_HUB_CACHE"] = str(to.resolve())
    need("torch", "timm", "open_clip", extra="train")
    from uniemox.checkpoints.timm_networks import TIMM, load_timm
    from uniemox.pretrain.presets import PRESETS
    from uniemox.teacher.opening import open_teacher

    config = PRESETS[preset]()
    start = config.encoder.start or ""
    teacher = config.teacher.source
    file = "" if start.startswith(TIMM) else f" --encoder.start {shlex.quote(start)}"
    if file:
        say(f"{start} is on no hub: download the file yourself; see `uniemox docs checkpoints`")
    else:
        say(f"fetching {start}")
        load_timm(start, None)
    say(f"fetching {teacher}")
    open_teacher(teacher)
    cache = "" if to is None else f"HF_HUB_CACHE={shlex.quote(str(to.resolve()))} "
    print(f"{cache}HF_HUB_OFFLINE=1 uniemox pretrain --preset {preset}{file} --data KIND:PATH --out RUN")
