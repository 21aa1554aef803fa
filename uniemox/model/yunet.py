"""YuNet-n in torch, for methods that read faces; its weights come from the published ONNX file.

Architecture: Wu et al., Machine Intelligence Research 2023 (ShiqiYu/libfacedetection.train, yunet_n). The file's
convolutions come in the order in which these run; the landmarks, its last six, are left out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniemox.model.yolox import STRIDES, Candidates, enlarge, flat, in_shares

WIDTH = 64


class Unit(nn.Sequential):
    """A pointwise and a depthwise 3 x 3 convolution, then ReLU."""

    def __init__(self, inputs: int, outputs: int, *, is_last: bool = False) -> None:
        layers = [nn.Conv2d(inputs, outputs, 1), nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs)]
        super().__init__(*layers, *([] if is_last else [nn.ReLU()]))


class YuNet(nn.Module):
    """A face detector of 0.05 million parameters, trained on WIDER FACE."""

    unused_convolutions = 6  # of the published file

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
        """rgb: (N, 3, H, W), 0 to 255; H and W multiples of 32."""
        maps = self._maps(rgb.flip(1))
        faces, boxes, objectness = (
            [head(one) for head, one in zip(heads, maps, strict=True)]
            for heads in (self.faces, self.boxes, self.objectness)
        )
        places = [in_shares(box, stride, rgb.shape[-2:]) for box, stride in zip(boxes, STRIDES, strict=True)]
        pairs = [flat(one.sigmoid() * other.sigmoid()) for one, other in zip(faces, objectness, strict=True)]
        confidence = torch.cat(pairs, dim=1).sqrt()  # (N, A, 1)
        return Candidates(torch.cat(places, dim=1), confidence[..., 0], confidence[..., :0])

    def _maps(self, bgr: Tensor) -> list[Tensor]:
        """Maps at strides 8, 16 and 32."""
        fine = self.stride8(F.max_pool2d(self.stride4(F.max_pool2d(self.stem(bgr), 2)), 2))
        middle = self.stride16(F.max_pool2d(fine, 2))
        coarse = self.out32(self.stride32(F.max_pool2d(middle, 2)))
        middle = self.out16(middle + enlarge(coarse))
        fine = self.out8(fine + enlarge(middle))
        return [head(one) for head, one in zip(self.heads, (fine, middle, coarse), strict=True)]
