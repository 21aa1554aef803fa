"""Batches of a step: masks depend on the sample alone, and texts are the right ones."""

from dataclasses import replace

import pytest
import torch

from tests.runs import scenes
from uniemox.data.prompts import DEFAULT_TEXT, describe, distinct_texts, teacher_text
from uniemox.pretrain.step import PretrainBatch, make_batch
from uniemox.views.config import ViewConfig
from uniemox.views.loader import ViewBatch, ViewDataset, collate
from uniemox.views.transforms import TrainViews

LENGTH = 16


def views(*indices: int, seed: int = 0, epoch: int = 0) -> ViewBatch:
    dataset = ViewDataset(scenes().samples, TrainViews(ViewConfig(size=32), seed, LENGTH))
    return collate([dataset[epoch, index] for index in indices])


def batch(*indices: int, seed: int = 0, epoch: int = 0, with_emotion: bool = True) -> PretrainBatch:
    return make_batch(views(*indices, seed=seed, epoch=epoch), with_emotion=with_emotion)


def test_masks_depend_only_on_seed_epoch_sample_and_stream() -> None:
    both = batch(3, 5)
    single = batch(5)
    assert torch.equal(both.scene_noise[1], single.scene_noise[0])
    assert torch.equal(both.person_noise[1], single.person_noise[0])
    others = [
        both.scene_noise[0],
        single.person_noise[0],
        batch(5, seed=1).scene_noise[0],
        batch(5, epoch=1).scene_noise[0],
    ]
    for other in others:
        assert not torch.equal(other, single.scene_noise[0])
    assert both.scene_noise.shape == both.person_noise.shape == (2, LENGTH)


def test_views_keys_and_texts_have_the_same_order() -> None:
    made_batch = batch(3, 5)
    expected = views(3, 5)
    assert torch.equal(made_batch.scene, expected.scene)
    assert torch.equal(made_batch.person, expected.person)
    samples = scenes().samples
    assert made_batch.keys == [samples[3].key, samples[5].key]
    assert made_batch.texts == [samples[3].text, samples[5].text]


def test_empty_batch_has_no_rows() -> None:
    empty = batch()
    assert (empty.texts, empty.keys, len(empty.scene)) == ([], [], 0)


@pytest.mark.parametrize("with_emotion", [True, False])
def test_annotation_takes_precedence_over_text(with_emotion: bool) -> None:
    sample = scenes().samples[0]
    assert teacher_text(replace(sample, text="something else"), with_emotion) == describe(
        sample.annotation, with_emotion
    )
    assert ("The overall emotion is" in teacher_text(sample, with_emotion)) == with_emotion
    assert teacher_text(replace(sample, annotation=None, text="a dog"), with_emotion) == "a dog"
    assert teacher_text(replace(sample, annotation=None, text=None), with_emotion) == DEFAULT_TEXT == "A photo."


def test_texts_are_listed_once_in_order() -> None:
    bare = [replace(sample, annotation=None, text=text) for sample, text in zip(scenes().samples, "abca", strict=False)]
    assert distinct_texts(bare, True) == ["a", "b", "c"]
    assert distinct_texts([], True) == []
