"""Cost of the full objective relative to distillation alone. `python -m experiments.does_it_help.cost`.

Counts multiply-adds at the paper's size: a ViT-L/16, one image of 224 px in two views, and a CLIP ViT-B/16 teacher.
Backward passes count twice; the teacher has none, and its text features are computed once per text.
"""

import sys
from collections.abc import Iterator

import timm
import torch

from uniemox.losses.config import LossWeights
from uniemox.model.config import ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.training.counting import multiply_adds

SIZE_PX = 224
PASSES = 3  # forward, and backward to inputs and to weights
DISTILLATION = ModelConfig(
    fusion=None, losses=LossWeights(scene_reconstruction=0, person_reconstruction=0, contrastive_feature_alignment=0)
)


def step_gflop(config: ModelConfig, *, with_teacher: bool) -> float:
    """Return the GFLOP of training on one image.  with_teacher: its image features are computed in the step."""
    model = UniEmoX(build_encoder("vit_large_patch16_224"), config)
    teacher = timm.create_model("vit_base_patch16_224", num_classes=0, global_pool="token")  # as CLIP's image encoder
    images = torch.zeros(1, 3, SIZE_PX, SIZE_PX)
    features = torch.ones(1, config.decoder.width)
    texts = features if config.needs_text_features else None
    of_model = multiply_adds(lambda: model(images, images, image_features=features, text_features=texts))
    if with_teacher:
        of_teacher = multiply_adds(lambda: teacher(images))
    else:
        of_teacher = 0
    return 2 * (PASSES * of_model + of_teacher) / 1e9


def lines() -> Iterator[str]:
    """Yield the cost of an image with the teacher in the step, and with its features stored."""
    for with_teacher, name in ((True, "teacher in the step"), (False, "teacher's features stored")):
        full, distillation = (step_gflop(config, with_teacher=with_teacher) for config in (ModelConfig(), DISTILLATION))
        yield f"{name}: full {full:.1f} GFLOP, distillation {distillation:.1f} GFLOP, ratio {full / distillation:.2f}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
