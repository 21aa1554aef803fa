"""Targets and settings of a reproduction; needs no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from uniemox.errors import ConfigError

Scale = Literal["demo", "paper"]
Table = Literal["table1", "table2", "table3", "table4", "table5", "table6", "table7", "table8", "table9"]
Name = Literal[Table, "fig4", "fig6", "fig7", "fig8", "fig9", "cross"]
NAMES: tuple[Name, ...] = get_args(Name)


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Settings of a table or figure."""

    scale: Scale = "demo"
    """demo: small networks and budgets, a check rather than evidence; paper: the published recipe."""
    data: tuple[str, ...] = ()
    """KIND:PATH or NAME=KIND:PATH, several after each other; a demo draws synthetic scenes if none is given."""
    out: Path = Path("runs/reproduce")
    """Folder of all runs and pages."""
    weights: tuple[str, ...] = ()
    """ROW=FILE or ROW=timm:NAME: where a row of table III starts, as --init of finetune takes it."""
    exclude: tuple[str, ...] = ()
    """NAME=FILE of `data check --json`, whose list "exclude" is left out of that data set."""
    detector: str | None = None
    """Finds people where data bring none, as --detector of `data persons`; a demo uses the package's own, the paper has
    YOLOv3 (yolov3.cfg)."""
    objects: str | None = None
    """Network of timm that names objects in texts of a demo's own data, NAME or NAME@FILE; none if not given."""
    pretrain_split: tuple[str, ...] = ("train",)
    """Splits that are pre-trained on: train val, or all for the paper's 118,000 pairs, which hold EmoSet's test."""
    seeds: int | None = None
    """Seeds of fine-tuning; if not given 1 for table3 and what shows images, 3 for all else."""
    pretrain_seeds: int = 1
    """Pre-trainings of each kind, at most --seeds; the seeds of fine-tuning start from them in turn."""
    teacher: str | None = None
    """Whose features are distilled, as --teacher.source of pretrain; a demo fits one, the paper has CLIP ViT-B/16."""
    with_emotion: bool | None = None
    """Whether the texts that teachers and pre-training read end with the emotion, the label in words; if not given as
    in the paper's tables at its scale, and not in a demo."""
    gpus: int = 1
    """Of this machine, which a run uses together at the scale of the paper."""
    endpoint: str | None = None
    """Of table8 and table9: the service that is asked, see `uniemox ask`."""
    model: tuple[str, ...] = ()
    """Of table8 and table9: its models, several after each other."""
    key_from: str | None = None
    """Of table8 and table9: name of the environment variable with the key."""

    def __post_init__(self) -> None:
        for name in ("seeds", "gpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"--{name} must be at least 1, got {value}")

    @property
    def is_demo(self) -> bool:
        """Small networks and budgets, for two cores."""
        return self.scale == "demo"
