"""Targets and settings of a reproduction. This module does not import torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from uniemox.bounds import check_numbers

Scale = Literal["demo", "paper"]
Table = Literal["table1", "table2", "table3", "table4", "table5", "table6", "table7", "table8", "table9"]
Name = Literal[Table, "fig4", "fig6", "fig7", "fig8", "fig9", "cross"]
NAMES: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Settings for reproducing a table or figure."""

    scale: Scale = "demo"
    """demo: small networks and budgets, a check rather than evidence. paper: the defaults of the authors'
    code, with our batch size."""
    data: tuple[str, ...] = ()
    """KIND:PATH or NAME=KIND:PATH, one or more. A demo draws synthetic scenes if no data are given."""
    out: Path = Path("runs/reproduce")
    """Folder for all runs and pages."""
    weights: tuple[str, ...] = ()
    """ROW=FILE or ROW=timm:NAME: initial weights of a row of table III, in any form that --init of finetune takes."""
    exclude: tuple[str, ...] = ()
    """NAME=FILE: leave the images in FILE's list "exclude" out of data set NAME. `data check --json` writes FILE."""
    detector: str | None = None
    """Person detector for data without person boxes, as for --detector of `data persons`. Default: the package's own
    for a demo; the paper uses YOLOv3 (yolov3.cfg)."""
    objects: str | None = None
    """timm network, NAME or NAME@FILE, that names objects for a demo's texts of your own data. Default: none."""
    pretrain_split: tuple[str, ...] = ("train",)
    """Splits to pre-train on, such as train val. all: the paper's 118,000 pairs, which include EmoSet's test split."""
    seeds: int | None = None
    """Number of fine-tuning seeds, at least 1. Default: 1 for table3 and for targets that show images, 3 for others."""
    pretrain_seeds: int = 1
    """Number of pre-training runs of each kind, 1 to --seeds. Fine-tuning seeds use them in turn."""
    teacher: str | None = None
    """Teacher to distil, as for --teacher.source of pretrain. Default: a demo fits one; else CLIP ViT-B/16."""
    with_emotion: bool | None = None
    """End the texts for teachers and pre-training with the emotion, the label in words. Default: as in the paper's
    tables at scale paper; off in a demo."""
    gpus: int = 1
    """Number of this machine's GPUs that one run uses together, at scale paper."""
    endpoint: str | None = None
    """For table8 and table9: address of the model service, see `uniemox ask`."""
    model: tuple[str, ...] = ()
    """For table8 and table9: models of the service, one or more."""
    key_from: str | None = None
    """For table8 and table9: name of the environment variable that holds the API key."""

    def __post_init__(self) -> None:
        check_numbers(self, "--", at_least={"seeds": 1, "gpus": 1})

    @property
    def is_demo(self) -> bool:
        """True for small networks and budgets, for two cores."""
        return self.scale == "demo"
