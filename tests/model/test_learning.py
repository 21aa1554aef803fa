"""Pre-training learns on 16 photographs with captions; the teacher is CLIP's architecture with random weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.networks import images_of
from uniemox.losses.config import LossWeights
from uniemox.model.config import DecoderConfig, ModelConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import UniEmoX
from uniemox.pretrain.step import PretrainBatch, forward, pretrain_step
from uniemox.teacher.sources import ClipTeacher
from uniemox.training.optimization import build_optimizer

L1_SCENE, L1_PERSON, L2, L3 = LossWeights.__slots__
STEPS = 50
FIELDS = ("scene", "person", "texts", "keys", "scene_noise", "person_noise")
Trained = tuple[UniEmoX, dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def captions(shared: Path) -> dict[str, str]:
    """One caption for each of 32 images, by file name."""
    lines = (shared / "data" / "flickr8k" / "captions.txt").read_text().splitlines()[1:]
    last = dict(line.split(",", 1) for line in lines)
    return {name: last[name] for name in sorted(last)[:32]}


@pytest.fixture(scope="module")
def batch(shared: Path, captions: dict[str, str]) -> PretrainBatch:
    """The first 16 images; the same masks whenever it is used."""
    names = list(captions)[:16]
    paths = [shared / "data" / "flickr8k" / "images" / name for name in names]
    generator = torch.Generator().manual_seed(5)
    return PretrainBatch(
        scene=images_of(paths, 64),
        person=images_of(paths, 64, box=(0.25, 0.1, 0.75, 0.9)),
        texts=[captions[name] for name in names],
        keys=names,
        scene_noise=torch.rand(16, 16, generator=generator),
        person_noise=torch.rand(16, 16, generator=generator),
    )


def train(batch: PretrainBatch, tiny_clip: ClipTeacher, weights: LossWeights, depth: int) -> Trained:
    """A model, and its losses before and after 50 steps. Each training step draws new masks."""
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny_patch16_224", 64, embed_dim=96, depth=depth, num_heads=3)
    model = UniEmoX(encoder, ModelConfig(decoder=DecoderConfig(width=16, depth=2, heads=4), losses=weights))
    optimizer = build_optimizer(model, lr=2e-3)
    before = losses(model, batch, tiny_clip)
    without_noise = replace(batch, scene_noise=None, person_noise=None)
    for _ in range(STEPS):
        pretrain_step(model, optimizer, [without_noise], teacher=tiny_clip)
    return model, before, losses(model, batch, tiny_clip)


@torch.no_grad()
def losses(model: UniEmoX, batch: PretrainBatch, tiny_clip: ClipTeacher) -> dict[str, Tensor]:
    return forward(model, batch, teacher=tiny_clip).losses


@pytest.fixture(scope="module")
def trained(batch: PretrainBatch, tiny_clip: ClipTeacher) -> Trained:
    return train(batch, tiny_clip, LossWeights(), depth=4)


def test_every_loss_falls(trained: Trained) -> None:
    _, before, after = trained
    for name in (L1_SCENE, L1_PERSON, L2, L3):
        assert after[name] < 0.9 * before[name], (name, before[name], after[name])


def test_another_person_box_changes_only_the_persons_loss(
    trained: Trained, batch: PretrainBatch, tiny_clip: ClipTeacher, shared: Path
) -> None:
    model, _, after = trained
    paths = [shared / "data" / "flickr8k" / "images" / name for name in batch.keys]
    other = replace(batch, person=images_of(paths, 64, box=(0.0, 0.5, 0.4, 1.0)))
    changed = losses(model, other, tiny_clip)
    assert abs(changed[L1_PERSON] - after[L1_PERSON]) > 0.01 * after[L1_PERSON]
    torch.testing.assert_close(changed[L1_SCENE], after[L1_SCENE], rtol=1e-5, atol=1e-6)


def test_the_wrong_texts_worsen_the_contrastive_loss(
    batch: PretrainBatch, tiny_clip: ClipTeacher, captions: dict[str, str]
) -> None:
    """Texts of other images raise it. The same texts in another order do not: equation 9 sums over all of them.

    Trained with L2 alone, on fewer texts than the teacher has channels: texts in all directions leave no room for
    others to differ.
    """
    few = PretrainBatch(**{name: getattr(batch, name)[:8] for name in FIELDS})
    only_l2 = LossWeights(**{name: float(name == L2) for name in LossWeights.__slots__})
    model, before, after = train(few, tiny_clip, only_l2, depth=2)
    assert after[L2] < 0.5 * before[L2]
    others = [list(captions.values())[start : start + 8] for start in (16, 18, 20, 22, 24)]
    worse = torch.stack([losses(model, replace(few, texts=texts), tiny_clip)[L2] for texts in others])
    # One of five other sets of texts may be alike by chance, and which one depends on the version of torch.
    assert worse.min() > after[L2]
    assert worse.mean() > 1.2 * after[L2]
    shuffled = replace(few, texts=[*few.texts[1:], few.texts[0]])
    torch.testing.assert_close(losses(model, shuffled, tiny_clip)[L2], after[L2], rtol=1e-5, atol=1e-6)


def test_the_wrong_images_worsen_both_alignments(
    trained: Trained, batch: PretrainBatch, tiny_clip: ClipTeacher
) -> None:
    model, _, after = trained
    features = tiny_clip.image_features(batch.scene / 255, batch.keys)
    changed = losses(model, replace(batch, image_features=features.roll(1, 0)), tiny_clip)
    assert changed[L2] > 1.02 * after[L2]
    assert changed[L3] > 1.02 * after[L3]


@pytest.mark.thorough
@pytest.mark.parametrize("on", [(L1_SCENE, L1_PERSON), (L2, L3), (L3,)])
def test_the_losses_that_an_ablation_keeps_fall(
    on: tuple[str, ...], batch: PretrainBatch, tiny_clip: ClipTeacher
) -> None:
    weights = LossWeights(**{name: float(name in on) for name in LossWeights.__slots__})
    _, before, after = train(batch, tiny_clip, weights, depth=2)
    assert set(before) == set(on)
    assert all(after[name] < 0.95 * before[name] for name in on)
