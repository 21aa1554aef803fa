"""The images of a half on one device, and views drawn there: random crops, flips, persons, and whole images."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.continued.pack import Pack
from experiments.continued.plan import Profile
from uniemox.pretrain.step import PretrainBatch
from uniemox.views.transfer import to_device

# Area of a random crop as a fraction of the image, and the largest ratio of its sides.
MIN_AREA = 0.3
MAX_AREA = 1.0
RATIO = 4 / 3
# Minimum side of a person's box as a fraction of the image.
MIN_PERSON = 0.05


@dataclass(frozen=True, slots=True)
class Images:
    """N images on a device."""

    pixels: Tensor
    """(N, 3, S, S) uint8."""
    labels: Tensor
    """(N,) int64."""
    persons: Tensor
    """Corners of the persons as fractions of the image, (N, 4)."""
    image_features: Tensor
    """Ω, (N, C)."""
    text_features: Tensor
    """Λ without the emotion word, (N, C)."""
    emotion_features: Tensor
    """Λ with the emotion word, (N, C)."""

    @classmethod
    def of(cls, pack: Pack, device: torch.device) -> "Images":
        """Decode all images of a pack and move them to a device."""
        floats = (torch.from_numpy(pack.persons), *pack.features())
        return cls(
            pack.pixels().to(device),
            torch.from_numpy(pack.labels).to(device),
            *(values.to(device) for values in floats),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> "Images":
        """Return some images."""
        return Images(*(getattr(self, name)[rows] for name in self.__slots__))


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Draw crops as fractions of the image, (N, 4), with random area, ratio of the sides and position."""
    area, ratio, x, y = torch.rand(4, count, generator=generator)
    area = MIN_AREA + (MAX_AREA - MIN_AREA) * area
    # Square root of the ratio of the sides.
    stretch = RATIO ** (ratio - 0.5)
    width = (area.sqrt() * stretch).clamp(max=1)
    height = (area.sqrt() / stretch).clamp(max=1)
    left, top = x * (1 - width), y * (1 - height)
    return torch.stack([left, top, left + width, top + height], dim=1)


def sampling_weights(start: Tensor, end: Tensor, flip: Tensor, size: int, side: int) -> Tensor:
    """Return how much each pixel of an axis counts in each pixel of a view: bilinear on a twice as fine grid.

    Args:
        start: Beginning of each box on the axis, as a fraction, (N,).
        end: End of each box, (N,).
        flip: True where the axis is mirrored, (N,).
        size: Size of the images on the axis, px.
        side: Size of the views, px.

    Returns:
        Weights, (N, side, size); each row sums to 1.
    """
    fine = 2 * side
    centres = (torch.arange(fine, device=start.device) + 0.5) / fine  # (2 side,)
    centres = torch.where(flip[:, None], 1 - centres, centres)  # (N, 2 side)
    positions = (start[:, None] + centres * (end - start)[:, None]) * size - 0.5
    positions = positions.clamp(0, size - 1)
    distances = (positions[:, :, None] - torch.arange(size, device=start.device)).abs()
    return (1 - distances).clamp(min=0).unflatten(1, (side, 2)).mean(dim=2)


def cut(pixels: Tensor, boxes: Tensor, flip: Tensor, side: int) -> Tensor:
    """Cut boxes out of images, and mirror some.

    Args:
        pixels: Images, (N, 3, S, S) uint8.
        boxes: Corners of the boxes as fractions, (N, 4).
        flip: True for the images to mirror, (N,).
        side: Side of the result, px.

    Returns:
        The views, (N, 3, side, side) uint8.
    """
    left, top, right, bottom = boxes.unbind(dim=1)
    rows = sampling_weights(top, bottom, torch.zeros_like(flip), pixels.shape[2], side)
    columns = sampling_weights(left, right, flip, pixels.shape[3], side)
    views = rows[:, None] @ pixels.float() @ columns[:, None].mT
    return views.round().clamp(0, 255).byte()


def resize_whole(pixels: Tensor, side: int, *, grey: bool = False) -> Tensor:
    """Return whole images at a size, (N, 3, side, side) uint8; with `grey` without colour (luma of Rec. 601)."""
    if grey:
        weights = torch.tensor([0.299, 0.587, 0.114], device=pixels.device)
        luma = (pixels.float() * weights[:, None, None]).sum(dim=1, keepdim=True).round().byte()
        pixels = luma.expand(-1, 3, -1, -1)
    count = len(pixels)
    boxes = torch.tensor([0.0, 0.0, 1.0, 1.0], device=pixels.device).expand(count, 4)
    return cut(pixels, boxes, torch.zeros(count, dtype=torch.bool, device=pixels.device), side)


def wide_enough(persons: Tensor) -> Tensor:
    """Widen boxes (N, 4), in fractions of the image, that are too thin, so that they stay inside the image."""
    centre = (persons[:, :2] + persons[:, 2:]) / 2
    half = (persons[:, 2:] - persons[:, :2]).clamp(min=MIN_PERSON) / 2
    centre = centre.clamp(min=half, max=1 - half)
    return torch.cat([centre - half, centre + half], dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Views of a step, and the labels of their images."""

    views: PretrainBatch
    labels: Tensor  # (N,)


def batches(
    images: Images,
    profile: Profile,
    *,
    steps: int,
    seed: int,
    done: int = 0,
    with_persons: bool = True,
    reads_emotion: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of the steps from `done` on, every image once per epoch.

    The order, crops, flips and masks of a step depend only on the seed and the step, so that a resumed run continues
    unchanged, and on the CPU's generator, so that they are the same on every device.
    """
    side = profile.side_px
    batch_size = profile.batch_size
    device = images.pixels.device
    steps_per_epoch = max(1, len(images) // batch_size)
    patches = (side // profile.patch_px) ** 2
    texts = images.emotion_features if reads_emotion else images.text_features
    for step in range(done, steps):
        epoch, step_in_epoch = divmod(step, steps_per_epoch)
        # Large factors keep the numbers of different seeds apart.
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1_000_003 * seed + epoch))
        rows = to_device(order[step_in_epoch * batch_size : (step_in_epoch + 1) * batch_size], device)
        generator = torch.Generator().manual_seed(7_000_003 * seed + step + 1)
        count = len(rows)
        boxes = to_device(random_boxes(count, generator), device)
        flip = to_device(torch.rand(count, generator=generator) < 0.5, device)
        noise = to_device(torch.rand(2, count, patches, generator=generator), device)
        pixels = images.pixels[rows]
        person = cut(pixels, wide_enough(images.persons[rows]), flip, side) if with_persons else None
        yield Batch(
            views=PretrainBatch(
                scene=cut(pixels, boxes, flip, side),
                person=person,
                image_features=images.image_features[rows],
                text_features=texts[rows],
                scene_noise=noise[0],
                person_noise=noise[1],
            ),
            labels=images.labels[rows],
        )
