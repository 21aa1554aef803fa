"""Pre-train a small UniEmoX on scenes that this program draws, and look at what it learned. `make demo` runs it.

Each scene is a place with one person in it, who is glad or sad. The teacher's features are made from those words, as a
CLIP would find them in the picture and its text: nothing is downloaded. Takes half a minute on two CPU cores.
"""

import random
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from uniemox.losses.total import LossWeights
from uniemox.model.decoder import DecoderConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import ModelConfig, ModelOutput, UniEmoX
from uniemox.pretrain.step import PretrainBatch, forward, pretrain_step
from uniemox.teacher import StoredTeacher, save_features
from uniemox.training.hardware import ready_to_train
from uniemox.training.optimizer import build_optimizer
from uniemox.views.patches import unpatchify
from uniemox.views.pixels import IMAGENET_MEAN, IMAGENET_STD

OUT = Path("runs/demo")
SIZE, STEPS, BATCH, WIDTH = 96, 240, 32, 64
PLACES = {  # colours of sky and ground
    "beach": ("#7fc8f8", "#f2d492"),
    "forest": ("#9fd3c7", "#2f6b3c"),
    "city": ("#b8bec9", "#5d6470"),
    "desert": ("#f6c667", "#c98b4b"),
    "night": ("#10173a", "#2b2f55"),
    "snow": ("#dfe9f5", "#ffffff"),
}
MOODS = ("glad", "sad")


def draw_scene(place: str, mood: str, rng: random.Random) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A picture of SIZE px and the box around its person."""
    image = Image.new("RGB", (SIZE, SIZE), PLACES[place][0])
    draw = ImageDraw.Draw(image)
    horizon = rng.randint(45, 60)
    draw.rectangle((0, horizon, SIZE, SIZE), fill=PLACES[place][1])
    for _ in range(rng.randint(2, 5)):
        x, height = rng.randint(0, SIZE), rng.randint(8, 30)
        shade = rng.choice(("#3b4a3f", "#6b5b4b", "#8d99ae"))
        draw.rectangle((x, horizon - height, x + rng.randint(5, 12), horizon), fill=shade)
    x, y, arm = rng.randint(15, 60), rng.randint(50, 62), 9 if mood == "glad" else -9
    shirt = rng.choice(("#e63946", "#457b9d", "#ffb703"))
    draw.ellipse((x + 5, y, x + 15, y + 10), fill="#f1c9a5")
    draw.rectangle((x + 6, y + 10, x + 14, y + 22), fill=shirt)
    draw.line((x + 6, y + 12, x, y + 12 - arm), fill=shirt, width=3)
    draw.line((x + 14, y + 12, x + 20, y + 12 - arm), fill=shirt, width=3)
    mouth = (20, 160) if mood == "glad" else (200, 340)
    draw.arc((x + 7, y + 3, x + 13, y + 8 if mood == "glad" else y + 11), *mouth, fill="#7a1f1f")
    draw.line((x + 8, y + 22, x + 7, y + 30), fill="#1d3557", width=3)
    draw.line((x + 12, y + 22, x + 13, y + 30), fill="#1d3557", width=3)
    return image, (x - 2, y - 2, x + 22, y + 31)


def make_data(count: int, seed: int) -> tuple[Tensor, Tensor, list[tuple[str, str]], list[str]]:
    """Scene views and person views (count, 3, SIZE, SIZE) uint8, the words behind each, and its text."""
    rng, views, words = random.Random(seed), [], []
    for _ in range(count):
        word = rng.choice(list(PLACES)), rng.choice(MOODS)
        image, box = draw_scene(*word, rng)
        person = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)
        views.append([torch.from_numpy(np.array(view)).permute(2, 0, 1) for view in (image, person)])
        words.append(word)
    texts = [f"A photo of a {place}. The facial expression is {mood}." for place, mood in words]
    scenes, persons = (torch.stack(column) for column in zip(*views, strict=True))
    return scenes, persons, words, texts


def make_teacher(words: list[tuple[str, str]], texts: list[str]) -> StoredTeacher:
    """Features in which pictures and texts of the same words lie close together."""
    torch.manual_seed(7)
    meaning = {word: torch.randn(WIDTH) for word in (*PLACES, *MOODS)}
    images = torch.stack([sum(meaning[word] for word in pair) + 0.3 * torch.randn(WIDTH) for pair in words])
    distinct = dict(zip(texts, words, strict=True))
    save_features(
        OUT / "teacher.npz",
        image_keys=[str(i) for i in range(len(words))],
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
    scenes, persons, words, texts = make_data(train_count + test_count, seed=0)
    teacher = make_teacher(words, texts)
    keys = [str(i) for i in range(len(words))]
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
