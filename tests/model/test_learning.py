"""The parts work together on 16 photographs with captions; the teacher is CLIP's architecture, its weights random."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import pictures_of
from uniemox.losses.total import LossWeights
from uniemox.model.decoder import DecoderConfig
from uniemox.model.encoder import build_encoder
from uniemox.model.uniemox import ModelConfig, UniEmoX
from uniemox.teacher.clip import ClipTeacher

L1_SCENE, L1_PERSON, L2, L3 = LossWeights.__slots__
GIVEN = ("scene", "person", "image_features", "text_features")
Trained = tuple[UniEmoX, dict[str, Tensor], dict[str, Tensor]]


@pytest.fixture(scope="module")
def data(shared: Path, tiny_clip: ClipTeacher) -> dict[str, Tensor]:
    lines = (shared / "data" / "flickr8k" / "captions.txt").read_text().splitlines()[1:]
    captions = dict(line.split(",", 1) for line in lines)  # the last of each picture's five
    names = sorted(captions)[:32]
    paths = [shared / "data" / "flickr8k" / "images" / name for name in names]
    scenes = pictures_of(paths, 64) / 255
    texts = tiny_clip.text_features([captions[name] for name in names])
    return {
        "scene": scenes[:16],
        "person": pictures_of(paths[:16], 64, box=(0.25, 0.1, 0.75, 0.9)) / 255,
        "other_person": pictures_of(paths[:16], 64, box=(0.0, 0.5, 0.4, 1.0)) / 255,
        "image_features": tiny_clip.image_features(scenes[:16]),
        "text_features": texts[:16],
        "other_texts": texts[16:],
    }


@pytest.fixture(scope="module")
def trained(data: dict[str, Tensor]) -> Trained:
    """The model, and its losses before and after 50 steps, with the same masks."""
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny_patch16_224", 64, embed_dim=96, depth=4, num_heads=3)
    model = UniEmoX(encoder, ModelConfig(decoder=DecoderConfig(width=16, depth=2, heads=4)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    before = losses(model, data)
    for _ in range(50):
        optimizer.zero_grad()
        model(**{name: data[name] for name in GIVEN}).total.backward()
        optimizer.step()
    return model, before, losses(model, data)


@torch.no_grad()
def losses(model: UniEmoX, data: dict[str, Tensor], **change: Tensor) -> dict[str, Tensor]:
    noise = {f"{name}_noise": torch.rand(16, 16, generator=torch.Generator().manual_seed(5)) for name in GIVEN[:2]}
    return model(**{name: data[name] for name in GIVEN} | noise | change).losses


def test_every_loss_falls(trained: Trained) -> None:
    _, before, after = trained
    for name in (L1_SCENE, L1_PERSON, L2, L3):
        assert after[name] < 0.9 * before[name], (name, before[name], after[name])


def test_another_person_box_changes_the_persons_loss_alone(trained: Trained, data: dict[str, Tensor]) -> None:
    model, _, after = trained
    changed = losses(model, data, person=data["other_person"])
    assert abs(changed[L1_PERSON] - after[L1_PERSON]) > 0.01 * after[L1_PERSON]
    torch.testing.assert_close(changed[L1_SCENE], after[L1_SCENE], rtol=1e-5, atol=1e-6)


def test_the_wrong_texts_worsen_the_contrastive_loss(trained: Trained, data: dict[str, Tensor]) -> None:
    """Texts of other pictures do. The same texts in another order change nothing: equation 9 sums over all of them."""
    model, _, after = trained
    assert losses(model, data, text_features=data["other_texts"])[L2] > 1.02 * after[L2]
    shuffled = losses(model, data, text_features=data["text_features"].roll(1, 0))
    torch.testing.assert_close(shuffled[L2], after[L2], rtol=1e-5, atol=1e-6)


def test_the_wrong_pictures_worsen_both_alignments(trained: Trained, data: dict[str, Tensor]) -> None:
    model, _, after = trained
    changed = losses(model, data, image_features=data["image_features"].roll(1, 0))
    assert changed[L2] > 1.02 * after[L2]
    assert changed[L3] > 1.02 * after[L3]


@pytest.mark.parametrize("on", [(L1_SCENE, L1_PERSON), (L2, L3), (L3,)])
def test_an_ablation_learns_what_is_left(on: tuple[str, ...], data: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny_patch16_224", 64, embed_dim=96, depth=2, num_heads=3)
    weights = LossWeights(**{name: float(name in on) for name in LossWeights.__slots__})
    model = UniEmoX(encoder, ModelConfig(decoder=DecoderConfig(width=16, depth=1, heads=4), losses=weights))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    before = losses(model, data)
    assert set(before) == set(on)
    for _ in range(50):
        optimizer.zero_grad()
        model(**{name: data[name] for name in GIVEN}).total.backward()
        optimizer.step()
    after = losses(model, data)
    assert all(after[name] < 0.95 * before[name] for name in on)
