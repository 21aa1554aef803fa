"""The settings of a teacher of our own."""

from dataclasses import dataclass

from uniemox.errors import ConfigError
from uniemox.training.config import check_numbers

SMALL_PATCH_PX = 12  # of the small tower that is fitted where none is given


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """Settings for fitting a teacher."""

    image_tower: str | None = None
    """A frozen image tower, timm:NAME or timm:NAME@FILE, several with commas; None: a small one is fitted as well."""
    width: int = 64
    """C, channels of the teacher's features."""
    image_size: int | None = None
    """Side of the small tower's input, px; None: 96. A frozen tower has its own."""
    views: int = 2
    """Of each image, nearer and farther, taken in turn and kept in memory (3 bytes a px); a frozen tower sees one."""
    epochs: int = 16
    """Passes over the images."""
    batch_size: int = 64
    """Images that are compared with each other."""
    lr: float = 2.5e-3
    """Highest learning rate."""
    seed: int = 0
    """Of the weights, the held-out images, the crops and the order."""
    with_emotion: bool = True
    """Texts made of annotations end with the emotion, which is the label in words; other texts stay as they are."""
    workers: int = 2
    """Processes that read images; 0 reads in this one. No number changes the result."""
    max_unreadable: int = 20
    """So many images that can't be read are left out; one more stops the fit."""

    def __post_init__(self) -> None:
        least_of = {"width": 1, "views": 1, "epochs": 1, "batch_size": 2, "seed": 0, "workers": 0, "max_unreadable": 0}
        check_numbers(self, above={"lr": 0}, at_least=least_of)
        size = self.image_size
        if size is not None and (self.image_tower is not None or size < 2 * SMALL_PATCH_PX or size % SMALL_PATCH_PX):
            raise ConfigError(
                f"image_size must be a multiple of {SMALL_PATCH_PX}, at least two of them, and not be given with "
                f"image_tower, which has its own; got {size} and {self.image_tower}"
            )
