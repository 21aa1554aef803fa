"""Augmentation of fine-tuning: of the views of a sample, and of a batch with its targets."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor

from uniemox.data.sample import Sample
from uniemox.errors import ShapeError
from uniemox.finetune.config import AugmentConfig, Task
from uniemox.finetune.mixing import Mixing, draw_mixing
from uniemox.views.alterations import draw_alteration
from uniemox.views.config import ViewConfig
from uniemox.views.patches import IMAGENET, IMAGENET_MEAN, PixelStats, normalise
from uniemox.views.transforms import TrainViews, Views

Augment = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, slots=True)
class AugmentedViews:
    """Views for fine-tuning: those of `TrainViews`, then altered, then with RandAugment applied to each.

    The draw depends only on seed, epoch and the sample's key. Scene and person are altered alike; RandAugment draws
    separately for each.
    """

    config: ViewConfig
    seed: int
    randaugment: str | None
    """timm's string of RandAugment; None: off."""
    altered: float = 0.0
    """Share of images that are altered, see views/alterations.py."""

    def __call__(self, sample: Sample, epoch: int) -> Views:
        """Return the views of a sample in an epoch.

        Raises:
            ImageError: If the image can't be read; names the image.
            BoxError: If a box does not fit the image; names the image.
        """
        views = TrainViews(self.config, self.seed)(sample, epoch)
        if self.altered > 0:
            generator = random.Random(f"altered/{self.seed}/{epoch}/{sample.key}".encode("utf-8", "surrogatepass"))
            if generator.random() < self.altered:
                views = _change_views(views, draw_alteration(generator))
        if self.randaugment is None:
            return views
        with _seeded_by(f"randaugment/{self.seed}/{epoch}/{sample.key}"):
            return _change_views(views, _randaugment(self.randaugment, self.config.size))


def prepare_targets(
    scene: Tensor | None, person: Tensor | None, targets: Tensor, config: AugmentConfig, task: Task
) -> tuple[Tensor, Mixing | None]:
    """Return smoothed and mixed targets, (N, E) float32 on their own device, and how the views must be mixed.

    Only labels are smoothed. The batch is mixed with itself in reverse order. One draw per batch sets how; the last
    image of an odd batch stays unmixed. Draws come from the global generators of numpy and Python.

    Args:
        scene: (N, 3, S, S), or None; only the shapes of the views count.
        person: (N, 3, S, S), or None.
        targets: (N, E), or (N, 2) for task "affect".
        config: Settings of the augmentation.
        task: Task of the targets.

    Raises:
        ShapeError: If there is no view, or views and targets do not match.
    """
    views = [view for view in (scene, person) if view is not None]
    if not views or targets.ndim != 2 or any(view.shape != (len(targets), *views[0].shape[1:]) for view in views):
        raise ShapeError(
            f"expected views (N, 3, S, S) and targets (N, E), got {[tuple(view.shape) for view in views]} "
            f"and {tuple(targets.shape)}"
        )
    targets = targets.float()
    if task == "label":
        targets = smooth(targets, config.smoothing)
    height, width = views[0].shape[-2:]
    mixing = draw_mixing(len(targets), (height, width), config)
    if mixing is not None:
        targets = mixing.mix_targets(targets)
    return targets, mixing


def augment_views(
    scene: Tensor | None,
    person: Tensor | None,
    config: AugmentConfig,
    mixing: Mixing | None,
    *,
    device: torch.device,
    stats: PixelStats = IMAGENET,
) -> tuple[Tensor | None, Tensor | None]:
    """Return the views on the device, normalised, erased and mixed; None for None.

    Every view is erased separately; scene and person of an image are mixed alike. Draws come from the global generators
    of torch, numpy and Python.

    Args:
        scene: (N, 3, S, S) uint8, RGB, or None.
        person: (N, 3, S, S) uint8, RGB, or None.
        config: Settings of the augmentation.
        mixing: Mixing from `prepare_targets`; None: the views are not mixed.
        device: Device of the results.
        stats: Normalisation of the encoder's pixels.
    """
    views = [normalise(view, device, stats) for view in (scene, person) if view is not None]
    if config.erasing > 0:
        views = [RandomErasing(config.erasing, mode="pixel", device=device)(view) for view in views]
    if mixing is not None:
        pixels = torch.cat(views, dim=1)  # (N, 3 or 6, S, S)
        mixing.mix_pixels(pixels)
        views = list(pixels.split(3, dim=1))
    results = iter(views)
    return (None if scene is None else next(results), None if person is None else next(results))


def smooth(targets: Tensor, share: float) -> Tensor:
    """Return targets (N, E) of which this share, 0 to 1, is spread over all classes (arXiv 1512.00567, section 7)."""
    return (1 - share) * targets + share / targets.shape[1]


@lru_cache(maxsize=8)
def _randaugment(name: str, size: int) -> Augment:
    """Return timm's RandAugment for views of a size in px, set up as in its own training; gaps get the mean colour."""
    colour = tuple(round(255 * value) for value in IMAGENET_MEAN)
    options = {"translate_const": int(size * 0.45), "img_mean": colour, "interpolation": Image.Resampling.BICUBIC}
    augment = rand_augment_transform(name, options)
    for operation in augment.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return augment


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Apply timm's posterize with at least one bit: timm's range includes 0 bits, which Pillow refuses."""
    return ImageOps.posterize(image, max(1, min(bits, 8)))


def _change_views(views: Views, augment: Augment) -> Views:
    """Apply an augmentation to the scene, then to the person."""
    return replace(views, scene=_change(views.scene, augment), person=_change(views.person, augment))


def _change(view: Tensor, augment: Augment) -> Tensor:
    """Apply an augmentation of Pillow images to a view, (3, S, S) uint8, and return it in the same form."""
    image = augment(Image.fromarray(view.permute(1, 2, 0).numpy()))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@contextmanager
def _seeded_by(name: str) -> Iterator[None]:
    """Seed the global generators of Python and numpy, which timm draws from, by the name alone, inside the context."""
    state = random.getstate()
    numpy_state = np.random.get_state()
    random.seed(name.encode("utf-8", "surrogatepass"))
    np.random.seed(random.getrandbits(32))
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
