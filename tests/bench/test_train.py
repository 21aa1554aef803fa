"""A pre-training run is timed as a whole and in parts, with random weights in place of start and teacher."""

from dataclasses import replace

import pytest

from benchmarks import train
from benchmarks.train import WARMUP, bench_train, with_random_weights
from tests.runs import scenes, tiny_pretraining
from uniemox.pretrain.config import TeacherConfig
from uniemox.pretrain.presets import best, paper


@pytest.mark.parametrize(
    ("source", "view"), [("clip:ViT-B-32@openai", "augmented"), ("fitted:nowhere", "whole_and_person")]
)
def test_a_run_is_timed_as_a_whole_and_in_parts(source: str, view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither teacher is there. CLIP's forward pass counts among the multiplications of a step."""
    monkeypatch.setattr(train, "PARTS", 1)
    monkeypatch.setattr(train, "matmul_peak", lambda *_: 1e12)
    config = tiny_pretraining(teacher=TeacherConfig(source=source, view=view))
    done = []
    found = bench_train(replace(config, batch_size=2), scenes(12), steps=2, on_step=lambda: done.append(1))
    assert len(done) == 2 + WARMUP
    assert found.mfu == pytest.approx(found.images_per_s * found.gflop_per_image / 1000)
    assert (found.teacher_ms > 1, found.gflop_per_image > 5) == (source.startswith("clip"),) * 2
    assert 0 <= found.waiting < 1
    for name in ("images_per_s", "step_images_per_s", "loading_images_per_s", "optimizer_ms", "log_ms", "checkpoint_s"):
        assert getattr(found, name) > 0, name
    assert (found.batch_size, found.steps, found.workers, found.peak_tflops) == (2, 2, 0, 1.0)


def test_presets_keep_their_network_without_its_weights() -> None:
    for preset, name in ((paper(), "vit_large_patch16_224"), (best(), "vit_large_patch14_dinov2.lvd142m")):
        encoder = with_random_weights(preset).encoder
        assert (encoder.start, encoder.name) == (None, name)
