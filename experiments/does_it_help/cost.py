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
# Forward, and backward to inputs and to weights.
PASSES = 3
DISTILLATION = ModelConfig(
    fusion=None, losses=LossWeights(scene_reconstruction=0, person_reconstruction=0, contrastive_feature_alignment=0)
)


def step_gflop(config: ModelConfig, *, with_teacher: bool) -> float:
    """Return the GFLOP of training on one image, with the teacher's image features computed in the step or stored."""
    model = UniEmoX(build_encoder("vit_large_patch16_224"), config)
    # CLIP's image encoder has the same size.
    teacher = timm.create_model("vit_base_patch16_224", num_classes=0, global_pool="token")
    images = torch.zeros(1, 3, SIZE_PX, SIZE_PX)
    features = torch.ones(1, config.decoder.width)
    texts = features if config.needs_text_features else None
    model_cost = multiply_adds(lambda: model(images, images, image_features=features, text_features=texts))
    teacher_cost = multiply_adds(lambda: teacher(images)) if with_teacher else 0
    return 2 * (PASSES * model_cost + teacher_cost) / 1e9


def lines() -> Iterator[str]:
    """Yield the cost of an image with the teacher in the step, and with its features stored."""
    for with_teacher, name in ((True, "teacher in the step"), (False, "teacher's features stored")):
        full, distillation = (step_gflop(config, with_teacher=with_teacher) for config in (ModelConfig(), DISTILLATION))
        yield f"{name}: full {full:.1f} GFLOP, distillation {distillation:.1f} GFLOP, ratio {full / distillation:.2f}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines()) + "\n")
