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
    """Turn a published checkpoint into safetensors under timm's names, without running code from it.

    Example: uniemox convert mae_pretrain_vit_base.pth mae.safetensors

    Args:
        source: A weight file of MoCo v3, DINO, BEiT, MAE, SimMIM, TinyMIM, SiameseIM, MixMAE, dBOT or CAE, or a ViT of
            torchvision.
        target: The file to write, ending in .safetensors.
        method: Whose file it is, if it should not be recognised: moco_v3, dino, beit, mae, simmim, simmim_swin,
            tinymim, siameseim, mixmae, dbot, cae, uniemox, timm or torchvision.
        heads: Attention heads, where neither the file nor the published sizes tell.
        image_size: Side of the input in px; position tables are resized as the method's own fine-tuning does it.
    """
    need("torch", "timm", "safetensors", extra="train")
    from uniemox.checkpoints.saving import convert as convert_file

    report, line = convert_file(source, target, method=method, heads=heads, image_size=image_size)
    words = f"{report}\n  wrote {target}; load it with\n    {line}"
    print(json.dumps({**asdict(report), "written": str(target), "load_with": line}) if as_json else words)


def fetch(*, preset: Literal["paper", "best"] = "best", to: Path | None = None) -> None:
    """Download the weights that a preset of pretrain starts and learns from, once, where there is a network.

    Nodes of a cluster often have none: run this on the login node, and what it prints on the others.

    Example: uniemox fetch --preset best --to /scratch/weights

    Args:
        preset: paper or best.
        to: Folder that all nodes can read; the Hugging Face cache if not given.
    """
    if to is not None:  # huggingface_hub reads it when it is imported
        os.environ["HF_HUB_CACHE"] = str(to.resolve())
    need("torch", "timm", "open_clip", extra="train")
    from uniemox.checkpoints.timm_networks import TIMM, load_timm
    from uniemox.pretrain.presets import PRESETS
    from uniemox.teacher.opening import open_teacher

    config = PRESETS[preset]()
    start, teacher = config.encoder.start or "", config.teacher.source
    if start.startswith(TIMM):
        say(f"fetching {start}")
        load_timm(start, None)
    elif start:
        say(f"{start} is a file that no hub has; `uniemox docs checkpoints` has its address and hash")
    say(f"fetching {teacher}")
    open_teacher(teacher)
    place = "" if to is None else f"HF_HUB_CACHE={shlex.quote(str(to.resolve()))} "
    print(f"{place}HF_HUB_OFFLINE=1 uniemox pretrain --preset {preset} --data KIND:PATH --out RUN")
