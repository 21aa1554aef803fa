"""Settings of a curve over few labelled images."""

from dataclasses import dataclass, field
from numbers import Integral
from typing import Literal, get_args

from uniemox.bounds import check_numbers
from uniemox.errors import ConfigError
from uniemox.finetune.config import FinetuneConfig, LoraConfig

FewLabelsMethod = Literal["probe", "knn", "prototypes", "lora"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FewLabelsConfig:
    """Settings of curves over few labelled images, see `uniemox.finetune.few_labels`."""

    init: str
    """Encoder: embedded, small, a run, a published checkpoint, timm:NAME@FILE, clip:NAME@FILE; as for
    finetune."""
    methods: tuple[FewLabelsMethod, ...] = ("probe", "knn")
    """Methods of finetune: probe, knn, prototypes, which needs a CLIP and adds zero-shot, and lora, which needs a ViT.
    lora is slow: for every draw it trains 100 steps of at most 32 images, and encodes all test images again."""
    images: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of training images of each class, at least 1."""
    seeds: int = 5
    """Number of draws of the images, at least 1. Three or more have intervals over seeds and images."""
    size: int = 224
    """Side of the encoder's input, px."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    device: Literal["cpu", "cuda"] | None = None
    """Device that encodes the images. None: a GPU if there is one."""
    workers: int | None = None
    """Image-loading processes. None: 1 on the CPU, with a GPU at most 8."""
    max_unreadable: int = 20
    """Maximum number of unreadable images to leave out before the command stops."""

    def __post_init__(self) -> None:
        check_numbers(self, at_least={"seeds": 1, "size": 1, "workers": 0, "max_unreadable": 0})
        # A script may give a single number, or text.
        numbers = self.images if isinstance(self.images, tuple | list) else ()
        are_valid = all(isinstance(number, Integral) and number >= 1 for number in numbers)
        if not numbers or not are_valid or len(set(numbers)) < len(numbers):
            expected = "different numbers of at least 1, such as (1, 4, 16)"
            raise ConfigError(f"images must be {expected}, got {self.images!r}")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ConfigError(f"methods must be different and at least one, got {self.methods}")
        if unknown := set(self.methods) - set(get_args(FewLabelsMethod)):
            raise ConfigError(f"methods must be some of {', '.join(get_args(FewLabelsMethod))}, got {unknown.pop()!r}")
        if "lora" not in self.methods and self.lora != LoraConfig():
            raise ConfigError("the settings of lora need method lora: add lora to --methods, or leave them out")
        if "prototypes" in self.methods:
            # The same settings as those of a run.
            FinetuneConfig(init=self.init, method="prototypes")
