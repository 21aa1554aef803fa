"""The benchmark of pre-training: the whole run and its parts, with random weights for encoder and teacher."""

from dataclasses import replace

import pytest

from benchmarks import train
from benchmarks.train import WARMUP, bench_train, with_random_weights
from tests.runs import scenes, tiny_pretraining
from uniemox.pretrain.config import TeacherConfig
from uniemox.pretrain.presets import best, paper


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("source", "view"), [("clip:ViT-B-32@openai", "augmented"), ("fitted:nowhere", "whole_and_person")]
)
def test_bench_train_times_the_run_and_its_parts(source: str, view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither teacher exists. CLIP's forward pass counts among the multiply-adds of a step."""
    monkeypatch.setattr(train, "PARTS", 1)
    monkeypatch.setattr(train, "matmul_peak", lambda *_: 1e12)
    config = tiny_pretraining(teacher=TeacherConfig(source=source, view=view))
    done = []
    result = bench_train(replace(config, batch_size=2), scenes(12), steps=2, on_step=lambda: done.append(1))
    assert len(done) == 2 + WARMUP
    assert result.mfu == pytest.approx(result.images_per_s * result.gflop_per_image / 1000)
    assert (result.teacher_ms > 1, result.gflop_per_image > 5) == (source.startswith("clip"),) * 2
    assert 0 <= result.waiting < 1
    for name in ("images_per_s", "step_images_per_s", "loading_images_per_s", "optimizer_ms", "log_ms", "checkpoint_s"):
        assert getattr(result, name) > 0, name
    assert (result.batch_size, result.steps, result.workers, result.peak_tflops) == (2, 2, 0, 1.0)


def test_presets_keep_their_network_without_its_weights() -> None:
    for preset, name in ((paper(), "vit_large_patch16_224"), (best(), "vit_large_patch14_dinov2.lvd142m")):
        encoder = with_random_weights(preset).encoder
        assert (encoder.start, encoder.name) == (None, name)
