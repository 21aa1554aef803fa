"""What a run makes of the speed of its steps is measured on whole runs."""

import pytest

from tests.runs import one_thread
from uniemox.bench import loop
from uniemox.bench.loop import bench_loop
from uniemox.data.source import open_data
from uniemox.errors import ConfigError


def test_runs_from_shards_and_files_stand_beside_bare_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "WARMUP", 1)
    done = []
    with one_thread():
        found = bench_loop(
            open_data("synthetic:4"),
            model="vit_small_patch32_224",
            batch_size=2,
            steps=1,
            on_step=lambda: done.append(1),
        )
    assert len(done) == 4 * 1 + 2 * 1
    assert found.shards_ratio == pytest.approx(found.shards_images_per_s / found.step_images_per_s)
    assert found.files_ratio == pytest.approx(found.files_images_per_s / found.step_images_per_s)
    assert min(found.step_images_per_s, found.shards_images_per_s, found.files_images_per_s) > 0
    assert (found.model, found.batch_size, found.steps) == ("vit_small_patch32_224", 2, 1)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        bench_loop(open_data("synthetic:8"), model="vit_small_patch32_224", batch_size=0, steps=1)
