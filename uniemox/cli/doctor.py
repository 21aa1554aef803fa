"""The command that checks a machine before a long run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from uniemox.cli.console import JsonFlag, need


def doctor(
    *, gpus: Annotated[int, Parameter(validator=Number(gte=1))] = 1, out: Path = Path(), as_json: JsonFlag = False
) -> None:
    """Check this machine before a long run: GPUs, compiler, memory, disk, loading. Takes about a minute.

    Each line is ok, a warning with advice, or the reason why something could not be checked.

    Example: uniemox doctor --gpus 8 --out /scratch/runs

    Args:
        gpus: Number of GPUs of this machine that the run will use.
        out: Folder that the run will write to.
        as_json: Print one JSON object per line.
    """
    need("torch", "timm", "open_clip", extra="train")
    from uniemox.bench.doctor import examine

    for finding in examine(gpus, out):
        if as_json:
            print(json.dumps(asdict(finding)), flush=True)
            continue
        print(f"{finding.state:<12} {finding.name}: {finding.found}", flush=True)
        if finding.remedy:
            print(f"{'':<12} -> {finding.remedy}", flush=True)
