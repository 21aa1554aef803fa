"""Commands about published checkpoints."""

import json
from pathlib import Path

from uniemox.cli.console import JsonFlag, need, out, progress_bar


def convert(
    source: Path,
    target: Path,
    /,
    *,
    method: str = "auto",
    heads: int | None = None,
    image_size: int | None = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn a published checkpoint into safetensors under timm's names, without running code from it.

    Example: uniemox convert mae_pretrain_vit_base.pth mae.safetensors

    Parameters
    ----------
    source
        A weight file of MoCo v3, DINO, BEiT, MAE, SimMIM, TinyMIM, SiameseIM, MixMAE, dBOT or CAE, or a
        ViT of torchvision.
    target
        The file to write, ending in .safetensors.
    method
        Whose file it is, if it should not be recognised: moco_v3, dino, beit, mae, simmim, simmim_swin, tinymim,
        siameseim, mixmae, dbot, cae, uniemox, timm or torchvision.
    heads
        Attention heads, where neither the file nor the published sizes tell.
    image_size
        Side of the input in px; position tables are resized as the method's own fine-tuning does it.
    as_json
        Print the report as JSON.
    """
    need("torch", "timm", "safetensors", extra="train")
    from dataclasses import asdict

    from uniemox.checkpoints.saving import convert as convert_file

    report, line = convert_file(source, target, method=method, heads=heads, image_size=image_size)
    if as_json:
        print(json.dumps({**asdict(report), "written": str(target), "load_with": line}))
        return
    print(report)
    print(f"  wrote {target}; load it with\n    {line}")


def models(*methods: str, as_json: JsonFlag = False) -> None:
    """Measure every network of the paper's table III on this machine's CPU; the paper's figures stand beside ours.

    The six methods that the paper cites from elsewhere stand on the backbone of ours, with their detectors. All take
    about two minutes.

    Example: uniemox models MAE UniEmoX

    Parameters
    ----------
    methods
        Rows of the table, by the paper's names; all of them if none is given.
    as_json
        Print a JSON object a row.
    """
    need("torch", "timm", extra="train")
    from uniemox.bench.models import measure_models
    from uniemox.bench.tables import models_tables

    rows = []
    with progress_bar() as progress:
        task = progress.add_task("measuring", total=len(methods) or None)
        for row in measure_models(methods):
            progress.update(task, advance=1, description=f"measured {row.method}")
            rows.append(row)
            if as_json:
                print(json.dumps(row.as_dict()), flush=True)
    if not as_json:
        for table in models_tables(rows):
            out.print(table)
