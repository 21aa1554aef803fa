"""YOLOX-nano and YuNet-n as torch modules inside a classifier.

Batch norms are folded into the convolutions, as in the published ONNX files, so no layer depends on the mode.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (8, 16, 32)
# Channels of YOLOX-nano's feature maps at these strides.
CHANNELS = (64, 128, 256)
# Channels of the maps inside the heads.
WIDTH = 64
# Classes of COCO, of which 0 is a person.
CLASSES = 80
# Maximum log of a box's size in cells. Larger values are not boxes, and their exponential could overflow.
MAX_LOG_SIZE = 10.0


class Candidates(NamedTuple):
    """Raw detections at A positions, before overlapping boxes are removed."""

    boxes: Tensor  # (N, A, 4): x1, y1, x2, y2 as shares of the view
    confidence: Tensor  # (N, A), 0 to 1
    classes: Tensor  # (N, A, 80), 0 to 1; (N, A, 0) from a face detector


class Convolution(nn.Sequential):
    """A convolution that keeps the size at stride 1, then SiLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> None:
        padding = size // 2
        super().__init__(nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups), nn.SiLU())


class Separable(nn.Sequential):
    """A depthwise 3 x 3 and a pointwise convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(Convolution(inputs, inputs, 3, stride, groups=inputs), Convolution(inputs, outputs, 1))


class Bottleneck(nn.Module):
    """1 x 1 convolution, then 3 x 3, with or without a shortcut."""

    def __init__(self, width: int, has_shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(Convolution(width, width, 1), Separable(width, width))
        self.has_shortcut = has_shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        if self.has_shortcut:
            return self.layers(x) + x
        return self.layers(x)


class CrossStage(nn.Module):
    """Block that sends half of the channels through bottlenecks and the others past them (CSPNet, arXiv 1911.11929)."""

    def __init__(self, inputs: int, outputs: int, blocks: int = 1, *, has_shortcut: bool = False) -> None:
        super().__init__()
        half = outputs // 2
        self.through = Convolution(inputs, half, 1)
        self.past = Convolution(inputs, half, 1)
        self.blocks = nn.Sequential(*(Bottleneck(half, has_shortcut) for _ in range(blocks)))
        self.join = Convolution(2 * half, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        through = self.through(x)
        past = self.past(x)
        return self.join(torch.cat([self.blocks(through), past], dim=1))  # (N, outputs, H, W)


class PyramidPooling(nn.Module):
    """Concatenation of the map with its maxima over 5, 9 and 13 cells, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = Convolution(width, width // 2, 1)
        self.widen = Convolution(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        x = self.narrow(x)  # (N, C / 2, H, W)
        maxima = [F.max_pool2d(x, size, stride=1, padding=size // 2) for size in (5, 9, 13)]
        return self.widen(torch.cat([x, *maxima], dim=1))  # (N, C, H, W)


class Head(nn.Module):
    """YOLOX's head of one map: classes, box, objectness."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.stem = Convolution(inputs, WIDTH, 1)
        self.class_layers = nn.Sequential(Separable(WIDTH, WIDTH), Separable(WIDTH, WIDTH))
        self.classes = nn.Conv2d(WIDTH, CLASSES, 1)
        self.box_layers = nn.Sequential(Separable(WIDTH, WIDTH), Separable(WIDTH, WIDTH))
        self.box = nn.Conv2d(WIDTH, 4, 1)
        self.objectness = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return box (N, 4, H, W), objectness (N, 1, H, W) and classes (N, 80, H, W), not decoded.  x: (N, C, H, W)."""
        x = self.stem(x)  # (N, 64, H, W)
        classes = self.classes(self.class_layers(x))  # (N, 80, H, W)
        x = self.box_layers(x)
        return self.box(x), self.objectness(x), classes


class YoloxNano(nn.Module):
    """An object detector of 0.9 million parameters, trained on COCO."""

    published = "YOLOX-nano as Megvii-BaseDetection/YOLOX publishes it (yolox_nano.onnx)"
    unused_convolutions = 0
    """Number of convolutions in that file that this network does not have; they come last."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = CHANNELS
        self.stem = Convolution(12, 16, 3)
        self.dark2 = nn.Sequential(Separable(16, 32, 2), CrossStage(32, 32, has_shortcut=True))
        self.dark3 = nn.Sequential(Separable(32, fine, 2), CrossStage(fine, fine, 3, has_shortcut=True))
        self.dark4 = nn.Sequential(Separable(fine, middle, 2), CrossStage(middle, middle, 3, has_shortcut=True))
        self.dark5 = nn.Sequential(Separable(middle, coarse, 2), PyramidPooling(coarse), CrossStage(coarse, coarse))
        self.narrow_coarse = Convolution(coarse, middle, 1)
        self.up_middle = CrossStage(coarse, middle)
        self.narrow_middle = Convolution(middle, fine, 1)
        self.up_fine = CrossStage(middle, fine)
        self.down_fine = Separable(fine, fine, 2)
        self.out_middle = CrossStage(middle, middle)
        self.down_middle = Separable(middle, middle, 2)
        self.out_coarse = CrossStage(coarse, coarse)
        self.heads = nn.ModuleList(Head(width) for width in CHANNELS)

    def forward(self, rgb: Tensor) -> Candidates:
        """Return candidates.  rgb: (N, 3, H, W), 0 to 255; H and W multiples of 32."""
        # The published weights expect BGR.
        maps = self._maps(rgb.flip(1))
        outputs = [head(level) for head, level in zip(self.heads, maps, strict=True)]
        box_maps, objectness_maps, class_maps = zip(*outputs, strict=True)
        objectness = flatten_maps(objectness_maps).sigmoid()  # (N, A, 1)
        classes = flatten_maps(class_maps).sigmoid()  # (N, A, 80)
        confidence = objectness[..., 0] * classes.amax(dim=2)  # (N, A)
        return Candidates(decode_boxes(box_maps, rgb.shape[-2:]), confidence, objectness * classes)

    def _maps(self, bgr: Tensor) -> list[Tensor]:
        """Return feature maps at strides 8, 16 and 32."""
        # The four pixels of every 2 x 2 square become channels.
        squares = [bgr[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = self.stem(torch.cat(squares, dim=1))  # (N, 12, H / 2, W / 2) -> (N, 16, H / 2, W / 2)
        fine = self.dark3(self.dark2(x))  # (N, 64, H / 8, W / 8)
        middle = self.dark4(fine)  # (N, 128, H / 16, W / 16)
        coarse = self.narrow_coarse(self.dark5(middle))  # (N, 128, H / 32, W / 32)

        # From coarse to fine, and back.
        middle = self.narrow_middle(self.up_middle(torch.cat([enlarge(coarse), middle], dim=1)))
        fine = self.up_fine(torch.cat([enlarge(middle), fine], dim=1))
        middle = self.out_middle(torch.cat([self.down_fine(fine), middle], dim=1))
        return [fine, middle, self.out_coarse(torch.cat([self.down_middle(middle), coarse], dim=1))]


def enlarge(x: Tensor) -> Tensor:
    """Repeat every cell four times: (N, C, H, W) to (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def flatten_maps(maps: Sequence[Tensor]) -> Tensor:
    """Join maps (N, C, H, W) as rows, one map after the other: (N, A, C)."""
    return torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)


def decode_boxes(box_maps: Sequence[Tensor], size: torch.Size) -> Tensor:
    """Return the corners of boxes as shares of the view's width and height.

    Args:
        box_maps: (N, 4, H, W) of each stride: offsets of centres in cells, logs of sizes in cells.
        size: Height and width of the view in px.

    Returns:
        (N, A, 4): x1, y1, x2, y2.
    """
    corners = []
    for box, stride in zip(box_maps, STRIDES, strict=True):
        rows, columns = (torch.arange(side, device=box.device) for side in box.shape[2:])
        cell = torch.stack(torch.meshgrid(columns, rows, indexing="xy")).to(box.dtype)  # (2, H, W)
        centre = box[:, :2] + cell  # (N, 2, H, W)
        half = box[:, 2:].clamp(max=MAX_LOG_SIZE).exp() / 2  # (N, 2, H, W)
        corners.append(torch.cat([centre - half, centre + half], dim=1) * stride)  # (N, 4, H, W), px
    height, width = size
    x1, y1, x2, y2 = flatten_maps(corners).unbind(dim=-1)  # (N, A) each
    return torch.stack([x1 / width, y1 / height, x2 / width, y2 / height], dim=-1)  # (N, A, 4)


class Unit(nn.Sequential):
    """YuNet's block: a pointwise and a depthwise 3 x 3 convolution, then ReLU, except in the last of a head."""

    def __init__(self, inputs: int, outputs: int, *, is_last: bool = False) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, 1),
            nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs),
        ]
        if not is_last:
            layers.append(nn.ReLU())
        super().__init__(*layers)


class YuNet(nn.Module):
    """A face detector of 0.05 million parameters, trained on WIDER FACE."""

    published = "YuNet-n as libfacedetection.train publishes it (yunet_n.onnx)"
    unused_convolutions = 6
    """Number of convolutions in that file that this network does not have; they come last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), Unit(16, 16))
        self.stride4 = nn.Sequential(Unit(16, 16), Unit(16, WIDTH), Unit(WIDTH, WIDTH), Unit(WIDTH, WIDTH))
        self.stride8, self.stride16, self.stride32 = (
            nn.Sequential(Unit(WIDTH, WIDTH), Unit(WIDTH, WIDTH)) for _ in STRIDES
        )
        self.out32, self.out16, self.out8 = (Unit(WIDTH, WIDTH) for _ in STRIDES)
        self.heads = nn.ModuleList(Unit(WIDTH, WIDTH) for _ in STRIDES)
        self.faces, self.boxes, self.objectness = (
            nn.ModuleList(Unit(WIDTH, values, is_last=True) for _ in STRIDES) for values in (1, 4, 1)
        )

    def forward(self, rgb: Tensor) -> Candidates:
        """Return candidates.  rgb: (N, 3, H, W), 0 to 255; H and W multiples of 32."""
        # The published weights expect BGR.
        maps = self._maps(rgb.flip(1))
        face_maps, box_maps, objectness_maps = (
            [head(level) for head, level in zip(heads, maps, strict=True)]
            for heads in (self.faces, self.boxes, self.objectness)
        )
        faces = flatten_maps(face_maps).sigmoid()  # (N, A, 1)
        objectness = flatten_maps(objectness_maps).sigmoid()  # (N, A, 1)
        confidence = (faces * objectness).sqrt()  # (N, A, 1)
        # A face detector has no classes: (N, A, 0).
        return Candidates(decode_boxes(box_maps, rgb.shape[-2:]), confidence[..., 0], confidence[..., :0])

    def _maps(self, bgr: Tensor) -> list[Tensor]:
        """Return feature maps at strides 8, 16 and 32."""
        fine = self.stride8(F.max_pool2d(self.stride4(F.max_pool2d(self.stem(bgr), 2)), 2))
        middle = self.stride16(F.max_pool2d(fine, 2))
        coarse = self.out32(self.stride32(F.max_pool2d(middle, 2)))
        middle = self.out16(middle + enlarge(coarse))
        fine = self.out8(fine + enlarge(middle))
        return [head(level) for head, level in zip(self.heads, (fine, middle, coarse), strict=True)]
