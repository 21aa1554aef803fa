"""Complete settings of pre-training. Variants are `dataclasses.replace` of these, or options of the command."""

from collections.abc import Callable, Mapping

from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.pretrain.config import EncoderConfig, PretrainConfig, TeacherConfig
from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig, ScheduleConfig
from uniemox.views.config import ViewConfig


def paper() -> PretrainConfig:
    """The paper's run: ViT-L/16 from dBOT's weights, Γ2, CLIP ViT-B/16, 200 epochs of EmoSet's train.

    The paper gives neither learning rate nor batch size. Both are ours, as is clipping: 1.5e-4 per 256 images, MAE's
    (arXiv 2111.06377), so 6e-4 at a batch of 1024. The release's default of 1e-3 is for 2 images a GPU, 6e-5 on eight.
    Tables V and VI: --encoder.start none --schedule.epochs 150, table V with --model.fusion static.
    Not run by us: it needs GPUs.
    """
    return PretrainConfig(
        encoder=EncoderConfig(start="dbot_vit_large.pth"),
        optimizer=OptimizerConfig(base_lr=1.5e-4, max_grad_norm=1.0),
        batch_size=1024,
        stop_on_divergence=True,
        hardware=HardwareConfig(compile=True),
    )


def best() -> PretrainConfig:
    """Return the paper's settings with DINOv2's ViT-L/14 as start and CLIP ViT-L/14 as teacher. Not run by us.

    Low rate, clipping and layer-wise decay keep the start alive, and Γ2 with scaled products does not collapse;
    docs/training.md and docs/method.md have what was measured on a small one. The rate is 6.25e-5 at a batch of 64,
    times the square root of the batch's growth: 2.5e-4 at 1,024.
    """
    return PretrainConfig(
        encoder=EncoderConfig(start="timm:vit_large_patch14_dinov2.lvd142m"),
        model=ModelConfig(fusion="scaled_attention"),
        teacher=TeacherConfig(source="clip:ViT-L-14-quickgelu@openai"),
        schedule=ScheduleConfig(epochs=50, warmup_epochs=5),
        optimizer=OptimizerConfig(base_lr=6.25e-5, max_grad_norm=1.0),
        layer_decay=0.75,
        batch_size=1024,
        stop_on_divergence=True,
        hardware=HardwareConfig(compile=True),
    )


def demo() -> PretrainConfig:
    """Minutes on two CPU cores: a ViT of 1.2 million parameters at 96 px, for synthetic scenes and small data sets.

    The teacher is what `uniemox teacher fit` wrote: --teacher.source fitted:FOLDER.
    """
    return PretrainConfig(
        encoder=EncoderConfig(name="vit_tiny_patch16_224", patch_size=12, embed_dim=128, depth=5, num_heads=4),
        model=ModelConfig(fusion="gated", decoder=DecoderConfig(width=64, depth=2, heads=4)),
        view=ViewConfig(size=96, min_area=0.5),
        teacher=TeacherConfig(source="fitted:runs/teacher", view="whole_and_person"),
        optimizer=OptimizerConfig(base_lr=1.2e-2, max_grad_norm=1.0),
        schedule=ScheduleConfig(epochs=10, warmup_epochs=1),
        save=SaveConfig(every_steps=200),
        batch_size=32,  # more steps for the same images: faces need them
        hardware=HardwareConfig(threads=1),
    )


PRESETS: Mapping[str, Callable[[], PretrainConfig]] = {"paper": paper, "best": best, "demo": demo}
