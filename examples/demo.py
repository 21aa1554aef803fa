"""Pre-train a small UniEmoX on synthetic scenes, and look at what it learned. `make demo` runs it.

Each scene is a place with one person in it. The teacher's features are made from the words for both, as a CLIP would
find them in the picture and its text: nothing is downloaded. Takes about a minute on two CPU cores.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from uniemox.data.prompts import describe
from uniemox.data.sample import Sample
from uniemox.data.synthetic import synthetic
from uniemox.losses.total import LossWeights
from uniemox.model.decoder import DecoderConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import ModelConfig, ModelOutput, UniEmoX
from uniemox.pretrain.step import PretrainBatch, forward, pretrain_step
from uniemox.teacher import StoredTeacher, save_features
from uniemox.training.hardware import ready_to_train
from uniemox.training.optimizer import build_optimizer
from uniemox.views.loader import ViewDataset, collate
from uniemox.views.patches import unpatchify
from uniemox.views.pixels import IMAGENET_MEAN, IMAGENET_STD
from uniemox.views.transforms import EvalViews, ViewConfig

OUT = Path("runs/demo")
SIZE, STEPS, BATCH, WIDTH = 96, 720, 32, 64


def words_of(sample: Sample) -> tuple[str, str]:
    """The place of a scene and the expression of its person."""
    return sample.annotation["scene"], sample.annotation["facial_expression"]


def text_of(sample: Sample) -> str:
    """A text of these two alone."""
    place, expression = words_of(sample)
    return describe({"scene": place, "facial_expression": expression}, with_emotion=False)


def make_teacher(samples: list[Sample]) -> StoredTeacher:
    """Features in which pictures and texts of the same words lie close together."""
    torch.manual_seed(7)
    meaning = {word: torch.randn(WIDTH) for word in sorted({word for s in samples for word in words_of(s)})}
    images = torch.stack([sum(meaning[word] for word in words_of(s)) + 0.3 * torch.randn(WIDTH) for s in samples])
    distinct = {text_of(sample): words_of(sample) for sample in samples}
    save_features(
        OUT / "teacher.npz",
        image_keys=[sample.key for sample in samples],
        image_features=images,
        texts=list(distinct),
        text_features=torch.stack([sum(meaning[word] for word in pair) for pair in distinct.values()]),
    )
    return StoredTeacher(OUT / "teacher.npz")


def show_reconstructions(output: ModelOutput, scenes: Tensor, persons: Tensor, grid: tuple[int, int]) -> None:
    """Three rows for each stream: what was seen, what the model made of it, what was there."""
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGENET_MEAN, IMAGENET_STD))
    rows = []
    for pred, mask, pictures in (
        (output.scene_pred, output.scene_mask, scenes),
        (output.person_pred, output.person_mask, persons),
    ):
        hidden = unpatchify(mask.hidden[..., None].expand_as(pred), SIZE // grid[0], grid)  # (N, 3, SIZE, SIZE)
        truth, made = pictures / 255, (unpatchify(pred, SIZE // grid[0], grid) * std + mean).clamp(0, 1)
        rows += [truth * (1 - hidden) + 0.5 * hidden, made * hidden + truth * (1 - hidden), truth]
    figure, axes = plt.subplots(6, 8, figsize=(10, 7.8))
    names = ["scene: seen", "reconstructed", "true", "person: seen", "reconstructed", "true"]
    for name, row, line in zip(names, rows, axes, strict=True):
        for picture, axis in zip(row, line, strict=False):
            axis.imshow(picture.permute(1, 2, 0))
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    figure.tight_layout()
    figure.savefig(OUT / "reconstructions.png", dpi=100)


def show_losses(history: list[dict[str, float]]) -> None:
    """Every loss over the steps."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3))
    for name, axis in zip(LossWeights.__slots__, axes, strict=True):
        axis.plot([step[name] for step in history])
        axis.set(title=name.replace("_", " "), xlabel="step")
    figure.tight_layout()
    figure.savefig(OUT / "losses.png", dpi=100)


def share_found(output: ModelOutput, teacher: StoredTeacher, texts: list[str]) -> float:
    """How often the nearest of all texts to Υ is the picture's own."""
    distinct = sorted(set(texts))
    features = torch.nn.functional.normalize(teacher.text_features(distinct), dim=-1)
    nearest = (torch.nn.functional.normalize(output.fused, dim=-1) @ features.T).argmax(dim=1)
    return sum(distinct[i] == text for i, text in zip(nearest.tolist(), texts, strict=True)) / len(texts)


def main() -> None:
    """Draw, pre-train, look."""
    console = Console()
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    train_count, test_count = 1024, 192
    samples = list(synthetic(train_count + test_count).samples)
    views = ViewDataset(samples, EvalViews(ViewConfig(size=SIZE, crop_fraction=1.0)))
    drawing = track(range(len(samples)), description="drawing scenes", console=Console(stderr=True))
    drawn = collate([views[0, i] for i in drawing])
    scenes, persons, teacher = drawn.scene, drawn.person, make_teacher(samples)
    texts, keys = [text_of(sample) for sample in samples], [sample.key for sample in samples]
    encoder = build_encoder("vit_tiny_patch16_224", SIZE, patch_size=12, embed_dim=128, depth=5, num_heads=4)
    config = ModelConfig(decoder=DecoderConfig(width=WIDTH, depth=2, heads=4))
    model = ready_to_train(UniEmoX(encoder, config), torch.device("cpu"))
    optimizer = build_optimizer(model, rate=1.5e-3)

    def batch_of(rows: list[int]) -> PretrainBatch:
        return PretrainBatch(
            scene=scenes[rows], person=persons[rows], texts=[texts[i] for i in rows], keys=[keys[i] for i in rows]
        )

    test_rows = list(range(train_count, train_count + test_count))
    with torch.no_grad():
        before = share_found(
            forward(model, batch_of(test_rows), teacher=teacher), teacher, [texts[i] for i in test_rows]
        )
    history = []
    for _ in track(range(STEPS), description="pre-training", console=Console(stderr=True)):
        rows = torch.randint(train_count, (BATCH,)).tolist()
        history.append(
            pretrain_step(model, optimizer, [batch_of(rows)], teacher=teacher, precision="bfloat16", max_grad_norm=1.0)
        )
    with torch.no_grad():
        output = forward(model, batch_of(test_rows), teacher=teacher)
    show_losses(history)
    show_reconstructions(output, scenes[test_rows], persons[test_rows], encoder.patch_embed.grid_size)

    table = Table(title=f"{STEPS} steps, {train_count} scenes")
    for heading in ("loss", "first step", "mean of the last 20"):
        table.add_column(heading)
    for name in LossWeights.__slots__:
        last = sum(step[name] for step in history[-20:]) / 20
        table.add_row(name, f"{history[0][name]:.3f}", f"{last:.3f}")
    console.print(table)
    after = share_found(output, teacher, [texts[i] for i in test_rows])
    console.print(
        f"On {test_count} new scenes the nearest of {len(set(texts))} texts is the right one for {after:.0%} "
        f"(before training {before:.0%}, by chance {1 / len(set(texts)):.0%}), with three quarters of a picture hidden."
    )
    console.print(f"Pictures: {OUT}/reconstructions.png, {OUT}/losses.png")


if __name__ == "__main__":
    main()
