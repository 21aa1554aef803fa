"""Presets of pre-training: complete settings. Change them with `dataclasses.replace` or with options of the command."""

from collections.abc import Callable, Mapping

from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.pretrain.config import EncoderConfig, PretrainConfig, TeacherConfig
from uniemox.training.config import HardwareConfig, OptimizerConfig, SaveConfig, ScheduleConfig
from uniemox.views.config import ViewConfig


def paper() -> PretrainConfig:
    """Return settings for the paper's scale: ViT-L/16 from dBOT's weights, Γ2, CLIP ViT-B/16, 200 epochs of EmoSet.

    The number of epochs is from the paper. Warm-up, weight decay, network and crops are defaults of the authors' code.
    Learning rate, batch size and mask ratio of tables III and IV are not in the paper's main text; they may be in its
    appendix II, which we have not read. So they are our choice, and so is gradient clipping. The rate is MAE's 1.5e-4
    per 256 images (arXiv 2111.06377), which is 6e-4 for a batch of 1024. The authors' code has 1e-3 for 2 images per
    GPU, which is 6e-5 on eight GPUs, and hides 0.90 of the patches. Two versions of it start from dBOT's weights, one
    from MAE's.
    For tables V and VI use --encoder.start none --schedule.epochs 150, and --model.fusion static for table V.
    We have not run this preset, because it needs GPUs.
    """
    return PretrainConfig(
        encoder=EncoderConfig(start="dbot_vit_large.pth"),
        optimizer=OptimizerConfig(base_lr=1.5e-4, max_grad_norm=1.0),
        batch_size=1024,
        stop_on_divergence=True,
        hardware=HardwareConfig(compile=True),
    )


def best() -> PretrainConfig:
    """Return settings for a GPU with weights of DINOv2's ViT-L/14 and CLIP ViT-L/14 as teacher. We have not run it.

    A low learning rate, clipping and layer-wise decay preserve the pre-trained weights. Γ2 with scaled products does
    not collapse. recipes/README.md and docs/method.md have the measurements, made with a small encoder. The rate is
    6.25e-5 for a batch of 64, scaled by the square root of the batch size: 2.5e-4 for 1,024. It keeps all losses of the
    paper, although small networks gained nothing from L1 and L2 (docs/experiments.md).
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
    """Return settings for minutes on two CPU cores: a ViT of 1.2 million parameters, 96 px, for small data sets.

    The teacher is one that `uniemox teacher fit` wrote: --teacher.source fitted:FOLDER.
    """
    return PretrainConfig(
        encoder=EncoderConfig(name="vit_tiny_patch16_224", patch_size=12, embed_dim=128, depth=5, num_heads=4),
        model=ModelConfig(fusion="gated", decoder=DecoderConfig(width=64, depth=2, heads=4)),
        view=ViewConfig(size=96, min_area=0.5),
        teacher=TeacherConfig(source="fitted:runs/teacher", view="whole_and_person"),
        optimizer=OptimizerConfig(base_lr=1.2e-2, max_grad_norm=1.0),
        schedule=ScheduleConfig(epochs=10, warmup_epochs=1),
        save=SaveConfig(every_steps=200),
        # Small batches give more steps per epoch, which learning faces needs.
        batch_size=32,
        hardware=HardwareConfig(threads=1),
    )


PRESETS: Mapping[str, Callable[[], PretrainConfig]] = {"paper": paper, "best": best, "demo": demo}
