"""Settings for fitting a teacher."""

from dataclasses import dataclass

from uniemox.bounds import check_numbers
from uniemox.errors import ConfigError

# Side of a patch of the small tower, which is fitted if no image tower is given.
SMALL_PATCH_PX = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """Settings for fitting a teacher."""

    image_tower: str | None = None
    """Frozen image tower, timm:NAME or timm:NAME@FILE, several with commas. None: a small one is fitted too."""
    width: int = 64
    """C, number of channels of the teacher's features."""
    image_size: int | None = None
    """Side of the small tower's input, px. None: 96. A frozen tower has its own size."""
    views: int = 2
    """Random crops per image, used in turn and kept in memory (3 bytes per px). A frozen tower gets whole images."""
    epochs: int = 16
    """Number of passes over the images. Images that do not fill a batch are left out of a pass."""
    batch_size: int = 64
    """Number of images per batch; each text is compared with all of them."""
    lr: float = 2.5e-3
    """Maximum learning rate."""
    seed: int = 0
    """Random seed for weights, held-out images, crops and order."""
    with_emotion: bool = True
    """Append the emotion, the label in words, to texts that are made from annotations. Other texts stay unchanged."""
    workers: int = 2
    """Number of processes that read images; 0 reads in the main process. It does not change the result."""
    max_unreadable: int = 20
    """Maximum number of unreadable images to skip before the fit stops."""

    def __post_init__(self) -> None:
        minima = {"width": 1, "views": 1, "epochs": 1, "batch_size": 2, "seed": 0, "workers": 0, "max_unreadable": 0}
        check_numbers(self, above={"lr": 0}, at_least=minima)
        size = self.image_size
        if size is not None and (self.image_tower is not None or size < 2 * SMALL_PATCH_PX or size % SMALL_PATCH_PX):
            raise ConfigError(
                f"image_size must be a multiple of {SMALL_PATCH_PX}, at least two of them, and not be given with "
                f"image_tower, which has its own; got {size} and {self.image_tower}"
            )
