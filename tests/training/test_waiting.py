"""In a step the host waits for the device only once."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from uniemox.finetune.config import AugmentConfig
from uniemox.finetune.step import FinetuneBatch, Objective, finetune_step
from uniemox.labels import MIKELS
from uniemox.model.classifier import Classifier
from uniemox.model.config import ModelConfig
from uniemox.model.methods.relation import build_method
from uniemox.model.regions import RegionReader
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.step import PretrainBatch, pretrain_step
from uniemox.views.patches import IMAGENET

# What asks a tensor for its values, or for a shape that hangs on them.
ASKING = ("item", "tolist", "numpy", "cpu", "nonzero", "unique", "masked_select", "__array__")
CONVERSIONS = ("__bool__", "__float__", "__int__", "__index__")


class Waits(TorchFunctionMode):
    """Counts what would let the host wait for a GPU that a tensor is on."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def __torch_function__(
        self, function: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name in ASKING or name in CONVERSIONS:
            self.found[name] += 1
        return function(*args, **(kwargs or {}))


def test_waits_counts_every_conversion() -> None:
    with Waits() as waits:
        x = torch.ones(2)
        x.sum().item(), x.tolist(), float(x[0]), bool(x[0] > 0), int(x[1]), x.nonzero(), x.numpy()
    assert sum(waits.found.values()) >= 7


def test_a_step_of_pre_training_waits_once(build_model: Callable[..., UniEmoX]) -> None:
    model = build_model()
    config: ModelConfig = model.config
    width = config.teacher_width or config.decoder.width
    size = model.image_size
    scene, person = torch.randint(0, 256, (2, 4, 3, *size), dtype=torch.uint8)
    features = {"image_features": torch.randn(4, width), "text_features": torch.randn(4, width)}
    batch = PretrainBatch(scene=scene, person=person, **features)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    with Waits() as waits:
        pretrain_step(model, optimizer, [batch], max_grad_norm=1.0)
    assert waits.found == {"tolist": 1}


@pytest.mark.parametrize("method", [None, "emoticon"])
def test_a_step_of_fine_tuning_waits_once(method: Any) -> None:
    """Without augmentation, which timm draws on the host; with the detectors of a method too."""
    encoder = timm.create_model("test_vit", num_classes=0, img_size=64)
    relation = None
    streams = "scene"
    if method is not None:
        relation = build_method(method, width=encoder.num_features, channels=8, labels=MIKELS.labels)
        relation.reader = RegionReader(relation.groups, has_detector=True, has_face_finder=True)
        streams = "both"
    model: nn.Module = Classifier(
        encoder, feature_width=encoder.num_features, outputs=8, streams=streams, method=relation
    )
    scene, person = torch.randint(0, 256, (2, 4, 3, 64, 64), dtype=torch.uint8)
    batch = FinetuneBatch(scene=scene, person=person, target=torch.eye(8)[:4])
    plain = AugmentConfig(randaugment=None, mixup=0.0, cutmix=0.0, smoothing=0.1, erasing=0.0)
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-4, fused=True
    )
    with Waits() as waits:
        objective = Objective(task="label", method=relation)
        finetune_step(model, optimizer, [batch], objective=objective, augment=plain, stats=IMAGENET, max_grad_norm=1.0)
    assert waits.found == {"tolist": 1}
