"""What fine-tuning changes about images: RandAugment on each one, then erasing, mixup and cutmix on a batch.

The recipe of MAE's fine-tuning (arXiv 2111.06377, table 9), by timm's functions.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data import Mixup
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from uniemox.data.sample import Sample
from uniemox.errors import ShapeError
from uniemox.finetune.config import AugmentConfig, Task
from uniemox.views.config import ViewConfig
from uniemox.views.pixels import IMAGENET, IMAGENET_MEAN, PixelStats, normalise
from uniemox.views.transforms import TrainViews, Views

Augment = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class AugmentedViews:
    """Views for fine-tuning: those of `TrainViews`, each changed by RandAugment.

    The draw is a function of seed, epoch and the sample's key. RandAugment draws for scene and person anew, and
    `geometry` does not follow what it shifts and turns.
    """

    config: ViewConfig
    seed: int
    randaugment: str | None

    def __call__(self, sample: Sample, epoch: int) -> Views:
        """Views of a sample in an epoch. Raises ImageError or BoxError, with the image's name."""
        views = TrainViews(self.config, self.seed)(sample, epoch)
        if self.randaugment is None:
            return views
        augment = _randaugment(self.randaugment, self.config.size)
        with _drawn_from(f"randaugment/{self.seed}/{epoch}/{sample.key}"):
            return replace(views, scene=_changed(views.scene, augment), person=_changed(views.person, augment))


def augment_batch(
    scene: Tensor | None,
    person: Tensor | None,
    targets: Tensor,
    config: AugmentConfig,
    *,
    task: Task,
    device: torch.device,
    stats: PixelStats = IMAGENET,
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """A batch as the classifier takes it: on the device, normalised, erased and mixed, its targets mixed likewise.

    scene, person: (N, 3, S, S) uint8, RGB, or None.  targets: (N, E), or (N, 2) for task "affect".
    stats: what the encoder's pixels are normalised with.
    Returns float32 tensors of these shapes, None where None was given. Labels are smoothed, other targets are not.
    Every view is erased on its own; scene and person of an image are mixed alike. A batch mixes with itself in reverse
    order, all images in one way, drawn anew each time; the last image of an odd batch stays unmixed.
    Draws come from the global generators of torch, numpy and Python.
    Raises ShapeError if there is no view, or views and targets don't belong together.
    """
    views = [normalise(view, device, stats) for view in (scene, person) if view is not None]
    if not views or targets.ndim != 2 or any(view.shape != (len(targets), *views[0].shape[1:]) for view in views):
        raise ShapeError(
            f"expected views (N, 3, S, S) and targets (N, E), got {[tuple(view.shape) for view in views]} "
            f"and {tuple(targets.shape)}"
        )
    targets = targets.to(device, torch.float32, non_blocking=True)
    if task == "label":
        targets = smooth(targets, config.smoothing)
    if config.erasing > 0:
        views = [RandomErasing(config.erasing, mode="pixel", device=device)(view) for view in views]
    if config.mixup > 0 or config.cutmix > 0:
        pixels, targets = _mix(torch.cat(views, dim=1), targets, config)  # (N, 3 or 6, S, S)
        views = list(pixels.split(3, dim=1))
    left = iter(views)
    return (None if scene is None else next(left), None if person is None else next(left), targets)


def smooth(targets: Tensor, share: float) -> Tensor:
    """Targets (N, E) of which a share, 0 to 1, is spread over all classes (arXiv 1512.00567, section 7)."""
    return (1 - share) * targets + share / targets.shape[1]


def _mix(pixels: Tensor, targets: Tensor, config: AugmentConfig) -> tuple[Tensor, Tensor]:
    """Mixup or cutmix of all images but an odd batch's last, in place. pixels: (N, K, S, S), targets: (N, E)."""
    even = len(pixels) // 2 * 2
    if even == 0:
        return pixels, targets
    mixup = Mixup(config.mixup, config.cutmix, label_smoothing=0.0, num_classes=even)
    _, shares = mixup(pixels[:even], torch.arange(even, device=pixels.device))  # (even, even): who is in whom
    return pixels, torch.cat([shares @ targets[:even], targets[even:]])


@lru_cache(maxsize=8)
def _randaugment(name: str, size: int) -> Augment:
    """timm's RandAugment for views of a size in px, as its own training sets it up; gaps get the mean colour."""
    colour = tuple(round(255 * value) for value in IMAGENET_MEAN)
    options = {"translate_const": int(size * 0.45), "img_mean": colour, "interpolation": Image.Resampling.BICUBIC}
    augment = rand_augment_transform(name, options)
    for operation in augment.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return augment


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """timm's, but with one bit at least: at an end of its range timm asks for none, which Pillow refuses."""
    return ImageOps.posterize(image, max(1, min(bits, 8)))


def _changed(view: Tensor, augment: Augment) -> Tensor:
    """An image through Pillow. view: (3, S, S) uint8.  Returns (3, S, S) uint8."""
    image = augment(Image.fromarray(view.permute(1, 2, 0).numpy()))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@contextmanager
def _drawn_from(name: str) -> Iterator[None]:
    """Inside, the global generators of Python and numpy, which timm draws from, are a function of the name alone."""
    before, before_numpy = random.getstate(), np.random.get_state()
    random.seed(name.encode("utf-8", "surrogatepass"))
    np.random.seed(random.getrandbits(32))
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(before_numpy)
